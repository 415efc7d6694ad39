//go:build linux

package own

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/election"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
)

// The faults of the scene node-freezes.
const (
	daemonKilled  = "daemon-killed"
	daemonFrozen  = "daemon-frozen"
	nodeFrozen    = "node-frozen"
	electorFrozen = "elector-frozen"
	hostDies      = "host-dies"
)

// daemonSilence is how long a daemon may say nothing before its node gives up
// what it speaks for.
const daemonSilence = time.Second

// NodeFreezes is the scene of a node that is stopped in the middle of owning an
// address, and goes on later; and of one that dies.
func NodeFreezes() scene.Scene {
	return scene.Scene{
		Name:  "node-freezes",
		Title: "the owner of an address, or a part of it, stops and goes on later: at any time at most one node has the address",
		Story: `Two nodes have an address between them, with a relay service on it; clients
connect to it from beside the nodes and from behind a router, and a neighbour asks
all the time who has the address. Then the daemon of the owner is killed, or
stopped, or its elector, or every process of the machine, as a hypervisor does that
pauses it; and later it goes on. The wire is the judge: who answers for the address
and who sends from it, frame by frame. The other node takes over in a bounded time;
from its first frame on the first node says nothing, not when it goes on either; and
the address changes hands once. Without Holdfast the kernel of a frozen node answers
for the address as long as the freeze lasts, beside the new owner.`,
		Variants: []scene.Variant{
			{Fault: nodeFrozen, Demo: true, Title: "every process of the owner is stopped; adverts every 100 ms"},
			{Fault: electorFrozen, Title: "the process that owns the address is stopped, and the daemon is not"},
			{Fault: daemonFrozen, Title: "the daemon is stopped: the address has nobody who serves it"},
			{Fault: daemonKilled, Title: "the daemon is killed, and started again"},
			{Fault: hostDies, Title: "the owner's host loses its power; adverts every 10 ms"},
		},
		Demo: true,
		Run: func(ctx context.Context, e *scene.Env) (*scene.Verdict, error) {
			if e.Variant.Fault == hostDies {
				return playDeath(ctx, e)
			}
			return playFreeze(ctx, e)
		},
	}
}

// freezeOf is how long the freeze lasts.
func freezeOf(e *scene.Env) time.Duration {
	if e.Short || e.Relaxed {
		return 2 * time.Second
	}
	return 10 * time.Second
}

// A freeze is one run of the scene.
type freeze struct {
	*takeover
	pair [2]*node
	end  func() // of the neighbour that asks
}

func playFreeze(ctx context.Context, e *scene.Env) (_ *scene.Verdict, err error) {
	const interval = 100 * time.Millisecond
	a, err := newArena(ctx, e, arenaPlan{backends: 1})
	if err != nil {
		return nil, err
	}
	f := &freeze{}
	defer func() {
		if f.end != nil {
			f.end()
		}
		err = errors.Join(err, a.close())
	}()
	if f.pair, err = a.startPair(ctx, pairPlan{interval: interval, witness: true, service: true}); err != nil {
		return nil, err
	}
	if f.takeover, err = a.startTakeover(ctx, 20); err != nil {
		return nil, err
	}
	if f.end, err = a.asks(ctx, "client2", 20*time.Millisecond); err != nil {
		return nil, err
	}
	resume, err := f.fault(ctx)
	if err != nil {
		return nil, err
	}
	e.Say("%s; %s has the address %.0f ms later, and clients are served after %.0f ms",
		f.what(), a.nodes[1].Name(), ms(f.claimed), ms(f.near))
	if err := scene.Pause(ctx, freezeOf(e)-time.Since(f.at)); err != nil {
		return nil, err
	}
	resumed, err := resume()
	if err != nil {
		return nil, err
	}
	// It has time to say something stale, and to find its place.
	if err := f.pair[0].awaitRole(ctx, admin.RoleBackup); err != nil {
		return nil, err
	}
	if err := scene.Pause(ctx, 2*election.NewTimes(200, interval).Down); err != nil {
		return nil, err
	}
	e.Say("%s goes on, and stands by", a.nodes[0].Name())
	v := e.Verdict()
	f.judge(ctx, v, interval, resumed)
	if e.Without && e.Variant.Fault == nodeFrozen && !(e.Short && e.Family == lab.IPv6) {
		e.Say("the same without Holdfast: keepalived, every process of the owner stopped for 1 s")
		r, err := besideKeepalived(ctx, e, interval, time.Second)
		if err != nil {
			return nil, err
		}
		r.beside(v)
	}
	return v, nil
}

