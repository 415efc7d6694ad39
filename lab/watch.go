//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Sort is what a frame that a watch has seen means.
type Sort uint8

const (
	// Asked is an ARP request or a neighbour solicitation: somebody looks for
	// Address. Source is who asks.
	Asked Sort = iota
	// Answered is an ARP answer, gratuitous ARP of either form, or a neighbour
	// advertisement: the sender says that Address is at MAC.
	Answered
	// Advertised is an advert of VRRP. Address is invalid.
	Advertised
	// Spoke is any other packet whose source is Address, a watched one.
	Spoke
)

func (s Sort) String() string {
	switch s {
	case Asked:
		return "ask"
	case Answered:
		return "answer"
	case Advertised:
		return "advert"
	case Spoke:
		return "speech"
	}
	return fmt.Sprintf("Sort(%d)", uint8(s))
}

// Seen is one frame on a switch that a watch has kept.
type Seen struct {
	// Time is when the kernel saw it, with a monotonic clock reading.
	Time time.Time
	Sort Sort
	// Host is whose cable it came from, whatever the frame itself says.
	Host string
	// Ether is the frame's source, MAC what it says the address is at.
	Ether, MAC [6]byte
	// Address is what the frame is about, see Sort.
	Address netip.Addr
	// Source and Destination are those of the packet; ARP has none but who asks.
	Source, Destination netip.Addr
	// Ports of a TCP segment, and its flags.
	From, To uint16
	Flags    TCPFlags
	// Unasked says that an answer is an announcement: nobody asked for it.
	Unasked bool
	// ID, Priority and Interval are what an advert says.
	ID, Priority uint8
	Interval     time.Duration
}

func (s Seen) String() string {
	text := fmt.Sprintf("%s %s: %v", s.Time.Format("15:04:05.000000"), s.Host, s.Sort)
	switch s.Sort {
	case Asked:
		return text + fmt.Sprintf(" for %v by %v", s.Address, s.Source)
	case Answered:
		if s.Unasked {
			text += " that nobody asked for"
		}
		return text + fmt.Sprintf(": %v is at %v", s.Address, net.HardwareAddr(s.MAC[:]))
	case Advertised:
		return text + fmt.Sprintf(" of router %d, priority %d, every %v, %v to %v", s.ID, s.Priority, s.Interval, s.Source, s.Destination)
	}
	if s.To == 0 {
		return text + fmt.Sprintf(": %v to %v", s.Source, s.Destination)
	}
	return text + fmt.Sprintf(": %v:%d to %v:%d %v", s.Source, s.From, s.Destination, s.To, s.Flags)
}

// WatchOptions say what a watch keeps besides ARP, neighbour discovery and
// adverts.
type WatchOptions struct {
	// Addresses are those whose owner is watched: asks and answers for others
	// are not kept.
	Addresses []netip.Addr
	// Traffic keeps every packet whose source is one of Addresses.
	Traffic bool
}

// watchLimit is how many frames a watch keeps.
const watchLimit = 1 << 20

// Watch is a look at everything that passes a switch and says who has an
// address: every frame that came in from a cable, and only those, each with the
// host it came from. What a fault loses on its way into the switch was never
// there.
type Watch struct {
	socket *sys.PacketSocket
	o      WatchOptions
	hosts  map[uint32]string // by mark
	done   chan struct{}

	mu      sync.Mutex
	seen    []Seen
	changed chan struct{} // closed at the next frame
	lost    uint64
	closed  bool
}

// Watch begins to watch the switch of that name, which costs each of its frames
// a little. Opening takes up to 20 ms: do it before the scene. The lab closes it
// at the latest. It panics if the topology has no such switch.
func (l *Lab) Watch(name string, o WatchOptions) (*Watch, error) {
	s := l.switches[name]
	if s == nil {
		panic(fmt.Sprintf("lab: there is no switch %q in the topology", name))
	}
	w := &Watch{o: o, hosts: map[uint32]string{}, done: make(chan struct{}), changed: make(chan struct{})}
	w.o.Addresses = slices.Clone(o.Addresses)
	for _, k := range l.links {
		if k.sw == s {
			w.hosts[uint32(k.id)+1] = k.spec.Host
		}
	}
	err := s.ns.Do(func() (err error) {
		if w.socket, err = sys.OpenPacketSocket(s.bridge, w.program()); err == nil {
			err = w.socket.WatchAll(s.bridge)
		}
		return err
	})
	if err == nil {
		go w.read()
		if err = l.onClose(w.Close); err != nil {
			_ = w.Close()
		}
	} else if w.socket != nil {
		_ = w.socket.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("lab: watch switch %s: %w", name, err)
	}
	return w, nil
}

