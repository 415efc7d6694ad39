package election

import (
	"net/netip"

	"github.com/holdfast-net/holdfast/vrrp"
)

// This file is for groups that strangers share: RFC 9568 decides, and the lease
// is this node's own.

// routerConfig is what the router is told. It is not valid while the interface
// has no address to send adverts from.
func (m *Machine) routerConfig(now Instant) (c vrrp.Config, ok bool) {
	c = vrrp.Config{
		ID: m.s.ID, Priority: m.s.Priority, Interval: m.s.Interval,
		Preempt: m.s.Preempt && m.synced && !m.keeps && now >= m.mayPreemptAt(),
		Listen:  true,
	}
	for _, a := range m.firsts {
		from := m.place.source(a)
		switch {
		case from.IsUnspecified():
		case a.Is4():
			c.Source4 = from
		default:
			c.Source6 = from
		}
	}
	return c, c.Source4.IsValid() || c.Source6.IsValid()
}

// configureRouter tells the router what is new; it makes it when there is an
// address to send from.
func (m *Machine) configureRouter(now Instant) {
	c, ok := m.routerConfig(now)
	if !ok || m.router != nil && m.router.Config() == c {
		return
	}
	if m.router == nil {
		// Settings were checked, and the sources are of their families.
		m.router, _ = vrrp.NewRouter(c)
		m.startRouter(now)
		return
	}
	_, _ = m.router.Change(now, c) // an active one advertises at its next turn
}

// startRouter lets the router listen, if this node may.
func (m *Machine) startRouter(now Instant) {
	if m.router != nil && m.role == Backup && m.mayAct() {
		m.configureRouter(now) // what was released does not preempt
		m.router.Startup(now)
	}
}

func (m *Machine) stopRouter(now Instant) {
	if m.router != nil {
		m.router.Shutdown(now)
	}
}

func (m *Machine) expirePlain(now Instant) {
	if m.role != Backup {
		return
	}
	m.configureRouter(now) // the delay before it preempts may have passed
	if m.router != nil {
		m.obey(now, m.router.Expire(now))
	}
}

// advertPlain takes an advert of a stranger.
func (m *Machine) advertPlain(now Instant, from netip.Addr, a vrrp.Advert) {
	if m.role == Backup {
		m.quiet.heard, m.quiet.advert = now, now
	}
	if m.held && a.Priority != vrrp.PriorityStop {
		m.held = false // somebody has taken the addresses: a backup again
		m.startRouter(now)
	}
	if m.router != nil {
		m.obey(now, m.router.Receive(now, from, a))
		m.theirs = m.derive(m.s.Priority, m.router.ActiveInterval())
	}
}

// obey does what the router wants, with the lease.
func (m *Machine) obey(now Instant, actions []vrrp.Action) {
	for _, a := range actions {
		switch {
		case a.Do == vrrp.Become && a.State == vrrp.Active:
			c := BySilence
			if a.Cause == vrrp.ByStop {
				c = ByFarewell
			} else if now-m.advertAt < int64(m.own.Down) && m.advertAt != 0 {
				c = ByPreempt // it was not silent
			}
			m.acquire(now, now, m.epoch+1, c) // sends the advert, and announces
			return
		case a.Do == vrrp.Become && a.State == vrrp.Backup && m.role == Active:
			m.withdraw(now, ByRank, MAC{}, false)
			m.toBackup(now, ByRank)
		case a.Do == vrrp.Advertise && m.role == Active:
			m.advertise(m.lease.until)
		}
	}
}
