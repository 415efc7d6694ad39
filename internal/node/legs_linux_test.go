package node_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/lab"
)

// lastOfFirst is the last source port of the first node of a pair.
const lastOfFirst = 46883

// TestBackendLegs has backends see the address, each node use ports of its own, and
// what a backend sends to a node that is dead be answered by the one that has the
// address.
func TestBackendLegs(t *testing.T) {
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			c := newCouple(t, f)
			for _, n := range c.nodes {
				n.start()
			}
			active, backup := c.settled()
			// Both nodes in turn, by a planned move, and by a death.
			c.wantFrom(active)
			if _, err := active.admin.Release(t.Context(), "front"); err != nil {
				t.Fatal(err)
			}
			backup.awaitRole(admin.RoleActive)
			a := c.wantFrom(backup)
			backup.await("it says where from", func(s admin.Status) bool {
				return s.Sources != nil && len(s.Sources.Ways) == 1 && s.Sources.Ways[0].Used == 1 && s.Sources.Ways[0].Address == c.address.Addr().String() &&
					s.Sources.Ways[0].Max > 14000 && s.Sources.Unbound["ports"]+s.Sources.Unbound["no_way"]+s.Sources.Unbound["away"] == 0
			})
			c.die(backup, active, a)
			c.wantFrom(active)
		})
	}
}

// die has the owner's host die, and wants what a backend of it sends to be answered
// by the other node.
func (c *couple) die(owner, other *member, a arrival) {
	c.t.Helper()
	if _, err := owner.host.Die(); err != nil {
		c.t.Fatal(err)
	}
	other.awaitRole(admin.RoleActive)
	if _, err := a.Write([]byte("are you there?")); err != nil {
		c.t.Fatal(err)
	}
	select {
	case err := <-a.end:
		if !errors.Is(err, syscall.ECONNRESET) {
			c.t.Errorf("the backend's connection to the dead node ended with %v, want a reset", err)
		}
	case <-time.After(within):
		c.t.Error("the new owner does not answer a backend of the dead node")
	}
}

// wantFrom has a client connect, and looks where the backend is connected to from.
func (c *couple) wantFrom(n *member) arrival {
	c.t.Helper()
	a := c.arrive()
	first := n == c.nodes[0]
	if a.from.Addr() != c.address.Addr() || a.from.Port() < 32768 || a.from.Port() > 60999 || (a.from.Port() <= lastOfFirst) != first {
		c.t.Errorf("the backend sees %v, want %v and a port of the half of %s", a.from, c.address.Addr(), n.name)
	}
	return a
}

// arrive has a client connect, and is what the backend sees of it.
func (c *couple) arrive() arrival {
	c.t.Helper()
	c.connect()
	list := c.arrivals()
	return list[len(list)-1]
}

// TestBackendWithoutWayBack has a backend on a network of its own, where the address
// is unknown: clients are served all the same, and the node says what is missing.
// Then a route is all it takes, as long as the nodes answer for the address on that
// network too, which Linux does in IPv4 alone.
func TestBackendWithoutWayBack(t *testing.T) {
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			c := newCoupleOn(t, f, lab.TwoArm)
			for _, n := range c.nodes {
				n.start()
			}
			active, backup := c.settled()
			problem := func(s admin.Status) bool {
				return slices.ContainsFunc(s.Problems, func(p admin.Problem) bool {
					return p.Code == admin.ProblemNoWayBack && strings.Contains(p.Text, c.address.Addr().String())
				})
			}
			for range 2 {
				if a := c.arrive(); a.from.Addr() == c.address.Addr() {
					t.Errorf("the backend sees %v, which it cannot have answered", a.from)
				}
			}
			active.await("it says what is missing", func(s admin.Status) bool {
				return s.Sources != nil && s.Sources.Unbound["no_way"] == 2 && problem(s)
			})
			if f == lab.IPv6 {
				return
			}
			to := netip.PrefixFrom(c.address.Addr(), c.address.Addr().BitLen()).String()
			if _, err := c.lab.Host("backend1").Run(t.Context(), "ip", "route", "add", to, "dev", "eth0"); err != nil {
				t.Fatal(err)
			}
			if _, err := active.admin.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			a := c.wantFrom(active)
			active.await("it is well again", func(s admin.Status) bool { return !problem(s) })
			c.die(active, backup, a)
		})
	}
}
