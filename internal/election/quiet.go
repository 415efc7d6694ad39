package election

import "github.com/holdfast-net/holdfast/vrrp"

// quiet is what a backup has heard, and not heard.
type quiet struct {
	heard  Instant // the last evidence that the active node lives, or when listening began
	advert Instant // the last advert of it, or when listening began

	blind   bool // evidence came although adverts did not
	missing bool // and that was reported
	yielded bool // the peer was about to take over at the same time, and goes before us

	askAt    Instant // when to ask next
	rounds   int     // of questions since heard
	clear    int     // of those, after the old lease must have ended
	earlier  Instant // when the last round but one was sent
	latest   Instant // when the last one was
	answered bool    // the peer's kernel has answered one

	stop Instant // when the active node said that it stops; 0: it did not
}

// listen begins to listen: nothing is known.
func (m *Machine) listen(now Instant) {
	m.quiet = quiet{heard: now, advert: now, missing: m.quiet.missing, askAt: now + int64(m.theirs.Suspect)}
	m.wit.at = max(m.wit.at, now) // who did not listen did not ask either, and is not late
}

// lives takes evidence that the active node's lease ran at the instant. What
// was not an advert, and came when there should have been some, shows that they
// do not arrive.
func (m *Machine) lives(now, at Instant, advert bool) {
	if m.role != Backup || at <= m.quiet.heard && !advert {
		return
	}
	q := quiet{
		heard: max(at, m.quiet.heard), advert: m.quiet.advert,
		blind: m.quiet.blind, missing: m.quiet.missing,
	}
	if advert {
		q.advert, q.blind = at, false
		if q.missing {
			q.missing = false
			m.report(AdvertsBack)
		}
	} else if at > q.advert+int64(m.theirs.Suspect) {
		q.blind = true
		if !q.missing && m.quiet.blind && at > q.advert+int64(m.theirs.Down) {
			q.missing = true
			m.report(AdvertsMissing)
		}
	}
	q.askAt = q.heard + int64(m.theirs.Suspect)
	m.quiet = q
}

// hold is how long the peer's kernel answers after its lease was extended, and
// then some: who answers later has extended it.
func (m *Machine) hold() int64 {
	bound := int64(m.theirs.Bound)
	if h := int64(m.peer.beat.Hold); h != 0 {
		return max(bound, h+h/64+int64(m.theirs.Interval/16))
	}
	return max(bound, int64(Linger))
}

// actAt is when silence has lasted long enough.
func (m *Machine) actAt() Instant {
	q, t := &m.quiet, &m.theirs
	at := q.heard + int64(t.Down)
	switch {
	case q.stop != 0:
		return max(q.stop+max(int64(vrrp.Skew(m.s.Priority, t.Interval)), asks*int64(t.Quick)), m.move.notBefore)
	case q.blind:
		at = q.heard + int64(t.Patience)
	case q.yielded:
		at = q.heard + 2*int64(t.Down)
	}
	if q.answered {
		at = max(at, q.heard+m.hold()+asks*int64(t.Spacing))
	}
	return max(at, m.move.notBefore)
}

// spacing is between two rounds of questions.
func (m *Machine) spacing(now Instant) int64 {
	switch {
	case m.quiet.stop != 0:
		return int64(m.theirs.Quick)
	case now > m.actAt()+int64(m.theirs.Down):
		return max(int64(m.theirs.Interval), int64(maxSpacing)) // something keeps us from acting
	}
	return int64(m.theirs.Spacing)
}

func (m *Machine) quietDeadline(now Instant) Instant {
	if !m.mayAct() {
		return never
	}
	at := m.quiet.askAt
	if act := m.actAt(); act > now {
		at = min(at, act)
	}
	if m.watched() {
		at = min(at, m.wit.at)
	}
	return at
}

func (m *Machine) expireBackup(now Instant) {
	if !m.mayAct() || m.tryAct(now) {
		return
	}
	switch {
	case now >= m.quiet.askAt:
		m.question(now)
	case m.watched() && now >= m.wit.at:
		m.askWitness(now, false)
	}
}

