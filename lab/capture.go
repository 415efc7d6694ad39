//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// TCPFlags are the control bits of a TCP header (RFC 9293 section 3.1).
type TCPFlags uint8

const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

func (f TCPFlags) String() string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Segment is what a capture keeps of a TCP segment. A segment that the kernel
// hands over in one piece, see [LinkSpec.NoOffload], is one Segment.
type Segment struct {
	// Time is when the kernel saw it, with a monotonic clock reading.
	Time                time.Time
	Source, Destination netip.AddrPort
	Flags               TCPFlags
	Seq, Ack            uint32
	Window              uint16 // as in the header, not scaled
	Length              int    // bytes of payload
}

func (s Segment) String() string {
	return fmt.Sprintf("%s %v > %v %v seq %d ack %d win %d len %d",
		s.Time.Format("15:04:05.000000"), s.Source, s.Destination, s.Flags, s.Seq, s.Ack, s.Window, s.Length)
}

// CaptureFilter chooses segments; the zero value chooses every TCP segment.
type CaptureFilter struct {
	// Flags chooses segments that have at least one of these; 0: all.
	Flags TCPFlags
	// Port chooses segments from or to this port; 0: all.
	Port uint16
	// Addr chooses segments from or to this address; invalid: all.
	Addr netip.Addr
}

// captureLimit is how many segments a capture keeps.
const captureLimit = 1 << 18

// Capture collects TCP segments from a link since it was opened.
type Capture struct {
	socket *sys.PacketSocket
	addr   netip.Addr
	done   chan struct{}

	mu       sync.Mutex
	segments []Segment
	changed  chan struct{} // closed at the next segment
	lost     uint64
	closed   bool
}

// Capture opens a capture on one of the host's interfaces, lo among them. It
// sees what the host's kernel sends, also when a fault loses it on the way.
// Opening takes up to 20 ms: do it before the scene. The lab closes it at the
// latest.
func (h *Host) Capture(iface string, f CaptureFilter) (*Capture, error) {
	index, err := h.nl.Index(iface)
	if err != nil {
		return nil, fmt.Errorf("lab: capture in %s: %w", h.spec.Name, err)
	}
	return h.lab.capture(h.ns, index, f)
}

// Capture opens a capture on the switch's port of the link: it sees what is on
// the cable, both what the host sends and what reaches it, like a tap beside
// the switch. Frames that a fault drops on their way from the host are seen,
// on their way to the host not. See [Host.Capture].
func (k *Link) Capture(f CaptureFilter) (*Capture, error) {
	return k.lab.capture(k.sw.ns, k.port, f)
}

func (l *Lab) capture(ns *netns.NS, index int, f CaptureFilter) (*Capture, error) {
	c := &Capture{addr: f.Addr, done: make(chan struct{}), changed: make(chan struct{})}
	err := ns.Do(func() (err error) {
		c.socket, err = sys.OpenPacketSocket(index, f.program())
		return err
	})
	if err == nil {
		go c.read()
		if err = l.onClose(c.Close); err != nil {
			_ = c.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lab: capture: %w", err)
	}
	return c, nil
}

func (c *Capture) read() {
	defer close(c.done)
	buf := make([]byte, snapLength)
	for {
		n, at, _, err := c.socket.Receive(buf)
		if err != nil {
			return // closed, or the link is gone with its namespace
		}
		s, ok := decodeSegment(buf[:n])
		if !ok || c.addr.IsValid() && s.Source.Addr() != c.addr && s.Destination.Addr() != c.addr {
			continue
		}
		s.Time = at
		c.mu.Lock()
		if len(c.segments) < captureLimit {
			c.segments = append(c.segments, s)
		} else {
			c.lost++
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
}

// Segments gives what has been captured so far, in order.
func (c *Capture) Segments() []Segment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.segments)
}

// Await gives the first segment, of those captured so far and later, for
// which match is true.
func (c *Capture) Await(ctx context.Context, match func(Segment) bool) (Segment, error) {
	for seen := 0; ; {
		c.mu.Lock()
		fresh, changed := c.segments[seen:], c.changed
		c.mu.Unlock()
		seen += len(fresh)
		if i := slices.IndexFunc(fresh, match); i >= 0 {
			return fresh[i], nil
		}
		select {
		case <-changed:
		case <-c.done:
			return Segment{}, fmt.Errorf("lab: capture: %w before such a segment was seen", ErrClosed)
		case <-ctx.Done():
			return Segment{}, fmt.Errorf("lab: capture: no such segment among %d: %w", seen, ctx.Err())
		}
	}
}

// Lost counts the segments that were chosen but not kept: the kernel's buffer
// was full, or the capture held 262,144 already. A conclusion from what is not
// there needs it to be 0.
func (c *Capture) Lost() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.countDropped()
	return c.lost
}

