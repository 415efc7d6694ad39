package balance

import (
	"encoding"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var client = netip.MustParseAddr("192.0.2.7")

func mustNew(t testing.TB, policy Policy, backends ...Backend) *Pool {
	t.Helper()
	p, err := New(policy, backends...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// equal makes n backends of weight 100 named a, b, c ...
func equal(n int) []Backend {
	backends := make([]Backend, n)
	for i := range backends {
		backends[i] = Backend{Name: string(rune('a' + i)), Weight: 100}
	}
	return backends
}

func mustPick(t testing.TB, p *Pool, source netip.Addr, tried ...string) string {
	t.Helper()
	name, err := p.Pick(source, tried...)
	if err != nil {
		t.Fatalf("Pick(%v, %q): %v", source, tried, err)
	}
	return name
}

func status(t testing.TB, p *Pool, name string) Status {
	t.Helper()
	for _, s := range p.Statuses() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no status of %q", name)
	return Status{}
}

func sequence(t testing.TB, p *Pool, picks int, release bool) string {
	t.Helper()
	var names []string
	for range picks {
		name := mustPick(t, p, client)
		names = append(names, name)
		if release {
			p.Release(name)
		}
	}
	return strings.Join(names, " ")
}

func TestSequences(t *testing.T) {
	weights := func(ws ...int) []Backend {
		backends := equal(len(ws))
		for i, w := range ws {
			backends[i].Weight = w
		}
		return backends
	}
	for _, tt := range []struct {
		name     string
		policy   Policy
		backends []Backend
		release  bool
		want     string
	}{
		{"idle pool goes round", LeastConnections, equal(3), true, "a b c a b c a b"},
		{"least: fills evenly", LeastConnections, equal(3), false, "a b c a b c a b"},
		{"least: by weight", LeastConnections, weights(2, 1), false, "a b a a b a a b a"},
		{"round-robin: equal", RoundRobin, equal(3), false, "a b c a b c a b"},
		{"round-robin: smooth", RoundRobin, weights(5, 1, 1), true, "a a b a c a a a a b a c a a"},
		{"round-robin: drained one", RoundRobin, weights(1, 0, 1), true, "a c a c"},
		{"single", SourceHash, equal(1), true, "a a a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, tt.policy, tt.backends...)
			if got := sequence(t, p, len(strings.Fields(tt.want)), tt.release); got != tt.want {
				t.Errorf("picked %s, want %s", got, tt.want)
			}
		})
	}
}

func TestTiersLimitsAndStates(t *testing.T) {
	for _, policy := range []Policy{LeastConnections, RoundRobin, SourceHash} {
		t.Run(policy.String(), func(t *testing.T) {
			p := mustNew(t, policy,
				Backend{Name: "a", Weight: 1, MaxConnections: 1},
				Backend{Name: "b", Weight: 1, MaxConnections: 1},
				Backend{Name: "spare", Weight: 1, Backup: true, MaxConnections: 1})

			first, second := mustPick(t, p, client), mustPick(t, p, client)
			if first == second || first == "spare" || second == "spare" {
				t.Fatalf("picked %s and %s, want a and b in any order", first, second)
			}
			// At their limit they are still up: wait, do not spill over.
			if name, err := p.Pick(client); !errors.Is(err, ErrFull) {
				t.Fatalf("full pool: picked %q, %v, want ErrFull", name, err)
			}
			// One tried, one full: there is still somebody to wait for.
			if name, err := p.Pick(client, "a"); !errors.Is(err, ErrFull) {
				t.Fatalf("full pool, a tried: picked %q, %v, want ErrFull", name, err)
			}
			p.Release("a")
			if got := mustPick(t, p, client); got != "a" {
				t.Fatalf("picked %s, want the one with room", got)
			}
			p.Release("a")
			p.Release("b")

			// Everyone refused: the backup serves this client, and only this one.
			if got := mustPick(t, p, client, "a", "b"); got != "spare" {
				t.Fatalf("a and b tried: picked %s, want spare", got)
			}
			if name, err := p.Pick(client, "a", "b"); !errors.Is(err, ErrFull) {
				t.Fatalf("backup full: picked %q, %v, want ErrFull", name, err)
			}
			p.Release("spare")
			if _, err := p.Pick(client, "a", "b", "spare"); !errors.Is(err, ErrNoBackend) {
				t.Fatalf("all tried: %v, want ErrNoBackend", err)
			}

			// Down and drained are both nothing; then comes the backup.
			if err := p.SetState("a", Down); err != nil {
				t.Fatal(err)
			}
			if got := mustPick(t, p, client); got != "b" {
				t.Fatalf("a down: picked %s, want b", got)
			}
			if err := p.Set(Backend{Name: "b", Weight: 0}); err != nil {
				t.Fatal(err)
			}
			if s := status(t, p, "b"); s.State != Drain || s.Active != 1 {
				t.Fatalf("drained: %+v, want drain with its one connection", s)
			}
			if got := mustPick(t, p, client); got != "spare" {
				t.Fatalf("a down, b drained: picked %s, want spare", got)
			}
			if err := p.SetState("spare", Down); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Pick(client); !errors.Is(err, ErrNoBackend) {
				t.Fatalf("none up: %v, want ErrNoBackend", err)
			}
			if err := p.SetState("a", Up); err != nil {
				t.Fatal(err)
			}
			if got := mustPick(t, p, client); got != "a" {
				t.Fatalf("a up again: picked %s, want a", got)
			}
		})
	}
}

func TestRemovedBackendKeepsItsCount(t *testing.T) {
	p := mustNew(t, LeastConnections, equal(2)...)
	for range 4 {
		mustPick(t, p, client)
	}
	if err := p.Remove("a"); err != nil {
		t.Fatal(err)
	}
	p.Release("a")
	if err := p.SetState("b", Down); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Pick(client); !errors.Is(err, ErrNoBackend) {
		t.Fatalf("removed backend: %v, want ErrNoBackend", err)
	}
	if err := p.Set(Backend{Name: "a", Weight: 100}); err != nil {
		t.Fatal(err)
	}
	if s := status(t, p, "a"); s.Active != 1 || s.State != Up {
		t.Errorf("added again: %+v, want up with the one connection it had left", s)
	}
	for range 3 { // one more than there are
		p.Release("a")
	}
	if s := status(t, p, "a"); s.Active != 0 {
		t.Errorf("Active is %d after too many releases, want 0", s.Active)
	}
	if err := p.Remove("a"); err != nil {
		t.Fatal(err)
	}
	p.Release("a")
	p.Release("never was")
	if len(p.gone) != 0 {
		t.Errorf("%d removed backends without connections are remembered", len(p.gone))
	}
}

// A weight that falls must not leave a backend in debt for what it got under the
// old one.
func TestRoundRobinForgetsOldWeights(t *testing.T) {
	p := mustNew(t, RoundRobin, Backend{Name: "a", Weight: 65535}, Backend{Name: "b", Weight: 65535})
	mustPick(t, p, client)
	for _, name := range []string{"a", "b"} {
		if err := p.Set(Backend{Name: name, Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if got := sequence(t, p, 4, true); got != "a b a b" {
		t.Errorf("picked %s, want a b a b", got)
	}
}

func TestSourceHashStaysAndReturns(t *testing.T) {
	p := mustNew(t, SourceHash, equal(5)...)
	home := mustPick(t, p, client)
	for range 10 {
		if got := mustPick(t, p, client); got != home {
			t.Fatalf("picked %s, then %s", home, got)
		}
	}
	second := mustPick(t, p, client, home)
	if second == home {
		t.Fatalf("picked %s although tried", home)
	}
	if got := mustPick(t, p, client, home); got != second {
		t.Errorf("redispatch went to %s, then to %s", second, got)
	}
	if err := p.SetState(home, Down); err != nil {
		t.Fatal(err)
	}
	if got := mustPick(t, p, client); got != second {
		t.Errorf("with %s down picked %s, want the one of the redispatch, %s", home, got, second)
	}
	if err := p.SetState(home, Up); err != nil {
		t.Fatal(err)
	}
	if got := mustPick(t, p, client); got != home {
		t.Errorf("picked %s, want the client back on %s", got, home)
	}
}

func TestSourceHashAddresses(t *testing.T) {
	p := mustNew(t, SourceHash, equal(10)...)
	same := func(a, b string) {
		t.Helper()
		x, y := mustPick(t, p, netip.MustParseAddr(a)), mustPick(t, p, netip.MustParseAddr(b))
		if x != y {
			t.Errorf("%s goes to %s, %s to %s, want the same", a, x, b, y)
		}
	}
	same("192.0.2.1", "::ffff:192.0.2.1")
	same("fe80::1%eth0", "fe80::1%eth1")

	// Nodes of different versions must agree, so these may never change.
	for addr, want := range map[string]uint64{
		"192.0.2.7":   0x066e4fc73ac67ce6,
		"2001:db8::7": 0x904ce42a8212ac96,
	} {
		if got := hashAddr(netip.MustParseAddr(addr)); got != want {
			t.Errorf("hash of %s is %#x, want %#x", addr, got, want)
		}
	}

	// A client without an address is not pinned to one backend.
	unix := mustNew(t, SourceHash, equal(3)...)
	var got []string
	for range 3 {
		got = append(got, mustPick(t, unix, netip.Addr{}))
	}
	if slices.Sort(got); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("three clients without an address went to %v, want one each", got)
	}
}

// Shares too small for a table entry still serve when nobody else can.
func TestSourceHashWithoutEntries(t *testing.T) {
	backends := []Backend{{Name: "tiny1", Weight: 1}, {Name: "tiny2", Weight: 1}}
	for i := range 20 {
		backends = append(backends, Backend{Name: string(rune('a' + i)), Weight: MaxWeight})
	}
	p := mustNew(t, SourceHash, backends...)
	var tried []string
	for _, b := range backends[2:] {
		tried = append(tried, b.Name)
	}
	if got := mustPick(t, p, client, tried...); !strings.HasPrefix(got, "tiny") {
		t.Errorf("picked %s, want one of the tiny ones", got)
	}
}

func TestRefusals(t *testing.T) {
	ok := Backend{Name: "a", Weight: 1}
	for _, tt := range []struct {
		name     string
		policy   Policy
		backends []Backend
		want     string // in the error
	}{
		{"policy", 9, nil, "policy 9"},
		{"no name", 0, []Backend{{Weight: 1}}, "Name"},
		{"weight below", 0, []Backend{{Name: "a", Weight: -1}}, "Weight is -1"},
		{"weight above", 0, []Backend{{Name: "a", Weight: 65536}}, "Weight is 65536"},
		{"limit", 0, []Backend{{Name: "a", MaxConnections: -1}}, "MaxConnections is -1"},
		{"twice", 0, []Backend{ok, ok}, `two backends are named "a"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.policy, tt.backends...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	p := mustNew(t, LeastConnections, ok)
	if err := p.SetState("x", Down); !errors.Is(err, ErrUnknown) {
		t.Errorf("SetState of an unknown one: %v", err)
	}
	if err := p.Remove("x"); !errors.Is(err, ErrUnknown) {
		t.Errorf("Remove of an unknown one: %v", err)
	}
	if err := p.SetState("a", Drain); err == nil || !strings.Contains(err.Error(), "Weight") {
		t.Errorf("SetState to drain: %v, want an error that says how to drain", err)
	}
	if err := p.Set(Backend{Name: "a", Weight: -1}); err == nil || status(t, p, "a").Weight != 1 {
		t.Errorf("a refused Set (%v) changed the backend", err)
	}
	if _, err := mustNew(t, LeastConnections).Pick(client); !errors.Is(err, ErrNoBackend) {
		t.Errorf("empty pool: %v", err)
	}
}

func TestText(t *testing.T) {
	type text interface {
		encoding.TextMarshaler
		String() string
	}
	for v, want := range map[text]string{
		LeastConnections: "least-connections", RoundRobin: "round-robin", SourceHash: "source-hash",
		Up: "up", Down: "down", Drain: "drain",
	} {
		got, err := v.MarshalText()
		if err != nil || string(got) != want || v.String() != want {
			t.Errorf("%#v: text %q, %v, string %q, want %q", v, got, err, v, want)
		}
		switch v := v.(type) {
		case Policy:
			back, err := ParsePolicy(want)
			if err != nil || back != v {
				t.Errorf("ParsePolicy(%q) = %v, %v", want, back, err)
			}
		case State:
			var back State
			if err := back.UnmarshalText(got); err != nil || back != v {
				t.Errorf("UnmarshalText(%q) = %v, %v", want, back, err)
			}
		}
	}
	if _, err := Policy(7).MarshalText(); err == nil {
		t.Error("an unknown policy has a text")
	}
	if _, err := State(7).MarshalText(); err == nil {
		t.Error("an unknown state has a text")
	}
	policy := RoundRobin
	if err := policy.UnmarshalText([]byte("random")); err == nil || policy != RoundRobin {
		t.Errorf("unknown policy: %v, and it became %v", err, policy)
	}
}