// question is one round: the peer's kernel is asked for the group's addresses,
// and the witness is asked. Probes, and questions to the witness in the peer's
// name, also tell a peer that is about to take over that we are: who would wait
// for the peer does not ask so.
func (m *Machine) question(now Instant) {
	q, claim := &m.quiet, !m.defers(now)
	for _, a := range m.firsts {
		from := unspecified(a)
		if !claim {
			from = m.place.source(a)
		}
		m.do(Action{Do: Ask, Target: a, From: from})
		m.askedTimes++
	}
	if m.watched() {
		m.askWitness(now, claim)
	}
	if q.rounds == 0 {
		m.beat() // a peer that lives answers at once
	}
	q.rounds++
	q.earlier, q.latest = q.latest, now
	bound := q.heard + m.hold()
	if now >= bound {
		q.clear++
	}
	q.askAt = now + m.spacing(now)
	if now < bound && bound < q.askAt && q.answered {
		q.askAt = bound
	}
}

// tryAct takes over if everything says so: silence for long enough, questions
// that nobody answered, a witness that does answer, and no peer that goes before
// us and can.
func (m *Machine) tryAct(now Instant) bool {
	q, t := &m.quiet, &m.theirs
	spacing := int64(t.Spacing)
	if q.stop != 0 {
		spacing = int64(t.Quick)
	}
	switch {
	case !m.mayAct() || now < m.actAt():
		return false
	case q.rounds < asks || now-q.earlier < spacing:
		return false
	case q.answered && q.stop == 0 && q.clear < asks:
		return false
	case m.watched() && (m.wit.good == 0 || now-m.wit.good > int64(t.Interval)):
		return false
	case m.defers(now):
		return false
	}
	c := BySilence
	if q.stop != 0 {
		c = ByFarewell
	}
	from := now
	if m.watched() {
		from = m.wit.good // a peer that hears nothing of us but that has heard that
	}
	m.acquire(now, from, m.epoch+1, c)
	return true
}

// witnessed takes an answer of the witness as a backup; before is when the
// question was asked that it had answered last. A silence in which it did not
// answer either was ours.
func (m *Machine) witnessed(now, before Instant) {
	q := &m.quiet
	if q.rounds > 0 && m.wit.good-max(before, q.heard) > int64(m.theirs.Suspect+m.theirs.Slack) {
		m.hush(now)
		return
	}
	m.tryAct(now)
}

// hush begins the silence anew: it has not meant anything so far.
func (m *Machine) hush(now Instant) {
	m.quiet = quiet{
		heard: now, advert: m.quiet.advert, blind: m.quiet.blind, missing: m.quiet.missing,
		askAt: now + int64(m.theirs.Suspect),
	}
}

// defers says whether the peer would take over as well as we, and goes before
// us.
func (m *Machine) defers(now Instant) bool {
	b := &m.peer.beat
	return m.linked(now) && b.Role == Backup && b.Able && m.outranked(b.Priority)
}

// answeredForGroup takes an answer for one of the group's addresses from the
// peer's kernel, or from somebody who may be it. While the lease that we know of
// may run it says nothing new; later, it was extended.
func (m *Machine) answeredForGroup(now Instant) {
	q := &m.quiet
	if q.rounds == 0 {
		return
	}
	m.answeredTimes++
	m.lastAnswer = now
	if q.stop != 0 || q.blind || now > q.heard+m.hold() {
		m.lives(now, now, false)
		return
	}
	q.answered = true
	if bound := q.heard + m.hold(); now < bound && bound < q.askAt {
		q.askAt = bound
	}
}

// rivalClaims takes a probe of the peer's for the group's address: it is about
// to take over. If we are too, one of us waits.
func (m *Machine) rivalClaims(now Instant) {
	if m.role == Backup && !m.s.First {
		m.hush(now)
	}
}

// reflected takes the witness's answer to a question that the peer asked on our
// behalf: it lives, and the witness is all that we share. It may also be about to
// take over, as we may be.
func (m *Machine) reflected(now Instant) {
	if m.role != Backup {
		return
	}
	m.wit.reflected = now
	m.held = false
	claiming := m.quiet.rounds > 0
	m.hush(now)
	if claiming && !m.s.First {
		m.quiet.yielded = true
		m.quiet.askAt += int64(m.theirs.Down)
	}
}

// stopping takes an advert that says that the active node stops. Its addresses
// are gone by then; if it is an old advert, questions are answered.
func (m *Machine) stopping(now Instant) {
	if m.role != Backup || m.quiet.stop != 0 {
		return
	}
	m.quiet.stop, m.quiet.rounds, m.quiet.answered = now, 0, false
	m.quiet.askAt = now
}