// what says what was done.
func (f *freeze) what() string {
	return map[string]string{
		nodeFrozen: "every process of the owner is stopped", electorFrozen: "the owner's elector is stopped",
		daemonFrozen: "the owner's daemon is stopped", daemonKilled: "the owner's daemon is killed",
	}[f.Variant.Fault]
}

// fault stops what is to be stopped, and waits for the takeover. resume makes it
// go on.
func (f *freeze) fault(ctx context.Context) (resume func() (time.Time, error), err error) {
	owner := f.pair[0]
	daemon, err := owner.daemon()
	if err != nil {
		return nil, err
	}
	elector, err := owner.elector()
	if err != nil {
		return nil, err
	}
	stop := daemon.Freeze
	resume = daemon.Continue
	switch f.Variant.Fault {
	case nodeFrozen:
		stop, resume = owner.host.Freeze, owner.host.Continue
	case electorFrozen:
		stop, resume = elector.Freeze, elector.Continue
	case daemonKilled:
		stop = daemon.Kill
		resume = func() (time.Time, error) {
			at := time.Now()
			return at, owner.start(ctx)
		}
	}
	return resume, f.explain(f.play(ctx, stop))
}

// explain adds to what went wrong what the nodes say of it.
func (f *freeze) explain(err error) error {
	if err == nil {
		return nil
	}
	for i, n := range f.pair {
		err = fmt.Errorf("%w; the roles of %s: %s; it warned of %.1000q", err, n.host.Name(), n.story(), n.Warnings())
		if i == 1 { // the one that must have taken over
			ctx, cancel := context.WithTimeout(context.Background(), scene.GiveUp)
			g, failed := n.group(ctx)
			cancel()
			err = errors.Join(fmt.Errorf("%w; it says now: %+v", err, g), failed)
		}
	}
	return err
}

// bound is how long the takeover may take.
func (f *freeze) bound(interval time.Duration) time.Duration {
	times := election.NewTimes(f.pair[1].priority, interval)
	switch f.Variant.Fault {
	case nodeFrozen, hostDies:
		return times.Down + times.Interval
	case electorFrozen: // the daemons' link lives, and says nothing of the address
		return times.Patience + times.Interval
	}
	return daemonSilence + times.Interval + 500*time.Millisecond
}

func (f *freeze) judge(ctx context.Context, v *scene.Verdict, interval time.Duration, resumed time.Time) {
	seen := f.watch.Seen()
	v.Time("another node has the address, after the fault", f.claimed).Within(f.bound(interval)).AsHeadline()
	v.Time("no client beside the nodes is served for", f.near).AsPart()
	v.Time("no client behind the router is served for", f.far).AsPart()
	f.judgeWire(v, seen, 1)
	stale := 0
	for _, s := range seen {
		if s.Host == f.nodes[0].Name() && s.Time.After(resumed) && (s.Speaks(f.vip.Addr()) || s.Sort == lab.Advertised && s.Priority > 0) {
			if stale++; stale == 1 {
				v.Note("the first stale frame, %.1f ms after it went on: %v", ms(s.Time.Sub(resumed)), s)
			}
		}
	}
	v.Count("frames and adverts of the first node after it went on", stale).Exactly(0)
	f.judgeRoles(v, f.pair[1], admin.RoleActive)
	near, far := f.onLink.end(), f.routed.end()
	lost := failures(append(near, far...))
	v.Count("new connections", len(near)+len(far))
	v.Count("of these never made", lost.connects).AsPart()
	v.Count("of these refused", lost.refused).AsPart()
	v.Count("made, and not answered: the owner stopped in between", lost.exchanges).AsPart()
}

// judgeWire judges who spoke for the address, frame by frame: it changed hands
// so many times, from one node to the other, and nobody spoke in between.
func (a *arena) judgeWire(v *scene.Verdict, seen []lab.Seen, moves int) {
	vip := a.vip.Addr()
	spans := lab.Speakers(seen, func(s lab.Seen) bool { return s.Speaks(vip) })
	v.Count("times the address changed hands on the wire", max(0, len(spans)-1)).Exactly(moves)
	if len(spans) != moves+1 {
		v.Note("who spoke for %v: %s", vip, lab.DescribeSpans(spans))
	}
	strangers, frames := 0, 0
	for _, s := range spans {
		frames += s.Frames
		if s.Host != a.nodes[0].Name() && s.Host != a.nodes[1].Name() {
			strangers++
		}
	}
	v.Must(strangers == 0, "somebody else spoke for %v: %s", vip, lab.DescribeSpans(spans))
	v.Count("frames of the address seen", frames).AtLeast(1).AsPart()
	lost := a.watch.Lost()
	v.Must(lost == 0, "the watch has lost %d frames: nothing follows from what it did not see", lost)
}

