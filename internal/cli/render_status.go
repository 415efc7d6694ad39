package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// A view is how answers become text: as of when and in which zone, and with or
// without styles. Its methods are pure.
type view struct {
	now     time.Time
	paint   painter
	columns int // of the terminal; 0 is no bound
}

// status is a node on one screen: what is wrong first, and what it carries.
func (v view) status(s admin.Status) string {
	lines := append([]string{v.headline(s)}, v.problems(s.Problems)...)
	lines = append(lines, "")
	fact := func(name, text string) { lines = append(lines, fmt.Sprintf("%-8s  %s", name, text)) }
	fact("node", fmt.Sprintf("%s, holdfast %s, pid %d, up %s (since %s)",
		plain(s.Node), plain(s.Version), s.PID, since(v.now, s.Started), s.Started.In(v.now.Location()).Format(time.DateTime)))
	fact("config", v.configFile(s.Config))
	for i, l := range s.Limits {
		fact([]string{"limits", ""}[min(i, 1)], v.limit(l))
	}
	if s.Sources != nil && len(s.Sources.Ways) > 0 {
		fact("sources", v.sources(s.Sources))
	}
	fact("ended", v.totals(s.Totals))
	if s.Pair != nil {
		fact("pair", v.pair(s.Pair))
	}
	if s.Elector != nil && s.Elector.State != "up" {
		fact("elector", v.elector(s.Elector))
	}
	lines = append(lines, "")
	if len(s.Addresses) > 0 {
		lines = append(append(lines, v.addressTree(s.Addresses).lines(v.paint)...), "")
	}
	switch {
	case len(s.Services) == 0 && len(s.Addresses) > 0:
		lines = lines[:len(lines)-1]
	case len(s.Services) == 0:
		lines = append(lines, "no services")
	default:
		lines = append(lines, v.serviceTree(s.Services).lines(v.paint)...)
	}
	return strings.Join(lines, "\n") + "\n"
}

// sources is where backend legs come from: the way with the fewest ports left.
func (v view) sources(s *admin.Sources) string {
	least := slices.MinFunc(s.Ways, func(a, b admin.SourceWay) int { return (a.Max - a.Used) - (b.Max - b.Used) })
	text := fmt.Sprintf("ports %s; %s of %s in use from %s to %s", plain(s.Ports), number(uint64(least.Used)), number(uint64(least.Max)),
		plain(least.Address), plain(least.Backend))
	var unbound uint64
	for _, n := range s.Unbound {
		unbound += n
	}
	if unbound > 0 {
		text += "; " + count(unbound, "connection") + " from the node's own address instead"
	}
	return text
}

// headline is the first line: how the node is.
func (v view) headline(s admin.Status) string {
	text := v.paint.paint(bold, plain(s.Node)) + " is " + v.paint.state(s.State)
	if len(s.Problems) > 0 {
		text += ": " + count(len(s.Problems), "problem")
	}
	return text
}

// problems are sentences, the worst first.
func (v view) problems(list []admin.Problem) []string {
	var lines []string
	for _, p := range list {
		lines = append(lines, "  "+v.paint.paint(red, "!")+" "+v.problem(p))
	}
	return lines
}

func (v view) problem(p admin.Problem) string {
	text := strings.TrimRight(plain(p.Text), ".")
	if p.Since.IsZero() {
		return text
	}
	return text + v.paint.paint(faint, " (for "+since(v.now, p.Since)+")")
}

func (v view) configFile(c admin.ConfigFile) string {
	if c.File == "" {
		return "none: started without a file"
	}
	text := fmt.Sprintf("%s (digest %s), taken %s ago", plain(c.File), plain(c.Digest), since(v.now, c.Loaded))
	if c.Reloads > 0 || c.Refused > 0 {
		text += "; " + count(c.Reloads, "reload")
		if c.Refused > 0 {
			text += fmt.Sprintf(", %s refused", number(c.Refused))
		}
	}
	if c.Changed {
		text += "\n" + strings.Repeat(" ", 10) +
			v.paint.paint(yellow, "the file was changed since: `holdfast check` says whether it is valid, `holdfast reload` takes it")
	}
	return text
}

// limit is something the node can run out of, in its own unit.
func (v view) limit(l admin.Limit) string {
	unit := number[uint64]
	if l.Name == "memory" {
		unit = memory
	}
	text := fmt.Sprintf("%s %s", plain(l.Name), unit(l.Used))
	if l.Max == 0 {
		text += ", no bound"
	} else {
		text += " of " + unit(l.Max)
	}
	if l.Source != "" {
		text += " (" + plain(l.Source) + ")"
	}
	if l.Reached > 0 {
		more := fmt.Sprintf(": %s refused", count(l.Reached, "client"))
		if !l.Last.IsZero() {
			more += fmt.Sprintf(", the last %s ago", since(v.now, l.Last))
		}
		if l.Remedy != "" {
			more += "; " + plain(l.Remedy)
		}
		text += v.paint.paint(yellow, more)
	}
	return text
}

func (v view) totals(t admin.Totals) string {
	text := fmt.Sprintf("%s, %s in, %s out", count(t.Connections, "connection"), size(t.BytesIn), size(t.BytesOut))
	if causes := byCount(t.ByCause); len(causes) > 0 {
		for i, c := range causes {
			causes[i] = fmt.Sprintf("%s %s", plain(c), number(t.ByCause[c]))
		}
		text += ": " + strings.Join(causes, ", ")
	}
	return text
}

