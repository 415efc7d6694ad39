package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/internal/gate"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vrrp"
)

// needs says what a port is for.
type needs struct {
	adverts   bool // VRRP sockets
	neighbour bool // frames are sent there, and listened to
	gate      bool
}

func (n needs) or(m needs) needs {
	return needs{n.adverts || m.adverts, n.neighbour || m.neighbour, n.gate || m.gate}
}

// sockets are what was opened on one link, by its index: they end with it.
type sockets struct {
	index     int
	has       needs
	adverts   [2]*sys.VRRPSocket // IPv4, IPv6
	neighbour *sys.NeighbourSocket
	gate      *gate.Gate
	noGate    string // why there is none
	gateLost  bool   // there was one, and it could not be put back
}

// port is a link that groups use, by its name: it may go and come back.
type port struct {
	name  string
	key   uint64 // of its events: key + 0, 1 adverts, key + 2 neighbours
	needs needs

	known     bool // it was looked at
	fresh     bool // that was the first time
	there     bool
	link      rtnl.Link
	addresses []rtnl.Address
	problem   string // what keeps its sockets from being opened
	sockets   sockets

	// source is what adverts and questions come from, by family: addresses of
	// the link that no group has, and that can be used already.
	source [2]netip.Addr
	own    []netip.Prefix // all of those
	// tentative is one that cannot be used yet, or never, as another host has it.
	tentative netip.Addr

	retryAt int64 // when that is tried again; 0: not
	looking bool  // the hands are looking at it
	again   bool  // and shall look once more
	asking  bool  // the hands are asking for its carrier
	gating  bool  // the hands are asking for its gate
	dropped bool  // no group uses it any more
}

// index of a family in pairs.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// up says whether frames can be sent and received.
func (p *port) up() bool { return p.there && p.link.Up && p.link.Carrier }

func (p *port) mac() announce.MAC { return p.link.MAC }

// why says what is wrong with the link; "" is nothing.
func (p *port) why() string {
	switch {
	case !p.known:
		return fmt.Sprintf("link %s has not been looked at yet", p.name)
	case p.problem != "":
		return p.problem
	case !p.there:
		return fmt.Sprintf("there is no link %s", p.name)
	case !p.link.Up:
		return fmt.Sprintf("link %s is down", p.name)
	case !p.link.Carrier:
		return fmt.Sprintf("link %s has no carrier", p.name)
	}
	return ""
}

// finding is what a look at a port has brought.
type finding struct {
	there     bool
	link      rtnl.Link
	addresses []rtnl.Address
	sockets   *sockets // opened now; nil: those that there are do
	problem   string
}

// lookAt finds out how a link called name stands, and opens what is needed and
// not open yet. It runs on the hands.
func (l *loop) lookAt(name string, open sockets, needs needs) (f finding) {
	rt := l.rt
	index, err := rt.Index(name)
	if err != nil {
		return f // none of this name
	}
	if f.link, err = rt.Link(index); err != nil {
		return f // it has just gone
	}
	f.there = true
	if f.addresses, err = rt.Addresses(index); err != nil {
		f.problem = err.Error()
		return f
	}
	if open.index == index && open.has.or(needs) == open.has {
		return f
	}
	s, err := l.openSockets(index, needs)
	if err != nil {
		f.problem = fmt.Sprintf("link %s: %v", name, err)
		return f
	}
	f.sockets = &s
	return f
}

func (l *loop) openSockets(index int, n needs) (s sockets, err error) {
	s = sockets{index: index, has: n}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if n.adverts {
		for i, group := range [2]netip.Addr{vrrp.GroupIPv4, vrrp.GroupIPv6} {
			if s.adverts[i], err = sys.OpenVRRPSocket(index, i == 1); err != nil {
				return s, err
			}
			if err := s.adverts[i].Join(group); err != nil {
				return s, err
			}
		}
	}
	if n.neighbour {
		if s.neighbour, err = sys.OpenNeighbourSocket(index); err != nil {
			return s, err
		}
	}
	if n.gate {
		if s.gate, err = l.o.openGate(index); err != nil {
			s.noGate, err = refused(err, gate.Probe().Remedy), nil
		}
	}
	return s, nil
}

// refused says why there is no gate, and what to do; an interface that has none
// where the machine could is the error's to explain.
func refused(err error, remedy string) string {
	if remedy == "" {
		return err.Error()
	}
	return err.Error() + ": " + remedy
}

// close closes what is open; the gate's programs and entries stay.
func (s *sockets) close() error {
	var errs []error
	for i, a := range s.adverts {
		if a != nil {
			errs = append(errs, a.Close())
			s.adverts[i] = nil
		}
	}
	if s.neighbour != nil {
		errs = append(errs, s.neighbour.Close())
		s.neighbour = nil
	}
	if s.gate != nil {
		errs = append(errs, s.gate.Close())
		s.gate = nil
	}
	return errors.Join(errs...)
}

// pick finds which of the link's addresses are its own, and which of them
// adverts come from. floating are those of all groups.
func (p *port) pick(floating map[netip.Addr]bool) {
	p.own, p.source, p.tentative = p.own[:0], [2]netip.Addr{}, netip.Addr{}
	for _, a := range p.addresses {
		addr := a.Prefix.Addr()
		if floating[addr] {
			continue
		}
		p.own = append(p.own, a.Prefix) // the peer knows it before the first advert comes from it
		if a.Tentative {                // the kernel sends nothing from it
			p.tentative = addr
			continue
		}
		switch i := family(addr); {
		case i == 0 && !p.source[0].IsValid():
			p.source[0] = addr
		case i == 1 && addr.IsLinkLocalUnicast() && !p.source[1].IsValid():
			p.source[1] = addr
		}
	}
}

// from gives the address that asks for target: one of target's network if there
// is one.
func (p *port) from(target netip.Addr) netip.Addr {
	for _, own := range p.own {
		if own.Contains(target) && family(own.Addr()) == family(target) && own.Addr() != p.tentative {
			return own.Addr()
		}
	}
	return p.source[family(target)]
}

// routed says whether the link has a route to the prefix's network by an address
// of its own.
func (p *port) routed(prefix netip.Prefix) bool {
	return prefix.IsSingleIP() || slices.ContainsFunc(p.own, func(own netip.Prefix) bool {
		return own.Masked() == prefix.Masked()
	})
}
