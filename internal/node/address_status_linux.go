package node

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/vip"
)

// problemOf is the code of what a change tells of, where that is a problem.
var problemOf = map[vip.Kind]string{
	vip.KindConflict: admin.ProblemAddressConflict, vip.KindForged: admin.ProblemForgedAdverts, vip.KindAdverts: admin.ProblemAdvertsLost,
	vip.KindWitness: admin.ProblemWitness, vip.KindGate: admin.ProblemNoLeaseGate,
}

// changed takes what has happened to a group. It runs on the client's goroutine.
func (a *addresses) changed(c vip.Change) {
	if c.Kind == vip.KindRole {
		a.roleChanged(c)
		return
	}
	state := string(c.Kind)
	if code := problemOf[c.Kind]; code != "" {
		if state = code; c.Over {
			state = "well"
		}
		a.withGroup(c.Group, func(g *floatingGroup) {
			if c.Over {
				delete(g.notes, c.Kind)
			} else {
				g.notes[c.Kind] = c
			}
		})
	}
	level := slog.LevelWarn
	if c.Over {
		level = slog.LevelInfo
	}
	a.log.Log(context.Background(), level, "address group", "group", c.Group, "what", state, "reason", c.Text)
	a.node.journal.Add(admin.Event{
		Event: admin.EventAddress, Time: c.At, Group: c.Group, Change: &admin.Change{State: state, Reason: c.Text},
	})
}

// roleChanged tells of a role, and has the notify command run.
func (a *addresses) roleChanged(c vip.Change) {
	change := admin.RoleChange{
		To: c.Role.String(), From: c.From.String(), Cause: string(c.Cause), Epoch: c.Epoch, Addresses: []string{}, Reason: c.Text,
	}
	a.withGroup(c.Group, func(g *floatingGroup) {
		change.Addresses = append(change.Addresses, texts(g.file.Addresses)...)
		if g.fresh && c.Role == vip.Backup && c.Cause == vip.CauseWell {
			change.Cause = string(vip.CauseStart) // nobody is well before the first life sign
		}
		g.fresh = g.fresh && c.Role == vip.Fault
		if c.Role != vip.Active {
			change.ByHand = g.by
		}
		g.notifier.tell(news{g.file, change})
	})
	level := slog.LevelInfo
	if c.Role == vip.Fault && c.Cause != vip.CauseStopped && c.Cause != vip.CauseStart {
		level = slog.LevelError
	}
	a.log.Log(context.Background(), level, "role changed", "group", c.Group, "role", change.To, "before", change.From,
		"cause", change.Cause, "epoch", change.Epoch, "reason", change.Reason)
	a.node.journal.Add(admin.Event{Event: admin.EventAddress, Time: c.At, Group: c.Group, Role: &change})
}

// noted tells of something that is not the elector's to tell.
func (a *addresses) noted(group, state, reason string) {
	a.node.journal.Add(admin.Event{Event: admin.EventAddress, Group: group, Change: &admin.Change{State: state, Reason: reason}})
}

// list is every group, in the order of the file.
func (a *addresses) list() []admin.AddressGroup {
	client := a.elector()
	list := []admin.AddressGroup{}
	if client == nil {
		return list
	}
	for _, st := range client.Groups() {
		g := a.describe(st)
		a.withGroup(st.Group, func(f *floatingGroup) { f.complete(&g, a.engines) })
		list = append(list, g)
	}
	return list
}

// complete adds what the elector does not know. The caller holds addresses.mu.
func (g *floatingGroup) complete(to *admin.AddressGroup, engines error) {
	to.Services = append(to.Services, g.services...)
	if v := g.file.VRRP; v != nil {
		to.VRRPID, to.Preempt = v.ID, v.Preempt
	}
	if g.tracker != nil {
		to.Track = append(to.Track, g.tracker.status())
	}
	if len(g.services) > 0 {
		t := admin.Track{What: "engines", Well: engines == nil}
		if engines != nil {
			t.Reason = engines.Error()
		}
		to.Track = append(to.Track, t)
	}
}

