package announce

import (
	"encoding/binary"
	"net/netip"
)

// Kind is what a frame does.
type Kind uint8

// The two kinds.
const (
	// Asks: an ARP request, or a neighbour solicitation.
	Asks Kind = iota + 1
	// Answers: an ARP reply, or a neighbour advertisement.
	Answers
)

func (k Kind) String() string {
	switch k {
	case Asks:
		return "asks"
	case Answers:
		return "answers"
	}
	return "nothing"
}

// Neighbour is what an ARP or neighbour discovery frame says, in one form for
// both: Sender is at MAC, and it asks or tells Target.
type Neighbour struct {
	Kind Kind
	// Sender is the address that the frame says is at MAC: the sender of an ARP
	// packet, the source of a solicitation, the target of an advertisement. It is
	// the unspecified address in who probes whether an address is free.
	Sender netip.Addr
	// MAC is where Sender is: as told inside the frame, which need not be who
	// sent it; the sender's, where an IPv6 frame may and does leave it out.
	MAC MAC
	// Target is the address asked for, or to which an answer goes: in IPv6 the
	// destination, all nodes if nobody has asked.
	Target netip.Addr
	// From and To are the frame's Ethernet source and destination.
	From, To MAC
	// Gratuitous says that nobody has asked: ARP whose sender and target are
	// one, an advertisement that is not solicited.
	Gratuitous bool
}

// ParseNeighbour reads a whole Ethernet frame, without VLAN tags. It reports false for
// what is neither ARP for IPv4 nor a neighbour solicitation or advertisement, or
// is not as the RFCs want it: lengths, codes, checksum, hop limit 255, options,
// and addresses that cannot be a sender's.
func ParseNeighbour(frame []byte) (Neighbour, bool) {
	if len(frame) < ethernetSize {
		return Neighbour{}, false
	}
	n := Neighbour{To: MAC(frame[0:6]), From: MAC(frame[6:12])}
	ok := false
	switch body := frame[ethernetSize:]; binary.BigEndian.Uint16(frame[12:]) {
	case typeARP:
		ok = n.parseARP(body)
	case typeIPv6:
		ok = n.parseIPv6(body)
	}
	if !ok || group(n.From) || group(n.MAC) || n.MAC == (MAC{}) {
		return Neighbour{}, false
	}
	return n, true
}

// group says whether a MAC is that of many.
func group(m MAC) bool { return m[0]&1 != 0 }

func (n *Neighbour) parseARP(b []byte) bool {
	if len(b) < arpSize || [6]byte(b) != [6]byte{0, 1, 0x08, 0x00, 6, 4} {
		return false
	}
	switch binary.BigEndian.Uint16(b[6:]) {
	case arpRequest:
		n.Kind = Asks
	case arpReply:
		n.Kind = Answers
	default:
		return false
	}
	n.MAC = MAC(b[8:14])
	n.Sender = netip.AddrFrom4([4]byte(b[14:18]))
	n.Target = netip.AddrFrom4([4]byte(b[24:28]))
	n.Gratuitous = n.Sender == n.Target
	if n.Kind == Answers && n.Sender.IsUnspecified() {
		return false
	}
	return sane(n.Sender) && sane(n.Target)
}

// sane says whether a host can have the address; the unspecified one stands for
// none yet.
func sane(a netip.Addr) bool {
	return !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (n *Neighbour) parseIPv6(b []byte) bool {
	if len(b) < ipv6Size+ndSize || b[0]>>4 != 6 || b[6] != icmpv6 || b[7] != hopLimit {
		return false
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < ndSize || length > len(b)-ipv6Size {
		return false
	}
	src, dst, msg := b[8:24], b[24:40], b[ipv6Size:][:length]
	if checksum(src, dst, msg) != 0xffff || msg[1] != 0 {
		return false
	}
	source, destination := netip.AddrFrom16([16]byte(src)), netip.AddrFrom16([16]byte(dst))
	target := netip.AddrFrom16([16]byte(msg[8:24]))
	if source.IsMulticast() || target.IsMulticast() || target.IsUnspecified() {
		return false
	}
	switch msg[0] {
	case solicitation:
		n.Kind, n.Sender, n.Target = Asks, source, target
		mac, there, ok := options(msg[ndSize:], optionSource)
		if !ok || source.IsUnspecified() && (there || destination != solicitedNode(target)) {
			return false
		}
		n.MAC = mac
		if !there {
			n.MAC = n.From
		}
	case advertisement:
		n.Kind, n.Sender, n.Target = Answers, target, destination
		solicited := msg[4]&0x40 != 0
		if source.IsUnspecified() || solicited && destination.IsMulticast() {
			return false
		}
		n.Gratuitous = !solicited
		mac, there, ok := options(msg[ndSize:], optionTarget)
		if !ok {
			return false
		}
		n.MAC = mac
		if !there {
			n.MAC = n.From
		}
	default:
		return false
	}
	return true
}

// options looks for a link-layer address; the first counts. It reports ok as
// false if the options do not fill their space exactly.
func options(b []byte, kind uint8) (mac MAC, there, ok bool) {
	for len(b) > 0 {
		if len(b) < 8 || b[1] == 0 || int(b[1])*8 > len(b) {
			return mac, there, false
		}
		if b[0] == kind && !there {
			if b[1] != optionSize/8 {
				return mac, there, false
			}
			mac, there = MAC(b[2:8]), true
		}
		b = b[int(b[1])*8:]
	}
	return mac, there, true
}
