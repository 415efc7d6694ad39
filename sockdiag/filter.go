package sockdiag

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// A Filter says which sockets are asked for: those that fit every field that is
// set. The zero Filter admits all. The kernel judges by it as long as its
// prefixes and ports fit into 16 KiB of bytecode (about 500 prefixes); beyond
// that, see [Filter.Remainder].
type Filter struct {
	// Family admits connections by IPv4 or by IPv6 addresses; 0 both. V4-mapped
	// ones of IPv6 sockets are IPv4; a dual-stack listener is IPv6.
	Family Family
	// States admits what is in one of them; 0 all.
	States States
	// Local and Remote admit an address that lies in any of the prefixes; none
	// given, every address: who has a list that may be empty must not ask then,
	// least of all in order to destroy. IPv4 and IPv6 may be mixed. A v4-mapped
	// prefix of at least 96 bits is the IPv4 prefix; a shorter IPv6 prefix holds no
	// IPv4 address. What listens on the unspecified address is only in 0.0.0.0/n
	// or ::/n.
	Local, Remote []netip.Prefix
	// LocalPorts and RemotePorts admit a port that lies in any of the ranges;
	// none given, every port.
	LocalPorts, RemotePorts []PortRange
	// Interface admits sockets that are bound to the link with this index; 0 all.
	Interface int
	// Mark admits sockets with mark & Mask == Value; nil all. It needs
	// CAP_NET_ADMIN.
	Mark *Mark
}

// Family is that of the addresses which a connection uses.
type Family uint8

// The families. 0 stands for both.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// PortRange is First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Port is the range of one port.
func Port(p uint16) PortRange { return PortRange{p, p} }

// Mark is a condition on SO_MARK. Value must not have bits outside Mask.
type Mark struct{ Value, Mask uint32 }

// Host is the prefix that holds only a.
func Host(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// Check says what is wrong with f, by the name of the field; nil if nothing is.
func (f Filter) Check() error {
	_, err := f.reduce()
	return err
}

// Match says whether f admits s. A Filter that is wrong admits none.
func (f Filter) Match(s Socket) bool {
	r, err := f.reduce()
	return err == nil && r.match(s)
}

// Remainder names the fields of f that do not fit into the bytecode, so that
// [Conn.List] judges by them after the kernel has told the socket: the same
// sockets are listed, and more are copied. It is nil as a rule.
func (f Filter) Remainder() []string {
	r, err := f.reduce()
	if err != nil {
		return nil
	}
	var all []string
	for _, socket := range []byte{afInet, afInet6} {
		_, left, _ := r.program(socket)
		all = append(all, left...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// reduced is a Filter that was checked. Its prefixes and ranges are in order, and
// none overlaps another.
type reduced struct {
	filter                  Filter
	states                  States
	local, remote           []netip.Prefix
	localPorts, remotePorts []PortRange
}

func (f Filter) reduce() (r reduced, err error) {
	r.filter = f
	if r.states = f.States; r.states == 0 {
		r.states = AllStates
	}
	switch {
	case f.Family != 0 && f.Family != IPv4 && f.Family != IPv6:
		return r, fmt.Errorf("sockdiag: Filter.Family is %d: want 0, IPv4 or IPv6", f.Family)
	case f.States&^AllStates != 0:
		return r, fmt.Errorf("sockdiag: Filter.States has bits of no state: %#x", uint32(f.States&^AllStates))
	case f.Interface < 0 || f.Interface > math.MaxInt32:
		return r, fmt.Errorf("sockdiag: Filter.Interface is %d: want the index of a link, or 0", f.Interface)
	case f.Mark != nil && f.Mark.Value&^f.Mark.Mask != 0:
		return r, fmt.Errorf("sockdiag: Filter.Mark admits nothing: value %#x has bits outside the mask %#x", f.Mark.Value, f.Mark.Mask)
	}
	if r.local, err = reducePrefixes("Local", f.Local); err != nil {
		return r, err
	}
	if r.remote, err = reducePrefixes("Remote", f.Remote); err != nil {
		return r, err
	}
	if r.localPorts, err = reducePorts("LocalPorts", f.LocalPorts); err != nil {
		return r, err
	}
	r.remotePorts, err = reducePorts("RemotePorts", f.RemotePorts)
	return r, err
}

func reducePrefixes(field string, prefixes []netip.Prefix) ([]netip.Prefix, error) {
	all := make([]netip.Prefix, 0, len(prefixes))
	for i, p := range prefixes {
		if !p.IsValid() {
			return nil, fmt.Errorf("sockdiag: Filter.%s[%d] is no valid prefix", field, i)
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		all = append(all, p.Masked())
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	// Who lies in another one comes right behind it, or behind its like.
	kept := all[:0]
	for _, p := range all {
		if len(kept) == 0 || !kept[len(kept)-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept, nil
}

func reducePorts(field string, ranges []PortRange) ([]PortRange, error) {
	for i, r := range ranges {
		if r.First > r.Last {
			return nil, fmt.Errorf("sockdiag: Filter.%s[%d] ends before it begins: %d to %d", field, i, r.First, r.Last)
		}
	}
	all := slices.Clone(ranges)
	slices.SortFunc(all, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	kept := all[:0]
	for _, r := range all {
		if n := len(kept); n > 0 && int(r.First) <= int(kept[n-1].Last)+1 {
			kept[n-1].Last = max(kept[n-1].Last, r.Last)
			continue
		}
		kept = append(kept, r)
	}
	return kept, nil
}

// match judges as the kernel does.
func (r reduced) match(s Socket) bool {
	f := r.filter
	family := IPv6
	if s.Local.Addr().Is4() {
		family = IPv4
	}
	return (f.Family == 0 || f.Family == family) &&
		r.states.Has(s.State) &&
		(f.Interface == 0 || f.Interface == s.Interface) &&
		(f.Mark == nil || s.Mark&f.Mark.Mask == f.Mark.Value) &&
		portIn(r.localPorts, s.Local.Port()) &&
		portIn(r.remotePorts, s.Remote.Port()) &&
		addressIn(r.local, s.Local.Addr()) &&
		addressIn(r.remote, s.Remote.Addr())
}

func addressIn(prefixes []netip.Prefix, a netip.Addr) bool {
	if len(prefixes) == 0 {
		return true
	}
	i, found := slices.BinarySearchFunc(prefixes, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return found || i > 0 && prefixes[i-1].Contains(a)
}

func portIn(ranges []PortRange, p uint16) bool {
	if len(ranges) == 0 {
		return true
	}
	i, found := slices.BinarySearchFunc(ranges, p, func(r PortRange, p uint16) int { return cmp.Compare(r.First, p) })
	return found || i > 0 && ranges[i-1].Last >= p
}
