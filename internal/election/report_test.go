package election

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-net/holdfast/vrrp"
)

// said plays a world, does something in it, and gives what node b has reported
// since, without changes of role.
func said(t *testing.T, s setup, during func(w *world)) []string {
	t.Helper()
	w := newWorld(s)
	w.run(20 * int64(s.interval))
	var got []string
	w.onAction = func(n *node, a Action) {
		if n.i == 1 && a.Do == Report && a.What != RoleChanged {
			got = append(got, a.What.String())
		}
	}
	during(w)
	if len(w.violations) > 0 {
		t.Error(w.violations[0])
	}
	return got
}

// What is reported, once for each occasion; none of it moves the addresses.
func TestReports(t *testing.T) {
	const interval = 100 * time.Millisecond
	I := int64(interval)
	foreign := vrrp.Advert{Family: vrrp.IPv4, ID: 51, Priority: 255, Interval: interval, Addresses: []netip.Addr{vip4}}
	every := func(w *world, n int, f func()) {
		for range n {
			f()
			w.run(w.t + I)
		}
	}
	usually, watched := usual(interval), usual(interval)
	watched.witness = true
	for name, c := range map[string]struct {
		s      setup
		during func(w *world)
		want   []string
	}{
		"adverts of a host that is not the peer": {usually, func(w *world) {
			b := w.node[1]
			every(w, 30, func() {
				b.call(func(now Instant) { b.do(b.m.Advert(now, netip.MustParseAddr("10.0.0.66"), foreign)) })
			})
		}, []string{"forged"}},
		"a host that answers for the address": {usually, func(w *world) {
			b := w.node[1]
			every(w, 30, func() { b.heard(Neighbour{Answer: true, Sender: vip4, Target: b.addr[0], MAC: MAC{2, 66}}) })
		}, []string{"strange"}},
		"adverts lost and found": {usually, func(w *world) {
			w.advert[0].cut = true
			w.run(w.t + 30*I)
			w.advert[0].cut = false
			w.run(w.t + 30*I)
		}, []string{"adverts missing", "adverts back"}},
		"witness lost and found": {watched, func(w *world) {
			w.wit[1].cut = true
			w.run(w.t + 100*I)
			w.wit[1].cut = false
			w.run(w.t + 100*I)
		}, []string{"witness lost", "witness back"}},
		"a node that was not well for a while": {watched, func(w *world) {
			w.node[1].setWell(false, false)
			w.run(w.t + 300*I)
			w.node[1].setWell(true, false)
			w.run(w.t + 100*I)
		}, nil},
		"late": {usually, func(w *world) {
			w.node[1].freeze(0)
			w.run(w.t + 30*I)
			w.node[1].thaw()
			w.run(w.t + 30*I)
		}, []string{"late"}},
		"nothing": {watched, func(w *world) { w.run(w.t + 100*I) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var w *world
			got := said(t, c.s, func(x *world) { w = x; c.during(x) })
			if !slices.Equal(got, c.want) {
				t.Errorf("reported %q, want %q", got, c.want)
			}
			if len(w.takeovers) != 1 || w.owners() != "a" {
				t.Errorf("%d takeovers, %q owns; want a, as before", len(w.takeovers), w.owners())
			}
		})
	}
}

// Who was released, and is to own again long after, was not late, and has not
// lost a witness that it did not ask meanwhile.
func TestAfterARest(t *testing.T) {
	s := usual(100 * time.Millisecond)
	s.witness = true
	second := int64(time.Second)
	got := said(t, s, func(w *world) {
		w.node[0].halt()
		w.run(w.t + 3*second)
		b := w.node[1]
		b.call(func(now Instant) { b.do(b.m.Release(now)) }) // nobody takes the addresses
		w.run(w.t + 30*second)
		b.call(func(now Instant) {
			actions, err := b.m.Change(now, b.settings())
			if err != nil {
				t.Error(err)
			}
			b.do(actions)
		})
		w.run(w.t + 10*second)
		if w.owners() != "b" {
			t.Errorf("%q owns, want b", w.owners())
		}
	})
	if want := []string{"released"}; !slices.Equal(got, want) {
		t.Errorf("reported %q, want %q", got, want)
	}
}

// An owner that sees another host answer for its address says so.
func TestConflict(t *testing.T) {
	w := newWorld(usual(100 * time.Millisecond))
	w.run(int64(2 * time.Second))
	n, a := 0, w.node[0]
	w.onAction = func(_ *node, x Action) {
		if x.Do == Report && x.What == Conflict && x.Target == vip4 && x.MAC == (MAC{2, 66}) {
			n++
		}
	}
	for range 10 {
		a.heard(Neighbour{Answer: true, Sender: vip4, Target: a.addr[0], MAC: MAC{2, 66}})
	}
	if n != 1 || w.owners() != "a" {
		t.Errorf("%d reports, want 1; %q owns", n, w.owners())
	}
}