// describe is what the elector knows of a group.
func (a *addresses) describe(st vip.Status) admin.AddressGroup {
	g := admin.AddressGroup{
		Name: st.Group, Interface: st.Interface, Addresses: texts(st.Addresses), Present: texts(st.Present),
		Role: st.Role.String(), Since: st.Since, Epoch: st.Epoch, Cause: string(st.Cause), Reason: st.Why, Well: st.Well,
		Lease: admin.Seconds(st.Lease), Owner: a.owner(st), Priority: int(st.Priority), Interval: admin.Seconds(st.Interval),
		Adverts: admin.Adverts{
			Sent: st.Adverts.Sent, Received: st.Adverts.Received, Late: st.Adverts.Late, Failed: st.Adverts.Failed,
			Invalid: st.Adverts.Invalid, Alien: st.Adverts.Alien, Forged: st.Adverts.Forged,
			MaxGap: admin.Seconds(st.Adverts.Gaps.Max), MaxHeard: admin.Seconds(st.Adverts.Heard.Max),
		},
		Takeovers: make(map[string]uint64), Conflicts: st.Conflicts, Restored: st.Restored, Asked: st.Ask.Asked, Answered: st.Ask.Answered,
		Gate:     admin.Gate{InForce: st.Gate.InForce, Reason: st.Gate.Why, Dropped: st.Gate.Dropped},
		Services: []string{}, Track: []admin.Track{},
	}
	for cause, n := range st.Takeovers {
		g.Takeovers[string(cause)] = n
	}
	if w := st.Witness; w.Address.IsValid() && st.Role != vip.Fault { // a node in fault does not ask it
		g.Witness = &admin.Witness{Address: w.Address.String(), Answers: w.Reachable, NotAsked: w.Idle, Asked: w.Asked, Answered: w.Answered, Last: w.Last}
	}
	if p := st.Peer; a.node.pair != nil && st.Priority > 0 {
		g.Peer = &admin.PeerGroup{Linked: p.Linked, Synced: p.Synced, Role: p.Role.String(), Epoch: p.Epoch, Priority: int(p.Priority), Well: p.Well, Heard: p.Heard}
	}
	return g
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}

// owner is who owns a group as far as this node hears; "" for nobody, and for this
// node.
func (a *addresses) owner(st vip.Status) string {
	switch {
	case st.Role == vip.Active:
		return ""
	case st.Peer.Linked && st.Peer.Role == vip.Active:
		return a.node.pair.peerName()
	case st.Active.IsValid():
		return st.Active.String()
	}
	return ""
}

// status says how the elector is; nil where there is nothing to own.
func (a *addresses) status() *admin.Elector {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client == nil && a.lacking != nil {
		return &admin.Elector{State: "down", Since: a.since, Reason: a.lacking.Error()}
	}
	if a.client == nil {
		return nil
	}
	e := &admin.Elector{State: "up", Since: a.down.since}
	if a.down.why != "" {
		e.State, e.Reason = "down", a.down.why
	}
	return e
}

