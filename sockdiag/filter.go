package sockdiag

import "net/netip"

// A Filter says which sockets are asked for: those that fit every field that is
// set. The zero Filter admits all.
type Filter struct {
	// Family admits connections by IPv4 or by IPv6 addresses; 0 both. V4-mapped
	// ones of IPv6 sockets are IPv4; a dual-stack listener is IPv6.
	Family Family
	// States admits what is in one of them; 0 all.
	States States
	// Local and Remote admit an address that lies in any of the prefixes; none
	// given, every address. IPv4 and IPv6 may be mixed. A v4-mapped prefix of at
	// least 96 bits is the IPv4 prefix; a shorter IPv6 prefix holds no IPv4
	// address. What listens on the unspecified address is only in 0.0.0.0/n or
	// ::/n.
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
