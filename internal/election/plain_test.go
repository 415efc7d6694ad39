package election

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-net/holdfast/vrrp"
)

// pairOf is a machine that shares its group with a stranger: a router that
// knows RFC 9568 and nothing else.
type pairOf struct {
	t        rapid.TB
	now      Instant
	interval time.Duration
	m        *Machine
	other    *vrrp.Router
	otherUp  bool
	frozen   bool
	lost     bool    // frames between the two
	until    Instant // of the machine's lease
	owns     bool
	overlap  time.Duration // both active
	none     time.Duration // nobody
	reports  []Action
	sent     []uint8
}

var stranger = netip.MustParseAddr("10.0.0.12")

func newPairOf(t rapid.TB, s Settings, other vrrp.Config) *pairOf {
	m, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	r, err := vrrp.NewRouter(other)
	if err != nil {
		t.Fatal(err)
	}
	p := &pairOf{t: t, interval: s.Interval, m: m, other: r, otherUp: true}
	p.do(m.SetPlace(0, Place{MAC: MAC{2, 1}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.11")}, Gated: true}))
	p.do(m.Start(0))
	p.do(m.SetWell(0, true, true))
	p.obey(r.Startup(0))
	return p
}

func (p *pairOf) advert(priority uint8, interval time.Duration) vrrp.Advert {
	return vrrp.Advert{Family: vrrp.IPv4, ID: 51, Priority: priority, Interval: interval, Addresses: []netip.Addr{vip4}}
}

func (p *pairOf) do(actions []Action) {
	for _, a := range slices.Clone(actions) {
		switch a.Do {
		case SendAdvert:
			p.sent = append(p.sent, a.Priority)
			if !p.lost && p.otherUp {
				p.obey(p.other.Receive(p.now, netip.MustParseAddr("10.0.0.11"), p.advert(a.Priority, a.Interval)))
			}
		case Lease:
			p.until = a.Until
		case Own:
			p.owns = true
		case Withdraw:
			p.owns, p.until = false, 0
		case Drain:
			p.do(p.m.Drained(p.now))
		case Ask, Reflect, SendBeat, Prepare, Hand:
			p.t.Fatalf("%v: a stranger does not understand %v", time.Duration(p.now), a)
		case Report:
			p.reports = append(p.reports, a)
		}
	}
}

func (p *pairOf) obey(actions []vrrp.Action) {
	for _, a := range slices.Clone(actions) {
		if a.Do == vrrp.Advertise && !p.lost && !p.frozen {
			p.do(p.m.Advert(p.now, stranger, p.advert(a.Priority, p.other.Config().Interval)))
		}
	}
}

// run lets time pass in small steps.
func (p *pairOf) run(d time.Duration) {
	step := Instant(p.interval / 100)
	for end := p.now + int64(d); p.now < end; p.now += step {
		if at, ok := p.m.Deadline(); ok && p.now >= at && !p.frozen {
			p.do(p.m.Expire(p.now))
		}
		if at, ok := p.other.Deadline(); ok && p.now >= at && p.otherUp {
			p.obey(p.other.Expire(p.now))
		}
		mine, theirs := p.owns && p.now < p.until, p.otherUp && p.other.State() == vrrp.Active
		if mine && theirs {
			p.overlap += time.Duration(step)
		}
		if !mine && !theirs {
			p.none += time.Duration(step)
		}
	}
}

func (p *pairOf) owner() string {
	s := ""
	if p.owns && p.now < p.until {
		s = "machine"
	}
	if p.otherUp && p.other.State() == vrrp.Active {
		s += "stranger"
	}
	return s
}

func plainSettings(priority uint8, interval time.Duration) Settings {
	return Settings{Addresses: []netip.Addr{vip4}, VRRP: true, ID: 51, Priority: priority, Interval: interval}
}

func strangerConfig(priority uint8, interval time.Duration, preempt bool) vrrp.Config {
	return vrrp.Config{ID: 51, Priority: priority, Interval: interval, Preempt: preempt, Source4: stranger}
}

// With a stranger: who is heard is followed, who is silent is replaced within
// the down interval, and both own for an advert's time at most.
func TestStranger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		interval := rapid.SampledFrom([]time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second}).Draw(t, "interval")
		priorities := rapid.SampledFrom([][2]uint8{{200, 100}, {100, 200}, {100, 100}, {254, 1}, {1, 254}}).Draw(t, "priorities")
		s := plainSettings(priorities[0], interval)
		s.Preempt = rapid.Bool().Draw(t, "preempt")
		p := newPairOf(t, s, strangerConfig(priorities[1], interval, rapid.Bool().Draw(t, "it preempts")))
		p.run(10 * interval)
		down := 4 * interval // no priority waits longer
		for range rapid.IntRange(0, 6).Draw(t, "events") {
			p.none, p.overlap = 0, 0
			switch e := rapid.SampledFrom([]string{"freeze", "it dies", "unwell", "release"}).Draw(t, "event"); e {
			case "freeze":
				p.frozen = true
				p.run(10 * interval)
				if got := p.owner(); got != "stranger" {
					t.Fatalf("the machine is frozen, and %q owns", got)
				}
				p.frozen = false
			case "it dies":
				p.otherUp = false
				p.run(10 * interval)
				if got := p.owner(); got != "machine" {
					t.Fatalf("the stranger is dead, and %q owns", got)
				}
				p.obey(p.other.Shutdown(p.now))
				p.otherUp = true
				p.obey(p.other.Startup(p.now))
			case "unwell":
				p.do(p.m.SetWell(p.now, false, rapid.Bool().Draw(t, "urgent")))
				p.run(10 * interval)
				if got := p.owner(); got != "stranger" {
					t.Fatalf("the machine is not well, and %q owns", got)
				}
				p.do(p.m.SetWell(p.now, true, false))
			case "release":
				p.do(p.m.Release(p.now))
			}
			p.run(10 * interval)
			if got := p.owner(); got != "machine" && got != "stranger" {
				t.Fatalf("in the end %q owns", got)
			}
			if p.none > down+interval/10 {
				t.Fatalf("nobody owned for %v", p.none)
			}
			// One advert crosses at most: the machine's lease has ended before,
			// or it steps down at the stranger's advert.
			if p.overlap > interval+interval/10 {
				t.Fatalf("both owned for %v", p.overlap)
			}
		}
	})
}

