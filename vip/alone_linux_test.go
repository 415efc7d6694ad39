package vip

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/lab"
)

var floating = []netip.Prefix{lab.Address(lab.IPv4, 100), lab.Address(lab.IPv6, 100)}

func addressesOf(t *testing.T, host *lab.Host, iface string) (out []netip.Addr) {
	t.Helper()
	err := host.Do(func() error {
		h, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		index, err := h.Index(iface)
		if err != nil {
			return err
		}
		list, err := h.Addresses(index)
		for _, a := range list {
			out = append(out, a.Prefix.Addr())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func has(addrs []netip.Addr, prefixes []netip.Prefix) bool {
	return !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return !slices.Contains(addrs, p.Addr()) })
}

func hasNone(addrs []netip.Addr, prefixes []netip.Prefix) bool {
	return !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return slices.Contains(addrs, p.Addr()) })
}

// until waits for a condition that only asking shows.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not come to be", what)
		}
	}
}

// A group without VRRP is owned while this node is well, reachable at once by
// both families, and gone when the Owner ends.
func TestAlone(t *testing.T) {
	l := oneArm(t, lab.Size{Clients: 1, Nodes: 1})
	n := startNode(t, l.Host("node1"), Options{Groups: []Group{{Name: "front", Interface: "eth0", Addresses: floating}}})
	n.wait("role active", becomes(Active))
	until(t, "both addresses", func() bool { return has(n.addresses("eth0"), floating) })
	for _, p := range floating {
		reach(t, l.Host("client1"), p.Addr())
	}
	s := n.status()
	if s.Role != Active || !s.Well || s.Lease <= 0 || s.Epoch == 0 || !s.Gate.InForce || !has(s.Present, floating) || s.Takeovers[CauseAlone] != 1 {
		t.Errorf("status %+v", s)
	}
	n.close()
	if got := n.addresses("eth0"); !hasNone(got, floating) {
		t.Errorf("after the end there are %v", got)
	}
	if _, err := n.owner.Hand(t.Context()); err == nil {
		t.Error("an Owner that has ended hands something over")
	}
	if err := n.owner.SetWell("front", true, ""); err == nil {
		t.Error("an Owner that has ended is told something")
	}
}

// A Hand that the loop does not come to in time has changed nothing: the Owner
// goes on, and withdraws at its end.
func TestHandTooLate(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	n := startNode(t, l.Host("node1"), Options{Groups: []Group{{Name: "front", Interface: "eth0", Addresses: floating}}})
	n.wait("role active", becomes(Active))
	until(t, "both addresses", func() bool { return has(n.addresses("eth0"), floating) })
	held, goOn := make(chan struct{}), make(chan struct{})
	n.owner.post(func(*loop) {
		close(held)
		<-goOn
	})
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.owner.Hand(ctx)
	close(goOn)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Hand: %v", err)
	}
	if s := n.status(); s.Role != Active { // asked of the loop, behind what Hand had asked for
		t.Errorf("afterwards it is %+v", s)
	}
	n.close()
	if got := n.addresses("eth0"); !hasNone(got, floating) {
		t.Errorf("after the end there are %v", got)
	}
}

// reach sees whether a host answers at an address: nobody listens there, which
// its kernel says at once.
func reach(t *testing.T, from *lab.Host, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(to, 9).String())
	if err == nil {
		_ = c.Close()
	} else if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v does not answer: %v", to, err)
	}
}

// Addresses are owned only by who is well, as others see it, and as long as
// somebody is alive.
func TestWell(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	g := Group{Name: "front", Interface: "eth0", Addresses: floating, NeedsAlive: true}
	n := startNode(t, l.Host("node1"), Options{Groups: []Group{g}})
	until(t, "a verdict", func() bool { return n.status().Why != "" && n.status().Role == Fault })
	n.owner.Alive()
	// A change of role says in words what its other fields do not.
	if c := n.wait("role active", becomes(Active)); c.Text != "" {
		t.Errorf("the takeover says %q", c.Text)
	}
	told := n.mark()
	if err := n.owner.SetWell("front", false, "the command says no"); err != nil {
		t.Fatal(err)
	}
	if c := n.waitFrom(told, "role fault", becomes(Fault)); c.Text != "the command says no" {
		t.Errorf("the fault says %q", c.Text)
	}
	if s := n.status(); s.Why != "the command says no" || s.Well {
		t.Errorf("status %+v", s)
	}
	until(t, "no address", func() bool { return hasNone(n.addresses("eth0"), floating) })
	mark := n.mark()
	if err := n.owner.SetWell("front", true, ""); err != nil {
		t.Fatal(err)
	}
	n.owner.Alive()
	n.waitFrom(mark, "role active", becomes(Active))
	mark = n.mark()
	n.waitFrom(mark, "role fault, as nobody is alive", becomes(Fault))
	if err := n.owner.SetWell("back", true, ""); err == nil {
		t.Error("a group that is not there can be well")
	}
}

