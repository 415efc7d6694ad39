package gate

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// What a renewal costs whoever makes it, and a change of mode.
func BenchmarkRenew(b *testing.B) {
	owner, _, _ := hosts(b, "IPv6")
	g := owner.gate()
	addr, e := floating["IPv6"].Addr(), Entry{Mode: Own, Until: soon(time.Hour)}
	must(b, g.Set(addr, e))
	b.Run("Renew", func(b *testing.B) {
		for b.Loop() {
			if err := g.Renew(addr, e.Until); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Set", func(b *testing.B) {
		for b.Loop() {
			if err := g.Set(addr, e); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What the programs cost for a frame, measured by the kernel, which runs them
// on one that it makes.
func BenchmarkPrograms(b *testing.B) {
	for _, family := range []string{"IPv4", "IPv6"} {
		owner, _, client := hosts(b, family)
		g := owner.gate()
		addr := floating[family].Addr()
		other := client.own
		frame := func(from, to netip.Addr) []byte {
			f := slices.Concat(owner.mac[:], client.mac[:])
			if to.Is4() {
				f = append(f, 0x08, 0x00, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0)
			} else {
				f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64)
			}
			f = slices.Concat(f, from.AsSlice(), to.AsSlice())
			return append(f, make([]byte, 60)...)
		}
		for _, c := range []struct {
			name     string
			mode     Mode
			out      bool
			from, to netip.Addr
		}{
			{"in/another address", Own, false, other, owner.own},
			{"in/own", Own, false, other, addr},
			{"in/closed", Closed, false, other, addr},
			{"out/another address", Own, true, owner.own, other},
			{"out/own", Own, true, addr, other},
		} {
			must(b, g.Set(addr, Entry{Mode: c.mode, Until: soon(time.Hour)}))
			prog := g.objects.HoldfastIn
			if c.out {
				prog = g.objects.HoldfastOut
			}
			b.Run(family+"/"+c.name, func(b *testing.B) {
				_, per, err := prog.Benchmark(frame(c.from, c.to), b.N, b.ResetTimer)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(per.Nanoseconds()), "ns/frame")
			})
		}
	}
}

// What a TCP connection of two hosts on a switch reaches, with and without the
// gate on the one that has the address.
func BenchmarkTraffic(b *testing.B) {
	for _, family := range []string{"IPv4", "IPv6"} {
		for _, with := range []string{"without", "with", "with 1000 addresses"} {
			owner, _, client := hosts(b, family)
			addr := floating[family].Addr()
			owner.give(netip.PrefixFrom(addr, owner.own.BitLen()))
			if with != "without" {
				g := owner.gate()
				e := Entry{Mode: Own, Until: soon(time.Hour)}
				must(b, g.Set(addr, e))
				if with != "with" {
					for i := range 999 {
						must(b, g.Set(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), e))
					}
				}
			}
			b.Run(family+"/requests/"+with, func(b *testing.B) {
				near, far := connect(b, owner, client, addr)
				go io.Copy(far, far)
				word := make([]byte, 64)
				for b.Loop() {
					if _, err := near.Write(word); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(near, word); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(family+"/stream/"+with, func(b *testing.B) {
				near, far := connect(b, owner, client, addr)
				const chunk = 1 << 20
				go io.Copy(io.Discard, far)
				data := make([]byte, chunk)
				b.SetBytes(chunk)
				for b.Loop() {
					if _, err := near.Write(data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// connect gives both ends of a connection from the client to the address.
func connect(b *testing.B, owner, client *host, addr netip.Addr) (near, far net.Conn) {
	b.Helper()
	var ln net.Listener
	in(b, owner.ns, func() (err error) {
		ln, err = net.Listen(owner.network("tcp"), netip.AddrPortFrom(addr, tcpPort).String())
		return err
	})
	defer ln.Close()
	near = client.dial(addr)
	far, err := ln.Accept()
	must(b, err)
	b.Cleanup(func() { far.Close() })
	b.Cleanup(func() { near.Close() })
	return near, far
}
