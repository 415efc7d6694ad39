package node_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/lab"
)

// TestAddressesLater has nodes of a pair that get their addresses by a reload:
// their electors know at once how the link stands, which had that state before
// them. Then an elector does not take a file, and a name cannot be changed.
func TestAddressesLater(t *testing.T) {
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(f.String(), func(t *testing.T) { testAddressesLater(t, f) })
	}
}

func testAddressesLater(t *testing.T, f lab.Family) {
	c := newCouple(t, f)
	n := c.nodes[0]
	for _, m := range c.nodes {
		m.bare = true
		m.write()
	}
	reload := func(m *member) admin.Reload {
		t.Helper()
		m.write()
		r, err := m.admin.Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	synced := func(want bool) func(admin.Status) bool {
		return func(s admin.Status) bool {
			return len(s.Addresses) == 1 && s.Addresses[0].Peer != nil && s.Addresses[0].Peer.Synced == want
		}
	}
	n.start()
	n.await("it has no addresses", func(s admin.Status) bool { return s.Pair.State == "down" && len(s.Addresses) == 0 && s.Elector == nil })
	n.bare = false
	reload(n)
	n.await("its elector knows that the other node has told nothing", synced(false))
	n.awaitRole(admin.RoleActive)

	c.nodes[1].start()
	for _, m := range c.nodes {
		m.await("synced", func(s admin.Status) bool { return s.Pair.State == "synced" })
	}
	n.await("its elector knows that", synced(true))
	c.nodes[1].bare = false
	reload(c.nodes[1])
	c.nodes[1].await("its elector knows it, too", synced(true))
	active, backup := c.settled()

	t.Run("a name of a pair stays", func(t *testing.T) {
		was := active.name
		active.called = "other"
		active.write()
		_, err := active.admin.Reload(t.Context())
		refused, ok := errors.AsType[*admin.Error](err)
		if !ok || refused.Code != admin.CodeRefused || !strings.Contains(refused.Text, "node: a reload cannot change it from "+was+" to other") ||
			!strings.Contains(refused.Remedy, "restart the node") {
			t.Errorf("the reload says %v", err)
		}
		if s, err := active.admin.Status(t.Context()); err != nil || s.Node != was {
			t.Errorf("the node is %s, %v", s.Node, err)
		}
		backup.await("it still knows the other by its name", func(s admin.Status) bool { return s.Pair.Node == was })
		active.called = ""
		reload(active)
	})

	t.Run("what an elector did not take is a problem", func(t *testing.T) {
		elector := backup.elector()
		kill := func(signal string) {
			t.Helper()
			if _, err := backup.host.Run(t.Context(), "kill", signal, elector); err != nil {
				t.Fatal(err)
			}
		}
		kill("-STOP")
		backup.more = "  - {name: own, interface: eth0, addresses: [\"" + lab.Address(f, 200).String() + "\"]}\n"
		r := reload(backup)
		if !slices.ContainsFunc(r.Changes, func(s string) bool { return strings.HasPrefix(s, "addresses: not in force: ") }) {
			t.Errorf("the reload says %q", r.Changes)
		}
		is := func(s admin.Status) bool {
			return slices.ContainsFunc(s.Problems, func(p admin.Problem) bool {
				return p.Code == admin.ProblemAddressSettings && strings.Contains(p.Text, "reload") && !p.Since.IsZero()
			})
		}
		backup.await("that is a problem", is)
		kill("-CONT")
		backup.await("and stays one", func(s admin.Status) bool { return s.Elector.State == "up" && is(s) })
		reload(backup)
		backup.await("until a reload mends it", func(s admin.Status) bool { return !is(s) && len(s.Addresses) == 2 })
		events, err := backup.admin.Events(t.Context(), admin.Filter{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, e := range events {
			if e.Event == admin.EventAddress && e.Group == "" && e.Change != nil && (e.Change.State == admin.ProblemAddressSettings || e.Change.State == "well") {
				told = append(told, e.Change.State)
			}
		}
		if !slices.Equal(told, []string{admin.ProblemAddressSettings, "well"}) {
			t.Errorf("the events say %q", told)
		}
	})
	for _, m := range []*member{active, backup} {
		m.signal(syscall.SIGTERM)
		ctx, cancel := context.WithTimeout(t.Context(), within)
		if err := m.process.Wait(ctx); err != nil {
			t.Errorf("%s ended with %v", m.name, err)
		}
		cancel()
	}
}