func (w *Watch) read() {
	defer close(w.done)
	buf := make([]byte, watchLength)
	for {
		n, at, mark, err := w.socket.ReceiveMarked(buf)
		if err != nil {
			return // closed, or the switch is gone with its namespace
		}
		s, ok := decodeSeen(buf[:n])
		if !ok || !w.wants(s) {
			continue
		}
		s.Time, s.Host = at, w.hosts[mark]
		w.mu.Lock()
		if len(w.seen) < watchLimit {
			w.seen = append(w.seen, s)
		} else {
			w.lost++
		}
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
	}
}

func (w *Watch) wants(s Seen) bool {
	switch s.Sort {
	case Advertised:
		return true
	case Spoke:
		return w.o.Traffic && slices.Contains(w.o.Addresses, s.Address)
	}
	// Who asks by a watched address says that he has it.
	return slices.Contains(w.o.Addresses, s.Address) || slices.Contains(w.o.Addresses, s.Source)
}

// Seen gives what has been seen so far, in the order of time.
func (w *Watch) Seen() []Seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Clone(w.seen)
	slices.SortStableFunc(all, func(a, b Seen) int { return a.Time.Compare(b.Time) })
	return all
}

// Await gives the first frame, of those seen so far and later, for which match
// is true.
func (w *Watch) Await(ctx context.Context, match func(Seen) bool) (Seen, error) {
	for at := 0; ; {
		w.mu.Lock()
		fresh, changed := w.seen[at:], w.changed
		w.mu.Unlock()
		at += len(fresh)
		if i := slices.IndexFunc(fresh, match); i >= 0 {
			return fresh[i], nil
		}
		select {
		case <-changed:
		case <-w.done:
			return Seen{}, fmt.Errorf("lab: watch: %w before such a frame was seen", ErrClosed)
		case <-ctx.Done():
			return Seen{}, fmt.Errorf("lab: watch: no such frame among %d: %w", at, ctx.Err())
		}
	}
}

// Lost counts the frames that were not kept: the kernel's buffer was full, or
// the watch held 1,048,576 already. A conclusion from what is not there needs it
// to be 0.
func (w *Watch) Lost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countDropped()
	return w.lost
}

func (w *Watch) countDropped() {
	if w.closed {
		return
	}
	// The kernel forgets the number when it has told it.
	if n, err := w.socket.Dropped(); err == nil {
		w.lost += n
	}
}

// Close ends the watch; what it has seen stays readable. It may be called again.
func (w *Watch) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.countDropped()
	w.closed = true
	w.mu.Unlock()
	err := w.socket.Close()
	<-w.done
	return err
}

// Where things are in an Ethernet frame, beyond those of a capture.
const (
	watchLength       = snapLength
	etherARP          = 0x0806
	protocolICMPv6    = 58
	protocolVRRP      = 112
	arpOperation      = ipAt + 6
	arpSenderMAC      = ipAt + 8
	arpSender         = ipAt + 14
	arpTarget         = ipAt + 24
	arpEnd            = ipAt + 28
	ndType            = ipAt + 40
	ndFlags           = ndType + 4
	ndTarget          = ndType + 8
	ndOption          = ndTarget + 16
	typeSolicitation  = 135
	typeAdvertisement = 136
	solicitedFlag     = 0x40
	vrrpHeader        = 8
	centisecond       = 10 * time.Millisecond
)

// program is the filter for the kernel: without Traffic, only what tells who
// has an address and who says so by advert.
func (w *Watch) program() []sys.FilterInsn {
	const (
		loadHalf, loadByte = 0x28, 0x30
		jumpEqual          = 0x15
		ret                = 0x06
	)
	rest := uint32(0)
	if w.o.Traffic {
		rest = watchLength
	}
	return []sys.FilterInsn{
		{Op: loadHalf, K: 12},
		{Op: jumpEqual, K: etherARP, True: 9},
		{Op: jumpEqual, K: etherIPv6, True: 3},
		{Op: jumpEqual, K: etherIPv4, False: 8},
		{Op: loadByte, K: ipAt + 9},
		{Op: jumpEqual, K: protocolVRRP, True: 5, False: 4},
		{Op: loadByte, K: ipAt + 6},
		{Op: jumpEqual, K: protocolVRRP, True: 3},
		{Op: jumpEqual, K: protocolICMPv6, True: 2},
		{Op: ret, K: rest},
		{Op: ret, K: rest},
		{Op: ret, K: watchLength},
		{Op: ret, K: 0},
	}
}

