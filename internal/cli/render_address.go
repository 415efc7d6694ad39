package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/holdfast-net/holdfast/admin"
)

// addresses is one line for each group, and one more for each further address.
func (v view) addresses(list []admin.AddressGroup) string {
	if len(list) == 0 {
		return "no addresses\n"
	}
	t := &table{columns: []column{
		left("GROUP", 0), left("ADDRESS", 18), left("INTERFACE", 0), left("ROLE", 6), left("CAUSE", 0), right("FOR", 7), right("EPOCH", 0), right("LEASE", 7),
		right("PRIORITY", 0), right("TAKEOVERS", 0), left("NOTE", 0),
	}}
	for _, g := range list {
		var takeovers uint64
		for _, n := range g.Takeovers {
			takeovers += n
		}
		priority := ""
		if g.VRRPID > 0 {
			priority = strconv.Itoa(g.Priority)
		}
		t.add(plain(g.Name), firstAddress(g), plain(g.Interface), v.paint.state(g.Role), plain(g.Cause), since(v.now, g.Since), strconv.FormatUint(g.Epoch, 10), lease(g),
			priority, strconv.FormatUint(takeovers, 10), v.groupNote(g))
		for _, a := range g.Addresses[min(1, len(g.Addresses)):] {
			t.add("", plain(a), "", "", "", "", "", "", "", "", "")
		}
	}
	return v.text(t)
}

func addressCount(n int) string {
	if n == 1 {
		return "1 address"
	}
	return number(n) + " addresses"
}

func firstAddress(g admin.AddressGroup) string {
	if len(g.Addresses) == 0 {
		return "-"
	}
	return plain(g.Addresses[0])
}

func lease(g admin.AddressGroup) string {
	if g.Lease <= 0 {
		return "-"
	}
	return span(g.Lease.Duration())
}

// groupNote says why a group is as it is, and what is not as it should be.
func (v view) groupNote(g admin.AddressGroup) string {
	var notes []string
	if g.Role == admin.RoleBackup && g.Owner != "" {
		notes = append(notes, "owner "+plain(g.Owner))
	}
	if g.Reason != "" && g.Role != admin.RoleActive {
		notes = append(notes, plain(g.Reason))
	}
	warn := func(format string, args ...any) {
		notes = append(notes, v.paint.paint(yellow, fmt.Sprintf(format, args...)))
	}
	if g.Role == admin.RoleActive && len(g.Present) < len(g.Addresses) {
		warn("%d of %s on the interface", len(g.Present), addressCount(len(g.Addresses)))
	}
	for _, t := range g.Track {
		if !t.Well && (t.Reason == "" || !strings.Contains(g.Reason, t.Reason)) {
			warn("%s: %s", plain(t.What), plain(t.Reason))
		}
	}
	if w := g.Witness; w != nil && !w.Answers && !w.NotAsked {
		warn("the witness %s does not answer", plain(w.Address))
	}
	if p := g.Peer; p != nil && !p.Linked {
		warn("the other node is not heard")
	}
	if n := g.Adverts.Forged + g.Adverts.Alien; n > 0 {
		warn("%s from strangers, or contradicting", count(n, "advert"))
	}
	if g.Conflicts > 0 {
		warn("%s with another host", count(g.Conflicts, "conflict"))
	}
	return strings.Join(notes, "; ")
}

// pair is the link to the other node in one line.
func (v view) pair(p *admin.Pair) string {
	peer := plain(p.Peer)
	if p.Node != "" {
		peer = fmt.Sprintf("%s at %s", plain(p.Node), peer)
	}
	text := fmt.Sprintf("%s with %s", v.paint.state(p.State), peer)
	if p.State == "down" {
		text = fmt.Sprintf("%s, %s", v.paint.state(p.State), peer)
	}
	text += " for " + since(v.now, p.Since)
	if p.Version != "" {
		text += ", holdfast " + plain(p.Version)
	}
	if p.RTT > 0 && p.State != "down" {
		text += fmt.Sprintf(", %s there and back", micro(p.RTT.Duration()))
	}
	if p.Reason != "" && p.State != "synced" {
		text += ": " + plain(p.Reason)
	}
	var notes []string
	warn := func(s string) { notes = append(notes, "\n"+strings.Repeat(" ", 10)+v.paint.paint(yellow, s)) }
	if p.Unprotected > 0 {
		warn(count(p.Unprotected, "item") + " not known to the other node yet")
	}
	if len(p.Differs) > 0 {
		warn("the two files differ: " + plain(strings.Join(p.Differs, ", ")))
	}
	for _, reason := range byCount(p.Strangers) {
		warn(fmt.Sprintf("%s turned away: %s", count(p.Strangers[reason], "stranger"), plain(reason)))
	}
	return text + strings.Join(notes, "")
}

// elector is the process that owns the addresses, where it is not there.
func (v view) elector(e *admin.Elector) string {
	text := v.paint.state(e.State) + " for " + since(v.now, e.Since)
	if e.Reason != "" {
		text += ": " + plain(e.Reason)
	}
	return text
}

// addressTree is every group with its addresses below it.
func (v view) addressTree(list []admin.AddressGroup) *table {
	t := &table{room: v.columns}
	v.addressRows(t, list, true)
	return t
}

// addressRows fills a table with every group, and the addresses below it.
func (v view) addressRows(t *table, list []admin.AddressGroup, each bool) {
	t.rows, t.columns = nil, []column{
		left("ADDRESSES", 12), {title: "INTERFACE", drop: 3}, left("ROLE", 6), {title: "CAUSE", drop: 1}, right("FOR", 7), {title: "EPOCH", right: true, drop: 2},
		{title: "LEASE", right: true, least: 7, drop: 4}, left("NOTE", 0),
	}
	for _, g := range list {
		t.add(v.paint.paint(bold, plain(g.Name)), plain(g.Interface), v.paint.state(g.Role), plain(g.Cause), since(v.now, g.Since), strconv.FormatUint(g.Epoch, 10), lease(g), v.groupNote(g))
		for _, a := range g.Addresses {
			if each {
				t.add("  "+plain(a), "", "", "", "", "", "", "")
			}
		}
	}
}

// released is what became of a release, a sentence for each group.
func (v view) released(r admin.ReleaseResult) string {
	if len(r.Groups) == 0 {
		return "nothing was released: this node owns no addresses\n"
	}
	var b strings.Builder
	for _, g := range r.Groups {
		b.WriteString(plain(g.Text) + "\n")
	}
	return b.String()
}

// role is a change of role in one line.
func (p *eventPrinter) role(e admin.Event) string {
	r := e.Role
	text := "addresses " + p.paint.state(r.To)
	if r.From != "" && r.From != r.To {
		text += ", were " + plain(r.From)
	}
	text += fmt.Sprintf(": %s, epoch %d", plain(strings.ReplaceAll(r.Cause, "_", " ")), r.Epoch)
	if len(r.Addresses) > 0 {
		text += ", " + plain(strings.Join(r.Addresses, " "))
	}
	if r.ByHand != "" {
		text += ", by hand of " + plain(r.ByHand)
	}
	if r.Reason != "" {
		text += ": " + plain(r.Reason)
	}
	return text
}