// problems says why the groups are not well.
func (a *addresses) problems() (list []admin.Problem) {
	client := a.elector()
	if client == nil {
		if e := a.status(); e != nil {
			list = append(list, admin.Problem{
				Code: admin.ProblemElectorDown, Since: e.Since,
				Text: "the elector could not be started, and this node owns no address: " + e.Reason + "; it is tried again",
			})
		}
		return list
	}
	a.mu.Lock()
	if a.refused != nil {
		list = append(list, admin.Problem{Code: admin.ProblemAddressSettings, Text: refusedText(a.refused), Since: a.refusal})
	}
	a.mu.Unlock()
	down := a.status().State == "down"
	for _, p := range client.Problems() {
		code := admin.ProblemElectorDown
		if p.Lacks {
			code = admin.ProblemElector
		}
		list = append(list, admin.Problem{Code: code, Text: p.Text, Since: p.Since})
	}
	for _, st := range client.Groups() {
		add := func(code, text string, since time.Time) {
			list = append(list, admin.Problem{Code: code, Group: st.Group, Text: text, Since: since})
		}
		if st.Role == vip.Fault && !down {
			add(admin.ProblemAddressFault, fmt.Sprintf("this node cannot own %s: %s", st.Group, st.Why), st.Since)
		}
		if st.Role == vip.Active && st.Well && st.Why != "" {
			add(admin.ProblemAddressFault, fmt.Sprintf("this node owns %s without all of its addresses: %s", st.Group, st.Why), st.Since)
		}
		if st.Role == vip.Backup && st.Cause == vip.CauseReleased && a.owner(st) == "" {
			add(admin.ProblemAddressReleased, st.Group+" was released by command, and nobody owns it: holdfast reload takes it again", st.Since)
		}
		if st.Gate.Why != "" && !st.Gate.InForce {
			add(admin.ProblemNoLeaseGate, st.Group+": a frozen owner answers until its addresses expire, as there is no gate: "+st.Gate.Why, st.Since)
		}
		a.withGroup(st.Group, func(g *floatingGroup) {
			for _, kind := range []vip.Kind{vip.KindConflict, vip.KindForged, vip.KindAdverts, vip.KindWitness} {
				c, ok := g.notes[kind]
				lasts := kind == vip.KindAdverts || kind == vip.KindWitness // until they are over
				if ok && (lasts || time.Since(c.At) < noteLasts) {
					add(problemOf[kind], st.Group+": "+c.Text, c.At)
				}
			}
			if p, ok := g.notifier.problem(st.Group); ok {
				list = append(list, p)
			}
		})
	}
	return list
}

// groupChanges says in a sentence each how the groups of two files differ.
func groupChanges(before, after []config.AddressGroup) (list []string) {
	old := make(map[string]config.AddressGroup)
	for _, g := range before {
		old[g.Name] = g
	}
	for _, g := range after {
		was, ok := old[g.Name]
		delete(old, g.Name)
		if !ok {
			list = append(list, fmt.Sprintf("addresses %s added (%s on %s)", g.Name, strings.Join(texts(g.Addresses), ", "), g.Interface))
			continue
		}
		b, a := groupKeys(&was), groupKeys(&g)
		for i := range a {
			if b[i] != a[i] {
				list = append(list, fmt.Sprintf("addresses %s: %s %s -> %s", g.Name, a[i].name, b[i].value, a[i].value))
			}
		}
	}
	for _, g := range before {
		if _, gone := old[g.Name]; gone {
			list = append(list, "addresses "+g.Name+" removed")
		}
	}
	return list
}

// A groupKey is a setting of a group as text.
type groupKey struct{ name, value string }

func groupKeys(g *config.AddressGroup) []groupKey {
	vrrp := "none"
	if v := g.VRRP; v != nil {
		vrrp = fmt.Sprintf("id %d, priority %d, interval %v, preempt %t, preempt_delay %v, peers %v", v.ID, v.Priority, v.Interval, v.Preempt, v.PreemptDelay, v.Peers)
	}
	t := g.Track
	return []groupKey{
		{"interface", g.Interface}, {"addresses", strings.Join(texts(g.Addresses), ", ")}, {"vrrp", vrrp},
		{"track.interfaces", fmt.Sprint(t.Interfaces)}, {"track.command", fmt.Sprintf("%q every %v, fall %d, rise %d", t.Command, t.Interval, t.Fall, t.Rise)},
		{"notify.active", fmt.Sprintf("%q", g.Notify.Active)}, {"notify.backup", fmt.Sprintf("%q", g.Notify.Backup)}, {"notify.fault", fmt.Sprintf("%q", g.Notify.Fault)},
	}
}
