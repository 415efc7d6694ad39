//go:build linux

package own

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/programs"
	"github.com/holdfast-net/holdfast/vrrp"
)

// How adverts reach the other router.
const (
	byMulticast = "multicast"
	byUnicast   = "unicast"
)

// VRRPPeer is the scene of a node whose other node is keepalived.
func VRRPPeer() scene.Scene {
	return scene.Scene{
		Name:  "vrrp-peer",
		Title: "the other node is keepalived: each takes over from the other, and they never own the address together",
		Story: `A node and a keepalived have an address between them by VRRP alone. The node is frozen,
the keepalived loses its cable, or either gives the address up in order; the other one
takes over, and the first stands by when it is back; and again the other way round. The adverts on the wire say who
owns: never two for more than one advert, never nobody for longer than RFC 9568 gives
the one who waits.`,
		Variants: []scene.Variant{{Policy: byMulticast}, {Policy: byUnicast}},
		Patient:  true,
		Run:      playPeer,
	}
}

// A peering is one run of the scene.
type peering struct {
	*arena
	ours   *node
	theirs *programs.Keepalived
	plan   router // of theirs
	moves  []move
}

// A move is one takeover.
type move struct {
	from, to string
	planned  bool
	at       time.Time
}

// peerPriority is that of keepalived; the node's is that of a first node.
const peerPriority = 150

func playPeer(ctx context.Context, e *scene.Env) (_ *scene.Verdict, err error) {
	const interval = 50 * time.Millisecond
	a, err := newArena(ctx, e, arenaPlan{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	unicast := e.Variant.Policy == byUnicast
	p := &peering{arena: a, plan: router{priority: peerPriority, interval: interval, unicast: unicast, noPreempt: true, addresses: []netip.Prefix{a.vip}}}
	if p.ours, err = a.startNode(ctx, 1, pairPlan{interval: interval, unicast: unicast, alone: true}, "", nil); err != nil {
		return nil, err
	}
	if err := p.ours.awaitRole(ctx, admin.RoleActive); err != nil {
		return nil, err
	}
	if p.theirs, err = a.keepalived(ctx, a.nodes[1], p.plan, a.nodes[0].Addr(e.Family)); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			v := e.Verdict()
			v.Note("left out: %v", err)
			return v, nil
		}
		return nil, err
	}
	each := 20
	if e.Short || e.Relaxed {
		each = 2
	}
	e.Say("the node owns the address, keepalived stands by; %d takeovers each way", each)
	for i := range each {
		if err := p.away(ctx, i%2 == 0); err != nil {
			return nil, fmt.Errorf("takeover %d by keepalived: %w", i+1, err)
		}
		if err := p.back(ctx, i%2 == 1); err != nil {
			return nil, fmt.Errorf("takeover %d by the node: %w", i+1, err)
		}
	}
	v := e.Verdict()
	p.judge(v, interval)
	return v, nil
}

// away makes keepalived the owner. The node's kernel goes on and answers ARP:
// else the first adverts that keepalived sends to it alone would wait a second
// for an answer, also when the node is back.
func (p *peering) away(ctx context.Context, planned bool) error {
	m := move{p.nodes[0].Name(), p.nodes[1].Name(), planned, time.Now()}
	var err error
	if planned {
		_, err = p.ours.holdfast(ctx, "address", "release", p.vip.Addr().String())
	} else {
		m.at, err = p.nodes[0].Freeze()
	}
	if err == nil {
		err = p.theirs.Await(ctx, instance, programs.KeepalivedMaster)
	}
	if err == nil && !planned {
		if err = p.rest(ctx); err == nil {
			_, err = p.nodes[0].Continue()
		}
	}
	if err != nil {
		return err
	}
	p.moves = append(p.moves, m)
	if err := p.ours.awaitRole(ctx, admin.RoleBackup); err != nil {
		return err
	}
	return p.rest(ctx)
}

