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
			if _, err := backup.host.Die(); err != nil {
				t.Fatal(err)
			}
			active.awaitRole(admin.RoleActive)
			if _, err := a.Write([]byte("are you there?")); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-a.end:
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the backend's connection to the dead node ended with %v, want a reset", err)
				}
			case <-time.After(within):
				t.Error("the new owner does not answer a backend of the dead node")
			}
			c.wantFrom(active)
		})
	}
}

// wantFrom has a client connect, and looks where the backend is connected to from.
func (c *couple) wantFrom(n *member) arrival {
	c.t.Helper()
	c.connect()
	list := c.arrivals()
	a := list[len(list)-1]
	first := n == c.nodes[0]
	if a.from.Addr() != c.address.Addr() || a.from.Port() < 32768 || a.from.Port() > 60999 || (a.from.Port() <= lastOfFirst) != first {
		c.t.Errorf("the backend sees %v, want %v and a port of the half of %s", a.from, c.address.Addr(), n.name)
	}
	return a
}

// TestBackendWithoutWayBack has a backend that cannot answer to the address: clients
// are served all the same, and the node says what is missing.
func TestBackendWithoutWayBack(t *testing.T) {
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			c := newCouple(t, f)
			for _, n := range c.nodes {
				n.start()
			}
			active, _ := c.settled()
			alone := netip.PrefixFrom(c.address.Addr(), c.address.Addr().BitLen()).String()
			if _, err := c.lab.Host("backend1").Run(t.Context(), "ip", "route", "add", "blackhole", alone); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				c.connect()
			}
			for _, a := range c.arrivals() {
				if a.from.Addr() != active.host.Addr(f) {
					t.Errorf("the backend sees %v, want the node's own address %v", a.from, active.host.Addr(f))
				}
			}
			active.await("it says what is missing", func(s admin.Status) bool {
				return s.Sources != nil && s.Sources.Unbound["no_way"] == 2 && slices.ContainsFunc(s.Problems, func(p admin.Problem) bool {
					return p.Code == admin.ProblemNoWayBack && strings.Contains(p.Text, c.address.Addr().String())
				})
			})
		})
	}
}
