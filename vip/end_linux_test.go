package vip

import (
	"context"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// An Owner that is ended in the middle of any step, whoever is to do it, ends:
// what is not answered is waited for no longer than its bound, and only for what
// is still to be done.
func TestEndInAStep(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 2})
	for _, peered := range []bool{false, true} {
		for w := BeforeAddress; w <= AfterWithdraw; w++ {
			name := "alone/" + w.String()
			if peered {
				name = "with a peer/" + w.String()
			}
			t.Run(name, func(t *testing.T) { testEndInAStep(t, l, w, peered) })
		}
	}
}

func testEndInAStep(t *testing.T, l *lab.Lab, w When, peered bool) {
	const bound = 500 * time.Millisecond
	p := &pair{lab: l, o: pairOptions{interval: quick}}
	began := make(chan struct{}, 8)
	hangs := []Step{{Name: "hangs", When: w, Bound: bound, Do: func(ctx context.Context, _ Event) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}}}
	for i := range p.groups {
		p.groups[i] = Group{
			Name: "front", Interface: "eth0", Addresses: floating, Drain: time.Second, Peered: true, First: i == 0,
			VRRP: &VRRP{ID: 51, Priority: uint8(200 - 50*i), Interval: quick},
		}
	}
	p.o.steps = hangs
	n := p.start(t, l.Host("node1"), 0)
	until(t, "it owns", func() bool { return n.status().Role == Active })
	if peered {
		p.o.steps = nil
		p.start(t, l.Host("node2"), 1)
		until(t, "beats", func() bool { return n.status().Peer.Linked && n.status().Peer.Role == Backup })
	}
	if w > AfterAnnounce {
		go func() { _ = n.owner.Release(context.Background(), "front") }()
	}
	<-began
	at := time.Now()
	n.close()
	took := time.Since(at)
	t.Logf("ended after %v", took)
	if took > 6*bound { // and for a busy machine
		t.Errorf("it has ended after %v", took)
	}
	if left := n.addresses("eth0"); !hasNone(left, floating) {
		t.Errorf("left behind: %v", left)
	}
}

// A release that is asked for while the node is on its way out, as nobody says
// that what the addresses are for is alive, is answered also if somebody says so
// again before the peer has had a part in it.
func TestReleaseOnTheWayOut(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 2})
	p := &pair{lab: l, o: pairOptions{interval: quick}}
	for i := range p.groups {
		p.groups[i] = Group{
			Name: "front", Interface: "eth0", Addresses: floating, Peered: true, First: i == 0, NeedsAlive: i == 0,
			VRRP: &VRRP{ID: 51, Priority: uint8(200 - 50*i), Interval: quick},
		}
	}
	n := p.start(t, l.Host("node1"), 0)
	until(t, "it owns", func() bool { n.owner.Alive(); return n.status().Role == Active })
	began, prepare := make(chan struct{}, 8), make(chan struct{})
	p.o.steps = []Step{{Name: "slow", When: BeforeAddress, Do: func(ctx context.Context, _ Event) error {
		began <- struct{}{}
		select {
		case <-prepare:
		case <-ctx.Done():
		}
		return nil
	}}}
	p.start(t, l.Host("node2"), 1)
	until(t, "beats", func() bool { n.owner.Alive(); return n.status().Peer.Linked && n.status().Peer.Role == Backup })

	<-began // for a second nobody was alive
	answer := make(chan error, 1)
	n.owner.post(func(l *loop) { l.release("front", func(err error) { answer <- err }) })
	n.owner.Alive()
	_ = n.status() // both have been taken
	close(prepare)
	select {
	case err := <-answer:
		t.Logf("the release says: %v", err)
	case <-time.After(patience):
		t.Error("the release was never answered")
	}
}
