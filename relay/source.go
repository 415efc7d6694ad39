//go:build linux

package relay

import (
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/internal/sourceport"
)

// sources says for each address of ServiceOptions.Groups where the backend leg of
// a client that has connected to it comes from.
type sources map[netip.Addr]origin

// An origin is an address for backends of each family; the zero Addr is none.
type origin struct{ v4, v6 netip.Addr }

func newSources(groups [][]netip.Addr) (sources, error) {
	all := make(sources)
	for i, group := range groups {
		var first origin
		for j, a := range group {
			switch _, known := all[a]; {
			case !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.Is6() && a.IsLinkLocalUnicast():
				return nil, fmt.Errorf("relay: ServiceOptions.Groups[%d][%d] is %v; it must be an address that is the same on every link", i, j, a)
			case known:
				return nil, fmt.Errorf("relay: ServiceOptions.Groups[%d][%d]: %v is there twice", i, j, a)
			case a.Is4() && !first.v4.IsValid():
				first.v4 = a
			case a.Is6() && !first.v6.IsValid():
				first.v6 = a
			}
			all[a] = origin{}
		}
		for _, a := range group {
			o := first
			if a.Is4() {
				o.v4 = a
			} else {
				o.v6 = a
			}
			all[a] = o
		}
	}
	return all, nil
}

// to is where a leg to a backend comes from; the zero Addr: from wherever the
// kernel likes.
func (o origin) to(backend Address) netip.Addr {
	ip := backend.ip.Addr()
	switch {
	case backend.IsUnix() || ip.IsLoopback() || ip.Is6() && ip.IsLinkLocalUnicast():
		return netip.Addr{}
	case ip.Is4():
		return o.v4
	}
	return o.v6
}

// lanes are the ways of backend legs, and how many legs could not take one.
type lanes struct {
	*sourceport.Lanes
	byPorts, byNoWay, byAway atomic.Uint64
}

// openLanes takes the ports that the host does not reserve. That setting also holds
// for IPv6; where it cannot be read, nothing is known to be reserved.
func (s *lanes) openLanes(of PortRange) {
	text, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	s.Lanes = sourceport.New(sourceport.NewSet(sourceport.Range(of), sourceport.ParseReserved(string(text))))
}

// Unbound returns the counts since New.
func (r *Relay) Unbound() Unbound {
	return Unbound{Ports: r.lanes.byPorts.Load(), NoWay: r.lanes.byNoWay.Load(), Away: r.lanes.byAway.Load()}
}

// Sources returns the state of the source ports from each address to each backend
// that a leg was bound for, or was to be, by address and backend.
func (r *Relay) Sources() []SourceStatus {
	all := r.lanes.Status()
	list := make([]SourceStatus, len(all))
	for i, l := range all {
		list[i] = SourceStatus{Address: l.From, Backend: l.To, Used: l.Used, Max: l.Max}
		if l.NoWay != 0 {
			list[i].NoWay = r.epoch.Add(time.Duration(l.NoWay))
		}
	}
	return list
}
