package vip

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
)

// configure makes groups the ones that are owned.
func (l *loop) configure(specs []Group) {
	if l.stopping || l.handing {
		return
	}
	before := l.groups
	l.groups = nil
	l.floating = make(map[netip.Addr]bool)
	for _, spec := range specs {
		for _, p := range spec.moving() {
			l.floating[p.Addr()] = true
		}
	}
	for _, p := range l.ports {
		p.needs = needs{}
	}
	kept := make(map[*group]Group)
	for _, spec := range specs {
		i := slices.IndexFunc(before, func(g *group) bool { return g.spec.Name == spec.Name && g.sameRouter(spec) })
		if i >= 0 {
			kept[before[i]] = spec
		}
	}
	l.configuring = true
	for _, g := range before {
		if _, stays := kept[g]; !stays {
			l.leaving = append(l.leaving, g)
			g.stop()
		}
	}
	l.configuring = false
	for _, spec := range specs {
		i := slices.IndexFunc(before, func(g *group) bool { return g.spec.Name == spec.Name && g.sameRouter(spec) })
		if i < 0 {
			l.groups = append(l.groups, newGroup(l, spec))
			continue
		}
		l.groups = append(l.groups, before[i])
		before[i].update(spec)
	}
	l.settlePorts()
	if l.every = l.checkEvery(); l.every > 0 {
		l.checkAt = l.now + int64(l.every)
	}
	l.gatesAt = 0
	if len(l.ports) > 0 {
		l.gatesAt = l.now + int64(gatesEvery)
	}
}

// settlePorts looks at links that are new or needed for more, and gives up
// those that nobody uses.
func (l *loop) settlePorts() {
	used := make(map[*port]bool)
	for _, g := range slices.Concat(l.groups, l.leaving) {
		for _, p := range append(g.links(), g.track...) {
			used[p] = true
		}
	}
	l.ports = slices.DeleteFunc(l.ports, func(p *port) bool {
		if used[p] {
			return false
		}
		p.dropped = true
		l.closeLater(p.sockets, true)
		p.sockets = sockets{}
		return true
	})
	for _, p := range l.ports {
		p.pick(l.floating)
		if !p.known || p.sockets.has.or(p.needs) != p.sockets.has {
			l.look(p)
		}
	}
}

// sameRouter says whether a group can become spec and keep its lease.
func (g *group) sameRouter(spec Group) bool {
	a, b := g.spec.VRRP, spec.VRRP
	return !g.stopped && g.spec.Interface == spec.Interface && (a == nil) == (b == nil) && (a == nil || a.ID == b.ID) && g.spec.Peered == spec.Peered
}

// update changes what differs.
func (g *group) update(spec Group) {
	if reflect.DeepEqual(g.spec, spec) {
		g.take(spec) // its links are in use
		if g.started && g.machine.Status(g.loop.now).Held {
			g.change() // released by command: until now
		}
		return
	}
	links := g.links()
	var gone, added []netip.Prefix
	moving := spec.moving()
	for _, p := range g.prefixes {
		if !slices.Contains(moving, p) {
			gone = append(gone, p)
		}
	}
	for _, p := range moving {
		if !slices.Contains(g.prefixes, p) {
			added = append(added, p)
		}
	}
	g.withoutGate(links, gone, spec)
	if g.started && len(gone) > 0 && g.addressing.want {
		g.removeAddresses(gone, nil)
	}
	g.take(spec)
	g.unclaim()
	if len(added) > 0 {
		g.claimed = false
		g.claim()
	}
	if !g.started {
		return
	}
	g.surveyed()
	g.change()
	g.regate()
	if g.addressing.want && len(added) > 0 {
		g.renewAddresses()
	}
	if g.active() {
		g.schedule.Start(g.loop.now)
	}
	g.checkWell()
}

// change tells the machine what the group is now.
func (g *group) change() {
	actions, err := g.machine.Change(g.loop.now, g.electionSettings())
	if err != nil {
		g.tell(KindRefused, fmt.Sprintf("the group's new settings were refused: %v", err))
		return
	}
	g.act(actions)
}

// withoutGate has the gate forget addresses that are the group's no more, and
// all of them on links that are.
func (g *group) withoutGate(links []*port, gone []netip.Prefix, spec Group) {
	for i, p := range links {
		if p.sockets.gate == nil {
			continue
		}
		forget := gone
		if i > 0 && !slices.Contains(spec.AnnounceOn, p.name) {
			forget = g.prefixes
		}
		for _, prefix := range forget {
			if err := p.sockets.gate.Delete(prefix.Addr()); err != nil {
				g.tell(KindGate, fmt.Sprintf("link %s: %v", p.name, err))
			}
		}
	}
}

func (l *loop) group(name string) *group {
	for _, g := range l.groups {
		if g.spec.Name == name {
			return g
		}
	}
	return nil
}

func (l *loop) setWell(name string, ok bool, why string) {
	g := l.group(name)
	if g == nil {
		return
	}
	g.unfit = ""
	if !ok {
		if g.unfit = why; why == "" {
			g.unfit = "it was said not to be well"
		}
	}
	g.checkWell()
}

func (l *loop) setSynced(name string, ok bool) {
	g := l.group(name)
	if g == nil {
		return
	}
	g.unsynced = !ok
	if g.started && !g.stopped {
		g.act(g.machine.SetSynced(l.now, ok))
	}
}

func (l *loop) release(name string, done func(error)) {
	g := l.group(name)
	if g == nil || !g.started || g.stopped {
		done(fmt.Errorf("vip: group %q: %w", name, ErrNotOwner))
		return
	}
	g.release(done)
}

func (l *loop) deliver(b []byte) {
	_ = readFrame(b, func(sender uint64, name []byte, number uint64, beat []byte) {
		for _, g := range slices.Concat(l.leaving, l.groups) {
			if g.spec.Name == string(name) {
				if err := g.deliver(sender, number, beat); err != nil {
					g.tellSometimes(KindAdverts, fmt.Sprintf("a beat of the peer's cannot be read: %v", err))
				}
			}
		}
	})
}

func (l *loop) linkDown() {
	for _, g := range slices.Concat(l.leaving, l.groups) {
		if g.started && !g.stopped && g.spec.Peered {
			g.act(g.machine.LinkDown(l.now))
		}
	}
}

// stop has every group give up.
func (l *loop) stop() {
	if l.stopping {
		return
	}
	l.stopping = true
	for _, g := range l.groups {
		g.stop()
	}
}

// quiet says whether all have.
func (l *loop) quiet() bool {
	return len(l.leaving) == 0 && !slices.ContainsFunc(l.groups, func(g *group) bool { return !g.gone() })
}

// sweep ends groups that are configured no more and have given up, and lets
// those that wait for their addresses have them.
func (l *loop) sweep() {
	n := len(l.leaving)
	if n == 0 {
		return
	}
	l.leaving = slices.DeleteFunc(l.leaving, func(g *group) bool {
		if g.gone() {
			g.end()
			return true
		}
		return false
	})
	if len(l.leaving) == n {
		return
	}
	for _, g := range l.groups {
		g.claim()
	}
	l.settlePorts()
}

// handed is what the next Owner needs to know.
func (l *loop) handed() []byte {
	groups := make(map[string]handed)
	for _, g := range l.groups {
		if g.started {
			m := g.machine.Status(l.now)
			h := handed{Epoch: m.Epoch}
			if m.Peer.Last != 0 {
				h.Peer = m.Peer.Beat.AppendTo(nil)
			}
			if g.active() {
				h.Until = g.leaseUntil
			}
			groups[g.spec.Name] = h
		}
	}
	return writeHanded(groups)
}
