//go:build linux

package own

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// What may keep a node from sending its adverts in time.
const (
	relayLoad = "relay-load"
	spinners  = "spinners"

	spinnersEach = 8 // for each processor
)

// AdvertGaps is the scene of a node that is busy, and whose adverts must not be
// late: the other one would take over from a node that is well.
func AdvertGaps() scene.Scene {
	return scene.Scene{
		Name:  "advert-gaps",
		Title: "the owner of an address has more to do than it can: its adverts come in time, and nobody takes over",
		Story: `Two nodes have an address between them, with adverts every 10 ms: after some 32 ms of
silence the other one takes over. The owner carries as much traffic as its relay can,
or has eight busy processes for each processor. The time between its adverts is
measured on the wire.`,
		Variants: []scene.Variant{
			{Fault: relayLoad, Title: "the relay carries as much as it can"},
			{Fault: spinners, Title: "eight busy processes for each processor on the owner"},
		},
		Run: playGaps,
	}
}

// busyFor is how long adverts are measured.
func busyFor(e *scene.Env) time.Duration {
	if e.Short || e.Relaxed {
		return 3 * time.Second
	}
	return time.Minute
}

func playGaps(ctx context.Context, e *scene.Env) (_ *scene.Verdict, err error) {
	interval := shortest(e)
	a, err := newArena(ctx, e, arenaPlan{backends: 2, quiet: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	pair, err := a.startPair(ctx, pairPlan{interval: interval, witness: true, service: true})
	if err != nil {
		return nil, err
	}
	switch e.Variant.Fault {
	case relayLoad:
		dial := scene.DialFrom(a.lab.Host("client1"))
		fleet, err := scene.RunFleet(ctx, e.Seed|1, []traffic.Group{
			{Count: 2, Client: traffic.ClientOptions{Dial: dial, Address: a.target().String(), Pattern: traffic.Download}},
			{Count: 2, Client: traffic.ClientOptions{Dial: dial, Address: a.target().String(), Pattern: traffic.Upload}},
			{Count: 50, Client: traffic.ClientOptions{Dial: dial, Address: a.target().String(), Pattern: traffic.Request, Period: time.Millisecond, OneAtATime: true}},
		})
		if err != nil {
			return nil, err
		}
		defer fleet.End()
	case spinners:
		stop, err := a.nodes[0].Spin(spinnersEach)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	from := time.Now()
	e.Say("the owner is busy; its adverts are watched for %v", busyFor(e))
	if err := scene.Pause(ctx, busyFor(e)); err != nil {
		return nil, err
	}
	to := time.Now()
	v := e.Verdict()
	var last time.Time
	var gaps []time.Duration
	others := 0
	for _, s := range a.watch.Seen() {
		if s.Sort != lab.Advertised || s.Time.Before(from) || s.Time.After(to) {
			continue
		}
		if s.Host != a.nodes[0].Name() {
			others++
			continue
		}
		if !last.IsZero() {
			gaps = append(gaps, s.Time.Sub(last))
		}
		last = s.Time
	}
	v.Time("between two adverts of the owner", gaps...).Within(2 * interval).AsHeadline()
	v.Count("adverts of the owner", len(gaps)+1).AtLeast(int64(busyFor(e) / interval * 9 / 10))
	v.Count("adverts of the other node", others).Exactly(0)
	a.judgeWire(v, a.watch.Seen(), 0)
	g, err := pair[0].group(ctx)
	if err != nil {
		return nil, err
	}
	v.Time("the longest gap, as the owner itself says", g.Adverts.MaxGap.Duration()).AsPart()
	for _, n := range pair {
		v.Note("the roles of %s: %s; it warned of: %.2000q", n.host.Name(), n.story(), n.Warnings())
	}
	v.Must(len(pair[1].roles()) == 0 || pair[1].roles()[len(pair[1].roles())-1].To != "active", "the other node has taken over: %+v", pair[1].roles())
	return v, nil
}