// A machine that preempts does so after its delay, and not again once it was
// released by command.
func TestPreemptsAStranger(t *testing.T) {
	interval := 100 * time.Millisecond
	s := plainSettings(200, interval)
	s.Preempt, s.PreemptDelay = true, 5*time.Second
	p := newPairOf(t, s, strangerConfig(100, interval, false))
	p.do(p.m.SetWell(p.now, false, true))
	p.run(time.Second)
	p.do(p.m.SetWell(p.now, true, true))
	well := p.now
	p.run(4900 * time.Millisecond)
	if got := p.owner(); got != "stranger" {
		t.Fatalf("before the delay %q owns", got)
	}
	p.run(time.Second)
	if got := p.owner(); got != "machine" {
		t.Fatalf("%v after it became well %q owns", time.Duration(p.now-well), got)
	}
	if st := p.m.Status(p.now); st.Cause != ByPreempt {
		t.Errorf("cause is %v, want %v", st.Cause, ByPreempt)
	}
	p.do(p.m.Release(p.now))
	p.run(time.Minute)
	if got := p.owner(); got != "stranger" {
		t.Errorf("a minute after its release %q owns", got)
	}
	if _, err := p.m.Change(p.now, s); err != nil {
		t.Fatal(err)
	}
	p.run(10 * time.Second)
	if got := p.owner(); got != "machine" {
		t.Errorf("configured anew, %q owns", got)
	}
}

