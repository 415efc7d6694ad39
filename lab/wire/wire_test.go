//go:build linux

package wire_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
	"github.com/holdfast-net/holdfast/lab/wire"
)

var families = []lab.Family{lab.IPv4, lab.IPv6}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// bench is a laboratory in which client1's cable is a wire. A is the client's end.
type bench struct {
	*wire.Wire
	client, server *lab.Host
}

func newBench(t *testing.T, o wire.Options) bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a laboratory needs root")
	}
	top, err := lab.OneArm(lab.Size{Clients: 1, Backends: 1})
	if err != nil {
		t.Fatal(err)
	}
	top.Link("client1", 0).Taps = true
	l, err := lab.Start(t.Context(), top, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	b := bench{client: l.Host("client1"), server: l.Host("backend1")}
	host, sw, err := b.client.Links()[0].Taps()
	if err != nil {
		t.Fatal(err)
	}
	if b.Wire, err = wire.New(host, sw, o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b
}

// echo serves UDP and TCP echoes in the server and returns their address.
func (b bench) echo(t *testing.T, f lab.Family) string {
	t.Helper()
	var pc net.PacketConn
	address := net.JoinHostPort(b.server.Addr(f).String(), "7")
	if err := b.server.Do(func() (err error) { pc, err = net.ListenPacket("udp", address); return err }); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return address
}

// pings sends n numbered datagrams, one every gap, and returns the round trip of
// each that comes back, in the order of arrival: the first n that come until
// patience has passed since the last one was sent.
func (b bench) pings(t *testing.T, address string, n int, gap, patience time.Duration) (rtt []time.Duration, order []int) {
	t.Helper()
	var c net.Conn
	if err := b.client.Do(func() (err error) { c, err = net.Dial("udp", address); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		defer func() { _ = c.SetReadDeadline(time.Now().Add(patience)) }()
		tick := time.NewTicker(gap)
		defer tick.Stop()
		msg := make([]byte, 64)
		for i := range n {
			binary.BigEndian.PutUint64(msg, uint64(i)+1)
			binary.BigEndian.PutUint64(msg[8:], uint64(time.Since(base)))
			if _, err := c.Write(msg); err != nil {
				return
			}
			<-tick.C
		}
	}()
	msg := make([]byte, 2048)
	for len(order) < n {
		k, err := c.Read(msg)
		if err != nil {
			break
		}
		if k >= 16 {
			rtt = append(rtt, time.Since(base)-time.Duration(binary.BigEndian.Uint64(msg[8:])))
			order = append(order, int(binary.BigEndian.Uint64(msg))-1)
		}
	}
	return rtt, order
}

var base = time.Now()

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

// TestDelay: 20 ms on each direction are 40 ms on the round trip.
func TestDelay(t *testing.T) {
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			b := newBench(t, wire.Options{})
			address := b.echo(t, f)
			bare, _ := b.pings(t, address, 20, 5*time.Millisecond, time.Second)
			if err := b.SetBoth(wire.Settings{Delay: 20 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
			slow, _ := b.pings(t, address, 50, 5*time.Millisecond, time.Second)
			added := median(slow) - median(bare)
			t.Logf("bare %v, delayed %v", median(bare), median(slow))
			if len(bare) != 20 || len(slow) != 50 || slices.Min(slow) < 40*time.Millisecond || added > 80*time.Millisecond {
				t.Errorf("%d of 20, %d of 50 came back; 40 ms became %v (least %v)", len(bare), len(slow), added, slices.Min(slow))
			}
		})
	}
}

// TestLoss: the wire loses what it is told to, counts it, and another wire
// with the same seed loses the same.
func TestLoss(t *testing.T) {
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			b := newBench(t, wire.Options{Seed: 3})
			address := b.echo(t, f)
			b.pings(t, address, 1, time.Millisecond, time.Second) // neighbours known
			if err := b.Set(wire.FromA, wire.Settings{Loss: 0.05}); err != nil {
				t.Fatal(err)
			}
			before := b.Counters(wire.FromA)
			const n = 2000
			got, _ := b.pings(t, address, n, 500*time.Microsecond, 300*time.Millisecond)
			c := b.Counters(wire.FromA)
			lost := int(c.Lost - before.Lost)
			// 5 % of 2000 is 100, with a standard deviation of 9.7.
			if lost < 52 || lost > 150 || n-len(got) > lost || n-len(got) < lost-10 {
				t.Errorf("%d of %d came back, %d lost: %+v", len(got), n, lost, c)
			}
			if c.Frames != c.Passed+c.Lost+c.Failed+c.UnderWay {
				t.Errorf("the counters do not add up: %+v", c)
			}
		})
	}
}

