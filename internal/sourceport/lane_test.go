package sourceport

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func way(from, to string) Way {
	return Way{From: netip.MustParseAddr(from), To: netip.MustParseAddrPort(to)}
}

func TestParseReserved(t *testing.T) {
	for text, want := range map[string][]Range{
		"":                         nil,
		"\n":                       nil,
		"8080\n":                   {{8080, 8080}},
		"8080,9148,30000-31000\n":  {{8080, 8080}, {9148, 9148}, {30000, 31000}},
		"nonsense,70000,1-x,5-6\n": {{5, 6}},
	} {
		if got := ParseReserved(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestReserved(t *testing.T) {
	s := NewSet(Range{40000, 40009}, []Range{{1, 39999}, {40003, 40005}})
	order := slices.Sorted(slices.Values(s.order))
	if want := []uint16{40000, 40001, 40002, 40006, 40007, 40008, 40009}; !slices.Equal(order, want) {
		t.Errorf("ports %v, want %v", order, want)
	}
	if s := NewSet(Range{40000, 40009}, []Range{{30000, 50000}}); len(s.order) != 10 {
		t.Errorf("of a range that is reserved as a whole there are %d ports, want all 10", len(s.order))
	}
	if s := NewSet(Range{65530, 65535}, nil); len(s.order) != 6 {
		t.Errorf("%d ports up to the last there is, want 6", len(s.order))
	}
}

// A connection must not reach itself.
func TestOwnPort(t *testing.T) {
	l := New(NewSet(Range{40000, 40003}, nil)).Lane(way("10.0.0.100", "10.0.0.100:40002"))
	var got []uint16
	for {
		p, ok := l.Take()
		if !ok {
			break
		}
		got = append(got, p)
	}
	slices.Sort(got)
	if want := []uint16{40000, 40001, 40003}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
}

// TestTake compares a lane with a list: no port is taken twice, and there
// are as many as the set has.
func TestTake(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 130).Draw(t, "ports")
		lanes := New(NewSet(Range{50000, 50000 + uint16(n) - 1}, nil))
		l := lanes.Lane(way("2001:db8::100", "[2001:db8::21]:80"))
		if l != lanes.Lane(l.Way) {
			t.Fatal("a way has two lanes")
		}
		var taken []uint16
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if len(taken) > 0 && rapid.Bool().Draw(t, "give") {
				i := rapid.IntRange(0, len(taken)-1).Draw(t, "which")
				l.Give(taken[i])
				taken = slices.Delete(taken, i, i+1)
				continue
			}
			p, ok := l.Take()
			if ok != (len(taken) < n) {
				t.Fatalf("%d of %d in use: %v", len(taken), n, ok)
			}
			if !ok {
				continue
			}
			if p < 50000 || int(p) >= 50000+n || slices.Contains(taken, p) {
				t.Fatalf("port %d, beside %v", p, taken)
			}
			taken = append(taken, p)
			if s := l.Status(); s.Used != len(taken) || s.Max != n {
				t.Fatalf("status %+v, %d are taken", s, len(taken))
			}
		}
	})
}

// A port is not used again before all others were.
func TestLongestAgo(t *testing.T) {
	l := New(NewSet(Range{50000, 50099}, nil)).Lane(way("10.0.0.100", "10.0.0.21:80"))
	var first []uint16
	for range 100 {
		p, _ := l.Take()
		l.Give(p)
		first = append(first, p)
	}
	for i := range 100 {
		p, _ := l.Take()
		l.Give(p)
		if p != first[i] {
			t.Fatalf("number %d of the second round is %d, want %d", i, p, first[i])
		}
	}
	if slices.IsSorted(first) {
		t.Error("the ports come in their order")
	}
}

func TestWayBack(t *testing.T) {
	lanes := New(NewSet(Range{50000, 50099}, nil))
	l := lanes.Lane(way("10.0.0.100", "10.0.0.21:80"))
	want := func(now time.Duration, ok, trial bool) {
		t.Helper()
		if o, tr := l.Open(int64(now)); o != ok || tr != trial {
			t.Errorf("at %v: open %v, trial %v; want %v, %v", now, o, tr, ok, trial)
		}
	}
	want(1, true, true) // nobody knows
	if l.Prove() {
		t.Error("that it answers for the first time is news")
	}
	want(2, true, false)
	l.Doubt()
	want(3, true, true)
	if l.Shut(3) {
		t.Error("one packet is lost, and there is no way")
	}
	want(3, true, true)
	if !l.Shut(4) {
		t.Error("that it does not answer is no news")
	}
	want(5, false, false)
	pause := MinPause
	now := time.Duration(4)
	for range 8 {
		want(now+pause-1, false, false)
		now += pause
		want(now, true, true)
		want(now, false, false) // one is enough
		if l.Shut(int64(now)) {
			t.Error("that it still does not answer is news")
		}
		pause = min(2*pause, MaxPause)
	}
	if s := lanes.Status()[0]; s.NoWay != 4 {
		t.Errorf("since %d, want 4", s.NoWay)
	}
	now += MaxPause
	want(now, true, true)
	if !l.Prove() || l.Status().NoWay != 0 {
		t.Error("that it answers again is no news")
	}
	want(now, true, false)
	if l.Shut(int64(now)) || l.Status().NoWay != 0 {
		t.Error("an old failure counts more than a connection that came to be since")
	}
}

func TestAnew(t *testing.T) {
	lanes := New(NewSet(Range{50000, 50099}, nil))
	one, two := lanes.Lane(way("10.0.0.100", "10.0.0.21:80")), lanes.Lane(way("10.0.0.101", "10.0.0.21:80"))
	for _, l := range []*Lane{one, two} {
		l.Open(1)
		l.Shut(1)
		l.Shut(2)
	}
	lanes.Anew(func(a netip.Addr) bool { return a == one.From })
	if ok, trial := one.Open(3); !ok || !trial || one.Status().NoWay != 0 {
		t.Error("a way that is to be asked anew is not")
	}
	if ok, _ := two.Open(3); ok || two.Status().NoWay != 2 {
		t.Error("another way is asked as well")
	}
}

func TestForget(t *testing.T) {
	lanes := New(NewSet(Range{50000, 50099}, nil))
	used, idle, wanted := lanes.Lane(way("10.0.0.100", "10.0.0.21:80")), lanes.Lane(way("10.0.0.100", "10.0.0.22:80")), way("10.0.0.100", "10.0.0.23:80")
	lanes.Lane(wanted)
	p, _ := used.Take()
	forget := func() { lanes.Forget(func(b netip.AddrPort) bool { return b == wanted.To }) }
	forget()
	list := lanes.Status()
	if len(list) != 2 || list[0].Way != used.Way || list[1].Way != wanted {
		t.Errorf("%v is left, without %v", list, idle.Way)
	}
	used.Give(p)
	forget()
	if list := lanes.Status(); len(list) != 1 || list[0].Way != wanted {
		t.Errorf("%v is left", list)
	}
}