// A node that can set none of a group's addresses does not own it, and does
// again when the link changes. One that lacks some of them keeps the others.
func TestAddressesRefused(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	host := l.Host("node1")
	ipv6 := func(disabled string) {
		t.Helper()
		if err := host.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte(disabled), 0) }); err != nil {
			t.Fatal(err)
		}
	}
	ipv6("1")
	n := startNode(t, host, Options{Groups: []Group{
		{Name: "six", Interface: "eth0", Addresses: floating[1:]},
		{Name: "both", Interface: "eth0", Addresses: []netip.Prefix{lab.Address(lab.IPv4, 101), lab.Address(lab.IPv6, 101)}},
	}})
	of := func(group string, r Role) func(Change) bool {
		return func(c Change) bool { return c.Group == group && becomes(r)(c) }
	}
	if c := n.wait("six in fault", func(c Change) bool { return of("six", Fault)(c) && c.Cause == CauseUnwell }); !strings.Contains(c.Text, "cannot be set") {
		t.Errorf("it says %q", c.Text)
	}
	n.wait("both active", of("both", Active))
	until(t, "the IPv4 address", func() bool { return has(n.addresses("eth0"), []netip.Prefix{lab.Address(lab.IPv4, 101)}) })
	mark := n.mark()
	ipv6("0")
	n.waitFrom(mark, "six active", of("six", Active))
	until(t, "its address", func() bool { return has(n.addresses("eth0"), floating[1:]) })
	if s := n.owner.Status(); s[1].Role != Active || s[1].Takeovers[CauseAlone] != 1 {
		t.Errorf("the other group: %+v", s[1])
	}
}

// What an operator, a script or another program does to an address is noticed.
func TestDeletedByOthers(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1, Clients: 1})
	n := startNode(t, l.Host("node1"), Options{Groups: []Group{{Name: "front", Interface: "eth0", Addresses: floating}}})
	n.wait("role active", becomes(Active))
	until(t, "both addresses", func() bool { return has(n.addresses("eth0"), floating) })
	for _, p := range floating {
		mark := n.mark()
		if _, err := n.host.RemoveAddress("eth0", p); err != nil {
			t.Fatal(err)
		}
		n.waitFrom(mark, "word of it", says(KindAddress))
		until(t, "the address", func() bool { return has(n.addresses("eth0"), floating) })
		reach(t, l.Host("client1"), p.Addr())
	}
	if s := n.status(); s.Restored != 2 || s.Role != Active {
		t.Errorf("status %+v", s)
	}
}

// A link that goes down takes the addresses with it, and the group is owned
// again when it comes back, also as another link of the same name.
func TestLink(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1, Clients: 1})
	n := startNode(t, l.Host("node1"), Options{Groups: []Group{{Name: "front", Interface: "eth0", Addresses: floating}}})
	n.wait("role active", becomes(Active))
	mark := n.mark()
	if _, err := n.host.Links()[0].Cut(); err != nil {
		t.Fatal(err)
	}
	n.waitFrom(mark, "role fault", becomes(Fault))
	mark = n.mark()
	if _, err := n.host.Links()[0].Restore(); err != nil {
		t.Fatal(err)
	}
	n.waitFrom(mark, "role active", becomes(Active))
	until(t, "both addresses", func() bool { return has(n.addresses("eth0"), floating) })
	reach(t, l.Host("client1"), floating[0].Addr())
}

// What a predecessor has left is taken over with its lease, or taken away.
func TestPredecessor(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	groups := []Group{{Name: "front", Interface: "eth0", Addresses: floating}}
	first := startNode(t, l.Host("node1"), Options{Groups: groups})
	first.wait("role active", becomes(Active))
	until(t, "both addresses", func() bool { return has(first.addresses("eth0"), floating) })

	second := startNode(t, l.Host("node1"), Options{Groups: groups})
	until(t, "that it waits for the first", func() bool { return second.status().Why != "" && second.status().Role == Fault })
	if s := second.status(); s.Role == Active || first.status().Role != Active {
		t.Errorf("two owners: %+v", s)
	}
	epoch := first.status().Epoch
	resume := first.leave()
	if got := first.addresses("eth0"); !has(got, floating) {
		t.Errorf("Hand has not left the addresses: %v", got)
	}
	c := second.wait("role active", becomes(Active))
	if c.Cause != CausePredecessor {
		t.Errorf("it became active because of %q", c.Cause)
	}
	second.leave()
	third := startNode(t, l.Host("node1"), Options{Groups: groups, Resume: resume})
	if c := third.wait("role active", becomes(Active)); c.Cause != CausePredecessor || c.Epoch < epoch {
		t.Errorf("the third goes on with %+v", c)
	}
	if _, err := New(Options{Resume: []byte("nonsense")}); err == nil {
		t.Error("nonsense can be resumed")
	}
}