// TestDuplicateReorder: twice and out of order, as told.
func TestDuplicateReorder(t *testing.T) {
	b := newBench(t, wire.Options{Seed: 4})
	address := b.echo(t, lab.IPv4)
	b.pings(t, address, 1, time.Millisecond, time.Second)
	if err := b.Set(wire.FromA, wire.Settings{Reorder: 0.2, ReorderDelay: 10 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	_, order := b.pings(t, address, 200, time.Millisecond, time.Second)
	if len(order) != 200 || slices.IsSorted(order) {
		t.Errorf("%d came back, sorted: %v", len(order), slices.IsSorted(order))
	}
	if c := b.Counters(wire.FromA); c.Reordered < 15 || c.Reordered > 80 {
		t.Errorf("%d of 200 reordered", c.Reordered)
	}
	if err := b.Set(wire.FromA, wire.Settings{Duplicate: 1}); err != nil {
		t.Fatal(err)
	}
	_, order = b.pings(t, address, 50, time.Millisecond, 300*time.Millisecond)
	if slices.Sort(order); len(order) != 50 || len(slices.Compact(order)) > 26 {
		t.Errorf("every frame twice, but the first 50 arrivals are %v", order)
	}
}

// TestPartition: a TCP connection stands still while the wire is cut, and goes on after it.
func TestPartition(t *testing.T) {
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			ctx := bounded(t)
			b := newBench(t, wire.Options{FromA: wire.Settings{Delay: 5 * time.Millisecond}})
			ln, err := b.server.Listen(ctx, "tcp", net.JoinHostPort(b.server.Addr(f).String(), "0"))
			if err != nil {
				t.Fatal(err)
			}
			serving, stop := context.WithCancel(ctx)
			served := make(chan error, 1)
			go func() { served <- traffic.Serve(serving, ln, traffic.ServerOptions{}) }()
			defer func() {
				stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			}()
			c, err := traffic.NewClient(traffic.ClientOptions{
				Dial: traffic.DialWithin(b.client.Do), Address: ln.Addr().String(), Pattern: traffic.Request, Period: 5 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			result := make(chan traffic.Report, 1)
			go func() { result <- c.Run(ctx) }()
			select {
			case <-c.Ready():
			case r := <-result:
				t.Fatalf("not ready: %s", r)
			}
			b.Wire.Partition(true)
			passed := b.Counters(wire.FromB).Passed
			timer := time.NewTimer(300 * time.Millisecond)
			defer timer.Stop()
			<-timer.C
			if now := b.Counters(wire.FromB).Passed; now != passed {
				t.Errorf("%d frames pass a partition", now-passed)
			}
			b.Wire.Partition(false)
			c.Finish()
			if r := <-result; !r.Complete || !r.Checked || r.WorstSilence < 290*time.Millisecond {
				t.Errorf("%+v", r)
			}
			if b.Counters(wire.FromA).Partitioned == 0 {
				t.Error("nobody met the partition")
			}
		})
	}
}

// TestCableCut: a device that is set down and up again does not end the wire.
func TestCableCut(t *testing.T) {
	b := newBench(t, wire.Options{})
	address := b.echo(t, lab.IPv4)
	if got, _ := b.pings(t, address, 1, time.Millisecond, 2*time.Second); len(got) != 1 {
		t.Fatal("nothing passes")
	}
	link := b.client.Links()[0]
	if _, err := link.Cut(); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.pings(t, address, 5, time.Millisecond, 100*time.Millisecond); len(got) != 0 {
		t.Errorf("%d passed a cut cable", len(got))
	}
	if _, err := link.Restore(); err != nil {
		t.Fatal(err)
	}
	for range 50 { // the bridge takes its time
		if got, _ := b.pings(t, address, 1, time.Millisecond, 200*time.Millisecond); len(got) == 1 {
			return
		}
	}
	t.Errorf("nothing passes a restored cable: %+v, %+v", b.Counters(wire.FromA), b.Counters(wire.FromB))
}

// TestBandwidth: a checked upload through 40 Mbit/s takes its time, and all of it arrives.
func TestBandwidth(t *testing.T) {
	b := newBench(t, wire.Options{FromA: wire.Settings{Bandwidth: 40e6}})
	const length = 2_000_000 // 0.4 s
	took := b.upload(t, lab.IPv6, length)
	if took < 400*time.Millisecond || took > 3*time.Second {
		t.Errorf("%d bytes at 40 Mbit/s took %v", length, took)
	}
}

// TestThroughput carries a checked upload at full speed. The figure is a
// measurement, the bound only catches a wire that has become absurdly slow.
func TestThroughput(t *testing.T) {
	for _, s := range []wire.Settings{{}, {Delay: time.Millisecond}} {
		b := newBench(t, wire.Options{FromA: s, FromB: s})
		const length = 100 << 20
		took := b.upload(t, lab.IPv4, length)
		t.Logf("delay %v: %.2f Gbit/s", s.Delay, length*8/took.Seconds()/1e9)
		if took > 15*time.Second {
			t.Errorf("%d bytes took %v", length, took)
		}
	}
}

func (b bench) upload(t *testing.T, f lab.Family, length int64) time.Duration {
	t.Helper()
	ctx := bounded(t)
	ln, err := b.server.Listen(ctx, "tcp", net.JoinHostPort(b.server.Addr(f).String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	var j traffic.Journal
	go func() { served <- traffic.Serve(serving, ln, traffic.ServerOptions{OnEvent: j.Add}) }()
	c, err := traffic.NewClient(traffic.ClientOptions{Dial: traffic.DialWithin(b.client.Do), Address: ln.Addr().String(), Pattern: traffic.Upload, Length: length})
	if err != nil {
		t.Fatal(err)
	}
	r := c.Run(ctx)
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	facts, _ := j.Facts(r.ID)
	if v := traffic.LiedTo(r, facts); !r.Complete || v.Lie != traffic.NoLie {
		t.Fatalf("%s\n%+v", r, v)
	}
	return r.EndOfStreamAt.Sub(r.StartedAt)
}

// TestIdle: a quiet wire, with a delayed frame behind it, uses no CPU.
func TestIdle(t *testing.T) {
	b := newBench(t, wire.Options{FromA: wire.Settings{Delay: time.Millisecond}, FromB: wire.Settings{Delay: time.Millisecond}})
	b.pings(t, b.echo(t, lab.IPv4), 5, time.Millisecond, time.Second)
	before := cpu(t)
	timer := time.NewTimer(500 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	if used := cpu(t) - before; used > 50*time.Millisecond {
		t.Errorf("%v of CPU in 500 ms of silence", used)
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestDeviceGone: a device that ends, ends the wire with an error.
func TestDeviceGone(t *testing.T) {
	a, peer := net.Pipe()
	b, other := net.Pipe()
	defer b.Close()
	defer other.Close()
	w, err := wire.New(a, b, wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(bounded(t)) }()
	if _, err := peer.Write([]byte("frame")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := other.Read(buf); err != nil || string(buf[:n]) != "frame" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	peer.Close()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Errorf("Run: %v", err)
	}
}
