package lab

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Topology describes a network: plain data that can be copied, compared (with
// reflect.DeepEqual), printed and changed before Start makes it real.
//
// Every host and every switch has a network namespace of its own; a link joins
// one interface of a host to one port of a switch. IPv4 and IPv6 are always on.
type Topology struct {
	Hosts    []HostSpec
	Switches []string
	Links    []LinkSpec
}

// Role says what a host does with packets that are not for itself.
type Role uint8

const (
	// Plain hosts drop them.
	Plain Role = iota
	// Router forwards them.
	Router
	// Middlebox forwards them and tracks connections, as a firewall does: a
	// TCP segment of a connection it does not know is lost, or answered, see
	// [Host.Forget]. It needs the program nft.
	Middlebox
)

func (r Role) String() string {
	switch r {
	case Plain:
		return "plain"
	case Router:
		return "router"
	case Middlebox:
		return "middlebox"
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// HostSpec describes a host.
type HostSpec struct {
	// Name is unique among hosts and switches.
	Name string
	Role Role
	// Routes beyond the networks of the host's own links.
	Routes []RouteSpec
	// Sysctls are set in the host after the lab's own, which are the kernel's
	// defaults; names as sysctl(8) writes them, below "net.".
	Sysctls []Sysctl
}

// RouteSpec sends what is for a network to a gateway.
type RouteSpec struct {
	To  netip.Prefix // 0.0.0.0/0 and ::/0 are the default routes
	Via netip.Addr   // an address on one of the host's links
}

// Sysctl is one kernel setting of a network namespace.
type Sysctl struct {
	Name  string // such as "net.ipv4.tcp_retries2"
	Value string
}

// LinkSpec describes a cable between a host and a switch.
type LinkSpec struct {
	Host, Switch string
	// Interface is the link's name inside the host, at most 15 characters.
	// Empty: eth0 for the host's first link, eth1 for its second, and so on.
	Interface string
	// Addresses of the interface, each with the length of its network.
	Addresses []netip.Prefix
	// MTU in bytes, 1280 to 65535; 0 means 1500.
	MTU int
	// NoOffload makes the host send every TCP segment as a frame of its own.
	// Otherwise the kernel hands over up to 64 kB of a connection at once, as
	// network cards do, and a lost frame is all of that.
	NoOffload bool
	// Taps makes both ends TAP devices instead of a veth pair: nothing passes
	// until somebody reads one file of [Link.Taps] and writes the other, which
	// is what package wire does.
	Taps bool
}

const (
	defaultMTU = 1500
	minMTU     = 1280 // IPv6's own, RFC 8200 section 5
	maxName    = 15   // IFNAMSIZ without the end mark
)

// Validate says what is wrong with the topology; Start calls it.
func (t Topology) Validate() error {
	names := map[string]string{}
	claim := func(name, what string) error {
		if name == "" {
			return fmt.Errorf("lab: %s has no name", what)
		}
		if other, taken := names[name]; taken {
			return fmt.Errorf("lab: %s and %s are both called %q", other, what, name)
		}
		names[name] = what
		return nil
	}
	for i, h := range t.Hosts {
		if err := claim(h.Name, fmt.Sprintf("Hosts[%d]", i)); err != nil {
			return err
		}
		if h.Role > Middlebox {
			return fmt.Errorf("lab: host %s: Role: %d is not a role", h.Name, h.Role)
		}
		for j, r := range h.Routes {
			if !r.To.IsValid() || !r.Via.IsValid() || r.To.Addr().Is4() != r.Via.Is4() {
				return fmt.Errorf("lab: host %s: Routes[%d]: to %v by %v is not a route", h.Name, j, r.To, r.Via)
			}
		}
	}
	for i, s := range t.Switches {
		if err := claim(s, fmt.Sprintf("Switches[%d]", i)); err != nil {
			return err
		}
	}
	return t.validateLinks()
}

func (t Topology) validateLinks() error {
	type end struct{ host, name string }
	interfaces := map[end]bool{}
	owner := map[netip.Addr]string{}
	for i, l := range t.interfaceNames() {
		at := fmt.Sprintf("lab: Links[%d] (%s to %s)", i, l.Host, l.Switch)
		if !slices.ContainsFunc(t.Hosts, func(h HostSpec) bool { return h.Name == l.Host }) {
			return fmt.Errorf("%s: Host: there is no host %q", at, l.Host)
		}
		if !slices.Contains(t.Switches, l.Switch) {
			return fmt.Errorf("%s: Switch: there is no switch %q", at, l.Switch)
		}
		if len(l.Interface) > maxName {
			return fmt.Errorf("%s: Interface: %q is longer than %d characters", at, l.Interface, maxName)
		}
		e := end{l.Host, l.Interface}
		if l.Interface == "lo" || interfaces[e] {
			return fmt.Errorf("%s: Interface: %s has %q already", at, l.Host, l.Interface)
		}
		interfaces[e] = true
		if l.MTU != 0 && (l.MTU < minMTU || l.MTU > 65535) {
			return fmt.Errorf("%s: MTU: %d is not within %d and 65535", at, l.MTU, minMTU)
		}
		for _, a := range l.Addresses {
			if !a.IsValid() || a.Addr().Is4In6() || a.Addr().Zone() != "" {
				return fmt.Errorf("%s: Addresses: %v is not an address with the length of its network", at, a)
			}
			if other, taken := owner[a.Addr()]; taken {
				return fmt.Errorf("%s: Addresses: %v belongs to %s already", at, a.Addr(), other)
			}
			owner[a.Addr()] = l.Host
		}
	}
	return nil
}

// interfaceNames gives the links with every interface named and every MTU
// said.
func (t Topology) interfaceNames() []LinkSpec {
	count := map[string]int{}
	links := slices.Clone(t.Links)
	for i := range links {
		l := &links[i]
		if l.Interface == "" {
			l.Interface = fmt.Sprintf("eth%d", count[l.Host])
		}
		l.MTU = cmp.Or(l.MTU, defaultMTU)
		count[l.Host]++
	}
	return links
}

// Host gives the description of the host called name, to be changed in place;
// nil if there is none.
func (t *Topology) Host(name string) *HostSpec {
	for i := range t.Hosts {
		if t.Hosts[i].Name == name {
			return &t.Hosts[i]
		}
	}
	return nil
}

// Link gives the description of the host's n-th link, counted from 0, to be
// changed in place; nil if there is none.
func (t *Topology) Link(host string, n int) *LinkSpec {
	for i := range t.Links {
		if t.Links[i].Host != host {
			continue
		}
		if n == 0 {
			return &t.Links[i]
		}
		n--
	}
	return nil
}
