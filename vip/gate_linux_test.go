package vip

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/holdfast-net/holdfast/internal/gate"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
)

// A gate that somebody takes off the link is put back, with what it knew, and
// told of; one that cannot be put back is not said to be in force, and is tried
// again.
func TestGateTakenOff(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	host := l.Host("node1")
	n := newNode(t, host, Options{Groups: []Group{{
		Name: "front", Interface: "eth0", Addresses: floating, VRRP: &VRRP{ID: 51, Priority: 200, Interval: quick},
	}}})
	var broken atomic.Bool
	n.owner.openGate = func(index int) (*gate.Gate, error) {
		if broken.Load() {
			return nil, errors.New("no room for a program")
		}
		return gate.Open(index)
	}
	n.start()
	n.wait("role active", becomes(Active))
	// guarded looks from outside; another process's gate shares what ours knows.
	guarded := func(andTakeOff bool) (all bool) {
		t.Helper()
		if err := host.Do(func() error {
			h, err := rtnl.Open()
			if err != nil {
				return err
			}
			defer h.Close()
			index, err := h.Index("eth0")
			if err != nil {
				return err
			}
			g, err := gate.Open(index)
			if err != nil {
				return err
			}
			all = true
			for _, f := range floating {
				e, ok, err := g.Entry(f.Addr())
				all = all && ok && e.Mode == gate.Own && e.Until > sys.BootTime()
				if err == nil && andTakeOff {
					err = g.Delete(f.Addr()) // Detach leaves what guards an address
				}
				if err != nil {
					return errors.Join(err, g.Close())
				}
			}
			if andTakeOff {
				return g.Detach()
			}
			return g.Close()
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	told := func(over bool, text string) func(Change) bool {
		return func(c Change) bool { return c.Kind == KindGate && c.Over == over && strings.Contains(c.Text, text) }
	}

	mark := n.mark()
	if !guarded(true) {
		t.Error("the owner's addresses were not guarded")
	}
	n.waitFrom(mark, "word of the gate", told(false, "was taken off"))
	n.waitFrom(mark, "word of the gate's return", told(true, "in force again"))
	if s := n.status(); !s.Gate.InForce || s.Role != Active {
		t.Errorf("gate %+v, role %v", s.Gate, s.Role)
	}
	if !guarded(false) {
		t.Error("the gate that was put back does not know the owner's lease")
	}

	mark = n.mark()
	broken.Store(true)
	guarded(true)
	n.waitFrom(mark, "word of the gate", told(false, "no room for a program"))
	if s := n.status(); s.Gate.InForce || !strings.Contains(s.Gate.Why, "taken off") || s.Role != Active {
		t.Errorf("gate %+v, role %v", s.Gate, s.Role)
	}
	broken.Store(false)
	n.waitFrom(mark, "word of the gate's return", told(true, "in force again"))
	if s := n.status(); !s.Gate.InForce || s.Gate.Why != "" || s.Role != Active {
		t.Errorf("gate %+v, role %v", s.Gate, s.Role)
	}
	if !guarded(false) {
		t.Error("the gate that was put back later does not know the owner's lease")
	}
}