// back makes the node the owner.
func (p *peering) back(ctx context.Context, planned bool) error {
	link := p.nodes[1].Links()[0]
	m := move{p.nodes[1].Name(), p.nodes[0].Name(), planned, time.Now()}
	var err error
	if planned {
		err = p.theirs.Close() // it says that it stops
	} else {
		m.at, err = link.Cut()
	}
	if err == nil {
		err = p.ours.awaitRole(ctx, admin.RoleActive)
	}
	if err == nil {
		err = p.rest(ctx)
	}
	if err != nil {
		return err
	}
	p.moves = append(p.moves, m)
	if !planned {
		if _, err := link.Restore(); err != nil {
			return err
		}
		return errors.Join(p.theirs.Await(ctx, instance, programs.KeepalivedBackup), p.rest(ctx))
	}
	p.theirs, err = p.keepalived(ctx, p.nodes[1], p.plan, p.nodes[0].Addr(p.Family))
	return errors.Join(err, p.rest(ctx))
}

// rest lets the owner say some adverts, and the other one hear them.
func (p *peering) rest(ctx context.Context) error {
	return scene.Pause(ctx, 5*p.plan.interval+time.Duration(p.Rand().Int64N(int64(p.plan.interval))))
}

// turnsOf goes through all adverts and announcements of the address: who said in
// turn that he owns it, and how often an owner said so after the next one's
// first, because he had not heard of it yet. Announcements count too because an
// advert for one host alone does not leave while nobody knows where that is.
func turnsOf(seen []lab.Seen, vip netip.Addr, interval time.Duration) (turns []lab.Span, again int) {
	for _, s := range seen {
		advert := s.Sort == lab.Advertised && s.Priority > 0 && s.ID == routerID
		if !advert && !(s.Unasked && s.Claims(vip)) {
			continue
		}
		n := len(turns)
		switch {
		case n > 0 && s.Host == turns[n-1].Host:
			turns[n-1].To = s.Time
			turns[n-1].Frames++
		case n > 1 && s.Host == turns[n-2].Host && s.Time.Sub(turns[n-2].To) <= 2*interval:
			again++
			turns[n-2].To = s.Time
		default:
			turns = append(turns, lab.Span{Host: s.Host, From: s.Time, To: s.Time, Frames: 1})
		}
	}
	return turns, again
}

func (p *peering) judge(v *scene.Verdict, interval time.Duration) {
	turns, again := turnsOf(p.watch.Seen(), p.vip.Addr(), interval)
	v.Count("takeovers, by adverts and announcements on the wire", max(0, len(turns)-1)).Exactly(len(p.moves))
	if len(turns)-1 != len(p.moves) {
		v.Note("who sent adverts: %s", lab.DescribeSpans(turns))
	}
	v.Count("adverts and announcements of an owner after the next one's first", again).AtMost(int64(len(p.moves)))
	var ours, theirs []time.Duration
	for i := 1; i < len(turns); i++ {
		if turns[i].Host == p.nodes[0].Name() {
			ours = append(ours, turns[i].From.Sub(turns[i-1].To))
		} else {
			theirs = append(theirs, turns[i].From.Sub(turns[i-1].To))
		}
	}
	const slack = 25 * time.Millisecond // keepalived has no real-time priority by default
	v.Time("nobody says that he owns it, until the node does", ours...).Within(vrrp.DownInterval(p.ours.priority, interval) + slack).AsHeadline()
	v.Time("nobody says that he owns it, until keepalived does", theirs...).Within(vrrp.DownInterval(peerPriority, interval) + slack)
	claims := lab.Speakers(p.watch.Seen(), func(s lab.Seen) bool { return s.Claims(p.vip.Addr()) })
	v.Count("times another node said to neighbours that it has the address", max(0, len(claims)-1)).Exactly(len(p.moves)).AsPart()
	if len(claims)-1 != len(p.moves) {
		v.Note("who claimed the address: %s", lab.DescribeSpans(claims))
	}
}
