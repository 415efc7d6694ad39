package election

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// Settings is what a Machine is told about its group. It is plain data.
type Settings struct {
	// Addresses are the group's: IPv4, IPv6 or both, without zones, at least
	// one. The first of each family is the one that is asked for.
	Addresses []netip.Addr

	// VRRP says that other routers share the group. The next four belong to it.
	VRRP bool
	// ID is the virtual router, 1 to 255.
	ID uint8
	// Priority is 1 to 255. 255 has no privilege: every node listens first.
	Priority uint8
	// Interval is the time between adverts: 10 ms to 40.95 s, in steps of 10 ms.
	Interval time.Duration
	// Preempt lets this node ask for the addresses when it has the higher
	// priority, PreemptDelay after it has become well and synced. 0 is at once.
	Preempt      bool
	PreemptDelay time.Duration

	// Peered says that the other router is a Machine too, whose beats come over
	// a link. It needs VRRP. The next two belong to it.
	Peered bool
	// First is true on exactly one of the two nodes. It decides between equals.
	First bool
	// Witness is a host on the group's network that is neither node. Invalid:
	// there is none.
	Witness netip.Addr

	// Drain is the longest time that what serves the addresses may take to end
	// before a planned move; 0 is none beyond MinDrain.
	Drain time.Duration
}

// MinDrain is how long new connections go to the peer, at least, before the
// addresses follow them.
const MinDrain = 50 * time.Millisecond

// Check says what is wrong: every error, joined, each naming its field.
func (s Settings) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("election: "+format, args...)) }
	if len(s.Addresses) == 0 {
		bad("Addresses is empty: a group has at least one")
	}
	for i, a := range s.Addresses {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || slices.Contains(s.Addresses[:i], a) {
			bad("Addresses holds %v: want each address once, without a zone, IPv4 not mapped into IPv6", a)
		}
	}
	if s.Drain < 0 {
		bad("Drain is %v: it must not be negative", s.Drain)
	}
	if !s.VRRP {
		if s.Peered || s.Witness.IsValid() {
			bad("Peered or Witness is set without VRRP: a node that owns its addresses alone asks nobody")
		}
		return errors.Join(errs...)
	}
	if s.ID == 0 || s.Priority == 0 {
		bad("ID is %d and Priority is %d: both are 1 to 255", s.ID, s.Priority)
	}
	if err := vrrp.CheckInterval(s.Interval); err != nil {
		bad("Interval: %w", err)
	}
	if s.PreemptDelay < 0 {
		bad("PreemptDelay is %v: it must not be negative", s.PreemptDelay)
	}
	if w := s.Witness; w.IsValid() {
		switch {
		case !s.Peered:
			bad("Witness is set without Peered: a stranger cannot be kept from taking over")
		case w.IsUnspecified() || w.IsMulticast() || w.Is4In6() || slices.Contains(s.Addresses, w):
			bad("Witness is %v: want a host that is not of the group", w)
		}
	}
	return errors.Join(errs...)
}

// Place is where the group's addresses go: what is known of the interface.
type Place struct {
	// MAC is the interface's.
	MAC MAC
	// Addresses are the interface's own: none of any group.
	Addresses []netip.Addr
	// Gated says that the kernel holds the lease: an address whose lease has
	// ended is silent. Without it the address is silent when its lifetime ends.
	Gated bool
}

// source gives the own address that asks for target, or the unspecified one if
// there is none of its family.
func (p Place) source(target netip.Addr) netip.Addr {
	for _, a := range p.Addresses {
		if a.Is4() == target.Is4() && (target.Is4() || a.IsLinkLocalUnicast() == target.IsLinkLocalUnicast()) {
			return a
		}
	}
	for _, a := range p.Addresses {
		if a.Is4() == target.Is4() {
			return a
		}
	}
	return unspecified(target)
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Neighbour is an ARP or neighbour discovery frame that came in on the group's
// interface, or that this node's kernel sent out (Own).
type Neighbour struct {
	Answer bool       // it tells, and does not ask
	Own    bool       // this host sent it
	Sender netip.Addr // who it is about: an answer says that Sender is at MAC
	Target netip.Addr // asked for, or to whom the answer goes
	MAC    MAC        // of the sender, as told inside the frame
}
