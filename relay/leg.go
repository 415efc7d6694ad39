//go:build linux

package relay

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// A PortRange is a range of TCP ports, both ends included.
type PortRange struct{ First, Last uint16 }

// DefaultPorts are the source ports of bound backend legs where Options.Ports
// says nothing: what Linux itself chooses from (net.ipv4.ip_local_port_range) when
// nobody has changed it, so that no server is expected to listen there.
var DefaultPorts = PortRange{First: 32768, Last: 60999}

// Half is the first or the second half of the range: two relays that bind legs to
// the same address, one after the other, take one each, so that a connection of one
// can never meet its double of the other.
func (p PortRange) Half(first bool) PortRange {
	middle := p.First + (p.Last-p.First)/2
	if first {
		return PortRange{First: p.First, Last: middle}
	}
	return PortRange{First: middle + 1, Last: p.Last}
}

// Len is how many ports there are.
func (p PortRange) Len() int { return int(p.Last) - int(p.First) + 1 }

// String returns "32768-46883".
func (p PortRange) String() string { return fmt.Sprintf("%d-%d", p.First, p.Last) }

func (p PortRange) check() error {
	if p.First < 1024 || p.Last < p.First {
		return fmt.Errorf("relay: Options.Ports is %v; it must begin at 1024 or above and not end before it begins", p)
	}
	return nil
}

// A Leg is one side's socket of a connection, as it is to be known to a node that
// may have to tell its other end: only those on an address of ServiceOptions.Groups
// are. Without the relay's word, a Leg is found again by Local and Remote.
type Leg struct {
	Local  netip.AddrPort // the end on this machine: an address of Groups, and a port
	Remote netip.AddrPort // the client, or the backend
	Side   Side           // ByClient or ByBackend: whose leg it is
	ID     uint64         // of the connection, as in Connection and End
	Owner  string         // the service's name
	Since  time.Time      // when it was accepted, or its connect succeeded
}

// A LegChange says that a leg is there, or, with Gone, that it is no more: its
// socket was closed. The relay does not know how the sequence numbers began.
type LegChange struct {
	Leg
	Gone bool
}

// Unbound counts backend legs that should have come from an address of
// ServiceOptions.Groups and have come from the machine's own. Nobody can tell such
// a backend anything after a takeover.
type Unbound struct {
	Ports uint64 // every source port to that backend was in use
	NoWay uint64 // the backend does not answer to the address; it answers to the machine's own
	Away  uint64 // the address had left this machine when the leg was made
}

// SourceStatus is the state of the source ports from one address to one backend.
type SourceStatus struct {
	Address netip.Addr     // of ServiceOptions.Groups
	Backend netip.AddrPort // of one or more services
	Used    int            // ports of legs that live
	Max     int            // ports there are
	NoWay   time.Time      // since when legs are not bound because the backend did not answer; zero: they are
}

// changesAtOnce is how many changes are told at once: a moment with more is told
// in pieces.
const changesAtOnce = 256

// come tells that a leg is there, if it is on an address of Groups.
func (g *leg) come() {
	p := g.pair
	if p.loop.relay.onLegs != nil && (g.side == ByClient && p.local.IsValid() || g.side == ByBackend && p.lane != nil) {
		g.told = true
		g.changed(false)
	}
}

// gone tells that a leg's socket is closed, and gives its source port back.
func (g *leg) gone() {
	if g.told {
		g.told = false
		g.changed(true)
	}
	if p := g.pair; g.side == ByBackend && p.lane != nil {
		p.lane.Give(p.port)
		p.lane, p.trial = nil, false
	}
}

func (g *leg) changed(gone bool) {
	p := g.pair
	c := LegChange{Gone: gone, Leg: Leg{Local: p.local, Remote: p.from, Side: g.side, ID: p.id, Owner: p.service.name, Since: p.began}}
	if g.side == ByBackend {
		c.Local, c.Remote = netip.AddrPortFrom(p.lane.From, p.port), p.lane.To
		c.Since = p.loop.relay.epoch.Add(time.Duration(p.openedAt))
	}
	if p.loop.changes = append(p.loop.changes, c); len(p.loop.changes) >= changesAtOnce {
		p.loop.tellChanges()
	}
}

// tellChanges hands over what has come and gone.
func (l *loop) tellChanges() {
	if len(l.changes) == 0 {
		return
	}
	l.relay.onLegs(l.changes)
	clear(l.changes)
	l.changes = l.changes[:0]
}

// TellLegs has Options.OnLegs told of every leg that is there, as if it had just
// come, and returns when that is done: for who begins to listen, has lost count, or
// has changed ServiceOptions.Groups. Whatever comes and goes meanwhile is told in its
// order: a leg that was told of is not there any more only when that is told after.
func (r *Relay) TellLegs() {
	if r.onLegs == nil {
		return
	}
	r.walk((*loop).everything, lookStep, func(*loop) func(*pair) {
		return func(p *pair) {
			p.locate()
			p.client.come()
			if p.stage == stageOpen {
				p.backend.come()
			}
		}
	})
	r.ask((*loop).tellChanges)
}

// locate finds out whether the client has connected to an address of Groups.
func (p *pair) locate() {
	origins := p.service.origins.Load()
	if origins == nil || !p.client.tcp || p.client.fd < 0 || p.local.IsValid() {
		return
	}
	local, err := sys.LocalAddr(p.client.fd)
	if err != nil {
		return
	}
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	if origins.Has(local.Addr()) {
		p.local = local
	}
}
