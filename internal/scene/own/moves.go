//go:build linux

package own

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
)

// noAnnouncement is the fault of a network that loses what tells neighbours of
// a new owner.
const noAnnouncement = "announcements-lost"

// AddressMoves is the scene of an address that is moved by command.
func AddressMoves() scene.Scene {
	return scene.Scene{
		Name:  "address-moves",
		Title: "an address moves to the other node and back by command, under load: no new connection fails",
		Story: `Two nodes have an address between them, with a relay service on it. 500 times a
second somebody connects, from beside the nodes and from behind a router, and does one
checked exchange. Again and again the owner is told to release the address. The other
node gets ready first and takes the new connections, the old owner's end by themselves
or are told when the service's drain.timeout is over; only then the address changes
hands. No connect fails. In
the second variant every gratuitous ARP and every unsolicited neighbour advertisement
is lost, so that nobody learns of the new owner by being told.`,
		Variants: []scene.Variant{
			{Demo: true},
			{Fault: noAnnouncement, Title: "no gratuitous ARP and no unsolicited neighbour advertisement arrives"},
		},
		Demo: true,
		Run:  playMoves,
	}
}

// movesOf is how often the address moves, and how long it then stays.
func movesOf(e *scene.Env) (moves int, stay time.Duration) {
	switch {
	case e.Short:
		return 4, 300 * time.Millisecond
	case e.Relaxed:
		return 3, 300 * time.Millisecond
	}
	return 20, 500 * time.Millisecond
}

// passing is how long an old owner passes late frames on. Whoever knows only
// him then must have learned of the new one.
const passing = 5 * time.Second

func playMoves(ctx context.Context, e *scene.Env) (_ *scene.Verdict, err error) {
	a, err := newArena(ctx, e, arenaPlan{backends: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	// What is on its way when the address is to move may end by itself.
	drain, perSecond := time.Second, probesPerSecond
	if e.Relaxed { // nothing is judged by how busy the machine is
		drain, perSecond = 20*time.Second, 100
	}
	pair, err := a.startPair(ctx, pairPlan{interval: 100 * time.Millisecond, witness: true, service: true, drain: drain})
	if err != nil {
		return nil, err
	}
	if e.Variant.Fault == noAnnouncement {
		if _, err := a.lab.Lose(nil, nil, lab.Announcements); err != nil {
			return nil, err
		}
	}
	t, err := a.startTakeover(ctx, perSecond/2)
	if err != nil {
		return nil, err
	}
	moves, stay := movesOf(e)
	e.Say("%d new connections a second; the address moves %d times", perSecond, moves)
	var took []time.Duration
	for i := range moves {
		owner, other := pair[i%2], pair[(i+1)%2]
		began := time.Now()
		if _, err := owner.holdfast(ctx, "address", "release", a.vip.Addr().String()); err != nil {
			return nil, fmt.Errorf("move %d: %w", i+1, err)
		}
		took = append(took, time.Since(began))
		if err := other.awaitRole(ctx, admin.RoleActive); err != nil {
			return nil, fmt.Errorf("move %d: %w", i+1, err)
		}
		if err := errors.Join(t.onLink.served(ctx, 20), t.routed.served(ctx, 20)); err != nil {
			return nil, fmt.Errorf("move %d: %w", i+1, err)
		}
		if err := scene.Pause(ctx, stay+time.Duration(a.Rand().Int64N(int64(stay)))); err != nil {
			return nil, err
		}
	}
	if e.Variant.Fault == noAnnouncement {
		e.Say("the old owner passes late frames on for %v; after that everybody must know the new one", passing)
		if err := scene.Pause(ctx, passing+time.Second); err != nil {
			return nil, err
		}
		if err := errors.Join(t.onLink.served(ctx, 20), t.routed.served(ctx, 20)); err != nil {
			return nil, err
		}
	}
	v := e.Verdict()
	a.judgeMoves(v, t, took)
	for i, n := range pair {
		g, err := n.group(ctx)
		if err != nil {
			return nil, err
		}
		want := admin.RoleActive
		if moves%2 != i {
			want = admin.RoleBackup
		}
		v.Must(g.Role == want, "after %d moves %s is %s, not %s", moves, n.host.Name(), g.Role, want)
	}
	return v, nil
}

func (a *arena) judgeMoves(v *scene.Verdict, t *takeover, took []time.Duration) {
	near, far := t.onLink.end(), t.routed.end()
	all := slices.Concat(near, far)
	lost := failures(all)
	var connects, whole []time.Duration
	for _, p := range all {
		if p.Err == nil {
			connects, whole = append(connects, p.Connect), append(whole, p.EndedAt.Sub(p.StartedAt))
		}
	}
	v.Count("new connections", len(all)).AtLeast(1)
	v.Count("of these failed to connect", lost.connects).Exactly(0).AsHeadline()
	v.Count("of these told in the middle of their exchange", lost.exchanges).AsPart()
	v.Time("connect", connects...).AsPart()
	v.Time("connect and exchange", whole...).AsPart()
	v.Time("a move, by the command's clock", took...)
	if len(lost.how) > 0 {
		v.Note("the first that failed: %s", strings.Join(lost.how, "; "))
	}
	vip := a.vip.Addr()
	seen := a.watch.Seen()
	claims := lab.Speakers(seen, func(s lab.Seen) bool { return s.Claims(vip) })
	v.Count("times another node said to neighbours that it has the address", max(0, len(claims)-1)).Exactly(len(took))
	if len(claims) != len(took)+1 {
		v.Note("who claimed %v: %s", vip, lab.DescribeSpans(claims))
	}
	v.Count("connections that two nodes spoke on: a port used again, which the old owner remembers", twice(seen, vip)).AsPart()
	n := a.watch.Lost()
	v.Must(n == 0, "the watch has lost %d frames: nothing follows from what it did not see", n)
}

// twice counts the connections on which two nodes have sent something else than
// that they do not know it: while an address moves both serve it, but never the
// same client. Ports come again later, with a SYN.
func twice(seen []lab.Seen, vip netip.Addr) (n int) {
	type client struct {
		addr netip.Addr
		port uint16
	}
	speaker := map[client]string{}
	for _, s := range seen {
		if s.Sort != lab.Spoke || s.Address != vip || s.From != port {
			continue
		}
		c := client{s.Destination, s.To}
		switch was, ok := speaker[c]; {
		case s.Flags&lab.SYN != 0 && ok && was != s.Host:
			// The port is used again, or a SYN was answered by both: the client
			// takes the first answer, and resets the other.
			speaker[c] = s.Host
		case !ok:
			speaker[c] = s.Host
		case was != s.Host && s.Flags&lab.RST == 0:
			n++
			speaker[c] = s.Host
		}
	}
	return n
}
