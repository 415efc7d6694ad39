package vip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// pair is two nodes with a link between them.
type pair struct {
	lab    *lab.Lab
	nodes  [2]*node
	broken atomic.Bool // the link carries nothing
	groups [2]Group
	o      pairOptions
	ready  [2]atomic.Pointer[Owner]
}

type pairOptions struct {
	interval time.Duration
	strange  bool // without a link
	gateless bool
	change   func(i int, g *Group)
	steps    []Step
}

// startPair starts two Owners of one group; the first has the higher priority.
func startPair(t *testing.T, l *lab.Lab, o pairOptions) *pair {
	t.Helper()
	p := &pair{lab: l, o: o}
	for i, name := range []string{"node1", "node2"} {
		g := Group{
			Name: "front", Interface: "eth0", Addresses: floating, Peered: !o.strange, First: i == 0,
			VRRP: &VRRP{ID: 51, Priority: uint8(200 - 50*i), Interval: o.interval},
		}
		if o.change != nil {
			o.change(i, &g)
		}
		p.groups[i] = g
		p.start(t, l.Host(name), i)
	}
	return p
}

// start starts the Owner of one node.
func (p *pair) start(t *testing.T, host *lab.Host, i int) *node {
	t.Helper()
	opts := Options{Groups: []Group{p.groups[i]}, Steps: p.o.steps}
	if !p.o.strange {
		opts.OnBeat = func(b []byte) {
			if other := p.ready[1-i].Load(); other != nil && !p.broken.Load() {
				if err := other.Deliver(b); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
			}
		}
	}
	n := newNode(t, host, opts)
	if p.o.gateless {
		n.owner.openGate = noGate
	}
	p.ready[i].Store(n.owner)
	n.start()
	p.nodes[i] = n
	return n
}

// active waits until one is active and the other backup, and gives them.
func (p *pair) active(t *testing.T) (active, backup *node) {
	t.Helper()
	until(t, "one active and one backup node", func() bool {
		a, b := p.nodes[0].status(), p.nodes[1].status()
		switch {
		case a.Role == Active && b.Role == Backup:
			active, backup = p.nodes[0], p.nodes[1]
		case a.Role == Backup && b.Role == Active:
			active, backup = p.nodes[1], p.nodes[0]
		default:
			return false
		}
		return has(active.addresses("eth0"), floating) && hasNone(backup.addresses("eth0"), floating)
	})
	return active, backup
}

// quick is an interval that a busy machine keeps without real-time priority.
const quick = 100 * time.Millisecond

// One of two owns the addresses; when it dies the other one does, and clients
// reach it.
func TestTakeover(t *testing.T) {
	for _, c := range []struct {
		name string
		o    pairOptions
	}{
		{"strangers", pairOptions{interval: quick, strange: true}},
		{"peers", pairOptions{interval: quick}},
		{"unicast", pairOptions{interval: quick, strange: true, change: func(i int, g *Group) {
			g.VRRP.Peers = []netip.Addr{lab.Address(lab.IPv4, 12-i).Addr(), lab.Address(lab.IPv6, 12-i).Addr()}
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := oneArm(t, lab.Size{Clients: 1, Nodes: 2})
			w, err := l.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{floating[0].Addr(), floating[1].Addr()}})
			if err != nil {
				t.Fatal(err)
			}
			p := startPair(t, l, c.o)
			active, backup := p.active(t)
			for _, f := range floating {
				reach(t, l.Host("client1"), f.Addr())
			}
			mark := backup.mark()
			p.broken.Store(true)
			died, err := active.host.Die()
			if err != nil {
				t.Fatal(err)
			}
			change := backup.waitFrom(mark, "takeover", becomes(Active))
			t.Logf("active %v after the death of the other", change.At.Sub(died))
			if change.Cause != CauseSilence {
				t.Errorf("cause %q", change.Cause)
			}
			until(t, "the addresses", func() bool { return has(backup.addresses("eth0"), floating) })
			for _, f := range floating {
				reach(t, l.Host("client1"), f.Addr())
			}
			if n := w.Lost(); n > 0 {
				t.Errorf("the watch has lost %d frames", n)
			}
			for _, f := range floating {
				spans := lab.Speakers(w.Seen(), func(s lab.Seen) bool { return s.Claims(f.Addr()) })
				if len(spans) != 2 || spans[0].Host != active.host.Name() || spans[1].Host != backup.host.Name() {
					t.Errorf("%v was claimed by %v", f.Addr(), spans)
				}
			}
		})
	}
}

// A planned move: the other one is ready before anything changes, nobody is
// refused, and late frames are passed on.
func TestRelease(t *testing.T) {
	var order []When
	var planned atomic.Int32
	steps := []Step{}
	calls := make(chan When, 20)
	for _, w := range []When{BeforeAddress, AfterAnnounce, Draining, BeforeWithdraw, AfterWithdraw} {
		steps = append(steps, Step{Name: "note", When: w, Do: func(_ context.Context, e Event) error {
			if e.Planned {
				planned.Add(1)
			}
			calls <- w
			return nil
		}})
	}
	l := oneArm(t, lab.Size{Clients: 1, Nodes: 2})
	p := startPair(t, l, pairOptions{interval: quick, steps: steps})
	active, backup := p.active(t)
	until(t, "beats", func() bool { return active.status().Peer.Linked && backup.status().Peer.Linked })
	for range 2 { // of the first takeover
		<-calls
	}
	w, err := l.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{floating[0].Addr(), floating[1].Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	epoch := active.status().Epoch
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := active.owner.Release(ctx, "front"); err != nil {
		t.Fatal(err)
	}
	if s := backup.status(); s.Role != Active || s.Cause != CauseHandover || s.Epoch <= epoch {
		t.Errorf("the other one: %+v", s)
	}
	p.active(t)
	for range 5 {
		order = append(order, <-calls)
	}
	if !slices.Equal(order[:3], []When{BeforeAddress, Draining, BeforeWithdraw}) || planned.Load() < 5 {
		t.Errorf("order %v, %d planned", order, planned.Load())
	}
	for _, f := range floating {
		reach(t, l.Host("client1"), f.Addr())
		spans := lab.Speakers(w.Seen(), func(s lab.Seen) bool { return s.Claims(f.Addr()) })
		if len(spans) == 0 || spans[len(spans)-1].Host != backup.host.Name() || len(spans) > 2 {
			t.Errorf("%v was claimed by %v", f.Addr(), spans)
		}
	}
	if err := active.owner.Release(ctx, "front"); !errors.Is(err, ErrNotOwner) {
		t.Errorf("releasing what is not owned: %v", err)
	}
	if err := active.owner.Release(ctx, "back"); err == nil {
		t.Error("a group that is not there was released")
	}
	// And back, by the end of the owner.
	mark := active.mark()
	backup.close()
	active.waitFrom(mark, "role active", becomes(Active))
}
