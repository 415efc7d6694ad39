package vip

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func good() Group {
	return Group{
		Name: "front", Interface: "eth0",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.100/24"), netip.MustParsePrefix("2001:db8::100/64")},
		VRRP:      &VRRP{ID: 51}, Peered: true,
	}
}

func TestGroupCheck(t *testing.T) {
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	for name, c := range map[string]struct {
		change func(*Group)
		want   string
	}{
		"no name":         {func(g *Group) { g.Name = "" }, "Name is empty"},
		"long name":       {func(g *Group) { g.Name = strings.Repeat("a", 256) }, "Name has 256 bytes"},
		"no interface":    {func(g *Group) { g.Interface = "" }, "Interface is"},
		"long interface":  {func(g *Group) { g.Interface = "abcdefghijklmnop" }, "Interface is"},
		"slash":           {func(g *Group) { g.Track = []string{"a/b"} }, "Track is"},
		"announce on":     {func(g *Group) { g.AnnounceOn = []string{""} }, "AnnounceOn is"},
		"no address":      {func(g *Group) { g.Addresses = nil }, "Addresses is empty"},
		"invalid address": {func(g *Group) { g.Addresses = []netip.Prefix{{}} }, "Addresses holds"},
		"mapped":          {func(g *Group) { g.Addresses = []netip.Prefix{prefix("::ffff:10.0.0.1/120")} }, "Addresses holds"},
		"multicast":       {func(g *Group) { g.Addresses = []netip.Prefix{prefix("224.0.0.18/24")} }, "no host can own"},
		"unspecified":     {func(g *Group) { g.Addresses = []netip.Prefix{prefix("::/64")} }, "no host can own"},
		"broadcast":       {func(g *Group) { g.Addresses = []netip.Prefix{prefix("255.255.255.255/32")} }, "no host can own"},
		"too many": {func(g *Group) {
			for i := range 255 {
				g.Addresses = append(g.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 16))
			}
		}, "holds 256 addresses of one family"},
		"twice":             {func(g *Group) { g.Addresses = append(g.Addresses, prefix("10.0.0.100/16")) }, "twice"},
		"witness is own":    {func(g *Group) { g.Witness = addr("10.0.0.100") }, "an address of the group itself"},
		"witness zone":      {func(g *Group) { g.Witness = addr("fe80::1%eth0") }, "without a zone"},
		"witness alone":     {func(g *Group) { g.VRRP, g.Witness = nil, addr("10.0.0.1") }, "Witness is set, but"},
		"negative drain":    {func(g *Group) { g.Drain = -1 }, "Drain is"},
		"peered alone":      {func(g *Group) { g.VRRP, g.Peered = nil, true }, "VRRP is not"},
		"id":                {func(g *Group) { g.VRRP.ID = 0 }, "VRRP.ID is 0"},
		"short interval":    {func(g *Group) { g.VRRP.Interval = time.Millisecond }, "VRRP.Interval is 1ms"},
		"odd interval":      {func(g *Group) { g.VRRP.Interval = 15 * time.Millisecond }, "in steps of 10ms"},
		"long interval":     {func(g *Group) { g.VRRP.Interval = time.Minute }, "VRRP.Interval is 1m0s"},
		"negative delay":    {func(g *Group) { g.VRRP.PreemptDelay = -1 }, "PreemptDelay"},
		"peer twice":        {func(g *Group) { g.VRRP.Peers = []netip.Addr{addr("10.0.0.1"), addr("10.0.0.1")} }, "twice"},
		"peer is multicast": {func(g *Group) { g.VRRP.Peers = []netip.Addr{addr("ff02::12")} }, "VRRP.Peers holds"},
		"peer with zone":    {func(g *Group) { g.VRRP.Peers = []netip.Addr{addr("fe80::1%eth0")} }, "leave the zone out"},
		"zero peer":         {func(g *Group) { g.VRRP.Peers = []netip.Addr{{}} }, "VRRP.Peers holds"},
	} {
		t.Run(name, func(t *testing.T) {
			g := good()
			c.change(&g)
			if err := g.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to contain %q", err, c.want)
			}
		})
	}
}

func TestCheckAll(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Group)
		want   string
	}{
		"name":    {func(g *Group) { g.Name = "front" }, `two groups are named "front"`},
		"address": {func(g *Group) { g.Addresses = good().Addresses }, "it can be in one"},
		"id":      {func(g *Group) { g.VRRP.ID = 51 }, "groups on one link have different ones"},
		"fine":    {func(*Group) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := good()
			g.Name, g.VRRP.ID, g.Addresses = "back", 52, []netip.Prefix{netip.MustParsePrefix("10.0.0.101/24")}
			c.change(&g)
			err := CheckAll([]Group{good(), g})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// What is filled in is not filled in for the caller.
func TestDefaults(t *testing.T) {
	g := good()
	d := g.withDefaults()
	if d.VRRP.Interval != DefaultInterval || d.VRRP.Priority != DefaultPriority {
		t.Errorf("defaults: %+v", *d.VRRP)
	}
	d.Addresses[0], d.VRRP.ID = netip.Prefix{}, 1
	if g.VRRP.Interval != 0 || g.VRRP.ID != 51 || !g.Addresses[0].IsValid() {
		t.Errorf("the caller's group changed: %+v %+v", g, *g.VRRP)
	}
	do := func(context.Context, Event) error { return nil }
	steps := []Step{{Name: "a", When: Draining, Do: do}}
	o, err := Options{Steps: steps}.check()
	if err != nil || o.Steps[0].Bound != DefaultStepBound || steps[0].Bound != 0 {
		t.Errorf("%v, bound %v, the caller's %v", err, o.Steps[0].Bound, steps[0].Bound)
	}
	for _, s := range []Step{{When: Draining}, {When: 0, Do: do}, {When: 99, Do: do}, {When: Draining, Do: do, Bound: -1}, {When: Draining, Do: do, Bound: 2 * time.Hour}} {
		if _, err := (Options{Steps: []Step{s}}).check(); err == nil {
			t.Errorf("step %+v is accepted", s)
		}
	}
}
