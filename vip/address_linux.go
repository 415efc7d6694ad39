package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/gate"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// The lifetime of an address on the interface, and how often it is renewed: a
// process that is stopped loses it by itself, also where there is no gate.
const (
	addressLifetime = 2 * time.Second
	addressRenewal  = 500 * time.Millisecond

	// addressPause is how long a node that could set none of a group's addresses
	// leaves it to others.
	addressPause = 10 * time.Second
)

// addressing is what a group knows of its addresses on the interface.
type addressing struct {
	want    bool  // they shall be there
	renewAt int64 // when their lifetime is renewed; 0: not
	renews  bool  // the hands are about it
	// present are those that are there, as the kernel tells; byHand those of
	// them that have no end, so that somebody else has added them.
	present, byHand map[netip.Addr]bool
	// removing counts, by address, the removals of ours that the kernel has not
	// told of yet.
	removing map[netip.Addr]int
	restored uint64
	problem  string // why they could not be set; "": they could
}

func newAddressing() addressing {
	return addressing{present: make(map[netip.Addr]bool), byHand: make(map[netip.Addr]bool), removing: make(map[netip.Addr]int)}
}

// setting is one address that the hands are to set.
type setting struct {
	index   int
	address rtnl.Address
}

// settings says how each address is set now.
func (g *group) settings(prefixes []netip.Prefix) []setting {
	out := make([]setting, 0, len(prefixes))
	for _, p := range prefixes {
		a := rtnl.Address{Prefix: p, NoDAD: true, NoPrefixRoute: g.port.routed(p), Valid: addressLifetime}
		if p.Addr().Is4() {
			a.Preferred = addressLifetime // IPv6: never a source by itself
		}
		out = append(out, setting{g.port.link.Index, a})
	}
	return out
}