func (c *Capture) countDropped() {
	if c.closed {
		return
	}
	// The kernel forgets the number when it has told it.
	if n, err := c.socket.Dropped(); err == nil {
		c.lost += n
	}
}

// Close ends the capture; what it has collected stays readable. It may be
// called again.
func (c *Capture) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.countDropped()
	c.closed = true
	c.mu.Unlock()
	err := c.socket.Close()
	<-c.done
	return err
}

// Where things are in an Ethernet frame.
const (
	snapLength  = 14 + 60 + 60 // Ethernet, the longest IPv4 header, the longest TCP header
	ipAt        = 14
	ipv6TCPAt   = ipAt + 40
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd
	protocolTCP = 6
)

// program is the filter for the kernel: everything but the address.
func (f CaptureFilter) program() []sys.FilterInsn {
	const (
		loadHalf, loadByte   = 0x28, 0x30 // A = packet[k]
		loadHalfX, loadByteX = 0x48, 0x50 // A = packet[X+k]
		loadIPv4Length       = 0xb1       // X = 4*(packet[k]&0xf)
		jumpEqual, jumpSet   = 0x15, 0x45
		ret                  = 0x06
		refuse               = 0xff // a jump whose target is not known yet
	)
	ends := func(half, byte_ uint16, tcp uint32) []sys.FilterInsn {
		var p []sys.FilterInsn
		if f.Flags != 0 {
			p = append(p, sys.FilterInsn{Op: byte_, K: tcp + 13}, sys.FilterInsn{Op: jumpSet, K: uint32(f.Flags), False: refuse})
		}
		if f.Port != 0 {
			p = append(p, sys.FilterInsn{Op: half, K: tcp}, sys.FilterInsn{Op: jumpEqual, K: uint32(f.Port), True: 2},
				sys.FilterInsn{Op: half, K: tcp + 2}, sys.FilterInsn{Op: jumpEqual, K: uint32(f.Port), False: refuse})
		}
		return append(p, sys.FilterInsn{Op: ret, K: snapLength})
	}
	v4 := append([]sys.FilterInsn{
		{Op: loadByte, K: ipAt + 9}, {Op: jumpEqual, K: protocolTCP, False: refuse},
		{Op: loadHalf, K: ipAt + 6}, {Op: jumpSet, K: 0x1fff, True: refuse}, // a later fragment
		{Op: loadIPv4Length, K: ipAt},
	}, ends(loadHalfX, loadByteX, ipAt)...)
	v6 := append([]sys.FilterInsn{
		{Op: jumpEqual, K: etherIPv6, False: refuse},
		{Op: loadByte, K: ipAt + 6}, {Op: jumpEqual, K: protocolTCP, False: refuse},
	}, ends(loadHalf, loadByte, ipv6TCPAt)...)

	p := append([]sys.FilterInsn{
		{Op: loadHalf, K: 12}, {Op: jumpEqual, K: etherIPv4, False: uint8(len(v4))},
	}, v4...)
	p = append(p, v6...)
	p = append(p, sys.FilterInsn{Op: ret, K: 0})
	for i := range p {
		skip := uint8(len(p) - 1 - i - 1)
		if p[i].True == refuse {
			p[i].True = skip
		}
		if p[i].False == refuse {
			p[i].False = skip
		}
	}
	return p
}

// decodeSegment reads the headers of an Ethernet frame; false if it is not a
// whole TCP header in IPv4, or in IPv6 without extension headers.
func decodeSegment(b []byte) (Segment, bool) {
	var s Segment
	if len(b) < ipAt {
		return s, false
	}
	ip := b[ipAt:]
	var src, dst netip.Addr
	var headers, total int
	switch {
	case binary.BigEndian.Uint16(b[12:]) == etherIPv4 && len(ip) >= 20 && ip[9] == protocolTCP:
		headers = 4 * int(ip[0]&0xf)
		total = int(binary.BigEndian.Uint16(ip[2:]))
		src, dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	case binary.BigEndian.Uint16(b[12:]) == etherIPv6 && len(ip) >= 40 && ip[6] == protocolTCP:
		headers = 40
		total = 40 + int(binary.BigEndian.Uint16(ip[4:]))
		src, dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	default:
		return s, false
	}
	if headers < 20 || len(ip) < headers+20 {
		return s, false
	}
	tcp := ip[headers:]
	headers += 4 * int(tcp[12]>>4)
	if headers > total {
		return s, false
	}
	return Segment{
		Source:      netip.AddrPortFrom(src, binary.BigEndian.Uint16(tcp)),
		Destination: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(tcp[2:])),
		Seq:         binary.BigEndian.Uint32(tcp[4:]),
		Ack:         binary.BigEndian.Uint32(tcp[8:]),
		Flags:       TCPFlags(tcp[13]) & (FIN | SYN | RST | PSH | ACK),
		Window:      binary.BigEndian.Uint16(tcp[14:]),
		Length:      total - headers,
	}, true
}
