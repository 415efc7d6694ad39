package notice

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Flags are a segment's control bits (RFC 9293, section 3.1).
type Flags uint8

// The flags.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// String gives the names of the flags that are set, as "RST|ACK".
func (f Flags) String() string {
	var names []string
	for i, n := range [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"} {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, "|")
}

// Segment is what is needed of a TCP segment. Its data is only counted: what is
// sent from here is zeros, and what is received is not looked at.
type Segment struct {
	From, To netip.AddrPort
	Seq, Ack uint32
	Flags    Flags
	Window   uint16 // as on the wire, not scaled
	Length   int    // of the data, in bytes

	// Stamp and Echo are the timestamp option (RFC 7323), if HasStamp.
	HasStamp    bool
	Stamp, Echo uint32
	// Block is the first block of a SACK option (RFC 2018), if HasBlock: from its
	// first number to behind its last. [Segment.AppendTo] does not write it.
	HasBlock bool
	Block    [2]uint32
}

// Sizes of what is written.
const (
	ip4Size   = 20
	ip6Size   = 40
	tcpSize   = 20
	stampSize = 12 // with two fillers in front

	// MaxPacket is the largest packet that [Segment.AppendTo] writes without data.
	MaxPacket = ip6Size + tcpSize + stampSize
	// MaxData is the largest Length that it writes.
	MaxData = 1024
)

const (
	protocolTCP   = 6
	timeToLive    = 64
	optionEnd     = 0
	optionFiller  = 1
	optionSACK    = 5
	optionStamp   = 8
	stampLength   = 10
	dontFragment  = 0x4000
	fragmentField = 0x3fff // more fragments, and where this one begins
)

// AppendTo appends the whole IP packet, with its checksums. It does not allocate
// if b has room for MaxPacket and the data. It refuses ends that are not of one
// family, and a Length that is not within 0 and MaxData.
func (s Segment) AppendTo(b []byte) ([]byte, error) {
	from, to := s.From.Addr(), s.To.Addr()
	if from.Is4() != to.Is4() || !from.IsValid() || !to.IsValid() {
		return b, fmt.Errorf("notice: a segment from %v to %v: not addresses of one family", s.From, s.To)
	}
	if s.Length < 0 || s.Length > MaxData {
		return b, fmt.Errorf("notice: a segment with %d bytes: not within 0 and %d", s.Length, MaxData)
	}
	header := tcpSize
	if s.HasStamp {
		header += stampSize
	}
	size := header + s.Length
	sum := uint32(protocolTCP + size)
	if from.Is4() {
		src, dst := from.As4(), to.As4()
		start := len(b)
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(ip4Size+size))
		b = append(b, 0, 0, dontFragment>>8, 0, timeToLive, protocolTCP, 0, 0)
		b = append(b, src[:]...)
		b = append(b, dst[:]...)
		binary.BigEndian.PutUint16(b[start+10:], ^fold(add(0, b[start:])))
		sum = add(add(sum, src[:]), dst[:])
	} else {
		src, dst := from.As16(), to.As16()
		b = append(b, 6<<4, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(size))
		b = append(b, protocolTCP, timeToLive)
		b = append(b, src[:]...)
		b = append(b, dst[:]...)
		sum = add(add(sum, src[:]), dst[:])
	}
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, s.From.Port())
	b = binary.BigEndian.AppendUint16(b, s.To.Port())
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	b = append(b, byte(header/4<<4), byte(s.Flags))
	b = binary.BigEndian.AppendUint16(b, s.Window)
	b = append(b, 0, 0, 0, 0)
	if s.HasStamp {
		b = append(b, optionFiller, optionFiller, optionStamp, stampLength)
		b = binary.BigEndian.AppendUint32(b, s.Stamp)
		b = binary.BigEndian.AppendUint32(b, s.Echo)
	}
	for range s.Length {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[start+16:], ^fold(add(sum, b[start:])))
	return b, nil
}

// String is for people: "192.0.2.1:80 -> 192.0.2.2:5000 ACK seq 5 ack 7".
func (s Segment) String() string {
	text := fmt.Sprintf("%v -> %v %v seq %d", s.From, s.To, s.Flags, s.Seq)
	if s.Flags&ACK != 0 {
		text += fmt.Sprintf(" ack %d", s.Ack)
	}
	if s.Length > 0 {
		text += fmt.Sprintf(" with %d bytes", s.Length)
	}
	return text
}

// end is the number behind the segment's last.
func (s *Segment) end() uint32 {
	n := s.Seq + uint32(s.Length)
	if s.Flags&SYN != 0 {
		n++
	}
	if s.Flags&FIN != 0 {
		n++
	}
	return n
}

// add sums up b, which begins at an even offset of what is summed up.
func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// ParseSegment reads an IP packet that holds a TCP segment. The packet may be cut
// behind the segment's header: Length is what the IP header says. ok is false for
// anything else, for fragments, and for IPv6 packets with extension headers.
// Checksums are not looked at: a packet that was captured on the machine that sent
// it does not have them yet.
func ParseSegment(packet []byte) (s Segment, ok bool) {
	var tcp []byte
	var from, to netip.Addr
	var size int // of the TCP segment, by the IP header
	switch {
	case len(packet) >= ip4Size && packet[0]>>4 == 4:
		header := int(packet[0]&0xf) * 4
		size = int(binary.BigEndian.Uint16(packet[2:])) - header
		if header < ip4Size || len(packet) < header || packet[9] != protocolTCP || binary.BigEndian.Uint16(packet[6:])&fragmentField != 0 {
			return Segment{}, false
		}
		from, to = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		tcp = packet[header:]
	case len(packet) >= ip6Size && packet[0]>>4 == 6:
		size = int(binary.BigEndian.Uint16(packet[4:]))
		if packet[6] != protocolTCP {
			return Segment{}, false
		}
		from, to = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		if from.Is4In6() || to.Is4In6() {
			return Segment{}, false // nobody's on a wire
		}
		tcp = packet[ip6Size:]
	default:
		return Segment{}, false
	}
	if size < tcpSize || len(tcp) < tcpSize {
		return Segment{}, false
	}
	header := int(tcp[12]>>4) * 4
	if header < tcpSize || header > size || len(tcp) < header {
		return Segment{}, false
	}
	s = Segment{
		From:   netip.AddrPortFrom(from, binary.BigEndian.Uint16(tcp)),
		To:     netip.AddrPortFrom(to, binary.BigEndian.Uint16(tcp[2:])),
		Seq:    binary.BigEndian.Uint32(tcp[4:]),
		Ack:    binary.BigEndian.Uint32(tcp[8:]),
		Flags:  Flags(tcp[13] & 0x3f),
		Window: binary.BigEndian.Uint16(tcp[14:]),
		Length: size - header,
	}
	s.options(tcp[tcpSize:header])
	return s, true
}

// options reads the options that are needed. One that is broken ends them, as in
// every kernel.
func (s *Segment) options(b []byte) {
	for len(b) > 0 && b[0] != optionEnd {
		if b[0] == optionFiller {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return
		}
		option := b[2:b[1]]
		switch {
		case b[0] == optionStamp && len(option) == stampLength-2 && !s.HasStamp:
			s.HasStamp = true
			s.Stamp, s.Echo = binary.BigEndian.Uint32(option), binary.BigEndian.Uint32(option[4:])
		case b[0] == optionSACK && len(option) >= 8 && len(option)%8 == 0 && !s.HasBlock:
			s.HasBlock = true
			s.Block = [2]uint32{binary.BigEndian.Uint32(option), binary.BigEndian.Uint32(option[4:])}
		}
		b = b[b[1]:]
	}
}