// Who was released to a stranger does not preempt any more, and replaces it as
// soon as anybody when it falls silent.
func TestStrangerDiesAfterRelease(t *testing.T) {
	interval := 10 * time.Millisecond
	s := plainSettings(100, interval)
	s.Preempt = true
	p := newPairOf(t, s, strangerConfig(100, interval, false))
	p.run(10 * interval)
	p.do(p.m.Release(p.now))
	p.run(10 * interval)
	p.otherUp, p.none = false, 0
	p.run(10 * interval)
	if p.owner() != "machine" || p.none > 4*interval {
		t.Errorf("%q owns, after nobody did for %v", p.owner(), p.none)
	}
}

// Every end of an owner says so with priority 0, but for one whose lease has
// ended: somebody else may be the owner.
func TestFarewell(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(p *pairOf)
		want bool
	}{
		"stop":    {func(p *pairOf) { p.do(p.m.Stop(p.now)) }, true},
		"release": {func(p *pairOf) { p.do(p.m.Release(p.now)) }, true},
		"unwell":  {func(p *pairOf) { p.do(p.m.SetWell(p.now, false, true)) }, true},
		"frozen":  {func(p *pairOf) { p.frozen = true; p.run(time.Second); p.frozen = false; p.run(time.Second) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPairOf(t, plainSettings(200, 100*time.Millisecond), strangerConfig(100, 100*time.Millisecond, false))
			p.run(time.Second)
			if p.owner() != "machine" {
				t.Fatalf("%q owns", p.owner())
			}
			c.end(p)
			if got := slices.Contains(p.sent, vrrp.PriorityStop); got != c.want {
				t.Errorf("priority 0 was sent: %v, want %v", got, c.want)
			}
			p.run(time.Second)
			if p.owner() != "stranger" {
				t.Errorf("then %q owns", p.owner())
			}
		})
	}
}

// A group that nobody shares is owned while the node is well; a frozen node's
// lease ends, and it begins anew under another epoch.
func TestAlone(t *testing.T) {
	m, err := New(Settings{Addresses: []netip.Addr{vip6}})
	if err != nil {
		t.Fatal(err)
	}
	var now, until Instant = 1, 0
	owns := false
	epochs := []uint64{}
	do := func(actions []Action) {
		for _, a := range actions {
			switch a.Do {
			case Lease:
				until = a.Until
			case Own:
				owns = true
				epochs = append(epochs, a.Epoch)
			case Withdraw:
				owns, until = false, 0
			case Drain, Report:
			default:
				t.Errorf("%v is not for a group that nobody shares", a)
			}
		}
	}
	run := func(d time.Duration) {
		for end := now + int64(d); now < end; now += ms {
			if at, ok := m.Deadline(); ok && now >= at {
				do(m.Expire(now))
			}
			if owns && now >= until {
				t.Fatalf("%v: it owns without a lease", time.Duration(now))
			}
		}
	}
	do(m.SetPlace(now, Place{MAC: MAC{2, 1}, Gated: true}))
	do(m.Start(now))
	run(time.Second)
	if owns {
		t.Error("owns before it is known to be well")
	}
	do(m.SetWell(now, true, false))
	run(time.Minute)
	if !owns {
		t.Error("is well, and does not own")
	}
	now += int64(10 * time.Second) // frozen
	run(time.Second)
	if !slices.Equal(epochs, []uint64{1, 2}) || !owns {
		t.Errorf("epochs %v, owns %v; want a second one after the freeze", epochs, owns)
	}
	do(m.SetWell(now, false, true))
	if owns {
		t.Error("owns, and is not well")
	}
	do(m.SetWell(now, true, false))
	run(time.Second)
	do(m.Release(now))
	do(m.Drained(now))
	run(time.Minute)
	if owns {
		t.Error("owns after its release")
	}
	actions, err := m.Change(now, Settings{Addresses: []netip.Addr{vip6, vip4}})
	if err != nil {
		t.Fatal(err)
	}
	do(actions)
	run(time.Second)
	if !owns {
		t.Error("configured anew, it does not own")
	}
}
