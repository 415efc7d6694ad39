package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Defaults and bounds.
const (
	DefaultInterval = time.Second // of adverts (RFC 9568, section 5.2.7)
	MinInterval     = 10 * time.Millisecond
	MaxInterval     = 40 * time.Second
	DefaultPriority = 100

	// MaxAddresses is how many addresses of one family a group can have: an
	// advert has room for one more.
	MaxAddresses = 254

	// AliveTimeout is how long a group that needs somebody alive
	// ([Group].NeedsAlive) stays well without [Owner.Alive].
	AliveTimeout = time.Second
)

// VRRP says how a group is shared with other routers (RFC 9568, version 3).
type VRRP struct {
	// ID is the virtual router's number, 1 to 255: the same on all routers of
	// the group, and of no other group on the same interface.
	ID uint8

	// Priority, 1 to 255, decides who becomes active of those who could; 0
	// means DefaultPriority. 255 has no privilege: every node listens first.
	Priority uint8

	// Interval is the time between adverts, in steps of 10 ms, from MinInterval
	// to MaxInterval; 0 means DefaultInterval. The same on all routers.
	Interval time.Duration

	// Preempt lets this node ask for the addresses when it has the higher
	// priority and another owns them, PreemptDelay after it has become able to.
	Preempt      bool
	PreemptDelay time.Duration

	// Peers are the addresses of the other routers on the group's interface,
	// to which adverts are sent one by one. Empty: adverts are multicast.
	Peers []netip.Addr
}

// Group is a set of addresses that move as one. It is plain data.
type Group struct {
	// Name is unique among the groups of an Owner, 1 to 255 bytes.
	Name string

	// Interface is the name of the link that gets the addresses. It need not
	// exist yet, and may go and come back.
	Interface string

	// Addresses are the group's, IPv4, IPv6 or both, each with the length of
	// its network; at least one. The order is the order in adverts.
	Addresses []netip.Prefix

	// VRRP shares the addresses with other routers. nil: this node owns them
	// whenever it is well.
	VRRP *VRRP

	// Witness is a host on the group's network, normally the gateway, that is
	// asked by ARP or neighbour solicitation: who sees neither its peer nor the
	// witness does not own the addresses. Invalid: none.
	Witness netip.Addr

	// Peered says that the other router is an Owner whose beats are delivered
	// ([Owner.Deliver]).
	Peered bool

	// First is true on exactly one of two peered nodes: it decides between
	// equals.
	First bool

	// Drain is how long those who use the addresses may take to end before a
	// planned move ([Draining]); 0: new ones go to the peer for a moment, then
	// the addresses follow.
	Drain time.Duration

	// Track are other links that must be up for this node to own the
	// addresses.
	Track []string

	// AnnounceOn are further links on which hosts know the addresses: they are
	// announced there too.
	AnnounceOn []string

	// NeedsAlive makes the group unwell when nobody has called [Owner.Alive]
	// for AliveTimeout.
	NeedsAlive bool
}

// maxInterfaceName is IFNAMSIZ without its zero byte.
const maxInterfaceName = 15

