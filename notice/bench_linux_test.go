package notice

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// crowd makes n connections whose servers are gone without a word.
func crowd(b testing.TB, node, clients *lab.Host, s *server, n int) (left []net.Conn, gone []Connection) {
	b.Helper()
	for len(left) < n {
		var servers []*net.TCPConn
		for range min(1000, n-len(left)) {
			c, err := clients.Dial(b.Context(), "tcp", s.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			served := (<-s.accepted).(*net.TCPConn)
			left, gone = append(left, c), append(gone, connection(served))
			servers = append(servers, served)
		}
		vanish(b, node, servers...)
	}
	return left, gone
}

// know adds the numbers with which connections began.
func know(b *testing.B, c *lab.Capture, gone []Connection) {
	b.Helper()
	index := make(map[netip.AddrPort]int)
	for i, g := range gone {
		index[g.Remote] = i
	}
	left := len(gone)
	if _, err := c.Await(b.Context(), func(g lab.Segment) bool {
		i, ok := index[g.Destination]
		if ok && g.Flags == lab.SYN|lab.ACK {
			// A port may come again: the last one counts.
			if gone[i].Start.Known == 0 {
				left--
			}
			gone[i].Start = Start{Known: KnownISN, ISN: g.Seq}
		}
		return left == 0
	}); err != nil {
		b.Fatal(err)
	}
}

// 9,000 idle connections, whose ends are told and have said that they are gone.
// Both ends run on this machine, in kernels of their own.
func BenchmarkTell9000(b *testing.B) {
	const n = 9000
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		for _, here := range []bool{true, false} {
			name := f.String() + "/address here"
			if !here {
				name = f.String() + "/address gone"
			}
			b.Run(name, func(b *testing.B) {
				top, err := lab.OneArm(lab.Size{Clients: 1, Nodes: 1})
				if err != nil {
					b.Fatal(err)
				}
				l := startLab(b, top)
				node := l.Host("node1")
				vip := own(b, node, f)
				s := serve(b, node, vip)
				teller := startTeller(b, node, Options{})
				var seen *lab.Capture
				if !here {
					if seen, err = node.Capture("eth0", lab.CaptureFilter{Port: port, Flags: lab.SYN}); err != nil {
						b.Fatal(err)
					}
				}
				var took []time.Duration
				segments := 0
				b.StopTimer()
				for range b.N {
					left, gone := crowd(b, node, l.Host("client1"), s, n)
					if !here {
						know(b, seen, gone)
						if _, err := node.RemoveAddress("eth0", lab.Address(f, vipNumber)); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
					sum := teller.Tell(b.Context(), gone, func(r Result) { took = append(took, r.Took) })
					b.StopTimer()
					if sum.Count(Told) != n {
						b.Fatalf("%+v", sum)
					}
					segments += sum.Segments
					for _, c := range left {
						if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
							b.Fatalf("a client reads %v", err)
						}
						c.Close()
					}
					if !here {
						own(b, node, f)
					}
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2])/1e6, "ms-p50")
				b.ReportMetric(float64(took[len(took)-1])/1e6, "ms-last")
				b.ReportMetric(float64(segments)/float64(len(took)), "segments/conn")
			})
		}
	}
}
