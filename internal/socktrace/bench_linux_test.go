package socktrace

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// What watching costs a connection: it is made, accepted and reset, one after
// the other. To be run with -count, as a machine is never alone:
//
//	without    nobody watches
//	beside     another address is watched
//	watched    this one is, and changes are read as a Roster reads them
//	programs   the same; the time within the programs is measured by the kernel
func BenchmarkConnect(b *testing.B) {
	for _, c := range []struct {
		name    string
		watch   string
		measure bool
	}{
		{name: "without"},
		{name: "beside", watch: "10.0.0.99"},
		{name: "watched", watch: "10.0.0.100"},
		{name: "programs", watch: "10.0.0.100", measure: true},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, "IPv4")
			l := w.listen()
			var t *Tracer
			if c.watch != "" {
				t = w.trace(Options{Addresses: []netip.Addr{netip.MustParseAddr(c.watch)}})
				w.readLater(t)
			}
			if c.measure {
				const runTime = 0
				stats, err := ebpf.EnableStats(runTime)
				if err != nil {
					b.Fatal(err)
				}
				defer stats.Close()
			}
			began := cpu()
			w.in(func() error {
				for b.Loop() {
					client, err := dial(w.client(), w.port(l))
					if err != nil {
						return err
					}
					server, err := l.AcceptTCP()
					if err != nil {
						return err
					}
					w.must(client.SetLinger(0)) // no TIME_WAIT, which would use the ports up
					w.must(client.Close())
					w.must(server.Close())
				}
				return nil
			})
			b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
			if c.measure {
				s, err := t.objects.HoldfastState.Stats()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(s.Runtime.Nanoseconds())/float64(b.N), "program-ns/op")
				b.ReportMetric(float64(s.RunCount)/float64(b.N), "runs/op")
			}
			if t != nil {
				if n, err := t.Lost(); n != 0 || err != nil {
					b.Errorf("lost %d, %v", n, err)
				}
			}
		})
	}
}

// cpu is the time that this process has had a processor, in ns: it bears other
// work on the machine, which the time that passes does not.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// readLater reads changes as a Roster does: after some time, in one piece.
func (w *world) readLater(t *Tracer) {
	ended := make(chan struct{})
	w.Cleanup(func() { w.must(t.Close()); <-ended })
	go func() {
		defer close(ended)
		events := make([]Event, 256)
		for pause := time.NewTimer(0); ; {
			n, err := t.Read(events)
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					w.Error(err)
				}
				return
			}
			if n < len(events) {
				<-pause.C
				pause.Reset(time.Millisecond)
			}
		}
	}()
}

// What a look at all sockets costs, for each of them, and for each that is not
// at an address that is watched.
func BenchmarkSockets(b *testing.B) {
	const many = 5000
	w := newWorld(b, "IPv4")
	w.crowd(w.listen(), many)
	for name, addr := range map[string]netip.Addr{"watched": w.addr, "others": netip.MustParseAddr("10.0.0.99")} {
		b.Run(name, func(b *testing.B) {
			t := w.trace(Options{Addresses: []netip.Addr{addr}})
			want := map[bool]int{true: many}[addr == w.addr]
			w.in(func() error {
				for b.Loop() {
					n := 0
					for _, err := range t.Sockets() {
						if err != nil {
							return err
						}
						n++
					}
					if n != want {
						b.Fatalf("%d sockets, want %d", n, want)
					}
				}
				return nil
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*many), "ns/socket") // of the namespace
		})
	}
}
