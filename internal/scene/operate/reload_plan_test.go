//go:build linux

package operate

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Whatever the seed, a plan leaves somebody for new clients, writes files that
// differ, and knows what was done by hand.
func TestReloadPlan(t *testing.T) {
	backends := map[string]netip.AddrPort{}
	for i, name := range []string{"a", "b", "c", "d", "e", "f"} {
		backends[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
	}
	for seed := range uint64(50) {
		p := newPlan(rand.New(rand.NewPCG(seed, 1)), netip.MustParseAddrPort("10.0.0.100:80"), "", backends)
		done := make(map[string]bool)
		for range 100 {
			if args := p.command(); args != nil {
				done[args[1]] = true
				name := args[3]
				inFile := p.file[p.index(name)].weight
				byHand := args[1] != "resume" && !(args[1] == "drain" && inFile == 0)
				if h, ok := p.hand[name]; ok != byHand || ok && h.file != inFile {
					t.Fatalf("seed %d: after %v the plan has %+v", seed, args, p.hand)
				}
			}
			if n := len(p.serving()); n < keepServing {
				t.Fatalf("seed %d: %d backends serve", seed, n)
			}
			for _, what := range p.reload() {
				word, _, _ := strings.Cut(what, " ")
				done[word] = true
			}
			if n := len(p.serving()); n < keepServing {
				t.Fatalf("seed %d: %d backends serve", seed, n)
			}
			for name := range p.hand {
				if p.index(name) < 0 {
					t.Fatalf("seed %d: %s is by hand, and not in the file", seed, name)
				}
			}
			text := p.services()
			for _, b := range p.file {
				if !strings.Contains(text, "name: "+b.name+",") {
					t.Fatalf("seed %d: %s is not in the file: %s", seed, b.name, text)
				}
			}
			bad := p.bad(netip.MustParseAddr("10.0.0.200"))
			if bad.services == text || len(bad.says) == 0 {
				t.Fatalf("seed %d: %s changes nothing", seed, bad.what)
			}
		}
		for _, word := range []string{"add", "remove", "drain", "weight", "resume"} {
			if !done[word] {
				t.Errorf("seed %d: a plan of 100 steps has no %s", seed, word)
			}
		}
		names := slices.Clone(p.names)
		if slices.Sort(names); !slices.Equal(names, p.names) {
			t.Errorf("names are not sorted: %v", p.names)
		}
	}
}