// serviceTree is every service with its backends below it.
func (v view) serviceTree(services []admin.Service) *table {
	t := &table{room: v.columns, columns: []column{
		left("SERVICE", 0), left("ADDRESS", 21), left("STATE", 5), right("WEIGHT", 0), right("ACTIVE", 0), {title: "INACTIVE", right: true, drop: 1},
		{title: "TOTAL", right: true, least: 7, drop: 2}, {title: "IN", right: true, least: 7, drop: 4}, {title: "OUT", right: true, least: 7, drop: 3}, left("NOTE", 0),
	}}
	for _, s := range services {
		t.add(v.paint.paint(bold, plain(s.Name)), v.firstListener(s), v.paint.state(s.State), "", strconv.Itoa(s.Active), strconv.Itoa(s.Inactive),
			strconv.FormatUint(s.Total, 10), size(s.BytesIn), size(s.BytesOut), v.serviceNote(s))
		for _, l := range s.Listen[min(1, len(s.Listen)):] {
			t.add("", plain(l.Address), "", "", "", "", "", "", "", v.listenerNote(l))
		}
		for _, b := range s.Backends {
			t.add("  "+plain(b.Name), plain(b.Address), v.paint.state(b.State), strconv.Itoa(b.Weight), strconv.Itoa(b.Active), strconv.Itoa(b.Inactive),
				strconv.FormatUint(b.Total, 10), size(b.BytesIn), size(b.BytesOut), v.backendNote(b))
		}
		if len(s.Backends) == 0 {
			t.add("  no backends", "", "", "", "", "", "", "", "", "")
		}
	}
	return t
}

func (v view) firstListener(s admin.Service) string {
	if len(s.Listen) == 0 {
		return "-"
	}
	return plain(s.Listen[0].Address)
}

// serviceNote says what the numbers beside it do not.
func (v view) serviceNote(s admin.Service) string {
	var notes []string
	if s.Refused > 0 {
		notes = append(notes, v.paint.paint(yellow, count(s.Refused, "client")+" refused"))
	}
	if len(s.Listen) > 0 {
		if n := v.listenerNote(s.Listen[0]); n != "" {
			notes = append(notes, n)
		}
	}
	if s.State == "drain" {
		notes = append(notes, "takes no new clients")
	}
	return strings.Join(notes, "; ")
}

func (v view) listenerNote(l admin.Listener) string {
	var notes []string
	if l.QueueMax > 0 && l.Queue*2 >= l.QueueMax {
		notes = append(notes, fmt.Sprintf("accept queue %d of %d", l.Queue, l.QueueMax))
	}
	if l.Dropped > 0 {
		notes = append(notes, fmt.Sprintf("the kernel dropped %s here", count(l.Dropped, "connect")))
	}
	return v.paint.paint(yellow, strings.Join(notes, ", "))
}

// backendNote says why a backend is as it is, and what somebody has set by hand.
func (v view) backendNote(b admin.Backend) string {
	var notes []string
	if b.Backup {
		notes = append(notes, "backup")
	}
	if h := b.ByHand; h != nil {
		notes = append(notes, v.paint.paint(yellow, v.byHand(b, h)))
	}
	if b.Removed {
		notes = append(notes, "removed, its connections are left")
	}
	if b.Reason != "" && !(b.State == "up" && b.ByHand != nil) {
		text := plain(b.Reason)
		if b.State == "down" && !b.Since.IsZero() {
			text = "for " + since(v.now, b.Since) + ": " + text
		}
		notes = append(notes, text)
	} else if b.State == "down" && !b.Since.IsZero() {
		notes = append(notes, "for "+since(v.now, b.Since))
	}
	if b.MaxConnections > 0 && b.Active+b.Inactive >= b.MaxConnections {
		notes = append(notes, v.paint.paint(yellow, fmt.Sprintf("full: max_connections is %s", number(b.MaxConnections))))
	}
	return strings.Join(notes, "; ")
}

// byHand is what a command has set, and what the file says.
func (v view) byHand(b admin.Backend, h *admin.ByHand) string {
	text := "by hand: " + plain(h.What)
	switch h.What {
	case "weight":
		text += fmt.Sprintf(" %d, the file says %d", b.Weight, h.FileWeight)
	case "drain":
		text += fmt.Sprintf(", the file says weight %d", h.FileWeight)
	case "remove":
		text = "by hand: remove, the file still has it"
	}
	if !h.Since.IsZero() {
		text += ", " + since(v.now, h.Since) + " ago"
	}
	if h.By != "" {
		text += " by " + plain(h.By)
	}
	return text
}

// check is what a monitoring system reads: one line when well, else one for each
// problem.
func (v view) check(s admin.Status) string {
	backends := 0
	for _, sv := range s.Services {
		backends += len(sv.Backends)
	}
	switch {
	case s.State == "well":
		text := fmt.Sprintf("%s is well: %s, %s", plain(s.Node), count(len(s.Services), "service"), count(backends, "backend"))
		for _, g := range s.Addresses {
			text += fmt.Sprintf(", %s %s", plain(g.Name), plain(g.Role))
		}
		return text + "\n"
	case len(s.Problems) == 0:
		return fmt.Sprintf("%s is %s\n", plain(s.Node), plain(s.State))
	}
	var b strings.Builder
	for _, p := range s.Problems {
		fmt.Fprintf(&b, "%s is %s: %s\n", plain(s.Node), plain(s.State), v.problem(p))
	}
	return b.String()
}
