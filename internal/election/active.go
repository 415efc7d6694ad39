package election

import (
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// lease is an owner's right, and what keeps it up.
type lease struct {
	until   Instant
	proof   Instant // the evidence that it rests on
	advert  Instant // when the next advert leaves
	ticked  Instant // when the last one left
	reflect Instant // when to ask the witness for the peer and for us; never: not now

	// The rhythm that the peer knows, while ours has a longer interval: for so
	// many adverts more; with a witness, until a beat echoes one of ours that was
	// made after the instant.
	easing int
	eased  Times
	asOf   Instant

	rival     Instant // when an advert of another active node came first
	contended Instant // when the last one came, in a contention that was reported
	denied    Instant // when one came first that the peer's beats deny
}

// acquire makes this node the owner, with a lease that counts from the instant.
// The order of the actions is that of Do.
func (m *Machine) acquire(now, from Instant, epoch uint64, c Cause) {
	m.epoch, m.owned = epoch, epoch
	if m.move.phase == Granted { // and the peer has not taken them
		m.do(Action{Do: Report, What: MoveRefused, Why: NotTaken})
	}
	m.move = move{}
	m.lease = lease{
		until: from + int64(m.own.Lease), proof: from,
		advert: now + int64(m.own.Interval), ticked: now, reflect: never,
	}
	if i := m.peer.beat.Interval; m.watched() && vrrp.CheckInterval(i) == nil && i < m.own.Interval {
		m.ease(now, m.derive(m.s.Priority, i))
		m.lease.until = from + int64(m.lease.eased.Lease)
		m.lease.advert = now + int64(i)
	}
	m.peer.asked = 0
	if m.quiet.missing {
		m.quiet.missing = false
		m.report(AdvertsBack) // an owner awaits none
	}
	before := m.role
	m.role = Active
	deadline := now + int64(m.own.Interval/2)
	m.advertise(deadline)
	if m.watched() {
		m.askPeer(now)
		m.askWitness(now, true)
	}
	m.do(Action{Do: Lease, Until: m.lease.until, Deadline: deadline})
	m.do(Action{Do: Own, Epoch: epoch, Cause: c})
	m.beat()
	m.become(now, before, Active, c)
}

// advertise sends an advert of this node's priority, before the instant.
func (m *Machine) advertise(deadline Instant) {
	if m.s.VRRP {
		m.do(Action{Do: SendAdvert, Priority: m.s.Priority, Interval: m.s.Interval, Deadline: deadline})
	}
}

// rhythm is what the lease follows now.
func (m *Machine) rhythm() Times {
	if m.lease.easing > 0 {
		return m.lease.eased
	}
	return m.own
}

// leaseDeadline is when an owner has something to do next.
func (m *Machine) leaseDeadline() Instant {
	at := min(m.lease.advert, m.lease.reflect)
	if m.watched() {
		at = min(at, m.wit.at)
	}
	if m.lease.contended != 0 {
		at = min(at, m.lease.contended+int64(m.own.Down))
	}
	return at
}

func (m *Machine) expireActive(now Instant) {
	if now >= m.lease.advert {
		m.tick(now)
	}
	switch {
	case !m.watched():
	case now >= m.lease.reflect:
		// The peer's kernel has not answered: the witness decides from here on.
		rest := int64(m.own.Reflect)
		if now-m.peer.answered > int64(m.own.Down) {
			rest *= 2
		} else if m.lease.ticked != now {
			m.askPeer(now)
		}
		m.askWitness(now, true)
		m.lease.reflect = now + rest
	case now >= m.wit.at:
		m.askWitness(now, true)
	}
	if c := m.lease.contended; c != 0 && now >= c+int64(m.own.Down) {
		m.lease.contended, m.lease.rival = 0, 0
		m.do(Action{Do: Announce}) // hosts may have believed the other one
	}
}

// tick is one interval of an owner: the advert leaves, then the lease that it
// allows is extended.
func (m *Machine) tick(now Instant) {
	rhythm := m.rhythm()
	// From deadline to deadline, so that adverts do not drift with the lateness
	// of the caller; after a longer absence there is no burst.
	m.lease.advert += int64(rhythm.Interval)
	if m.lease.advert <= now {
		m.lease.advert = now + int64(rhythm.Interval)
	}
	m.lease.ticked = now
	m.advertise(m.lease.until)
	if !m.watched() {
		m.extend(now, now+int64(rhythm.Lease))
	} else {
		m.askPeer(now)
	}
	if m.lease.easing > 0 && !m.watched() {
		m.lease.easing--
	}
}

// ease keeps to a rhythm that the peer knows.
func (m *Machine) ease(now Instant, known Times) {
	m.lease.easing, m.lease.eased, m.lease.asOf = 3, known, now
}

// extend writes a lease that ends later than the one that runs.
func (m *Machine) extend(now, until Instant) {
	if now < m.lease.until && until > m.lease.until {
		m.do(Action{Do: Lease, Until: until, Deadline: m.lease.until})
		m.lease.until = until
	}
}

// Lapsed is for an action that came too late: somebody else may be the owner.
func (m *Machine) Lapsed(now Instant) []Action {
	m.actions = m.actions[:0]
	m.beating = false
	if m.running && m.role == Active {
		m.lose(now)
	}
	return m.end(now)
}

// prove takes evidence that the peer, if it lives, has heard from us at or after
// the instant. Only a watched owner needs it.
func (m *Machine) prove(now, at Instant) {
	if !m.watched() || at <= m.lease.proof || at < m.since {
		return
	}
	m.lease.proof = at
	m.extend(now, at+int64(m.rhythm().Lease))
}

// askPeer asks the peer's kernel for its own address. The peer's machine sees
// the question before its kernel answers: an answer proves that it knows that we
// live. If none comes in time the witness is asked.
func (m *Machine) askPeer(now Instant) {
	i := slices.IndexFunc(m.peer.beat.Addresses, func(a netip.Addr) bool { return a.Is4() == m.firsts[0].Is4() })
	if i < 0 {
		m.lease.reflect = min(m.lease.reflect, now) // no beat has told where the peer is
		return
	}
	a := m.peer.beat.Addresses[i]
	from := unspecified(a)
	if !a.Is4() {
		from = m.place.source(a) // a probe would be answered to everybody
	}
	m.do(Action{Do: Ask, Target: a, From: from})
	if m.peer.asked == 0 {
		m.peer.asked = now // the oldest counts, as nobody knows which one is answered
	}
	m.lease.reflect = min(m.lease.reflect, now+int64(m.own.Reflect))
}

// askWitness asks the witness: first for the peer, so that the answer tells it
// that we live, then for ourselves. An owner's question is proof only because of
// the first, which is sent more often than frames are lost in a row.
func (m *Machine) askWitness(now Instant, forPeer bool) {
	w := m.s.Witness
	if from, mac, ok := m.forPeer(); ok && forPeer {
		for range reflections {
			m.do(Action{Do: Reflect, Target: w, From: from, MAC: mac})
		}
	}
	m.do(Action{Do: Ask, Target: w, From: m.place.source(w)})
	if !m.wit.pending || now-m.wit.asked > 2*int64(m.witnessRest()) {
		m.wit.silent = now // after a rest the silence of before says nothing
	}
	m.wit.asks++
	m.wit.asked, m.wit.pending = now, true
	m.wit.at = now + int64(m.witnessRest())
	if !m.wit.lost && now-max(m.wit.silent, m.since) > 2*int64(m.witnessRest())+int64(m.own.Down) {
		m.wit.lost = true
		m.report(WitnessLost)
	}
}

// reflections are sent before a question that counts: two in a row may be lost.
const reflections = 3

// forPeer gives the sender of a question on the peer's behalf, such that the
// peer can tell the answer from one to its own: a probe's in IPv4; in IPv6 an
// address from which the peer itself does not ask the witness. An owner that
// does not know them has everybody answered.
func (m *Machine) forPeer() (from netip.Addr, mac MAC, ok bool) {
	w, b := m.s.Witness, &m.peer.beat
	if b.MAC != (MAC{}) {
		if w.Is4() {
			return unspecified(w), b.MAC, true
		}
		asks := Place{Addresses: b.Addresses}.source(w)
		if i := slices.IndexFunc(b.Addresses, func(a netip.Addr) bool { return a.Is6() && a != asks }); i >= 0 {
			return b.Addresses[i], b.MAC, true
		}
	}
	return unspecified(w), broadcast, m.role == Active
}

var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// witnessRest is how often the witness is asked while nothing depends on it.
func (m *Machine) witnessRest() time.Duration { return max(m.own.Interval, time.Second) }

func (m *Machine) witnessReachable(now Instant) bool {
	return m.wit.good != 0 && now-m.wit.good <= 2*int64(m.witnessRest())
}

// answeredByWitness takes the answer to our own question.
func (m *Machine) answeredByWitness(now Instant) {
	if !m.wit.pending {
		return
	}
	before := m.wit.good
	m.wit.pending, m.wit.good, m.wit.last = false, m.wit.asked, now
	m.wit.answers++
	if m.wit.lost {
		m.wit.lost = false
		m.report(WitnessBack)
	}
	switch m.role {
	case Active:
		m.prove(now, m.wit.good)
	case Backup:
		m.witnessed(now, before)
	}
}

// answeredByPeer takes the answer of the peer's kernel to an owner.
func (m *Machine) answeredByPeer(now Instant) {
	if m.peer.asked == 0 {
		return
	}
	at := m.peer.asked
	m.peer.asked, m.peer.answered = 0, now
	m.lease.reflect = never
	m.prove(now, at)
}

// lose is the end of a lease that was not extended. Nothing is sent: the peer
// may be the owner already.
func (m *Machine) lose(now Instant) {
	c := ByLease
	if m.watched() && now-m.lease.ticked <= int64(m.own.Interval+m.own.Late) {
		c = ByWitness
	}
	goal := m.move.goal
	m.withdraw(now, c, MAC{}, false)
	switch {
	case goal == goalStop:
		m.stopped()
	case !m.well:
		m.toFault(now, c)
	default:
		m.toBackup(now, c)
	}
}

// withdraw takes the addresses away; farewell says so to the other routers.
func (m *Machine) withdraw(now Instant, c Cause, pass MAC, farewell bool) {
	m.do(Action{Do: Withdraw, Cause: c, MAC: pass})
	m.lease = lease{}
	m.move = move{}
	if m.router != nil && m.router.State() == vrrp.Active {
		m.router.Shutdown(now)
	}
	if farewell && m.s.VRRP {
		m.do(Action{Do: SendAdvert, Priority: vrrp.PriorityStop, Interval: m.s.Interval})
	}
	m.beat()
}

// changeInterval carries a running lease over to another rhythm. A longer one is
// announced in three adverts of the old rhythm before the lease becomes longer,
// with a witness until the peer says that it has heard; with a shorter one the lease is cut before any advert says so.
func (m *Machine) changeInterval(now Instant, before Times) {
	switch {
	case m.own.Interval > before.Interval:
		m.ease(now, before)
	case m.own.Interval < before.Interval:
		m.lease.easing = 0
		before := m.lease.until
		m.lease.until = min(before, now+int64(m.own.Lease))
		m.do(Action{Do: Lease, Until: m.lease.until, Deadline: before})
	}
	m.lease.advert = now
}

// rival is an advert of the peer while this node is active. One alone may have
// been sent by a process that was frozen between decision and deed: it takes a
// second one, later, or a beat of a peer that has heard of us.
func (m *Machine) rival(now Instant, from netip.Addr, priority uint8) {
	if priority == vrrp.PriorityStop {
		m.advertise(m.lease.until)
		return
	}
	if m.linked(now) && m.peer.beat.Role != Active {
		m.denied(now, from)
		return
	}
	if m.lease.rival == 0 || now-m.lease.rival > 2*int64(m.own.Down) {
		m.lease.rival = now
		m.beat()
		return
	}
	if now-m.lease.rival >= int64(m.own.Slack) {
		m.contend(now, priority)
	}
}

// denied is an advert in the peer's name while the peer's beats say that it is
// not active: anybody can send one, so beats go first. One alone may have been on
// its way for longer than the beat; more are somebody else's.
func (m *Machine) denied(now Instant, from netip.Addr) {
	switch d := m.lease.denied; {
	case d == 0 || now-d > 2*int64(m.own.Down):
		m.lease.denied = now
		m.beat()
	case now-d >= int64(m.own.Slack):
		m.often(now, Action{What: Forged, From: from})
	}
}

// contend settles who stays of two active nodes: the higher priority, then
// First, which both judge alike in every family.
func (m *Machine) contend(now Instant, priority uint8) {
	if m.outranked(priority) {
		stops := m.move.goal == goalStop
		m.withdraw(now, ByRank, MAC{}, false)
		if stops {
			m.stopped()
			return
		}
		m.toBackup(now, ByRank)
		return
	}
	if m.lease.contended == 0 {
		m.report(Contended)
		m.do(Action{Do: Announce})
		m.advertise(m.lease.until)
		m.beat()
	}
	m.lease.contended = now
}

// outranked says whether a peer of this priority goes before us.
func (m *Machine) outranked(priority uint8) bool {
	return priority > m.s.Priority || priority == m.s.Priority && !m.s.First
}

// supersede takes a new epoch where the peer has had ours as well, while neither
// heard of the other.
func (m *Machine) supersede(b Beat) {
	if b.Owned < m.epoch && b.Epoch <= m.epoch {
		return
	}
	known := m.epoch != 0 // not after a predecessor that left its lease and no word
	m.epoch = max(m.epoch, b.Epoch, b.Owned) + 1
	m.owned = m.epoch
	if known {
		m.do(Action{Do: Report, What: Superseded, Epoch: m.epoch})
	}
	m.beat()
}
