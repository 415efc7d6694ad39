package sockdiag

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// 10,000 sockets, of which 100 have another port.
const (
	benchPairs = 5000
	benchFew   = 100
)

func benchSite(b *testing.B) (s *site, few []pair) {
	s = newSite(b)
	many, one := s.listen("tcp4", "127.0.0.1:2000"), s.listen("tcp4", "127.0.0.1:2001")
	for i := range benchPairs {
		l, address := many, "127.0.0.1:2000"
		if i%(benchPairs/benchFew) == 0 {
			l, address = one, "127.0.0.1:2001"
		}
		var p pair
		s.do(func() error {
			c, err := net.DialTimeout("tcp4", address, time.Minute)
			if err != nil {
				return err
			}
			p.client = c.(*net.TCPConn)
			p.server, err = l.AcceptTCP()
			return err
		})
		b.Cleanup(func() { _ = p.client.SetLinger(0); _ = p.client.Close(); _ = p.server.Close() })
		if l == one {
			few = append(few, p)
		}
	}
	return s, few
}

func BenchmarkList(b *testing.B) {
	s, few := benchSite(b)
	hundred := Filter{States: StatesOf(Established), Local: prefixes("127.0.0.1/32"), LocalPorts: []PortRange{Port(2001)}}
	every := Filter{States: StatesOf(Established)}
	count := func(b *testing.B, f Filter, o ListOptions, keep func(Socket) bool, want int) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for sock, err := range s.conn.List(b.Context(), f, o) {
				if err != nil {
					b.Fatal(err)
				}
				if keep(sock) {
					n++
				}
			}
			if n != want {
				b.Fatalf("%d sockets, want %d", n, want)
			}
		}
	}
	all := func(Socket) bool { return true }
	b.Run("100 of 10000, by the kernel", func(b *testing.B) { count(b, hundred, ListOptions{}, all, benchFew) })
	b.Run("100 of 10000, by the kernel, 500 prefixes", func(b *testing.B) {
		long := hundred
		long.Local = append(hosts4(500), hundred.Local...)
		count(b, long, ListOptions{}, all, benchFew)
	})
	b.Run("100 of 10000, by the kernel, with TCP_INFO", func(b *testing.B) { count(b, hundred, ListOptions{Info: true}, all, benchFew) })
	b.Run("100 of 10000, all copied and matched here", func(b *testing.B) {
		r, err := hundred.reduce()
		if err != nil {
			b.Fatal(err)
		}
		count(b, every, ListOptions{}, r.match, benchFew)
	})
	b.Run("10000", func(b *testing.B) { count(b, every, ListOptions{}, all, 2*benchPairs) })
	b.Run("10000, with TCP_INFO", func(b *testing.B) { count(b, every, ListOptions{Info: true}, all, 2*benchPairs) })
	b.Run("find one", func(b *testing.B) {
		b.ReportAllocs()
		local, remote := few[0].local(), few[0].remote()
		for b.Loop() {
			if _, err := s.conn.Find(local, remote, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, port := range map[string]uint16{"there": 2001, "not there": 2002} {
		b.Run("has 9000, "+name, func(b *testing.B) {
			b.ReportAllocs()
			ends, has := make([][2]netip.AddrPort, 9000), make([]bool, 9000)
			for i := range ends {
				p := few[i%len(few)]
				ends[i] = [2]netip.AddrPort{netip.AddrPortFrom(p.remote().Addr(), port), p.local()}
			}
			for b.Loop() {
				if err := s.conn.Has(ends, 0, has); err != nil || has[0] != (port == 2001) {
					b.Fatal(has[0], err)
				}
			}
		})
	}
	b.Run("find none", func(b *testing.B) {
		local, remote := netip.MustParseAddrPort("127.0.0.1:1"), few[0].remote()
		for b.Loop() {
			if _, err := s.conn.Find(local, remote, 0); err == nil {
				b.Fatal("found")
			}
		}
	})
}

// From the question who is connected to the last RST.
func BenchmarkDestroy(b *testing.B) {
	const n = 1000
	s := newSite(b)
	l := s.listen("tcp4", "127.0.0.1:2000")
	f := Filter{States: StatesOf(Established), Local: prefixes("127.0.0.1/32"), LocalPorts: []PortRange{Port(2000)}}
	for b.Loop() {
		b.StopTimer()
		all := make([]pair, n)
		for i := range all {
			all[i] = s.connect(l, "tcp4", "127.0.0.1:2000")
		}
		b.StartTimer()
		found, err := s.conn.Collect(b.Context(), f, ListOptions{})
		if err != nil || len(found) != n {
			b.Fatalf("%d sockets, %v; want %d", len(found), err, n)
		}
		for _, sock := range found {
			if err := s.conn.Destroy(sock); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		for _, p := range all {
			_ = p.client.Close()
			_ = p.server.Close()
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/n, "ns/socket")
}
