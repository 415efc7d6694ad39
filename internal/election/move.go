package election

import (
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// goal is why an owner gives the addresses up.
type goal uint8

const (
	goalNone    goal = iota
	goalRelease      // by command
	goalPreempt      // the peer has the higher priority
	goalUnwell
	goalStop
)

func (g goal) cause() Cause {
	switch g {
	case goalPreempt:
		return ByPreempt
	case goalUnwell:
		return ByUnwell
	case goalStop:
		return ByStop
	}
	return ByRelease
}

// move is a node's part in a planned move: of an owner that gives the addresses
// up, or of a backup that gets them.
//
//	owner:  -> Offering -> Handing -> Granted ->
//	backup: -> (prepares) -> Ready ->
//
// Without a peer that is ready the owner drains, tells, and withdraws.
type move struct {
	phase     Phase
	preparing bool // backup: Prepare has not been answered
	draining  bool // owner: Drain has not been answered, in Handing or without a peer
	asked     bool // owner: a command wants it too, which is answered whatever becomes of it
	goal      goal
	epoch     uint64
	until     Instant // when the phase has lasted too long
	notBefore Instant // who has granted does not act by silence before
}

func (v move) shown() Phase { return v.phase }

// drainLeeway is how much longer than agreed a Drain may take to be answered.
const drainLeeway = time.Second

func (m *Machine) moveDeadline() Instant {
	switch {
	case m.move.until == 0:
		return never
	case m.move.phase == Handing:
		return min(m.move.until, m.peer.last+int64(m.own.Patience)+1)
	}
	return m.move.until
}

// Release gives the addresses to the peer, by command. They stay here if it
// answers and cannot take them. Without one they are withdrawn, after those who
// use them were told. The answer is a Report: Moved, Released or MoveRefused, or
// that the node has lost them.
func (m *Machine) Release(now Instant) []Action {
	if m.begin(now) && m.role == Active {
		if m.move.goal == goalNone {
			m.leave(now, goalRelease)
		} else {
			m.move.asked = true // they are on their way
		}
	}
	return m.end(now)
}

// Stop ends the machine, by a planned move where that is possible. It is over
// with Report Stopped.
func (m *Machine) Stop(now Instant) []Action {
	if !m.begin(now) {
		return nil
	}
	switch {
	case m.role == Active && m.move.goal == goalNone:
		m.leave(now, goalStop)
	case m.role == Active || m.move.phase == Granted:
		m.move.goal = goalStop // what is in progress ends so
	default:
		m.undo()
		m.stopped()
	}
	return m.end(now)
}

func (m *Machine) stopped() {
	m.running, m.move = false, move{}
	if m.role != Fault {
		m.do(Action{Do: Report, What: RoleChanged, Role: Fault, Before: m.role, Cause: ByStop, Epoch: m.epoch})
		m.role, m.cause = Fault, ByStop
	}
	m.stopRouter(m.since)
	m.report(Stopped)
}

// leave begins to give the addresses up.
func (m *Machine) leave(now Instant, g goal) {
	if m.move.goal != goalNone {
		m.move.goal = max(m.move.goal, g) // in progress already: the stronger reason counts
		return
	}
	there := m.linked(now)
	if there && m.peer.beat.Well && m.peer.beat.Role == Backup {
		m.move = move{phase: Offering, goal: g, epoch: m.epoch + 1, until: now + int64(MoveAnswer)}
		m.beat()
		return
	}
	if there && g == goalRelease {
		m.do(Action{Do: Report, What: MoveRefused, Why: PeerRefused}) // nobody would own them
		return
	}
	m.leaveAlone(now, g)
}

// leaveAlone gives the addresses up without a peer that is known to be ready.
func (m *Machine) leaveAlone(now Instant, g goal) {
	m.move = move{draining: true, goal: g, until: now + int64(m.s.Drain+drainLeeway)}
	m.do(Action{Do: Drain, AtMost: m.s.Drain})
}

// refuse ends a planned move that did not come about. Who only wanted to move
// stays the owner; who must go, goes.
func (m *Machine) refuse(now Instant, why Why) {
	g, handing := m.move.goal, m.move.phase == Handing
	m.move = move{}
	if handing {
		m.do(Action{Do: Keep})
	}
	m.do(Action{Do: Report, What: MoveRefused, Why: why})
	switch {
	case g == goalStop || g == goalUnwell && !m.well:
		m.leaveAlone(now, g)
	case g == goalPreempt:
		m.refusedAt = now
	}
	m.beat()
}

// moveAsActive takes the backup's part of a planned move.
func (m *Machine) moveAsActive(now Instant, b Beat) {
	switch {
	case m.move.phase == Offering && b.Move == m.move.epoch && b.Phase == Refusing:
		m.refuse(now, PeerRefused)
	case m.move.phase == Offering && b.Move == m.move.epoch && b.Phase == Ready:
		m.move.phase, m.move.draining = Handing, true
		most := max(MinDrain, m.s.Drain)
		m.move.until = now + int64(most+drainLeeway)
		m.do(Action{Do: Hand, MAC: b.MAC})
		m.do(Action{Do: Drain, AtLeast: MinDrain, AtMost: most})
		m.beat()
	case m.move.phase == Handing && b.Phase != Ready:
		m.refuse(now, PeerLost) // it cannot take them any more
	case m.move.goal == goalNone && b.Phase == Wanting && b.Well && m.outranked(b.Priority) && b.Priority != m.s.Priority:
		if m.refusedAt == 0 || now-m.refusedAt >= int64(saidAgain) {
			m.leave(now, goalPreempt)
		}
	}
}

// Drained answers Drain: what served the addresses has ended, and everybody was
// told.
func (m *Machine) Drained(now Instant) []Action {
	if m.begin(now) && m.role == Active && m.move.draining {
		m.drained(now)
	}
	return m.end(now)
}

func (m *Machine) drained(now Instant) {
	g := m.move.goal
	if m.move.phase == Handing {
		m.grant(now, g.cause(), m.peer.beat.MAC, g)
		return
	}
	m.withdraw(now, g.cause(), MAC{}, true)
	m.gone(now, g)
}

// gone is after the addresses were withdrawn without a peer that takes them.
func (m *Machine) gone(now Instant, g goal) {
	switch g {
	case goalStop:
		m.become(now, m.role, Fault, ByStop)
		m.stopped()
	case goalUnwell:
		if m.well {
			m.toBackup(now, ByUnwell)
		} else {
			m.toFault(now, ByUnwell)
		}
	default:
		m.held, m.keeps = true, true
		m.toBackup(now, ByRelease)
		m.report(Released)
	}
}

// grant withdraws the addresses and tells the peer to take them.
func (m *Machine) grant(now Instant, c Cause, pass MAC, g goal) {
	// The phase stands before the beat that withdraw asks for.
	next := move{
		phase: Granted, goal: g, epoch: m.epoch + 1,
		until: now + int64(m.own.Grace), notBefore: now + int64(m.own.Grace),
	}
	m.withdraw(now, c, pass, true)
	if g == goalRelease {
		m.keeps = true
	}
	if m.well && g != goalStop {
		m.toBackup(now, c)
	} else {
		m.become(now, m.role, Fault, c)
	}
	m.move = next
}

// giveUp withdraws the addresses at once, whatever is in progress.
func (m *Machine) giveUp(now Instant, c Cause) {
	g := m.move.goal
	if m.s.Peered && m.linked(now) && m.peer.beat.Role == Backup {
		m.grant(now, c, m.peer.beat.MAC, max(g, goalUnwell))
		return
	}
	m.withdraw(now, c, MAC{}, true)
	m.gone(now, max(g, goalUnwell))
}

// expireMove ends what has lasted too long.
func (m *Machine) expireMove(now Instant) {
	if m.move.phase == Handing && !m.linked(now) {
		m.refuse(now, PeerLost)
		return
	}
	if m.move.until == 0 || now < m.move.until {
		return
	}
	switch {
	case m.move.phase == Offering:
		m.refuse(now, NoAnswer)
	case m.move.draining:
		m.drained(now) // who serves the addresses has not answered
	case m.move.phase == Granted:
		g := m.move.goal
		m.move = move{}
		m.do(Action{Do: Report, What: MoveRefused, Why: NotTaken})
		if g == goalStop {
			m.stopped()
		}
	default:
		m.undo() // the owner has not granted
	}
}

// lostPeer is for moves that need the peer.
func (m *Machine) lostPeer(now Instant) {
	if m.role == Active && (m.move.phase == Offering || m.move.phase == Handing) {
		m.refuse(now, PeerLost)
	}
}

// moveAsBackup takes the owner's part of a planned move, and its end.
func (m *Machine) moveAsBackup(now Instant, b Beat) {
	v := &m.move
	switch {
	case v.phase == Granted && b.Role == Active && b.Epoch >= v.epoch:
		g, epoch := v.goal, v.epoch
		m.move = move{}
		m.do(Action{Do: Report, What: Moved, Epoch: epoch})
		if g == goalStop {
			m.stopped()
		}
	case b.Role == Active && b.Phase == Offering && v.epoch != b.Move && v.phase != Granted:
		m.undo()
		if !m.mayAct() {
			m.move = move{phase: Refusing, epoch: b.Move, until: now + int64(MoveAnswer)}
			m.beat()
			return
		}
		m.move = move{preparing: true, epoch: b.Move, until: now + 2*int64(MoveAnswer)}
		m.do(Action{Do: Prepare, Epoch: b.Move, MAC: b.MAC})
	case b.Role == Active && (b.Phase == Offering || b.Phase == Handing) && v.epoch == b.Move:
		v.until = now + 2*int64(MoveAnswer) // it goes on
	case b.Role == Active && b.Phase == NoPhase && v.phase != Granted:
		m.undo()
	case b.Phase == Granted && b.Role != Active && m.role == Backup:
		m.granted(now, b)
	}
}

// granted takes what the peer has given up: only while that is news, as it may
// take it back after its Grace.
func (m *Machine) granted(now Instant, b Beat) {
	grace := m.derive(m.s.Priority, max(b.Interval, vrrp.MinInterval)).Grace
	if !m.mayAct() || b.Move <= m.epoch || b.Echo == 0 || now-b.Echo > int64(grace/2) {
		return
	}
	c := ByFarewell
	if m.move.epoch == b.Move {
		c = ByHandover
	}
	m.acquire(now, now, b.Move, c)
}

// Prepared answers Prepare.
func (m *Machine) Prepared(now Instant, epoch uint64, ok bool) []Action {
	if m.begin(now) && m.role == Backup && m.move.preparing && m.move.epoch == epoch {
		m.move.preparing = false
		m.move.phase = Ready
		if !ok {
			m.move.phase = Refusing
		}
		m.beat()
	}
	return m.end(now)
}

// undo takes back what was prepared.
func (m *Machine) undo() {
	if m.move.preparing || m.move.phase == Ready {
		m.do(Action{Do: Undo})
	}
	if m.move.phase != Granted {
		m.move = move{notBefore: m.move.notBefore}
	}
}

// wants says whether this node asks for the addresses because of its priority.
func (m *Machine) wants(now Instant) bool {
	return m.s.Preempt && m.mayAct() && m.synced && !m.keeps && m.role == Backup && now >= m.mayPreemptAt() &&
		m.linked(now) && m.peer.beat.Role == Active && m.peer.beat.Priority < m.s.Priority
}

// mayPreemptAt is when the delay has passed.
func (m *Machine) mayPreemptAt() Instant {
	return max(m.wellAt, m.syncAt) + int64(m.s.PreemptDelay)
}

// stay ends a way out that a node took because it was not well, now that it is:
// before the peer has had a part in it. What a command has asked for meanwhile
// goes on for its sake, or is refused as it would have been.
func (m *Machine) stay(now Instant) {
	if m.role != Active || m.move.goal != goalUnwell || m.move.phase == Handing {
		return
	}
	if m.move.asked && (!m.move.draining || !m.linked(now)) {
		m.move.goal = goalRelease
		return
	}
	asked := m.move.asked
	if m.move.draining {
		m.do(Action{Do: Keep})
	}
	m.move = move{}
	if asked {
		m.do(Action{Do: Report, What: MoveRefused, Why: PeerRefused})
	}
}
