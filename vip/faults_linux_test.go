package vip

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/internal/gate"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
)

// An owner that stops without a word falls silent by itself, although its kernel
// still has the addresses, and the other one takes over.
func TestLeftOwnerIsSilent(t *testing.T) {
	for name, o := range map[string]pairOptions{
		"gate":      {interval: quick},
		"lifetimes": {interval: quick, gateless: true},
		"strangers": {interval: quick, strange: true}, // nobody asks before he acts
	} {
		gated := !o.gateless
		t.Run(name, func(t *testing.T) {
			l := oneArm(t, lab.Size{Clients: 1, Nodes: 2})
			w, err := l.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{floating[0].Addr(), floating[1].Addr()}, Traffic: true})
			if err != nil {
				t.Fatal(err)
			}
			p := startPair(t, l, o)
			active, backup := p.active(t)
			if s := active.status(); s.Gate.InForce != gated || !gated && s.Gate.Why == "" {
				t.Errorf("gate %+v", s.Gate)
			}
			client := l.Host("client1")
			stop := make(chan struct{})
			asked := make(chan struct{})
			go func() { // somebody asks all the time
				defer close(asked)
				for {
					select {
					case <-stop:
						return
					default:
						flush(client)
						ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
						for _, f := range floating {
							if c, err := client.Dial(ctx, "tcp", netip.AddrPortFrom(f.Addr(), 9).String()); err == nil {
								_ = c.Close()
							}
						}
						cancel()
					}
				}
			}()
			mark := backup.mark()
			p.broken.Store(true)
			active.leave()
			backup.waitFrom(mark, "takeover", becomes(Active))
			until(t, "the addresses", func() bool { return has(backup.addresses("eth0"), floating) })
			if there := has(active.addresses("eth0"), floating); gated && !there {
				t.Error("the kernel had removed what was left before the other one took over: the gate was not needed")
			}
			until(t, "that the kernel has removed what was left", func() bool { return hasNone(active.addresses("eth0"), floating) })
			close(stop)
			<-asked
			for _, f := range floating {
				reach(t, client, f.Addr())
				// The watch reads behind the network: it has all of before when it has a
				// frame of the new owner.
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				_, err := w.Await(ctx, func(s lab.Seen) bool { return s.Host == backup.host.Name() && s.Speaks(f.Addr()) })
				cancel()
				if err != nil {
					t.Errorf("%v of %s: %v", f.Addr(), backup.host.Name(), err)
				}
				spans := lab.Speakers(w.Seen(), func(s lab.Seen) bool { return s.Speaks(f.Addr()) })
				if len(spans) != 2 || spans[0].Host != active.host.Name() || spans[1].Host != backup.host.Name() {
					t.Errorf("%v was spoken for by %v", f.Addr(), spans)
				}
			}
			if n := w.Lost(); n > 0 {
				t.Errorf("the watch has lost %d frames", n)
			}
		})
	}
}

// flush has a host forget its neighbours, so that it asks again.
func flush(h *lab.Host) { _, _ = h.Run(context.Background(), "ip", "neigh", "flush", "all") }

// A process that is restarted in time goes on where the one before it was, and
// the other node sees no difference.
func TestRestartInTime(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 2})
	p := startPair(t, l, pairOptions{interval: 500 * time.Millisecond})
	active, backup := p.active(t)
	until(t, "beats", func() bool { return backup.status().Peer.Linked })
	mark, epoch := backup.mark(), active.status().Epoch
	active.leave()
	again := p.start(t, active.host, slices.Index(p.nodes[:], active))
	c := again.wait("role active", becomes(Active))
	if c.Cause != CausePredecessor {
		t.Errorf("it became active because of %q", c.Cause)
	}
	until(t, "adverts, and beats of a new epoch", func() bool {
		s := again.status()
		return s.Adverts.Sent >= 3 && s.Peer.Linked && s.Epoch >= epoch && s.Role == Active
	})
	backup.mu.Lock()
	defer backup.mu.Unlock()
	for _, c := range backup.changes[mark:] {
		if c.Kind == KindRole {
			t.Errorf("the other one noticed: %s", c.Text)
		}
	}
}

// inside runs f with a socket for frames and the MAC of a host's first link.
func frames(t *testing.T, h *lab.Host, f func(s *sys.NeighbourSocket, mac announce.MAC) error) {
	t.Helper()
	if err := h.Do(func() error {
		rt, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		index, err := rt.Index("eth0")
		if err != nil {
			return err
		}
		link, err := rt.Link(index)
		if err != nil {
			return err
		}
		s, err := sys.OpenNeighbourSocket(index)
		if err != nil {
			return err
		}
		defer s.Close()
		return f(s, link.MAC)
	}); err != nil {
		t.Fatal(err)
	}
}