// Where the link is down and the peer gives up one of two groups, its questions
// for the other one, which look alike, do not keep that one without an owner.
func TestFarewellOfOneGroup(t *testing.T) {
	const interval = 100 * time.Millisecond
	s := usual(interval)
	s.witness = true
	w := newWorld(s)
	w.run(int64(2 * time.Second))
	a, b := w.node[0], w.node[1]
	w.cutLink()
	w.run(w.t + int64(2*time.Second))
	if w.owners() != "a" {
		t.Fatalf("%q owns, want a", w.owners())
	}
	a.setWell(false, false)
	for range 100 {
		b.heard(Neighbour{Sender: netip.IPv4Unspecified(), Target: b.addr[0], MAC: a.mac})
		w.run(w.t + int64(interval/10))
	}
	if w.owners() != "b" {
		t.Errorf("%q owns, want b", w.owners())
	}
	if len(w.violations) > 0 {
		t.Error(w.violations[0])
	}
}

// Who becomes the owner awaits no adverts any more: that they are missing is over.
func TestAdvertsMissingAtTakeover(t *testing.T) {
	s := usual(100 * time.Millisecond)
	var owners string
	got := said(t, s, func(w *world) {
		w.advert[0].cut = true
		w.run(w.t + int64(3*time.Second))
		w.node[0].call(func(now Instant) { w.node[0].do(w.node[0].m.Release(now)) })
		w.run(w.t + int64(3*time.Second))
		owners = w.owners()
	})
	if !slices.Equal(got, []string{"adverts missing", "adverts back"}) || owners != "b" {
		t.Errorf("reported %q, and %q owns; want adverts missing and back, and b", got, owners)
	}
}

// Who carries on with the lease of a predecessor that left no word of its epoch
// takes one that is newer than the peer's, and no two owners have been found.
func TestEpochOfPredecessor(t *testing.T) {
	w := newWorld(usual(100 * time.Millisecond))
	w.run(int64(2 * time.Second))
	a, now := w.node[0], w.node[0].clock()
	m, err := New(a.settings())
	if err != nil {
		t.Fatal(err)
	}
	m.SetPlace(now, a.m.place)
	m.Resume(now, 0, now+int64(m.own.Lease))
	for _, x := range m.Hear(now+ms, w.node[1].m.Beat(now)) {
		if x.What == Superseded {
			t.Error("two owners with the same epoch are reported")
		}
	}
	if m.role != Active || m.epoch != 2 || m.owned != 2 {
		t.Errorf("%v with epoch %d, owned %d; want active with 2", m.role, m.epoch, m.owned)
	}
}

// A grant that comes when its time has passed is worth nothing.
func TestStaleGrant(t *testing.T) {
	w := newWorld(usual(100 * time.Millisecond))
	w.run(int64(2 * time.Second))
	b := w.node[1]
	now := b.clock()
	grant := func(echo Instant) Beat {
		x := b.m.peer.beat
		x.Role, x.Running, x.Phase, x.Move, x.Echo, x.Stamp = Backup, false, Granted, b.m.epoch+1, echo, x.Stamp+1
		return x
	}
	b.m.Hear(now, grant(now-int64(b.m.own.Grace)))
	if b.m.role != Backup {
		t.Error("an old grant was taken")
	}
	b.m.Hear(now, grant(0))
	if b.m.role != Backup {
		t.Error("a grant that answers nothing was taken")
	}
	b.m.Hear(now, grant(now-ms))
	if b.m.role != Active {
		t.Error("a fresh grant was not taken")
	}
}

// Without a gate the kernel of a frozen owner answers until the lifetime of the
// addresses ends; the peer waits for that, and not if nobody answers.
func TestWithoutGate(t *testing.T) {
	for kind, want := range map[string][2]time.Duration{
		"freeze": {2 * time.Second, 3200 * time.Millisecond},
		"host":   {32 * time.Millisecond, 40 * time.Millisecond},
	} {
		s := usual(10 * time.Millisecond)
		s.gated = false
		w := newWorld(s)
		w.run(int64(time.Second))
		w.schedule(fault{kind: kind, at: w.t, last: int64(10 * time.Second)})
		start := w.t
		for len(w.takeovers) < 2 && w.t < int64(10*time.Second) {
			w.run(w.t + ms)
			if w.node[0].answers() && w.node[1].answers() {
				t.Fatalf("%s: both kernels answer %v later", kind, time.Duration(w.t-start))
			}
		}
		if took := time.Duration(w.t - start); took < want[0]-10*time.Millisecond || took > want[1] {
			t.Errorf("%s: taken over after %v, want %v to %v", kind, took, want[0], want[1])
		}
	}
}

