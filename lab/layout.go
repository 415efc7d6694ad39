package lab

import (
	"fmt"
	"net/netip"
)

// Family is an address family.
type Family uint8

const (
	IPv4 Family = iota
	IPv6
)

func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return fmt.Sprintf("Family(%d)", uint8(f))
}

// Size says how many hosts of each kind a layout has. Zero means none.
type Size struct {
	Clients    int // "client1" ..., on the front switch; at most 99
	FarClients int // "far1" ..., behind the host "router"; at most 99
	Nodes      int // "node1" ..., the load balancers; at most 9
	Backends   int // "backend1" ..., at most 79

	// PairLink gives the nodes a network of their own, on the switch "pair",
	// where nobody else is; it is each node's last link.
	PairLink bool
}

// The layouts' networks. The last number of a host's address is the same in
// every network it is on, and the same digits in IPv4 and IPv6 (10.77.0.21
// and fd77::21):
//
//	1          router
//	11 ...     node1 ...
//	21 ...     backend1 ...
//	101 ...    client1 ... and, on the far network, far1 ...
//	100, 200 ... are free for virtual addresses
const (
	front = 77 // 10.77.0.0/24 and fd77::/64: switch "front"
	far   = 78 // 10.78.0.0/24 and fd78::/64: switch "far", behind the router
	back  = 79 // 10.79.0.0/24 and fd79::/64: switch "back", only in TwoArm
	pair  = 80 // 10.80.0.0/24 and fd80::/64: switch "pair", only with PairLink
)

// PairAddress gives the address of node number n, counted from 1, on the nodes'
// own network, see [Size.PairLink].
func PairAddress(f Family, n int) netip.Prefix { return number(f, pair, 10+n) }

// Address gives the address with number n on the front network of the ready
// layouts: 10.77.0.n or fd77::n, with the length of the network. Numbers 100
// and 200 to 254 belong to no host.
func Address(f Family, n int) netip.Prefix { return number(f, front, n) }

func number(f Family, network, n int) netip.Prefix {
	if f == IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(network), 0, byte(n)}), 24)
	}
	// The decimal digits of n, written as the hexadecimal ones of the address.
	return netip.MustParsePrefix(fmt.Sprintf("fd%d::%d/64", network, n))
}

func both(network, n int) []netip.Prefix {
	return []netip.Prefix{number(IPv4, network, n), number(IPv6, network, n)}
}

// OneArm is a topology with everything on one switch, called "front": clients,
// nodes and backends. With FarClients there are also the hosts "router" and,
// on the switch "far", "far1" and so on; all hosts then use the router as
// their gateway to each other's network.
func OneArm(s Size) (Topology, error) {
	return layout(s, false)
}

// TwoArm is a topology in which nodes stand between clients and backends:
// clients on the switch "front", backends on the switch "back", and the nodes
// on both (eth0 front, eth1 back). Nodes do not forward; far clients are as in
// OneArm.
func TwoArm(s Size) (Topology, error) {
	return layout(s, true)
}

func layout(s Size, twoArm bool) (Topology, error) {
	for _, c := range []struct {
		field  string
		n, max int
	}{{"Clients", s.Clients, 99}, {"FarClients", s.FarClients, 99}, {"Nodes", s.Nodes, 9}, {"Backends", s.Backends, 79}} {
		if c.n < 0 || c.n > c.max {
			return Topology{}, fmt.Errorf("lab: Size.%s: %d is not within 0 and %d", c.field, c.n, c.max)
		}
	}
	t := Topology{Switches: []string{"front"}}
	backends, backSwitch := front, "front"
	if twoArm {
		t.Switches = append(t.Switches, "back")
		backends, backSwitch = back, "back"
	}
	add := func(name string, n, network int, sw string) {
		if t.Host(name) == nil {
			t.Hosts = append(t.Hosts, HostSpec{Name: name})
		}
		t.Links = append(t.Links, LinkSpec{Host: name, Switch: sw, Addresses: both(network, n)})
	}
	for i := range s.Clients {
		add(fmt.Sprintf("client%d", i+1), 101+i, front, "front")
	}
	if s.PairLink {
		t.Switches = append(t.Switches, "pair")
	}
	for i := range s.Nodes {
		name := fmt.Sprintf("node%d", i+1)
		add(name, 11+i, front, "front")
		if twoArm {
			add(name, 11+i, back, "back")
		}
		if s.PairLink {
			add(name, 11+i, pair, "pair")
		}
	}
	for i := range s.Backends {
		add(fmt.Sprintf("backend%d", i+1), 21+i, backends, backSwitch)
	}
	if s.FarClients > 0 {
		t.addFar(s.FarClients, add)
	}
	return t, nil
}

// addFar adds the router and the clients behind it, and tells everybody on the
// front network the way there.
func (t *Topology) addFar(n int, add func(name string, n, network int, sw string)) {
	t.Switches = append(t.Switches, "far")
	for i := range t.Links {
		if t.Links[i].Switch == "front" {
			h := t.Host(t.Links[i].Host)
			h.Routes = append(h.Routes, gateway(front, far)...)
		}
	}
	add("router", 1, front, "front")
	add("router", 1, far, "far")
	t.Host("router").Role = Router
	for i := range n {
		name := fmt.Sprintf("far%d", i+1)
		add(name, 101+i, far, "far")
		t.Host(name).Routes = gateway(far, front)
	}
}

// gateway gives the routes by the router's address on network "on" to network
// "to".
func gateway(on, to int) []RouteSpec {
	var rs []RouteSpec
	for _, f := range []Family{IPv4, IPv6} {
		rs = append(rs, RouteSpec{To: number(f, to, 0).Masked(), Via: number(f, on, 1).Addr()})
	}
	return rs
}