// Another host that says it has the address is reported, and contradicted.
func TestConflict(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1, Clients: 1})
	n := startNode(t, l.Host("node1"), Options{Groups: []Group{{Name: "front", Interface: "eth0", Addresses: floating}}})
	n.wait("role active", becomes(Active))
	until(t, "both addresses", func() bool { return has(n.addresses("eth0"), floating) })
	w, err := l.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{floating[0].Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	mark := n.mark()
	frames(t, l.Host("client1"), func(s *sys.NeighbourSocket, mac announce.MAC) error {
		for range 5 {
			if errno := s.Send(announce.GratuitousARP(nil, mac, floating[0].Addr(), false)); errno != 0 {
				return errno
			}
		}
		return nil
	})
	n.waitFrom(mark, "word of it", says(KindConflict))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	claimed := false
	if _, err := w.Await(ctx, func(s lab.Seen) bool {
		claimed = claimed || s.Host == "client1" && s.Claims(floating[0].Addr())
		return claimed && s.Host == "node1" && s.Claims(floating[0].Addr())
	}); err != nil {
		t.Errorf("the owner has not answered: %v", err)
	}
	if s := n.status(); s.Conflicts == 0 || s.Role != Active {
		t.Errorf("status %+v", s)
	}
}

// A backup that finds an address on its interface which it does not own says so,
// and keeps it silent: whether it has owned it before or not, and also when its
// link has changed since.
func TestAddedByOthers(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 2, Clients: 1})
	p := startPair(t, l, pairOptions{interval: quick})
	active, backup := p.active(t)
	silent := func(when string) {
		t.Helper()
		epoch := active.status().Epoch
		w, err := l.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{floating[0].Addr(), floating[1].Addr()}, Traffic: true})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for range 3 { // what was answered to the first is seen by the last
			flush(l.Host("client1"))
			reach(t, l.Host("client1"), floating[0].Addr())
		}
		if s := active.status(); s.Role != Active || s.Epoch != epoch {
			t.Fatalf("%s: the owner has changed meanwhile (%v, epoch %d): nothing can be said", when, s.Role, s.Epoch)
		}
		spoke := func(s lab.Seen) bool { return s.Speaks(floating[0].Addr()) }
		for _, s := range lab.Speakers(w.Seen(), spoke) {
			if s.Host != active.host.Name() {
				t.Errorf("%s: %s speaks for %v", when, s.Host, floating[0].Addr())
			}
		}
	}
	mark := backup.mark()
	if _, err := backup.host.AddAddress("eth0", floating[0]); err != nil {
		t.Fatal(err)
	}
	backup.waitFrom(mark, "word of it", says(KindAddress))
	if s := backup.status(); !slices.Contains(s.Present, floating[0].Addr()) {
		t.Errorf("status shows %v", s.Present)
	}
	silent("never owned")

	run(t, backup.host, "ip", "address", "del", floating[0].String(), "dev", "eth0")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := active.owner.Release(ctx, "front"); err != nil {
		t.Fatal(err)
	}
	active, backup = p.active(t)
	mark = backup.mark()
	own := netip.MustParsePrefix("10.77.0.201/24") // the link has changed
	if _, err := backup.host.AddAddress("eth0", own); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.host.AddAddress("eth0", floating[0]); err != nil {
		t.Fatal(err)
	}
	backup.waitFrom(mark, "word of it", says(KindAddress))
	silent("given away, and another address added since")

	run(t, backup.host, "ip", "address", "del", floating[0].String(), "dev", "eth0")
	downAndUp := func() {
		t.Helper()
		mark = backup.mark()
		run(t, backup.host, "ip", "link", "set", "eth0", "down")
		backup.waitFrom(mark, "role fault", becomes(Fault))
		mark = backup.mark()
		run(t, backup.host, "ip", "link", "set", "eth0", "up")
		backup.waitFrom(mark, "role backup", becomes(Backup))
	}
	downAndUp()
	mark = backup.mark()
	if _, err := backup.host.AddAddress("eth0", floating[0]); err != nil {
		t.Fatal(err)
	}
	backup.waitFrom(mark, "word of it", says(KindAddress))
	silent("given away, and the link was down since")
	downAndUp()
	silent("given away, and the link was down while it was there")
}

// A backup that is told of other settings keeps listening, an owner keeps the
// addresses.
func TestConfigureShared(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 2})
	p := startPair(t, l, pairOptions{interval: quick})
	active, backup := p.active(t)
	marks := [2]int{active.mark(), backup.mark()}
	for i, n := range []*node{active, backup} {
		g := p.groups[slices.Index(p.nodes[:], n)]
		v := *g.VRRP
		v.Interval, v.Priority = 2*quick, 120
		g.VRRP = &v
		if err := n.owner.Configure([]Group{g}); err != nil {
			t.Fatal(err)
		}
		if s := n.status(); s.Interval != 2*quick || s.Priority != 120 {
			t.Errorf("node %d: %+v", i, s)
		}
	}
	sent := active.status().Adverts.Sent
	until(t, "adverts as before", func() bool { return active.status().Adverts.Sent > sent+5 })
	for i, n := range []*node{active, backup} {
		n.mu.Lock()
		for _, c := range n.changes[marks[i]:] {
			if c.Kind == KindRole {
				t.Errorf("%s: %s", n.host.Name(), c.Text)
			}
		}
		n.mu.Unlock()
	}
}

// One process cannot have a gate: the lease is kept by the lifetime of the
// addresses.
var errNoGate = errors.New("this kernel has none")

func noGate(int) (*gate.Gate, error) { return nil, errNoGate }
