//go:build linux

package relay

import (
	"os"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/internal/sourceport"
)

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
