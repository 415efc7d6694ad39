package vrrp

import (
	"net/netip"
	"slices"
	"strings"
)

// Contradiction is what two routers of one id tell differently. It is a set;
// 0 is none. The election takes no notice of it: it is for people, who have
// configured the two.
type Contradiction uint8

// What can be told differently.
const (
	// IntervalDiffers: backups take over the active router's, so all that is
	// lost is that the time of a takeover depends on who was active.
	IntervalDiffers Contradiction = 1 << iota
	// AddressesDiffer: the lists do not hold the same addresses. What one of
	// them lacks has no owner while that one is active.
	AddressesDiffer
	// OrderDiffers: the same addresses in another order.
	OrderDiffers
	// TwoOwners: both say that the addresses are their own (PriorityOwner).
	TwoOwners
	// NotLinkLocal: the other's IPv6 list does not begin with a link-local
	// address, and this one's does. A keepalived of that kind refuses it.
	NotLinkLocal
)

var contradictions = []string{"interval", "addresses", "order of addresses", "two owners", "first address not link-local"}

// String names them, with commas between.
func (c Contradiction) String() string {
	if c == 0 {
		return "none"
	}
	var names []string
	for i, name := range contradictions {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Contradicts compares what another router of the same id and family
// advertises with what this one would. Of two IPv6 lists a first address that
// only leads (see LinkLocal) may be missing in the other.
func (a Advert) Contradicts(other Advert) (c Contradiction) {
	if a.Interval != other.Interval {
		c |= IntervalDiffers
	}
	if a.Priority == PriorityOwner && other.Priority == PriorityOwner {
		c |= TwoOwners
	}
	if a.leads() && !other.leads() {
		c |= NotLinkLocal
	}
	mine, theirs := a.listed(), other.listed()
	switch {
	case slices.Equal(mine, theirs):
	case sameSet(mine, theirs):
		c |= OrderDiffers
	default:
		c |= AddressesDiffer
	}
	return c
}

// leads says whether the list begins as RFC 9568 wants it in IPv6.
func (a Advert) leads() bool {
	return a.Family == IPv6 && len(a.Addresses) > 0 && a.Addresses[0].IsLinkLocalUnicast()
}

// listed is what the group itself lists: without a leading LinkLocal(id).
func (a Advert) listed() []netip.Addr {
	if len(a.Addresses) > 1 && a.Addresses[0] == LinkLocal(a.ID) {
		return a.Addresses[1:]
	}
	return a.Addresses
}

func sameSet(a, b []netip.Addr) bool {
	within := func(a, b []netip.Addr) bool {
		return !slices.ContainsFunc(a, func(x netip.Addr) bool { return !slices.Contains(b, x) })
	}
	return within(a, b) && within(b, a)
}
