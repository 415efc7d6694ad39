//go:build linux

package own

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/election"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// The faults of the scene split.
const (
	advertsLost   = "adverts-lost"
	linkLost      = "link-lost"
	witnessBoth   = "parted-witness-both"
	witnessOwner  = "parted-witness-owner"
	witnessBackup = "parted-witness-backup"
	witnessNone   = "parted-witness-none"
)

// Split is the scene of two nodes that lose each other.
func Split() scene.Scene {
	return scene.Scene{
		Name:  "split",
		Title: "two nodes lose each other, wholly or in part: at most one owns the address, and one where one may",
		Story: `Two nodes have an address between them, and the gateway is their witness. Clients are
connected, and new ones come. Then frames between the nodes are lost: the adverts
alone, the link's port alone, or everything, with the witness in reach of both, of
one, or of none of them. While one of the two ways lives, nothing happens; where both
are lost, the witness decides; who reaches nobody is silent. Then all is well again,
and no connection of the surviving owner is harmed.`,
		Variants: []scene.Variant{
			{Fault: advertsLost, Title: "adverts do not arrive, the link lives: the owner stays"},
			{Fault: linkLost, Title: "the link alone: traffic does not notice, status says so"},
			{Fault: witnessBoth, Title: "everything between the nodes, both reach the witness: the owner stays"},
			{Fault: witnessOwner, Title: "the other node reaches nobody: the owner stays"},
			{Fault: witnessBackup, Demo: true, Title: "the owner reaches nobody: it falls silent, and the other node takes over"},
			{Fault: witnessNone, Title: "neither node reaches anybody: nobody owns the address"},
		},
		Patient: true,
		Run:     playSplit,
	}
}

// A split is one run of the scene.
type split struct {
	*arena
	pair   [2]*node
	asker  *asker
	fleet  *scene.Fleet
	parted time.Time
	times  election.Times
}

func playSplit(ctx context.Context, e *scene.Env) (_ *scene.Verdict, err error) {
	const interval = 100 * time.Millisecond
	a, err := newArena(ctx, e, arenaPlan{backends: 1})
	if err != nil {
		return nil, err
	}
	s := &split{arena: a}
	defer func() {
		if s.fleet != nil {
			s.fleet.End()
		}
		err = errors.Join(err, a.close())
	}()
	if s.pair, err = a.startPair(ctx, pairPlan{interval: interval, witness: true, service: true}); err != nil {
		return nil, err
	}
	s.times = election.NewTimes(s.pair[1].priority, interval)
	if s.asker, err = a.ask(ctx, "client1", 50, connectPatience); err != nil {
		return nil, err
	}
	if err := errors.Join(s.asker.served(ctx, 10), s.connect(ctx)); err != nil {
		return nil, err
	}
	if err := scene.Pause(ctx, time.Duration(e.Rand().Int64N(int64(interval)))); err != nil {
		return nil, err
	}
	if err := s.part(false); err != nil {
		return nil, err
	}
	v := e.Verdict()
	if err := s.during(ctx, v); err != nil {
		return nil, err
	}
	if err := s.heal(ctx, v); err != nil {
		return nil, err
	}
	s.judge(ctx, v)
	return v, nil
}

// connect makes connections that must live on.
func (s *split) connect(ctx context.Context) (err error) {
	if s.fleet != nil {
		s.fleet.End()
	}
	client := traffic.ClientOptions{
		Dial: scene.DialFrom(s.lab.Host("client2")), Address: s.target().String(), Pattern: traffic.Request, Period: 50 * time.Millisecond,
	}
	s.fleet, err = scene.RunFleet(ctx, s.Seed|1, []traffic.Group{{Count: 10, Client: client}})
	return err
}

// part loses what the variant says; when all is well again, nothing.
func (s *split) part(well bool) error {
	node1, node2, router := s.nodes[0], s.nodes[1], s.lab.Host("router")
	type loss struct {
		a, b *lab.Host
		what lab.Frames
	}
	losses := map[string][]loss{
		advertsLost:   {{node1, node2, lab.Adverts}},
		linkLost:      {{node1, node2, lab.TCPPort(pairPort)}},
		witnessBoth:   {{node1, node2, lab.Everything}},
		witnessOwner:  {{node2, router, lab.Everything}, {node1, node2, lab.Everything}},
		witnessBackup: {{node1, router, lab.Everything}, {node1, node2, lab.Everything}},
		witnessNone:   {{node1, router, lab.Everything}, {node2, router, lab.Everything}, {node1, node2, lab.Everything}},
	}[s.Variant.Fault]
	if !well {
		s.parted = time.Now()
	}
	for _, l := range losses {
		what := l.what
		if well {
			what = 0
		}
		if _, err := s.lab.Part(l.a, l.b, what); err != nil {
			return err
		}
	}
	return nil
}

