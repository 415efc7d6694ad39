package balance

import (
	"fmt"
	"net/netip"
	"testing"
)

func benchmarkPool(b *testing.B, policy Policy, n int) *Pool {
	backends := make([]Backend, n)
	for i := range backends {
		backends[i] = Backend{Name: fmt.Sprintf("10.0.0.%d:8080", i), Weight: 100}
	}
	return mustNew(b, policy, backends...)
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range []Policy{LeastConnections, RoundRobin, SourceHash} {
		for _, n := range []int{2, 10, 100} {
			b.Run(fmt.Sprintf("%v/%d", policy, n), func(b *testing.B) {
				p := benchmarkPool(b, policy, n)
				mustPick(b, p, client)
				b.ReportAllocs()
				i := byte(0)
				for b.Loop() {
					i++
					name, err := p.Pick(netip.AddrFrom4([4]byte{10, 0, 0, i}))
					if err != nil {
						b.Fatal(err)
					}
					p.Release(name)
				}
			})
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := benchmarkPool(b, SourceHash, n)
			for b.Loop() {
				newHashTable(p.backends, false)
			}
		})
	}
	b.Run("1000-uneven", func(b *testing.B) {
		p := benchmarkPool(b, SourceHash, 1000)
		p.backends[0].Weight = MaxWeight
		for b.Loop() {
			newHashTable(p.backends, false)
		}
	})
}

func TestPickDoesNotAllocate(t *testing.T) {
	for _, policy := range []Policy{LeastConnections, RoundRobin, SourceHash} {
		p := mustNew(t, policy, equal(10)...)
		mustPick(t, p, client)
		tried := "a"
		if n := testing.AllocsPerRun(100, func() {
			name, err := p.Pick(client, tried)
			if err != nil {
				t.Fatal(err)
			}
			p.Release(name)
		}); n != 0 {
			t.Errorf("%v: %v allocations in a Pick", policy, n)
		}
	}
}
