package lab

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValidate(t *testing.T) {
	good := func() Topology {
		return Topology{
			Hosts:    []HostSpec{{Name: "a"}, {Name: "b", Role: Router}},
			Switches: []string{"s"},
			Links: []LinkSpec{
				{Host: "a", Switch: "s", Addresses: both(front, 1)},
				{Host: "b", Switch: "s", Addresses: both(front, 2)},
			},
		}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Topology{}).Validate(); err != nil {
		t.Errorf("the empty topology: %v", err)
	}
	for _, c := range []struct {
		name, want string
		spoil      func(*Topology)
	}{
		{"no name", "Hosts[1] has no name", func(t *Topology) { t.Hosts[1].Name = "" }},
		{"one name twice", `both called "s"`, func(t *Topology) { t.Hosts[0].Name = "s" }},
		{"no such role", "Role: 9", func(t *Topology) { t.Hosts[0].Role = 9 }},
		{"families mixed", "Routes[0]", func(t *Topology) {
			t.Hosts[0].Routes = []RouteSpec{{netip.MustParsePrefix("::/0"), netip.MustParseAddr("10.0.0.1")}}
		}},
		{"no such host", `Host: there is no host "x"`, func(t *Topology) { t.Links[0].Host = "x" }},
		{"no such switch", `Switch: there is no switch "x"`, func(t *Topology) { t.Links[0].Switch = "x" }},
		{"interface too long", "longer than 15", func(t *Topology) { t.Links[0].Interface = "sixteen-letters-" }},
		{"interface twice", `a has "eth0" already`, func(t *Topology) {
			t.Links[1].Host, t.Links[1].Interface = "a", "eth0"
		}},
		{"loopback", `"lo" already`, func(t *Topology) { t.Links[1].Interface = "lo" }},
		{"small MTU", "MTU: 1279", func(t *Topology) { t.Links[0].MTU = 1279 }},
		{"address twice", "belongs to a already", func(t *Topology) { t.Links[1].Addresses = both(front, 1) }},
		{"no address", "is not an address", func(t *Topology) { t.Links[1].Addresses = make([]netip.Prefix, 1) }},
	} {
		top := good()
		c.spoil(&top)
		if err := top.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error that says %q", c.name, err, c.want)
		}
	}
}

// Every layout within the bounds is valid, has the hosts asked for, and is the
// same each time.
func TestLayouts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Size{
			Clients:    rapid.IntRange(0, 99).Draw(t, "clients"),
			FarClients: rapid.IntRange(0, 99).Draw(t, "far"),
			Nodes:      rapid.IntRange(0, 9).Draw(t, "nodes"),
			Backends:   rapid.IntRange(0, 79).Draw(t, "backends"),
		}
		layout := OneArm
		if rapid.Bool().Draw(t, "two arms") {
			layout = TwoArm
		}
		top, err := layout(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := top.Validate(); err != nil {
			t.Fatal(err)
		}
		want := s.Clients + s.FarClients + s.Nodes + s.Backends
		if s.FarClients > 0 {
			want++ // the router
		}
		if len(top.Hosts) != want {
			t.Fatalf("%d hosts, want %d", len(top.Hosts), want)
		}
		again, _ := layout(s)
		if !reflect.DeepEqual(top, again) {
			t.Fatal("the same size gives another topology")
		}
	})
	for _, s := range []Size{{Clients: 100}, {FarClients: 100}, {Nodes: 10}, {Backends: 80}, {Nodes: -1}} {
		if _, err := OneArm(s); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
}

func TestLayoutAddresses(t *testing.T) {
	top, err := TwoArm(Size{Clients: 2, FarClients: 1, Nodes: 1, Backends: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host string
		link int
		want string
	}{
		{"client2", 0, "10.77.0.102/24 fd77::102/64"},
		{"node1", 0, "10.77.0.11/24 fd77::11/64"},
		{"node1", 1, "10.79.0.11/24 fd79::11/64"},
		{"backend3", 0, "10.79.0.23/24 fd79::23/64"},
		{"router", 0, "10.77.0.1/24 fd77::1/64"},
		{"router", 1, "10.78.0.1/24 fd78::1/64"},
		{"far1", 0, "10.78.0.101/24 fd78::101/64"},
	} {
		var got []string
		for _, a := range top.Link(c.host, c.link).Addresses {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s, link %d: %s, want %s", c.host, c.link, s, c.want)
		}
	}
	if got := Address(IPv6, 100).String(); got != "fd77::100/64" {
		t.Errorf("Address: %s", got)
	}
	used := slices.ContainsFunc(top.Links, func(l LinkSpec) bool { return slices.Contains(l.Addresses, Address(IPv4, 100)) })
	if used {
		t.Error("an address that is to be free is used")
	}
}

// With PairLink the nodes have a network that nobody else is on.
func TestPairLink(t *testing.T) {
	top := must(TwoArm(Size{Clients: 1, Nodes: 2, Backends: 1, PairLink: true}))(t)
	on := map[string]string{}
	for _, l := range top.interfaceNames() {
		if l.Switch == "pair" {
			on[l.Host] = l.Interface
			for i, f := range families {
				if want := PairAddress(f, len(on)); l.Addresses[i] != want {
					t.Errorf("%s has %v, want %v", l.Host, l.Addresses[i], want)
				}
			}
		}
	}
	if len(on) != 2 || on["node1"] != "eth2" || on["node2"] != "eth2" {
		t.Errorf("on the nodes' own network: %v", on)
	}
	if err := top.Validate(); err != nil {
		t.Error(err)
	}
}