// A change touches what differs.
func TestConfigure(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	a := Group{Name: "a", Interface: "eth0", Addresses: floating[:1]}
	b := Group{Name: "b", Interface: "eth0", Addresses: floating[1:]}
	n := startNode(t, l.Host("node1"), Options{})
	if err := n.owner.Configure([]Group{a, b}); err != nil {
		t.Fatal(err)
	}
	of := func(name string) func(Change) bool {
		return func(c Change) bool { return c.Group == name && c.Kind == KindRole && c.Role == Active }
	}
	n.wait("a active", of("a"))
	n.wait("b active", of("b"))
	mark := n.mark()
	extra := lab.Address(lab.IPv4, 200)
	a.Addresses = []netip.Prefix{floating[0], extra}
	if err := n.owner.Configure([]Group{a, b}); err != nil {
		t.Fatal(err)
	}
	until(t, "the new address", func() bool { return has(n.addresses("eth0"), []netip.Prefix{floating[0], floating[1], extra}) })
	a.Addresses = a.Addresses[1:]
	if err := n.owner.Configure([]Group{b, a}); err != nil {
		t.Fatal(err)
	}
	until(t, "one address less", func() bool {
		got := n.addresses("eth0")
		return has(got, []netip.Prefix{floating[1], extra}) && hasNone(got, floating[:1])
	})
	if list := n.owner.Status(); len(list) != 2 || list[0].Group != "b" || list[1].Role != Active {
		t.Errorf("status %+v", list)
	}
	if err := n.owner.Configure([]Group{b, b}); err == nil {
		t.Error("two groups of one name are accepted")
	}
	if err := n.owner.Configure([]Group{a}); err != nil {
		t.Fatal(err)
	}
	until(t, "b's address gone", func() bool { return hasNone(n.addresses("eth0"), floating[1:]) })
	n.mu.Lock()
	for _, c := range n.changes[mark:] {
		if c.Kind == KindRole && c.Group == "a" {
			t.Errorf("a changed its role: %s", c.Text)
		}
	}
	n.mu.Unlock()
	// Its address moves to a group of another name: it is free by then.
	c := Group{Name: "c", Interface: "eth0", Addresses: a.Addresses}
	if err := n.owner.Configure([]Group{c}); err != nil {
		t.Fatal(err)
	}
	n.wait("c active", of("c"))
}

// Others' steps run at their places, in order, and none of them holds up the
// loop.
func TestSteps(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	host := l.Host("node1")
	type call struct {
		when  When
		there bool // the addresses were on the interface
	}
	calls := make(chan call, 10)
	step := func(when When, bound time.Duration) Step {
		return Step{Name: "look", When: when, Bound: bound, Do: func(ctx context.Context, e Event) error {
			if e.Group != "front" || e.When != when || e.Epoch == 0 {
				t.Errorf("event %+v", e)
			}
			calls <- call{when, has(addressesOf(t, host, "eth0"), floating)}
			if when == AfterAnnounce {
				<-ctx.Done() // longer than its bound
				return nil
			}
			return errors.New("it did not work")
		}}
	}
	var steps []Step
	for _, w := range []When{BeforeAddress, AfterAnnounce, BeforeWithdraw, AfterWithdraw} {
		steps = append(steps, step(w, 50*time.Millisecond))
	}
	n := startNode(t, host, Options{Groups: []Group{{Name: "front", Interface: "eth0", Addresses: floating}}, Steps: steps})
	for _, want := range []call{{BeforeAddress, false}, {AfterAnnounce, true}} {
		if got := <-calls; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	n.wait("word of the error", func(c Change) bool { return c.Kind == KindStep })
	mark := n.mark()
	n.waitFrom(mark, "word of the bound", func(c Change) bool { return c.Kind == KindStep })
	n.close()
	for _, want := range []call{{BeforeWithdraw, true}, {AfterWithdraw, false}} {
		if got := <-calls; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
