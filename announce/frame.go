package announce

import (
	"encoding/binary"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC = [6]byte

// Sizes of frames, without the padding to Ethernet's minimum, which is the
// driver's work.
const (
	ethernetSize = 14
	ipv6Size     = 40
	arpSize      = 28
	ndSize       = 24 // a solicitation or advertisement without options
	optionSize   = 8  // a link-layer address

	// MaxFrame is the largest frame that is made here.
	MaxFrame = ethernetSize + ipv6Size + ndSize + optionSize
)

const (
	typeARP  = 0x0806
	typeIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2

	icmpv6        = 58
	solicitation  = 135
	advertisement = 136
	optionSource  = 1
	optionTarget  = 2
	flagOverride  = 1 << 29
	hopLimit      = 255
)

var (
	broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x01})
)

// GratuitousARP appends the frame that tells every host on the link that an IPv4
// address is at mac: as a request (the form that RFC 5227 calls an ARP
// announcement) or as a reply. Some hosts take only one of the two as news.
func GratuitousARP(b []byte, mac MAC, addr netip.Addr, reply bool) []byte {
	op, to := uint16(arpRequest), MAC{}
	if reply {
		// Linux takes a reply to itself for news only if it repeats the sender's
		// MAC as the target's; another one does not replace what it has learnt in
		// the last second (arp_is_garp, locktime).
		op, to = arpReply, mac
	}
	b = appendEthernet(b, broadcast, mac, typeARP)
	return appendARP(b, op, mac, addr, to, addr)
}

// UnsolicitedNA appends the frame that tells every host on the link that an IPv6
// address is at mac, and that what they knew before is out of date (override).
func UnsolicitedNA(b []byte, mac MAC, addr netip.Addr) []byte {
	addr = addr.WithZone("")
	return appendND(b, groupMAC(allNodes), mac, addr, allNodes, advertisement, flagOverride, addr, optionTarget, mac)
}

// Announce appends the announcement of an address of either family; reply is
// for IPv4, see GratuitousARP.
func Announce(b []byte, mac MAC, addr netip.Addr, reply bool) []byte {
	if addr.Is4() {
		return GratuitousARP(b, mac, addr, reply)
	}
	return UnsolicitedNA(b, mac, addr)
}

// Ask appends the frame that asks who has target: an ARP request to everybody,
// or a neighbour solicitation to the group of those that the target may be
// among. The answer goes to from, at mac, which must be of the target's family.
func Ask(b []byte, mac MAC, from, target netip.Addr) []byte {
	return AskFor(b, mac, mac, from, target)
}

// AskFor is Ask on behalf of another host: inside the frame asks as, at asMAC,
// and the answer goes there. Only the Ethernet header shows who sends it, so
// that no switch learns another port for asMAC.
//
// as may be the unspecified address: then it is a probe, as hosts send to find
// out whether an address is free (RFC 5227, RFC 4862). In IPv4 the answer goes
// to asMAC all the same, in IPv6 to all nodes.
func AskFor(b []byte, mac, asMAC MAC, as, target netip.Addr) []byte {
	if target.Is4() {
		b = appendEthernet(b, broadcast, mac, typeARP)
		return appendARP(b, arpRequest, asMAC, as, MAC{}, target)
	}
	group := solicitedNode(target)
	return appendND(b, groupMAC(group), mac, as.WithZone(""), group, solicitation, 0, target.WithZone(""), optionSource, asMAC)
}

// AskHost is Ask to one host only, whose MAC is known: whether it still has
// target.
func AskHost(b []byte, mac MAC, from, target netip.Addr, host MAC) []byte {
	if target.Is4() {
		b = appendEthernet(b, host, mac, typeARP)
		return appendARP(b, arpRequest, mac, from, MAC{}, target)
	}
	target = target.WithZone("")
	return appendND(b, host, mac, from.WithZone(""), target, solicitation, 0, target, optionSource, mac)
}

func appendEthernet(b []byte, to, from MAC, etherType uint16) []byte {
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	return binary.BigEndian.AppendUint16(b, etherType)
}

// appendARP appends the ARP packet for Ethernet and IPv4.
func appendARP(b []byte, op uint16, senderMAC MAC, sender netip.Addr, targetMAC MAC, target netip.Addr) []byte {
	b = append(b, 0, 1, 0x08, 0x00, 6, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	from, to := as4(sender), as4(target)
	b = append(b, senderMAC[:]...)
	b = append(b, from[:]...)
	b = append(b, targetMAC[:]...)
	return append(b, to[:]...)
}

// as4 is the IPv4 address, or 0.0.0.0 for what is none.
func as4(a netip.Addr) [4]byte {
	if a = a.Unmap(); a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}

// as16 is the IPv6 address, or :: for the zero Addr.
func as16(a netip.Addr) [16]byte {
	if a.IsValid() {
		return a.As16()
	}
	return [16]byte{}
}

// appendND appends a solicitation or an advertisement with one option, in its
// Ethernet frame; a probe has none.
func appendND(b []byte, toMAC, fromMAC MAC, from, to netip.Addr, kind uint8, flags uint32, target netip.Addr, option uint8, optionMAC MAC) []byte {
	b = appendEthernet(b, toMAC, fromMAC, typeIPv6)
	src, dst, about := as16(from), as16(to), as16(target)

	length, probe := ndSize+optionSize, !from.IsValid() || from.IsUnspecified()
	if probe {
		length = ndSize // it must not say where nobody is (RFC 4861, section 4.3)
	}
	b = binary.BigEndian.AppendUint32(b, 6<<28)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, icmpv6, hopLimit)
	b = append(b, src[:]...)
	b = append(b, dst[:]...)

	start := len(b)
	b = append(b, kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, flags)
	b = append(b, about[:]...)
	if !probe {
		b = append(b, option, optionSize/8)
		b = append(b, optionMAC[:]...)
	}
	binary.BigEndian.PutUint16(b[start+2:], ^checksum(src[:], dst[:], b[start:]))
	return b
}

// checksum sums up an ICMPv6 message with its pseudo-header. Over a message that
// holds its checksum it gives 0xffff.
func checksum(src, dst, msg []byte) uint16 {
	acc := uint32(icmpv6 + len(msg))
	for _, b := range [3][]byte{src, dst, msg} {
		for ; len(b) >= 2; b = b[2:] {
			acc += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			acc += uint32(b[0]) << 8
		}
	}
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}

// solicitedNode is the group that who has an address listens to (RFC 4291,
// 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	raw := as16(a)
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: raw[13], 14: raw[14], 15: raw[15]})
}

// groupMAC is where a multicast group is on Ethernet (RFC 2464, 7).
func groupMAC(group netip.Addr) MAC {
	raw := group.As16()
	return MAC{0x33, 0x33, raw[12], raw[13], raw[14], raw[15]}
}
