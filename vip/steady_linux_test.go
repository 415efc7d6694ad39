package vip

import (
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// What an owner does at every interval, and a backup with every advert,
// allocates nothing.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 2})
	p := startPair(t, l, pairOptions{interval: time.Second, strange: true})
	active, backup := p.active(t)
	until(t, "an advert", func() bool { return backup.status().Adverts.Received > 0 })
	var interval, advert float64
	ask := func(n *node, f func(g *group)) {
		if err := n.owner.ask(t.Context(), func(l *loop, done func(error)) { f(l.groups[0]); done(nil) }); err != nil {
			t.Fatal(err)
		}
	}
	sent := active.status().Adverts.Sent
	ask(active, func(g *group) {
		// The time of each turn is when the next advert is due.
		interval = testing.AllocsPerRun(50, func() {
			at, _ := g.machine.Deadline()
			g.loop.now = max(g.loop.now, at)
			g.act(g.machine.Expire(g.loop.now))
		})
	})
	if n := active.status().Adverts.Sent - sent; n < 50 {
		t.Errorf("%d adverts were sent", n)
	}
	ask(backup, func(g *group) {
		c := g.adverts.as[0]
		if len(c.raw) == 0 {
			t.Error("no IPv4 advert has come")
			return
		}
		advert = testing.AllocsPerRun(50, func() { g.hear(c.from, c.to, 255, c.raw) })
	})
	if interval != 0 || advert != 0 {
		t.Errorf("%v allocations for an interval, %v for an advert", interval, advert)
	}
}
