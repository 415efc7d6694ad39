package vrrp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// The transcripts in testdata/6.4 are named by the clauses of RFC 9568 that they
// play. Each command prints what is to be done, the state and the deadline; an
// instant is a duration since the beginning, and "expire" without one is at the
// deadline. Written anew with: go test ./vrrp -run TestTranscripts -rewrite
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/6.4", func(t *testing.T, path string) {
		var r *Router
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "router" || d.Cmd == "change" {
				c := config(t, d)
				if d.Cmd == "change" {
					actions, err := r.Change(instant(t, d, r), c)
					if err != nil {
						return err.Error() + "\n"
					}
					return transcript(r, actions)
				}
				var err error
				if r, err = NewRouter(c); err != nil {
					return err.Error() + "\n"
				}
				return transcript(r, nil)
			}
			now := instant(t, d, r)
			var actions []Action
			switch d.Cmd {
			case "startup":
				actions = r.Startup(now)
			case "shutdown":
				actions = r.Shutdown(now)
			case "expire":
				actions = r.Expire(now)
			case "receive":
				from, a := advert(t, d)
				actions = r.Receive(now, from, a)
			case "heard":
				r.Heard(now, duration(t, d, "interval", 0))
			case "hold":
				r.Hold(int64(duration(t, d, "until", 0)))
			case "take-over":
				actions = r.TakeOver(now)
			case "step-down":
				actions = r.StepDown(now)
			case "release":
				actions = r.Release(now)
			default:
				d.Fatalf(t, "no command %s", d.Cmd)
			}
			return transcript(r, actions)
		})
	})
}

func config(t *testing.T, d *datadriven.TestData) Config {
	c := Config{
		ID:       uint8(number(t, d, "id", 51)),
		Priority: uint8(number(t, d, "priority", DefaultPriority)),
		Interval: duration(t, d, "interval", time.Second),
		Preempt:  d.HasArg("preempt"),
		Listen:   d.HasArg("listen"),
	}
	if !d.HasArg("source4") && !d.HasArg("source6") {
		c.Source4 = netip.MustParseAddr("192.0.2.5")
	}
	for key, to := range map[string]*netip.Addr{"source4": &c.Source4, "source6": &c.Source6} {
		if d.HasArg(key) {
			*to = address(t, d, key)
		}
	}
	return c
}

func advert(t *testing.T, d *datadriven.TestData) (netip.Addr, Advert) {
	from := netip.MustParseAddr("192.0.2.9")
	if d.HasArg("from") {
		from = address(t, d, "from")
	}
	return from, Advert{
		Family:   FamilyOf(from),
		ID:       uint8(number(t, d, "id", 51)),
		Priority: uint8(number(t, d, "priority", DefaultPriority)),
		Interval: duration(t, d, "interval", time.Second),
	}
}

func address(t *testing.T, d *datadriven.TestData, key string) netip.Addr {
	t.Helper()
	var text string
	d.ScanArgs(t, key, &text)
	a, err := netip.ParseAddr(text)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return a
}

func duration(t *testing.T, d *datadriven.TestData, key string, otherwise time.Duration) time.Duration {
	t.Helper()
	if !d.HasArg(key) {
		return otherwise
	}
	var text string
	d.ScanArgs(t, key, &text)
	v, err := time.ParseDuration(text)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return v
}

func number(t *testing.T, d *datadriven.TestData, key string, otherwise int) int {
	t.Helper()
	if d.HasArg(key) {
		d.ScanArgs(t, key, &otherwise)
	}
	return otherwise
}

func instant(t *testing.T, d *datadriven.TestData, r *Router) Instant {
	t.Helper()
	at, ok := r.Deadline()
	if d.Cmd != "expire" || !ok {
		at = 0
	}
	return int64(duration(t, d, "at", time.Duration(at)))
}

func transcript(r *Router, actions []Action) string {
	var b strings.Builder
	for _, a := range actions {
		switch a.Do {
		case Become:
			fmt.Fprintf(&b, "become %v: %v\n", a.State, a.Cause)
		case Advertise:
			fmt.Fprintf(&b, "advertise priority %d\n", a.Priority)
		case Announce:
			fmt.Fprintf(&b, "announce\n")
		}
	}
	if at, ok := r.Deadline(); ok {
		fmt.Fprintf(&b, "%v until %v\n", r.State(), time.Duration(at))
	} else {
		fmt.Fprintf(&b, "%v\n", r.State())
	}
	return b.String()
}