// decodeSeen reads a frame, without time and host; false if it tells nothing.
func decodeSeen(b []byte) (Seen, bool) {
	var s Seen
	if len(b) < ipAt {
		return s, false
	}
	s.Ether = [6]byte(b[6:12])
	switch binary.BigEndian.Uint16(b[12:]) {
	case etherARP:
		return decodeARP(s, b)
	case etherIPv4:
		ip := b[ipAt:]
		if len(ip) < 20 {
			return Seen{}, false
		}
		s.Source, s.Destination = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		header := 4 * int(ip[0]&0xf)
		if header < 20 || len(ip) < header {
			return Seen{}, false
		}
		return decodePacket(s, ip[9], ip[header:])
	case etherIPv6:
		ip := b[ipAt:]
		if len(ip) < 40 {
			return Seen{}, false
		}
		s.Source, s.Destination = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		return decodePacket(s, ip[6], ip[40:])
	}
	return Seen{}, false
}

func decodeARP(s Seen, b []byte) (Seen, bool) {
	if len(b) < arpEnd {
		return Seen{}, false
	}
	s.Source = netip.AddrFrom4([4]byte(b[arpSender : arpSender+4]))
	target := netip.AddrFrom4([4]byte(b[arpTarget : arpTarget+4]))
	request := binary.BigEndian.Uint16(b[arpOperation:]) == 1
	s.Unasked = s.Source == target
	if request && !s.Unasked {
		s.Sort, s.Address = Asked, target
		return s, true
	}
	s.Sort, s.Address = Answered, s.Source
	s.MAC = [6]byte(b[arpSenderMAC : arpSenderMAC+6])
	return s, true
}

// decodePacket reads what an IP packet carries.
func decodePacket(s Seen, protocol byte, b []byte) (Seen, bool) {
	s.Sort, s.Address = Spoke, s.Source
	switch {
	case protocol == protocolVRRP && len(b) >= vrrpHeader && b[0] == 3<<4|1:
		s.Sort, s.Address = Advertised, netip.Addr{}
		s.ID, s.Priority = b[1], b[2]
		s.Interval = time.Duration(binary.BigEndian.Uint16(b[4:])&0xfff) * centisecond
	case protocol == protocolICMPv6 && len(b) >= ndOption-ndType && (b[0] == typeSolicitation || b[0] == typeAdvertisement):
		s.Sort, s.Address = Asked, netip.AddrFrom16([16]byte(b[ndTarget-ndType:ndOption-ndType]))
		if b[0] == typeAdvertisement {
			s.Sort, s.MAC = Answered, s.Ether
			s.Unasked = b[ndFlags-ndType]&solicitedFlag == 0
			if o := b[ndOption-ndType:]; len(o) >= 8 && o[0] == 2 && o[1] == 1 { // target link-layer address
				s.MAC = [6]byte(o[2:8])
			}
		}
	case protocol == protocolTCP && len(b) >= 20:
		s.From, s.To = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		s.Flags = TCPFlags(b[13]) & (FIN | SYN | RST | PSH | ACK)
	}
	return s, true
}

// A Span is a time in which one host, and no other, spoke for an address.
type Span struct {
	Host     string
	From, To time.Time // of its first and its last frame
	Frames   int
}

func (s Span) String() string {
	return fmt.Sprintf("%s from %s for %.1f ms (%d frames)", s.Host, s.From.Format("15:04:05.000"), float64(s.To.Sub(s.From))/1e6, s.Frames)
}

// Speakers tells who spoke for an address, in turn: one span ends where another
// host has begun to speak, so a host that has handed an address over and is seen
// again has a second span. speaks chooses the frames that count; see
// [Seen.Claims] and [Seen.Speaks].
func Speakers(seen []Seen, speaks func(Seen) bool) []Span {
	var spans []Span
	for _, s := range seen {
		if !speaks(s) {
			continue
		}
		if n := len(spans); n == 0 || spans[n-1].Host != s.Host {
			spans = append(spans, Span{Host: s.Host, From: s.Time})
		}
		last := &spans[len(spans)-1]
		last.To = s.Time
		last.Frames++
	}
	return spans
}

// Claims reports whether the frame says to neighbours that its sender has the
// address: an answer, an announcement, or an ask in the name of the address.
func (s Seen) Claims(a netip.Addr) bool {
	return s.Sort == Answered && s.Address == a || s.Sort == Asked && s.Source == a
}

// Speaks reports whether the frame is sent by the address, or claims it.
func (s Seen) Speaks(a netip.Addr) bool { return s.Sort == Spoke && s.Address == a || s.Claims(a) }

// DescribeSpans writes them in one line.
func DescribeSpans(spans []Span) string {
	if len(spans) == 0 {
		return "nobody"
	}
	var text []string
	for i, s := range spans {
		if i == 8 && len(spans) > 9 {
			text = append(text, fmt.Sprintf("and %d more", len(spans)-i))
			break
		}
		text = append(text, s.String())
	}
	return strings.Join(text, ", ")
}
