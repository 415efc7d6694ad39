package election

import (
	"net/netip"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// Advert takes an advert for the group's id that came from a neighbour with the
// right hop limit.
func (m *Machine) Advert(now Instant, from netip.Addr, a vrrp.Advert) []Action {
	if !m.begin(now) {
		return nil
	}
	from = from.WithZone("")
	switch {
	case m.alone() || m.isOurs(from) || a.ID != m.s.ID:
	case m.plain():
		m.active, m.advertAt = from, now
		m.advertPlain(now, from, a)
	case len(m.peer.beat.Addresses) > 0 && !m.isPeers(from):
		m.often(now, Action{What: Forged, From: from})
	default:
		m.active, m.advertAt = from, now
		m.advertOfPeer(now, from, a)
	}
	return m.end(now)
}

func (m *Machine) advertOfPeer(now Instant, from netip.Addr, a vrrp.Advert) {
	switch {
	case m.role == Active:
		m.rival(now, from, a.Priority)
	case a.Priority == vrrp.PriorityStop:
		m.stopping(now)
	default:
		m.held = false
		m.follow(a.Interval)
		m.lives(now, now, true)
	}
}

// follow takes over the active node's interval.
func (m *Machine) follow(interval time.Duration) {
	if interval != m.theirs.Interval && vrrp.CheckInterval(interval) == nil {
		m.theirs = m.derive(m.s.Priority, interval)
	}
}

// Neighbour takes an ARP or neighbour discovery frame of the group's interface:
// one about an address of the group, about the witness, or that asks for an own
// address of the interface.
func (m *Machine) Neighbour(now Instant, n Neighbour) []Action {
	if !m.begin(now) {
		return nil
	}
	if !n.Own && n.MAC != m.place.MAC {
		if n.Answer {
			m.answer(now, n)
		} else if m.s.Peered {
			m.overheard(now, n)
		}
	}
	return m.end(now)
}

// answer takes what tells where an address is.
func (m *Machine) answer(now Instant, n Neighbour) {
	known := m.peer.beat.MAC != (MAC{})
	switch {
	case m.inGroup(n.Sender) && m.role == Active:
		m.often(now, Action{What: Conflict, Target: n.Sender, MAC: n.MAC})
	case m.inGroup(n.Sender) && m.plain():
	case m.inGroup(n.Sender) && known && n.MAC != m.peer.beat.MAC:
		m.often(now, Action{What: Strange, Target: n.Sender, MAC: n.MAC})
	case m.inGroup(n.Sender) && m.role == Backup && m.s.Peered:
		m.answeredForGroup(now)
	case m.watched() && n.Sender == m.s.Witness:
		switch {
		case n.Target.IsUnspecified() || n.Target.IsMulticast():
			m.reflected(now)
		case n.Target == m.place.source(n.Sender):
			m.answeredByWitness(now)
		case n.Target.Is6() && m.isOurs(n.Target):
			m.reflected(now)
		}
	case m.role == Active && m.watched() && known && n.MAC == m.peer.beat.MAC && m.isPeers(n.Sender):
		m.answeredByPeer(now)
	}
}

// overheard takes a question of the peer's.
func (m *Machine) overheard(now Instant, n Neighbour) {
	if m.peer.beat.MAC != (MAC{}) && n.MAC != m.peer.beat.MAC {
		return
	}
	switch {
	case m.inGroup(n.Target) && n.Sender.IsUnspecified():
		m.rivalClaims(now)
	case m.watched() && m.isOurs(n.Target) && (n.Sender.IsUnspecified() || n.Sender.Is6()) && m.quiet.stop == 0:
		// Only an owner asks so; and it takes our kernel's answer as proof that
		// we have heard it. Once it has said farewell it is the owner of another
		// group, and is asked for the address itself.
		m.held = false
		m.lives(now, now, false)
	}
}

// Beat is what SendBeat sends.
func (m *Machine) Beat(now Instant) Beat {
	b := Beat{
		Stamp: now, Echo: m.peer.echo,
		Role: m.role, Phase: m.move.shown(), Move: m.move.epoch,
		Epoch: m.epoch, Owned: m.owned,
		Running:  m.role == Active && now < m.lease.until,
		Well:     m.well,
		Priority: m.s.Priority, Interval: m.s.Interval, Hold: m.rhythm().Lease,
		MAC: m.place.MAC, Addresses: m.place.Addresses,
	}
	if b.Phase == NoPhase && m.move.epoch == 0 && m.wants(now) {
		b.Phase = Wanting
	}
	if !m.place.Gated {
		b.Hold = Linger
	}
	// Said in time for the peer to wait, or both would act when a grace ends.
	b.Able = m.mayAct() && m.role == Backup && now >= m.move.notBefore-int64(m.theirs.Down) && (!m.watched() || m.witnessReachable(now))
	return b
}

// beatAt is when the next beat is due.
func (m *Machine) beatAt() Instant { return m.peer.sent + int64(m.own.Beat) }

func (m *Machine) beatIfDue(now Instant) {
	if m.running && m.s.Peered && now >= m.beatAt() {
		m.beat()
	}
}

// LinkDown says that the link has ended: what was sent may be lost.
func (m *Machine) LinkDown(now Instant) []Action {
	m.begin(now)
	m.peer.linked, m.peer.echo, m.peer.n = false, 0, 0
	m.lostPeer(now)
	return m.end(now)
}

// linked says whether beats arrive.
func (m *Machine) linked(now Instant) bool {
	return m.peer.linked && now-m.peer.last <= int64(m.own.Patience)
}

// made gives an instant on our clock at or after which the beat was made. The
// link may deliver late; then the beats that were fastest tell how far the
// clocks are apart.
func (m *Machine) made(now, stamp Instant) Instant {
	p := &m.peer
	if p.n > 0 && stamp < p.beat.Stamp {
		p.n = 0 // another clock: the peer was started anew
	}
	p.offsets[p.n%len(p.offsets)] = offset{at: now, diff: now - stamp}
	p.n++
	made := now
	for _, o := range p.offsets[:min(p.n, len(p.offsets))] {
		made = min(made, stamp+o.diff+(now-o.at)/driftPart)
	}
	return made
}

// driftPart bounds how fast two clocks drift apart: by one part in this many.
const driftPart = 1000

// Hear takes a beat of the peer's machine for this group.
func (m *Machine) Hear(now Instant, b Beat) []Action {
	if !m.begin(now) || !m.s.Peered {
		return nil
	}
	made := m.made(now, b.Stamp)
	m.peer.linked, m.peer.last, m.peer.echo, m.peer.beat = true, now, b.Stamp, b
	if b.Echo > now {
		b.Echo = 0 // from before this machine was started
	}
	if m.role == Active {
		m.hearAsActive(now, b)
	} else {
		m.hearAsBackup(now, made, b)
	}
	return m.end(now)
}

func (m *Machine) hearAsActive(now Instant, b Beat) {
	heardUs := b.Echo >= m.since && b.Echo > 0
	if heardUs {
		m.prove(now, b.Echo)
		if m.watched() && b.Echo >= m.lease.asOf {
			m.lease.easing = 0
		}
	}
	if b.Role == Active && b.Running && heardUs {
		m.contend(now, b.Priority)
		if m.role != Active {
			m.epoch = max(m.epoch, b.Epoch)
			return
		}
	} else if b.Role != Active {
		m.lease.rival = 0
	}
	m.supersede(b)
	m.moveAsActive(now, b)
}

func (m *Machine) hearAsBackup(now, made Instant, b Beat) {
	m.epoch = max(m.epoch, b.Epoch, b.Owned)
	if b.Role == Active && b.Running {
		m.held = false
		m.follow(b.Interval)
		// What was made in the same turn as the last advert says nothing new.
		if m.quiet.blind || made > m.quiet.advert+int64(m.theirs.Slack) {
			m.lives(now, made, false)
		}
	}
	m.moveAsBackup(now, b)
}