// judgeRoles demands that a node has had this one role since it stood by.
func (a *arena) judgeRoles(v *scene.Verdict, n *node, role string) {
	text := n.story()
	all := n.roles()
	ok := len(all) > 0 && all[len(all)-1].To == role && strings.Count(text, admin.RoleActive+" ") == 1
	v.Must(ok, "the roles of %s: %s; it must have become %s, once", n.host.Name(), text, role)
}

// playDeath kills the owner's host: how fast is it noticed, and who is refused.
func playDeath(ctx context.Context, e *scene.Env) (_ *scene.Verdict, err error) {
	interval := shortest(e)
	a, err := newArena(ctx, e, arenaPlan{backends: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	f := &freeze{}
	if f.pair, err = a.startPair(ctx, pairPlan{interval: interval, witness: true, service: true}); err != nil {
		return nil, err
	}
	if f.takeover, err = a.startTakeover(ctx, probesPerSecond); err != nil {
		return nil, err
	}
	if err := f.explain(f.play(ctx, a.nodes[0].Die)); err != nil {
		return nil, err
	}
	e.Say("the owner's host is dead; %s has the address %.1f ms later, and clients are served after %.1f ms", a.nodes[1].Name(), ms(f.claimed), ms(f.near))
	if err := scene.Pause(ctx, 200*time.Millisecond); err != nil {
		return nil, err
	}
	v := e.Verdict()
	near, far := f.onLink.end(), f.routed.end()
	v.Time(claimedAfter, f.claimed).Within(f.bound(interval) + 10*time.Millisecond).AsHeadline()
	v.Time(nearAfter, f.near).Within(f.bound(interval) + 20*time.Millisecond)
	v.Time(farAfter, f.far).Within(f.bound(interval) + 20*time.Millisecond)
	f.judgeWire(v, f.watch.Seen(), 1)
	// A machine that pauses for 25 ms ends every lease: the next advert is another takeover.
	v.Note("the roles of %s: %s", f.pair[1].host.Name(), f.pair[1].story())
	lost := failures(append(near, far...))
	v.Count("new connections", len(near)+len(far))
	v.Count("of these refused", lost.refused).Exactly(0)
	v.Count("of these never made", lost.connects).Exactly(0)
	v.Count("of these not answered: the owner died in between", lost.exchanges).AsPart()
	if len(lost.how) > 0 {
		v.Note("the first that failed: %s", strings.Join(lost.how, "; "))
	}
	if e.Without {
		e.Say("the same without Holdfast: keepalived with adverts every %v, a server on every address behind it", interval)
		r, err := besideKeepalived(ctx, e, interval, 0)
		if err != nil {
			return nil, err
		}
		r.beside(v)
	}
	return v, nil
}

// shortest is the shortest time between two adverts that VRRP can say; where
// times are not judged it is longer, as a machine that pauses for 32 ms makes
// every owner look dead.
func shortest(e *scene.Env) time.Duration {
	if e.Relaxed {
		return 100 * time.Millisecond
	}
	return 10 * time.Millisecond
}

// The figures of a host's death that keepalived has too.
const (
	claimedAfter = "the address is on the other node, after the host's death"
	nearAfter    = "no client beside the nodes is served for"
	farAfter     = "no client behind the router is served for"
)

// beside puts what came of keepalived beside the figures.
func (r *rival) beside(v *scene.Verdict) {
	if r == nil {
		return
	}
	for _, f := range v.Figures {
		switch f.Name {
		case claimedAfter, "another node has the address, after the fault":
			f.Versus("%s (keepalived)", scene.Milliseconds(r.claimed))
		case nearAfter:
			f.Versus("%s", scene.Milliseconds(r.near))
		case farAfter:
			f.Versus("%s", scene.Milliseconds(r.far))
		case "times the address changed hands on the wire":
			if r.old == 0 {
				continue // nobody was frozen
			}
			f.Versus("answers of both at once: %d of the frozen node, %d of the new owner, in 1 s", r.old, r.new)
		}
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