// Whatever a peer, a stranger or the network sends: no panic, and no loop.
func TestAnythingIsHeard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := usual(100 * time.Millisecond)
		s.witness = rapid.Bool().Draw(t, "witness")
		n := newWorld(s).node[rapid.IntRange(0, 1).Draw(t, "node")]
		n.powerOn(n.boot)
		addr := rapid.SampledFrom([]netip.Addr{{}, vip4, vip6, gateway, n.addr[0], n.peer().addr[0], allNodes6, netip.IPv4Unspecified()})
		mac := rapid.SampledFrom([]MAC{{}, n.mac, n.peer().mac, {2, 66}, broadcast})
		instant := rapid.SampledFrom([]Instant{0, 1, n.clock(), n.clock() - 5*ms, never})
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			n.w.run(n.w.t + rapid.Int64Range(0, 300*ms).Draw(t, "pause"))
			now := n.clock()
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				n.do(n.m.Advert(now, addr.Draw(t, "from"), vrrp.Advert{ID: 51, Priority: rapid.Byte().Draw(t, "priority"),
					Interval: time.Duration(rapid.SampledFrom([]int64{0, 1, 10 * ms, 1000 * ms, never}).Draw(t, "interval"))}))
			case 1, 2, 3:
				n.do(n.m.Hear(now, Beat{
					Stamp: instant.Draw(t, "stamp"), Echo: instant.Draw(t, "echo"),
					Role: Role(rapid.IntRange(0, 2).Draw(t, "role")), Phase: Phase(rapid.IntRange(0, 6).Draw(t, "phase")),
					Epoch: rapid.Uint64Range(0, 9).Draw(t, "epoch"), Owned: rapid.Uint64Range(0, 9).Draw(t, "owned"),
					Move: rapid.Uint64Range(0, 9).Draw(t, "move"), Running: rapid.Bool().Draw(t, "running"),
					Well: rapid.Bool().Draw(t, "well"), Able: rapid.Bool().Draw(t, "able"), Priority: rapid.Byte().Draw(t, "priority"),
					Interval: time.Duration(rapid.SampledFrom([]int64{0, 1, 10 * ms, 3600_000 * ms}).Draw(t, "interval")),
					Hold:     time.Duration(rapid.SampledFrom([]int64{0, 25 * ms, 3600_000 * ms}).Draw(t, "hold")),
					MAC:      mac.Draw(t, "mac"), Addresses: []netip.Addr{addr.Draw(t, "address")},
				}))
			case 4, 5:
				n.do(n.m.Neighbour(now, Neighbour{Answer: rapid.Bool().Draw(t, "answer"), Own: rapid.Bool().Draw(t, "own"),
					Sender: addr.Draw(t, "sender"), Target: addr.Draw(t, "target"), MAC: mac.Draw(t, "mac")}))
			case 6:
				n.do(n.m.SetWell(now, rapid.Bool().Draw(t, "well"), rapid.Bool().Draw(t, "urgent")))
			case 7:
				n.do(n.m.Release(now))
			case 8:
				n.do(n.m.LinkDown(now))
			case 9:
				n.do(n.m.Drained(now))
				n.do(n.m.Prepared(now, n.m.move.epoch, rapid.Bool().Draw(t, "prepared")))
			}
			n.turn()
		}
		n.w.run(n.w.t + int64(5*time.Second))
		for _, v := range n.w.violations { // a peer that lies can make two owners
			if strings.Contains(v, "would spin") {
				t.Fatal(v)
			}
		}
	})
}

// A released backup that nobody took over asks no witness, and does not say that
// it is silent.
func TestWitnessOfReleased(t *testing.T) {
	s := usual(100 * time.Millisecond)
	s.witness = true
	w := newWorld(s)
	w.run(int64(2 * time.Second))
	a, b := w.node[0], w.node[1]
	for _, n := range []*node{a, b} {
		if st := n.m.Status(n.clock()).Witness; st.Idle || !st.Reachable {
			t.Errorf("before, the witness of %v is %+v", n.m.Status(n.clock()).Role, st)
		}
	}
	b.halt()
	w.run(w.t + int64(3*time.Second))
	a.call(func(now Instant) { a.do(a.m.Release(now)) })
	w.run(w.t + int64(5*time.Second))
	if st := a.m.Status(a.clock()); st.Role != Backup || !st.Held || !st.Witness.Idle {
		t.Errorf("after, it is %v, held %t, its witness is %+v", st.Role, st.Held, st.Witness)
	}
}