func TestConfigRefused(t *testing.T) {
	good := Config{ID: 1, Priority: 1, Interval: MinInterval, Source4: netip.MustParseAddr("192.0.2.1"), Source6: netip.MustParseAddr("fe80::1")}
	r, err := NewRouter(good)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"ids are 1 to 255":          func(c *Config) { c.ID = 0 },
		"priorities are 1 to 255":   func(c *Config) { c.Priority = 0 },
		"interval 5ms":              func(c *Config) { c.Interval = 5 * time.Millisecond },
		"interval 40.96s":           func(c *Config) { c.Interval = 40960 * time.Millisecond },
		"interval 15ms":             func(c *Config) { c.Interval = 15 * time.Millisecond },
		"neither Source4":           func(c *Config) { c.Source4, c.Source6 = netip.Addr{}, netip.Addr{} },
		"is no IPv4 address":        func(c *Config) { c.Source4 = c.Source6 },
		"is no IPv6 address":        func(c *Config) { c.Source6 = netip.MustParseAddr("::ffff:192.0.2.1") },
		"192.0.2.1 of id 1 is no I": func(c *Config) { c.Source6 = c.Source4 },
	} {
		bad := good
		change(&bad)
		if _, err := NewRouter(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", bad, err, want)
		}
		if _, err := r.Change(0, bad); err == nil {
			t.Errorf("changed to %+v", bad)
		}
	}
	other := good
	other.ID = 2
	if _, err := r.Change(0, other); err == nil || r.Config() != good {
		t.Errorf("another id: %v, %+v", err, r.Config())
	}
}

// network is a simulation of several routers on one link.
type network struct {
	now     Instant
	routers []*Router
	down    map[*Router]bool
	latency time.Duration
	queue   []delivery
	adverts int
}

type delivery struct {
	at   Instant
	from *Router
	a    Advert
}

func (n *network) do(r *Router, actions []Action) {
	for _, a := range actions {
		if a.Do != Advertise || n.down[r] {
			continue
		}
		n.adverts++
		for _, f := range []Family{IPv4, IPv6} {
			if r.source(f).IsValid() {
				n.queue = append(n.queue, delivery{n.now + int64(n.latency), r, Advert{Family: f, ID: r.config.ID, Priority: a.Priority, Interval: r.config.Interval}})
			}
		}
	}
}

// run plays the network until the instant.
func (n *network) run(until Instant) {
	for {
		next, act := until, func() {}
		for _, r := range n.routers {
			if at, ok := r.Deadline(); ok && at < next {
				next, act = at, func() { n.do(r, r.Expire(n.now)) }
			}
		}
		if len(n.queue) > 0 && n.queue[0].at <= next {
			next, act = n.queue[0].at, func() {
				d := n.queue[0]
				n.queue = n.queue[1:]
				for _, r := range n.routers {
					if r != d.from && !n.down[r] {
						n.do(r, r.Receive(n.now, d.from.source(d.a.Family), d.a))
					}
				}
			}
		}
		if next >= until {
			n.now = until
			return
		}
		n.now = max(n.now, next)
		act()
	}
}

func (n *network) active() (who []*Router) {
	for _, r := range n.routers {
		if r.State() == Active && !n.down[r] {
			who = append(who, r)
		}
	}
	return who
}

// Whatever the priorities, addresses and families: soon one router is active,
// and with preemption it is the best; when it goes, the next one follows within
// the down interval of the slowest; and nobody advertises more than he should.
func TestElection(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		n := &network{down: make(map[*Router]bool), latency: time.Duration(rnd.IntN(1000)) * time.Microsecond}
		preempt, families := rnd.IntN(2) == 0, rnd.IntN(3)
		interval := time.Duration(1+rnd.IntN(100)) * MinInterval
		for i := range 2 + rnd.IntN(4) {
			c := Config{ID: 9, Priority: uint8(100 + rnd.IntN(3)), Interval: interval, Preempt: preempt}
			if families != 1 {
				c.Source4 = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			}
			if families != 0 { // in the other order
				c.Source6 = netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(255 - i)})
			}
			r, err := NewRouter(c)
			if err != nil {
				t.Fatal(err)
			}
			n.routers = append(n.routers, r)
			n.do(r, r.Startup(int64(rnd.IntN(int(interval)))))
		}
		settle := 2 * int64(DownInterval(1, interval)+n.latency)
		for left := len(n.routers); left > 0; left-- {
			n.run(n.now + settle)
			who := n.active()
			if len(who) != 1 {
				t.Fatalf("seed %d: %d routers are active of %d", seed, len(who), left)
			}
			for _, r := range n.routers {
				if preempt && !n.down[r] && r.config.Priority > who[0].config.Priority {
					t.Errorf("seed %d: priority %d is active beside %d", seed, who[0].config.Priority, r.config.Priority)
				}
			}
			before := n.adverts
			n.run(n.now + 10*int64(interval))
			if sent := n.adverts - before; sent < 9 || sent > 11 {
				t.Errorf("seed %d: %d adverts in 10 intervals", seed, sent)
			}
			if rnd.IntN(2) == 0 {
				n.do(who[0], who[0].Shutdown(n.now))
			}
			n.down[who[0]] = true
		}
	}
}

func TestRouterDoesNotAllocate(t *testing.T) {
	r, err := NewRouter(Config{ID: 1, Priority: 100, Interval: time.Second, Source4: netip.MustParseAddr("192.0.2.5")})
	if err != nil {
		t.Fatal(err)
	}
	peer := netip.MustParseAddr("192.0.2.9")
	now := int64(0)
	if n := testing.AllocsPerRun(100, func() {
		r.Startup(now)
		now, _ = r.Deadline()
		r.Expire(now)
		r.Receive(now, peer, Advert{Family: IPv4, ID: 1, Priority: 200, Interval: time.Second})
		r.Shutdown(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