// owner is who owns the address while the nodes are parted: a number from 1, 0
// for nobody.
func (s *split) owner() int {
	switch s.Variant.Fault {
	case witnessBackup:
		return 2
	case witnessNone:
		return 0
	}
	return 1
}

// during looks at what happens while the nodes are parted.
func (s *split) during(ctx context.Context, v *scene.Verdict) error {
	stay := 3 * time.Second
	if s.Short || s.Relaxed {
		stay = 1500 * time.Millisecond
	}
	first, vip := s.nodes[0].Name(), s.vip.Addr()
	if s.owner() == 2 {
		taken, err := s.watch.Await(ctx, func(f lab.Seen) bool { return f.Host != first && f.Time.After(s.parted) && f.Claims(vip) })
		if err != nil {
			return fmt.Errorf("the other node does not take over: %w", err)
		}
		v.Time("the other node has the address, after the nodes were parted", taken.Time.Sub(s.parted)).Within(max(s.times.Down, s.times.Patience) + s.times.Interval).AsHeadline()
		if err := errors.Join(s.asker.served(ctx, 5), s.connect(ctx)); err != nil {
			return err
		}
	}
	if err := scene.Pause(ctx, stay-time.Since(s.parted)); err != nil {
		return err
	}
	var roles []string
	for i, n := range s.pair {
		if s.Variant.Fault != advertsLost {
			if err := n.awaitPair(ctx, "down"); err != nil {
				v.Fail("the link is lost: %v", err)
			}
		}
		status, err := n.status(ctx)
		if err != nil {
			return err
		}
		g := status.Addresses[0]
		roles = append(roles, fmt.Sprintf("%s is %s (%s)", n.host.Name(), g.Role, g.Cause))
		want := i+1 == s.owner()
		v.Must((g.Role == admin.RoleActive) == want, "while the nodes are parted %s is %s (%s %s); it must own the address: %v", n.host.Name(), g.Role, g.Cause, g.Reason, want)
	}
	s.Say("%s: %s", s.Variant.Fault, roles)
	if s.owner() == 0 {
		late := 0
		for _, f := range s.watch.Seen() {
			if f.Speaks(vip) && f.Time.Sub(s.parted) > s.times.Bound+s.times.Interval {
				late++
			}
		}
		v.Count("frames of the address when the lease of its owner has ended", late).Exactly(0)
	}
	return nil
}

// heal ends the loss, and waits until the nodes have found each other.
func (s *split) heal(ctx context.Context, v *scene.Verdict) error {
	if err := s.part(true); err != nil {
		return err
	}
	healed := time.Now()
	for _, n := range s.pair {
		if err := n.awaitPair(ctx, "synced"); err != nil {
			return err
		}
	}
	v.Time("the link is up again, after the loss has ended", time.Since(healed)).AsPart()
	if s.owner() == 0 {
		if err := s.asker.served(ctx, 5); err != nil {
			return fmt.Errorf("all is well again, and nobody owns the address: %w", err)
		}
	}
	return scene.Pause(ctx, 2*s.times.Down)
}

func (s *split) judge(ctx context.Context, v *scene.Verdict) {
	moves := 0
	if s.owner() == 2 {
		moves = 1
	}
	if s.owner() == 0 {
		// Who takes it when all is well again is not said: one of the two.
		spans := lab.Speakers(s.watch.Seen(), func(f lab.Seen) bool { return f.Speaks(s.vip.Addr()) })
		moves = min(max(0, len(spans)-1), 1)
	}
	s.judgeWire(v, s.watch.Seen(), moves)
	if s.owner() != 0 {
		s.fleet.Finish()
		whole := 0
		reports := s.fleet.Reports()
		select {
		case <-s.fleet.Done():
			reports = s.fleet.Reports()
		case <-time.After(scene.GiveUp):
		case <-ctx.Done():
		}
		for _, r := range reports {
			if r.Complete && r.Checked {
				whole++
				continue
			}
			v.Note("a connection of the owner that did not carry on: %s", r)
		}
		v.Count("connections of the surviving owner that carried on, every byte checked", whole).Exactly(len(reports))
	}
	probes := s.asker.end()
	lost := failures(probes)
	f := v.Count("new connections that failed", lost.connects+lost.exchanges)
	if s.owner() == 1 {
		f.Exactly(0)
	}
	if len(lost.how) > 0 {
		v.Note("the first that failed: %v", lost.how)
	}
}