// set sets addresses as long as the lease runs: a process that was stopped just
// before must not bring them back.
func set(rt *rtnl.Handle, list []setting, until int64) error {
	var errs []error
	for _, s := range list {
		if sys.BootTime() >= until {
			return errors.Join(append(errs, errLeaseEnded)...)
		}
		if err := rt.ReplaceAddress(s.index, s.address); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

var errLeaseEnded = errors.New("the lease ended before the address could be set")

// addAddresses sets the group's addresses and goes on with then, which is not
// called if the group has been told otherwise meanwhile.
func (g *group) addAddresses(c *course, then func()) {
	a := &g.addressing
	a.want = true
	a.renewAt = g.loop.now + int64(addressRenewal)
	list, until := g.settings(g.prefixes), g.leaseUntil
	var err error
	g.loop.hands.do(func() { err = set(g.loop.rt, list, until) }, func() {
		if g.course != c || !a.want {
			return
		}
		if err == nil {
			for _, s := range list {
				a.present[s.address.Prefix.Addr()] = true
			}
		}
		if g.addressesSet(err); g.course == c {
			then()
		}
	})
}

func (g *group) addressesSet(err error) {
	a, was := &g.addressing, g.addressing.problem
	a.problem = ""
	if err != nil && !errors.Is(err, errLeaseEnded) {
		a.problem = err.Error()
	}
	if a.problem != "" && a.problem != was {
		g.tell(KindAddress, fmt.Sprintf("addresses could not be set on %s: %s; it is tried again every %v", g.spec.Interface, a.problem, addressRenewal))
	}
	// An owner without a single address keeps the peer from what it could serve.
	if a.problem != "" && g.active() && !slices.ContainsFunc(g.named, func(addr netip.Addr) bool { return a.present[addr] }) {
		g.setFailed = g.loop.now + int64(addressPause)
		g.checkWell()
	}
}

// renewAddresses gives the addresses another lifetime.
func (g *group) renewAddresses() {
	a := &g.addressing
	a.renewAt = g.loop.now + int64(addressRenewal)
	if a.renews {
		return // the kernel is slow: they are renewed by then
	}
	a.renews = true
	list, until := g.settings(g.prefixes), g.leaseUntil
	var err error
	g.loop.hands.do(func() { err = set(g.loop.rt, list, until) }, func() {
		a.renews = false
		if a.want {
			g.addressesSet(err)
		}
	})
}

// removeAddresses takes addresses away, and goes on with then in any case.
func (g *group) removeAddresses(prefixes []netip.Prefix, then func()) {
	a, index := &g.addressing, g.port.link.Index
	for _, p := range prefixes {
		if a.present[p.Addr()] {
			a.removing[p.Addr()]++
		}
	}
	prefixes = slices.Clone(prefixes)
	var failed []error
	gone := make([]netip.Addr, 0, len(prefixes))
	g.loop.hands.do(func() {
		for _, p := range prefixes {
			err := g.loop.rt.DeleteAddress(index, p)
			switch {
			case err == nil:
			case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.ENODEV):
				gone = append(gone, p.Addr()) // it was not there: nothing will be told
			default:
				failed = append(failed, err)
				gone = append(gone, p.Addr())
			}
		}
	}, func() {
		for _, addr := range gone {
			a.removing[addr] = max(0, a.removing[addr]-1)
		}
		if err := errors.Join(failed...); err != nil {
			g.tell(KindAddress, fmt.Sprintf("addresses could not be taken from %s: %v; they leave by themselves within %v, and the gate keeps them silent", g.spec.Interface, err, addressLifetime))
		}
		if then != nil {
			then()
		}
	})
}

// withdraw takes all addresses away.
func (g *group) withdraw(then func()) {
	g.addressing.want, g.addressing.renewAt = false, 0
	g.removeAddresses(g.prefixes, then)
}

// addressChanged is told what the kernel says of one of the group's addresses.
func (g *group) addressChanged(addr netip.Addr, there bool, as rtnl.Address) {
	a := &g.addressing
	was := a.present[addr]
	a.present[addr] = there
	g.foundByHand(addr, there && as.Valid == 0, true)
	switch {
	case there && as.Duplicate:
		g.tell(KindConflict, fmt.Sprintf("%v on %s: another host has it (duplicate address detection)", addr, g.spec.Interface))
	case !there && a.removing[addr] > 0:
		a.removing[addr]--
	case !there && was && a.want && g.active() && g.loop.now < g.leaseUntil:
		a.restored++
		g.tell(KindAddress, fmt.Sprintf("somebody has removed %v from %s; it is put back", addr, g.spec.Interface))
		g.putBack(addr)
	}
}

// putBack sets one address again, and announces it.
func (g *group) putBack(addr netip.Addr) {
	i := slices.IndexFunc(g.prefixes, func(p netip.Prefix) bool { return p.Addr() == addr })
	list, until := g.settings(g.prefixes[i:i+1]), g.leaseUntil
	var err error
	g.loop.hands.do(func() { err = set(g.loop.rt, list, until) }, func() {
		if g.addressing.want {
			g.addressesSet(err)
			g.announceNow()
		}
	})
}

// surveyed takes what a look at the port has found of the group's addresses.
func (g *group) surveyed() {
	a := &g.addressing
	for _, addr := range g.addrs {
		i := slices.IndexFunc(g.port.addresses, func(x rtnl.Address) bool { return x.Prefix.Addr() == addr })
		there := g.port.there && i >= 0
		a.present[addr] = there
		g.foundByHand(addr, there && g.port.addresses[i].Valid == 0, !g.port.fresh)
	}
}

// foundByHand notes whether somebody else has set one of the group's addresses,
// and tells it once where this node does not own it: whether the kernel's word
// of it comes first, or a look at the link. What the first look finds is told by
// removeLeftovers.
func (g *group) foundByHand(addr netip.Addr, now, tell bool) {
	a := &g.addressing
	if tell && now && !a.byHand[addr] && !a.want {
		g.tell(KindAddress, fmt.Sprintf("somebody has added %v to %s, which this node does not own; %s: remove it", addr, g.spec.Interface, g.kept()))
	}
	a.byHand[addr] = now
}

// The gate, on every link that the group has to do with.

func (g *group) gates(each func(*gate.Gate) error) {
	for _, p := range g.links() {
		if p.sockets.gate == nil {
			continue
		}
		if err := each(p.sockets.gate); err != nil && g.gateProblem == "" {
			g.gateProblem = err.Error()
			g.tell(KindGate, fmt.Sprintf("link %s: %v; the lease is kept by the lifetime of the addresses", p.name, err))
		}
	}
}

// setGate says what the addresses may do from now on. The peer's MAC is the one
// that it has on the group's own link; on the others nothing can be sent on.
func (g *group) setGate(e gate.Entry) {
	g.gateEntry, g.shutAt = e, 0
	if e.Mode == gate.Closed || e.Mode == gate.Passing {
		g.shutAt = g.loop.now + int64(shutAgain)
	}
	g.gates(func(t *gate.Gate) error {
		here := e
		if t != g.port.sockets.gate {
			here.Mode, here.Peer = elsewhere(e.Mode), [6]byte{}
		}
		for _, addr := range g.addrs {
			if err := t.Set(addr, here); err != nil {
				return err
			}
		}
		return nil
	})
}

// kept says what becomes of an address that is here and is not owned.
func (g *group) kept() string {
	if g.port.sockets.gate == nil {
		return "nothing keeps it silent, as there is no gate"
	}
	return "the gate keeps it silent"
}

// shutAgain is how often the gate of a node that does not own its addresses is
// told so: it forgets after [gate.Grace].
const shutAgain = gate.Grace / 3

// shut closes the gate: also for addresses that somebody else has added here.
func (g *group) shut() { g.setGate(gate.Entry{Mode: gate.Closed, Until: g.loop.now}) }

// regate tells the gate again what it was told: that of a link that is new, or
// for addresses that are.
func (g *group) regate() {
	e := g.gateEntry
	switch e.Mode {
	case gate.Own, gate.Handing, gate.Taking:
		e.Until = g.leaseUntil
	case gate.Closed:
		e.Until = g.loop.now
	}
	g.setGate(e)
}

func elsewhere(m gate.Mode) gate.Mode {
	switch m {
	case gate.Own, gate.Handing:
		return gate.Own
	}
	return gate.Closed
}

// renewGate moves the end of what they may do. It allocates nothing.
func (g *group) renewGate(until int64) {
	for i := -1; i < len(g.further); i++ {
		p := g.port
		if i >= 0 {
			p = g.further[i]
		}
		if p.sockets.gate == nil {
			continue
		}
		for _, addr := range g.addrs {
			if err := p.sockets.gate.Renew(addr, until); err != nil {
				g.gates(func(*gate.Gate) error { return err })
			}
		}
	}
}

// gateStatus says whether the gate is in force on every link of the group.
func (g *group) gateStatus() GateStatus {
	var why []string
	var s GateStatus
	for _, p := range g.links() {
		switch {
		case p.sockets.gate == nil && p.sockets.noGate != "":
			why = append(why, "link "+p.name+": "+p.sockets.noGate)
		case p.sockets.gate == nil:
			why = append(why, "link "+p.name+": "+p.why())
		default:
			if c, err := p.sockets.gate.Counters(); err == nil {
				s.Dropped += c.ClosedIn + c.ClosedOut + c.AsksIn + c.ClaimsOut + c.NotFromPeer
			}
		}
	}
	if g.gateProblem != "" {
		why = append(why, g.gateProblem)
	}
	s.InForce, s.Why = len(why) == 0, strings.Join(why, "; ")
	return s
}
