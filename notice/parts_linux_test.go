package notice

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
)

// What the kernel's filter lets through of what comes in, and when.
func TestAnswersFilter(t *testing.T) {
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		for _, many := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, many addresses %v", f, many), func(t *testing.T) {
				if err := netnstest.New(t).Do(func() error { return filterOne(t, f, many) }); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func filterOne(t *testing.T, f lab.Family, many bool) error {
	v6 := f == lab.IPv6
	self, to := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.7")
	other := netip.MustParseAddr("127.0.0.8")
	if v6 {
		self, to, other = netip.IPv6Loopback(), netip.IPv6Loopback(), netip.MustParseAddr("::2")
	}
	admitted := []netip.Addr{other, to}
	if many {
		for len(admitted) <= maxFiltered {
			admitted = append(admitted, other)
		}
	}
	out, err := sys.OpenPacketSender()
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := sys.OpenPacketReceiver(v6)
	if err != nil {
		return err
	}
	defer in.Close()
	box, batch := sys.NewOutbox(v6, 1, 256), sys.NewBatch(16, snap)
	send := func(port uint16, change func([]byte) []byte, s Segment) error {
		s.From, s.To = netip.AddrPortFrom(self, 1), netip.AddrPortFrom(to, port)
		packet, err := s.AppendTo(box.Next())
		if err != nil {
			return err
		}
		if change != nil {
			packet = change(packet)
		}
		box.Add(packet, self, to)
		defer box.Clear()
		if n, errno := out.Send(box, 0); n != 1 {
			return fmt.Errorf("port %d: %w", port, errno)
		}
		return nil
	}
	// received gives the ports of what has come, up to the one that was sent last.
	received := func(last uint16) (ports []uint16) {
		for {
			n, errno := in.Receive(batch)
			if errno != 0 && errno != syscall.EAGAIN {
				t.Fatal(errno)
			}
			for i := range n {
				s, ok := ParseSegment(batch.Bytes(i))
				if !ok || batch.Link(i) != 1 {
					t.Errorf("%x by link %d", batch.Bytes(i), batch.Link(i))
				}
				if s.To.Port() == 1 {
					continue // the kernel's answer
				}
				if ports = append(ports, s.To.Port()); s.To.Port() == last {
					return ports
				}
			}
		}
	}
	protocol, fragment := 9, 6
	if v6 {
		protocol, fragment = 6, 6 // a fragment is another protocol there
	}
	set := func(at int, value byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = value; return b }
	}
	if err := send(1, nil, Segment{Flags: ACK}); err != nil { // nobody listens yet
		return err
	}
	if err := in.Listen(true); err != nil {
		return err
	}
	if err := send(2, nil, Segment{Flags: ACK}); err != nil { // nothing is admitted
		return err
	}
	if err := in.SetFilter(answers(v6, admitted)); err != nil {
		return err
	}
	for _, x := range []struct {
		port   uint16
		change func([]byte) []byte
		s      Segment
	}{
		{3, nil, Segment{Flags: ACK}},
		{4, nil, Segment{Flags: ACK, Length: 1}},
		{5, nil, Segment{Flags: RST}},
		{6, nil, Segment{Flags: ACK, HasStamp: true}},
		{7, nil, Segment{Flags: ACK, HasStamp: true, Length: 100}},
		{8, set(protocol, syscall.IPPROTO_UDP), Segment{Flags: ACK}},
		{9, set(fragment, map[bool]byte{false: 0x20, true: 44}[v6]), Segment{Flags: ACK}},
		{10, nil, Segment{Flags: ACK}},
	} {
		if err := send(x.port, x.change, x.s); err != nil {
			return err
		}
	}
	if got, want := received(10), []uint16{3, 5, 6, 10}; !slices.Equal(got, want) {
		t.Errorf("what was sent to ports %v has come, want %v", got, want)
	}
	if err := in.SetFilter(answers(v6, []netip.Addr{other})); err != nil {
		return err
	}
	if err := send(11, nil, Segment{Flags: ACK}); err != nil {
		return err
	}
	if err := in.SetFilter(answers(v6, admitted)); err != nil {
		return err
	}
	if err := in.Listen(false); err != nil {
		return err
	}
	if err := send(12, nil, Segment{Flags: ACK}); err != nil {
		return err
	}
	if err := in.Listen(true); err != nil {
		return err
	}
	if err := send(13, nil, Segment{Flags: ACK}); err != nil {
		return err
	}
	if got, want := received(13), []uint16{13}; !slices.Equal(got, want) {
		t.Errorf("what was sent to ports %v has come, want %v", got, want)
	}
	return nil
}

// Timers come in the order of their instants, queues in that of their entries.
func TestQueues(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var h timers
		var q fifo
		var at []int64
		var in, out []ref
		for i := range int32(rng.IntN(300)) {
			r := ref{i, 1}
			x := rng.Int64N(50)
			h.push(timer{x, r})
			at = append(at, x)
			q.push(r)
			in = append(in, r)
			if rng.IntN(3) == 0 {
				r, ok := q.pop()
				if !ok {
					t.Fatal("an empty queue")
				}
				out = append(out, r)
			}
		}
		slices.Sort(at)
		for _, want := range at {
			got, ok := h.first()
			if !ok || got.at != want {
				t.Fatalf("%v, %v; want one at %d", got, ok, want)
			}
			h.pop()
		}
		if got, ok := h.first(); ok {
			t.Fatalf("another one: %v", got)
		}
		for r, ok := q.pop(); ok; r, ok = q.pop() {
			out = append(out, r)
		}
		if !slices.Equal(in, out) || q.len() != 0 {
			t.Fatalf("%v comes as %v", in, out)
		}
	}
}
