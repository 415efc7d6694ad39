package vip

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// status gives every group as it stands.
func (l *loop) status() []Status {
	list := make([]Status, 0, len(l.groups))
	now := sys.BootTime()
	wall := time.Now()
	for _, g := range l.groups {
		list = append(list, g.status(now, wall))
	}
	return list
}

func (g *group) status(now int64, wall time.Time) Status {
	c := &g.counts
	s := Status{
		Group: g.spec.Name, Interface: g.spec.Interface, Addresses: slices.Clone(g.spec.Addresses),
		Role: g.role, Since: g.since, Cause: g.cause, Why: g.why, Well: g.why == "",
		Adverts: AdvertStatus{
			Sent: c.sent, Received: c.received, Late: c.late, Failed: c.failed, Invalid: c.invalid, Alien: c.alien, Forged: c.forged,
			Lateness: c.lateness.show(), Gaps: c.gaps.show(), Heard: c.heard.show(),
		},
		Takeovers: maps.Clone(g.takeovers), Conflicts: c.conflicts, Restored: g.addressing.restored, Gate: g.gateStatus(),
	}
	s.Witness.Address, s.Peer.Synced = g.spec.Witness, !g.unsynced
	for _, a := range g.named {
		if g.addressing.present[a] {
			s.Present = append(s.Present, a)
		}
	}
	if v := g.spec.VRRP; v != nil {
		s.Priority, s.Interval = v.Priority, v.Interval
	}
	if !g.started {
		s.Role = Fault
		if s.Why == "" {
			s.Why = "it has not begun yet: " + g.port.why()
		}
		return s
	}
	m := g.machine.Status(now)
	at := func(t int64) time.Time {
		if t == 0 {
			return time.Time{}
		}
		return wall.Add(time.Duration(t - now))
	}
	s.Epoch = m.Epoch
	if m.Lease > now {
		s.Lease = time.Duration(m.Lease - now)
	}
	if m.Held && s.Why == "" {
		s.Why = "released by command, until another node owns it or the group is configured anew"
	}
	s.Active = m.Active
	if s.Role == Active {
		s.Active = netip.Addr{}
		if s.Why == "" && g.addressing.problem != "" {
			s.Why = "addresses could not be set: " + g.addressing.problem
		}
	}
	s.Witness.Reachable, s.Witness.Idle = m.Witness.Reachable, m.Witness.Idle
	s.Witness.Asked, s.Witness.Answered, s.Witness.Last = m.Witness.Asked, m.Witness.Answered, at(m.Witness.Last)
	s.Ask = AskStatus{Asking: m.Asking, Asked: m.Asked, Answered: m.Answered, Last: at(m.LastAnswer)}
	s.Peer.Linked, s.Peer.Heard = m.Peer.Linked, at(m.Peer.Last)
	if b := m.Peer.Beat; m.Peer.Last != 0 {
		s.Peer.Role, s.Peer.Epoch, s.Peer.Priority, s.Peer.Well = roles[b.Role], b.Epoch, b.Priority, b.Well
	}
	return s
}
