package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-net/holdfast/admin"
)

// services is one line for each service, and one more for each further address.
func (v view) services(list []admin.Service) string {
	if len(list) == 0 {
		return "no services\n"
	}
	t := &table{columns: []column{
		left("SERVICE", 0), left("LISTEN", 21), left("STATE", 0), left("ENGINE", 0), left("BALANCE", 0), right("UP", 0), right("ACTIVE", 0), right("INACTIVE", 0),
		right("TOTAL", 7), right("REFUSED", 0), right("IN", 7), right("OUT", 7), left("NOTE", 0),
	}}
	for _, s := range list {
		up := 0
		for _, b := range s.Backends {
			if b.State == "up" {
				up++
			}
		}
		var notes []string
		if len(s.Listen) > 0 {
			notes = append(notes, v.listenerNote(s.Listen[0]))
		}
		if s.State == "drain" {
			notes = append(notes, "takes no new clients")
		}
		t.add(plain(s.Name), v.firstListener(s), v.paint.state(s.State), plain(s.Engine), plain(s.Balance), fmt.Sprintf("%d/%d", up, len(s.Backends)),
			strconv.Itoa(s.Active), strconv.Itoa(s.Inactive), strconv.FormatUint(s.Total, 10), strconv.FormatUint(s.Refused, 10),
			size(s.BytesIn), size(s.BytesOut), join(notes))
		for _, l := range s.Listen[min(1, len(s.Listen)):] {
			t.add("", plain(l.Address), "", "", "", "", "", "", "", "", "", "", v.listenerNote(l))
		}
	}
	return v.text(t)
}

// backends is one line for each backend, with the columns where an IPVS user
// looks for them.
func (v view) backends(list []admin.Backend) string {
	if len(list) == 0 {
		return "no backends\n"
	}
	t := &table{columns: []column{
		left("SERVICE", 0), left("BACKEND", 0), left("ADDRESS", 21), left("STATE", 5), right("WEIGHT", 0), right("ACTIVE", 0), right("INACTIVE", 0),
		right("TOTAL", 7), right("IN", 7), right("OUT", 7), left("NOTE", 0),
	}}
	for _, b := range list {
		t.add(plain(b.Service), plain(b.Name), plain(b.Address), v.paint.state(b.State), strconv.Itoa(b.Weight), strconv.Itoa(b.Active), strconv.Itoa(b.Inactive),
			strconv.FormatUint(b.Total, 10), size(b.BytesIn), size(b.BytesOut), v.backendNote(b))
	}
	return v.text(t)
}

// connections is one line for each connection, and how many there are.
func (v view) connections(c admin.Connections) string {
	t := &table{columns: []column{
		right("ID", 6), left("SERVICE", 0), left("CLIENT", 21), left("BACKEND", 0), left("STATE", 11), right("AGE", 7), right("IDLE", 7),
		right("IN", 7), right("OUT", 7), right("HELD", 7),
	}}
	for _, c := range c.Connections {
		backend := plain(c.Backend)
		if backend == "" {
			backend = "-"
		}
		t.add(strconv.FormatUint(c.ID, 10), plain(c.Service), plain(c.Client), backend, plain(c.State), span(c.Age.Duration()), span(c.Idle.Duration()),
			size(c.BytesIn), size(c.BytesOut), size(c.Held))
	}
	text := ""
	if len(c.Connections) > 0 {
		text = v.text(t)
	}
	return text + summary(c) + "\n"
}

// summary says how many connections there are, how many the filter found, and
// how many of them were listed.
func summary(c admin.Connections) string {
	text := count(c.Total, "connection")
	if c.Matched != c.Total {
		text = fmt.Sprintf("%s of %s", number(c.Matched), text)
		if c.Matched == 1 {
			text += " matches"
		} else {
			text += " match"
		}
	}
	if shown := len(c.Connections); shown != c.Matched {
		text += fmt.Sprintf(", %s shown", number(shown))
	}
	return text
}

// reload is what a reload has changed, a line each.
func (v view) reload(r admin.Reload) string {
	if len(r.Changes) == 0 {
		return fmt.Sprintf("%s says what runs already: nothing has changed\n", plain(r.File))
	}
	var b strings.Builder
	for _, c := range r.Changes {
		b.WriteString(plain(c) + "\n")
	}
	return b.String()
}

// text is a whole table.
func (v view) text(t *table) string { return strings.Join(t.lines(v.paint), "\n") + "\n" }

// join puts together the notes that say something.
func join(notes []string) string {
	notes = slices.DeleteFunc(notes, func(s string) bool { return s == "" })
	return strings.Join(notes, "; ")
}

// byCount lists what was counted, the most frequent first.
func byCount(counts map[string]uint64) []string {
	var names []string
	for n, c := range counts {
		if c > 0 {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	return names
}
