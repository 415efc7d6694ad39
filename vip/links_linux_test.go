package vip

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/lab"
)

func run(t *testing.T, h *lab.Host, argv ...string) {
	t.Helper()
	if out, err := h.Run(t.Context(), argv...); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// A group's link is known by its name: it may come later, go, come back as
// another one, and get another hardware address.
func TestLinkByName(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	host := l.Host("node1")
	n := startNode(t, host, Options{Groups: []Group{{Name: "front", Interface: "v0", Addresses: floating}}})
	until(t, "a verdict", func() bool { s := n.status(); return s.Role == Fault && s.Why == "there is no link v0" })
	for range 2 {
		mark := n.mark()
		run(t, host, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
		run(t, host, "ip", "link", "set", "v1", "up")
		run(t, host, "ip", "link", "set", "v0", "up")
		n.waitFrom(mark, "role active", becomes(Active))
		until(t, "both addresses", func() bool { return has(n.addresses("v0"), floating) })
		if s := n.status(); !s.Gate.InForce {
			t.Errorf("gate %+v", s.Gate)
		}
		mark = n.mark()
		run(t, host, "ip", "link", "set", "v0", "address", "02:00:00:00:77:01")
		n.waitFrom(mark, "word of the hardware address", says(KindLink))
		mark = n.mark()
		run(t, host, "ip", "link", "del", "v0")
		n.waitFrom(mark, "role fault", becomes(Fault))
	}
}

// An owner cannot send from a link-local address that the kernel still looks for
// duplicates of: the node waits for it, and says so.
func TestTentative(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	host := l.Host("node1")
	run(t, host, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	if err := host.Do(func() error {
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv6/conf/v0/accept_dad", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/v0/dad_transmits", []byte("2"), 0))
	}); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, host, Options{Groups: []Group{{
		Name: "front", Interface: "v0", Addresses: floating[1:], VRRP: &VRRP{ID: 51, Priority: 200, Interval: quick},
	}}})
	mark := n.mark()
	run(t, host, "ip", "link", "set", "v1", "up")
	run(t, host, "ip", "link", "set", "v0", "up")
	until(t, "word of it", func() bool { s := n.status(); return s.Role == Fault && strings.Contains(s.Why, "tentative") })
	n.waitFrom(mark, "role active", becomes(Active))
	until(t, "adverts", func() bool { return n.status().Adverts.Sent > 3 })
	if s := n.status(); s.Adverts.Failed > 0 {
		t.Errorf("%d adverts could not be sent", s.Adverts.Failed)
	}
}

// The peer is told of an address that is tentative, and nothing is sent from it.
func TestTentativeIsTold(t *testing.T) {
	local, own := netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("10.0.0.1/24")
	p := &port{addresses: []rtnl.Address{{Prefix: own}, {Prefix: local, Tentative: true}}}
	p.pick(nil)
	if !slices.Equal(p.own, []netip.Prefix{own, local}) || p.source != [2]netip.Addr{own.Addr()} || p.from(netip.MustParseAddr("fe80::2")).IsValid() {
		t.Errorf("own %v, sources %v", p.own, p.source)
	}
}

// An owner without a part of its addresses says so as long as it lasts.
func TestMissingAddress(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	host := l.Host("node1")
	six := func(disable string) {
		if err := host.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte(disable), 0) }); err != nil {
			t.Fatal(err)
		}
	}
	n := startNode(t, host, Options{Groups: []Group{{Name: "front", Interface: "eth0", Addresses: floating}}})
	n.wait("role active", becomes(Active))
	until(t, "both addresses", func() bool { return has(n.addresses("eth0"), floating) })
	six("1")
	until(t, "word of it", func() bool {
		s := n.status()
		return s.Role == Active && s.Well && strings.Contains(s.Why, floating[1].Addr().String()) && has(s.Present, floating[:1])
	})
	six("0")
	until(t, "both addresses again", func() bool { s := n.status(); return s.Why == "" && has(s.Present, floating) })
}

// Addresses are announced on the links that are named, and a tracked link that
// goes makes the node unwell.
func TestTrackAndAnnounceOn(t *testing.T) {
	top, err := lab.TwoArm(lab.Size{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	l := startLab(t, top)
	w, err := l.Watch("back", lab.WatchOptions{Addresses: []netip.Addr{floating[0].Addr(), floating[1].Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	p := startPair(t, l, pairOptions{interval: quick, change: func(_ int, g *Group) {
		g.Track, g.AnnounceOn = []string{"eth1"}, []string{"eth1"}
	}})
	active, backup := p.active(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, f := range floating {
		if _, err := w.Await(ctx, func(s lab.Seen) bool { return s.Unasked && s.Claims(f.Addr()) && s.Host == active.host.Name() }); err != nil {
			t.Errorf("%v was not announced on the other link: %v", f.Addr(), err)
		}
	}
	until(t, "beats", func() bool { return active.status().Peer.Linked && backup.status().Peer.Linked })
	mark, other := active.mark(), backup.mark()
	if _, err := active.host.Links()[1].Cut(); err != nil {
		t.Fatal(err)
	}
	if c := active.waitFrom(mark, "role fault", becomes(Fault)); c.Cause != CauseUnwell {
		t.Errorf("cause %q", c.Cause)
	}
	if c := backup.waitFrom(other, "takeover", becomes(Active)); c.Cause != CauseHandover {
		t.Errorf("the other one took over because of %q: it was no planned move", c.Cause)
	}
	for _, f := range floating {
		if _, err := w.Await(ctx, func(s lab.Seen) bool { return s.Unasked && s.Claims(f.Addr()) && s.Host == backup.host.Name() }); err != nil {
			t.Errorf("%v was not announced by the new owner on the other link: %v", f.Addr(), err)
		}
	}
}

// Without a peer a released group stays withdrawn until it is configured again.
func TestReleaseWithoutPeer(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 1})
	g := Group{Name: "front", Interface: "eth0", Addresses: floating}
	n := startNode(t, l.Host("node1"), Options{Groups: []Group{g}})
	n.wait("role active", becomes(Active))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mark := n.mark()
	if err := n.owner.Release(ctx, "front"); err != nil {
		t.Fatal(err)
	}
	n.waitFrom(mark, "role backup", becomes(Backup))
	until(t, "no address", func() bool { return hasNone(n.addresses("eth0"), floating) })
	if s := n.status(); s.Why == "" || s.Cause != CauseReleased || s.Lease != 0 {
		t.Errorf("status %+v", s)
	}
	mark = n.mark()
	if err := n.owner.Configure([]Group{g}); err != nil {
		t.Fatal(err)
	}
	n.waitFrom(mark, "role active", becomes(Active))
}