// Check says what is wrong with a group: every error, joined, each naming the
// field.
func (g Group) Check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("vip: group %q: %s %s", g.Name, field, fmt.Sprintf(format, args...)))
	}
	if g.Name == "" {
		bad("Name", "is empty; give it one, by which status and commands call the group")
	}
	if len(g.Name) > maxGroupName {
		bad("Name", "has %d bytes; it may have %d", len(g.Name), maxGroupName)
	}
	checkLink := func(field, name string) {
		if name == "" || len(name) > maxInterfaceName || slices.ContainsFunc([]rune(name), func(r rune) bool { return r <= ' ' || r == '/' || r == ':' }) {
			bad(field, "is %q; it must be the name of a link, 1 to %d characters", name, maxInterfaceName)
		}
	}
	checkLink("Interface", g.Interface)
	for _, name := range g.Track {
		checkLink("Track", name)
	}
	for _, name := range g.AnnounceOn {
		checkLink("AnnounceOn", name)
	}
	if len(g.Addresses) == 0 {
		bad("Addresses", "is empty; a group has at least one address")
	}
	seen := make(map[netip.Addr]bool)
	for _, p := range g.Addresses {
		switch a := p.Addr(); {
		case !p.IsValid() || a.Is4In6() || a.Zone() != "":
			bad("Addresses", "holds %v; want an IPv4 or IPv6 address with the length of its network, without a zone", p)
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == broadcast:
			bad("Addresses", "holds %v, which no host can own; choose a unicast address of the network on %s", p, g.Interface)
		case seen[a]:
			bad("Addresses", "holds %v twice", a)
		default:
			seen[a] = true
		}
	}
	four := 0
	for a := range seen {
		if a.Is4() {
			four++
		}
	}
	if n := max(four, len(seen)-four); n > MaxAddresses {
		bad("Addresses", "holds %d addresses of one family; an advert has room for %d, so make two groups", n, MaxAddresses)
	}
	if g.Witness.IsValid() {
		switch {
		case g.Witness.Zone() != "" || g.Witness.Is4In6() || g.Witness.IsMulticast() || g.Witness.IsUnspecified():
			bad("Witness", "is %v; want the address of one host on the network of %s, without a zone", g.Witness, g.Interface)
		case seen[g.Witness]:
			bad("Witness", "is %v, an address of the group itself; choose a host that neither node is, such as the gateway", g.Witness)
		case g.VRRP == nil || !g.Peered:
			bad("Witness", "is set, but VRRP and Peered are not both: it is of use between two Owners; leave it out")
		}
	}
	if g.Drain < 0 {
		bad("Drain", "is %v; it must not be negative", g.Drain)
	}
	if g.Peered && g.VRRP == nil {
		bad("Peered", "is set, but VRRP is not: both nodes would own the addresses; set VRRP")
	}
	if g.VRRP != nil {
		g.VRRP.check(bad)
	}
	return errors.Join(errs...)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (v *VRRP) check(bad func(field, format string, args ...any)) {
	if v.ID == 0 {
		bad("VRRP.ID", "is 0; choose 1 to 255, the same on both nodes")
	}
	if v.Interval != 0 && (v.Interval < MinInterval || v.Interval > MaxInterval || v.Interval%(10*time.Millisecond) != 0) {
		bad("VRRP.Interval", "is %v; it must be %v to %v in steps of 10ms", v.Interval, MinInterval, MaxInterval)
	}
	if v.PreemptDelay < 0 {
		bad("VRRP.PreemptDelay", "is %v; it must not be negative", v.PreemptDelay)
	}
	seen := make(map[netip.Addr]bool)
	for _, p := range v.Peers {
		switch {
		case !p.IsValid() || p.Is4In6() || p.IsMulticast() || p.IsUnspecified() || p.IsLoopback() || p == broadcast:
			bad("VRRP.Peers", "holds %v; want the address of one other router on the group's network", p)
		case p.Is6() && p.Zone() != "":
			bad("VRRP.Peers", "holds %v; leave the zone out, the group's interface is the zone", p)
		case seen[p]:
			bad("VRRP.Peers", "holds %v twice", p)
		}
		seen[p] = true
	}
}

// CheckAll checks groups, each for itself and all beside each other.
func CheckAll(groups []Group) error {
	var errs []error
	names := make(map[string]bool)
	owner := make(map[netip.Addr]string)
	type router struct {
		link string
		id   uint8
	}
	routers := make(map[router]string)
	for _, g := range groups {
		errs = append(errs, g.Check())
		if names[g.Name] {
			errs = append(errs, fmt.Errorf("vip: two groups are named %q; names are unique", g.Name))
		}
		names[g.Name] = true
		for _, p := range g.Addresses {
			if other, taken := owner[p.Addr()]; taken && other != g.Name {
				errs = append(errs, fmt.Errorf("vip: address %v is in group %q and in group %q; it can be in one", p.Addr(), other, g.Name))
			}
			owner[p.Addr()] = g.Name
		}
		if g.VRRP == nil {
			continue
		}
		r := router{g.Interface, g.VRRP.ID}
		if other, taken := routers[r]; taken {
			errs = append(errs, fmt.Errorf("vip: groups %q and %q have VRRP.ID %d on %s; groups on one link have different ones", other, g.Name, r.id, r.link))
		}
		routers[r] = g.Name
	}
	return errors.Join(errs...)
}

// withDefaults fills in what zero means. The result shares nothing with g.
func (g Group) withDefaults() Group {
	g.Addresses = slices.Clone(g.Addresses)
	g.Track = slices.Clone(g.Track)
	g.AnnounceOn = slices.Clone(g.AnnounceOn)
	if g.VRRP != nil {
		v := *g.VRRP
		v.Peers = slices.Clone(v.Peers)
		if v.Priority == 0 {
			v.Priority = DefaultPriority
		}
		if v.Interval == 0 {
			v.Interval = DefaultInterval
		}
		g.VRRP = &v
	}
	return g
}
