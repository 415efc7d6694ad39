package election

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// Machine decides for one group on one node. Make one with New. It is not safe
// for concurrent use. The actions that a call returns are valid until the next
// one; instants that are given to it must not go back.
type Machine struct {
	s      Settings
	place  Place
	firsts []netip.Addr // the first address of each family
	router *vrrp.Router // plain VRRP only
	// derive is NewTimes; the tests of this package break it.
	derive func(priority uint8, interval time.Duration) Times
	own    Times // of an active node with our interval
	theirs Times // of the active node that we listen to

	actions []Action
	due     Instant // Deadline; never if there is none
	beating bool    // this call ends with a beat
	running bool    // between Start and Stopped

	role   Role
	cause  Cause
	since  Instant
	epoch  uint64 // the largest that is known
	owned  uint64 // the largest under which this node was active
	well   bool
	wellAt Instant
	synced bool
	syncAt Instant
	held   bool // withdrawn by command
	keeps  bool // released by command: does not preempt any more

	lease lease // active
	quiet quiet // backup
	peer  peer
	wit   witness
	move  move

	said      map[What]Instant // when something was reported that may come often
	refusedAt Instant          // when the peer last wanted the addresses and could not take them

	askedTimes, answeredTimes uint64
	lastAnswer                Instant
	active                    netip.Addr
	advertAt                  Instant
}

const never Instant = math.MaxInt64

// saidAgain is how often the same thing is reported at most.
const saidAgain = 10 * time.Second

// peer is what is known of the other node.
type peer struct {
	linked  bool // the link has not been reported down since the last beat
	last    Instant
	beat    Beat
	echo    Instant // the stamp of its last beat
	offsets [16]offset
	n       int     // beats since the link came up
	sent    Instant // when our last beat was made
	// asked is when its kernel was asked first since it has answered, 0 if it was
	// not; answered is when it did.
	asked, answered Instant
}

// offset is what one beat says about the two clocks: when it came, minus when it
// was made.
type offset struct {
	at   Instant
	diff int64
}

// witness is what is known of the witness.
type witness struct {
	asked         Instant // when last
	pending       bool    // and it has not answered that
	good          Instant // when the newest question was asked that it has answered
	last          Instant // answer
	silent        Instant // when the oldest question was asked that it has not answered
	at            Instant // when to ask next, while nothing else asks
	lost          bool    // reported
	reflected     Instant
	asks, answers uint64
}

// New makes a machine; nothing happens before Start.
func New(s Settings) (*Machine, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	m := &Machine{derive: NewTimes, role: Fault, due: never, synced: true, said: make(map[What]Instant)}
	m.settle(s)
	return m, nil
}

// settle takes settings that were checked.
func (m *Machine) settle(s Settings) {
	interval := m.theirs.Interval
	m.s = s
	m.s.Addresses = slices.Clone(s.Addresses)
	m.firsts = m.firsts[:0]
	for _, four := range [2]bool{true, false} {
		if i := slices.IndexFunc(s.Addresses, func(a netip.Addr) bool { return a.Is4() == four }); i >= 0 {
			m.firsts = append(m.firsts, s.Addresses[i])
		}
	}
	if s.VRRP {
		m.own = m.derive(s.Priority, s.Interval)
	} else {
		m.own = Times{Interval: AloneRenewal, Lease: AloneLease, Late: AloneRenewal}
	}
	// What the active node has said of its interval still holds.
	m.theirs = m.own
	if interval > m.own.Interval && s.Peered {
		m.theirs = m.derive(s.Priority, interval)
	}
}

func (m *Machine) do(a Action)   { m.actions = append(m.actions, a) }
func (m *Machine) report(w What) { m.do(Action{Do: Report, What: w}) }
func (m *Machine) alone() bool   { return !m.s.VRRP }
func (m *Machine) plain() bool   { return m.s.VRRP && !m.s.Peered }
func (m *Machine) watched() bool { return m.s.Witness.IsValid() }

// mayAct says whether this node may become the owner at all.
func (m *Machine) mayAct() bool {
	return m.running && m.well && !m.held && m.move.goal != goalStop
}

func (m *Machine) isOurs(a netip.Addr) bool {
	return slices.Contains(m.place.Addresses, a.WithZone(""))
}
func (m *Machine) inGroup(a netip.Addr) bool { return slices.Contains(m.s.Addresses, a.WithZone("")) }
func (m *Machine) isPeers(a netip.Addr) bool {
	return slices.Contains(m.peer.beat.Addresses, a.WithZone(""))
}

// often reports what may come often, at most every saidAgain.
func (m *Machine) often(now Instant, a Action) {
	if at, ok := m.said[a.What]; ok && now-at < int64(saidAgain) {
		return
	}
	m.said[a.What] = now
	a.Do = Report
	m.do(a)
}

// begin is the start of every call: what happened since the last one comes
// before anything else.
func (m *Machine) begin(now Instant) bool {
	m.actions = m.actions[:0]
	if !m.running {
		return false
	}
	if late := time.Duration(now - m.due); m.due != never && late > m.own.Late {
		m.often(now, Action{What: Late, By: late})
		if m.role != Active {
			m.distrust(now)
		}
	}
	if m.role == Active && now >= m.lease.until {
		m.lose(now)
	}
	return true
}

// distrust is for who was late: that nothing was heard proves nothing.
func (m *Machine) distrust(now Instant) {
	if m.plain() && m.router != nil {
		m.router.Heard(now, 0)
	}
	m.listen(now)
}

// end is the end of every call.
func (m *Machine) end(now Instant) []Action {
	if m.beating {
		m.beating, m.peer.sent = false, now
		a := Action{Do: SendBeat}
		if m.role == Active {
			a.Deadline = m.lease.until
		}
		m.do(a)
	}
	m.due = never
	if m.running {
		m.due = m.next(now)
	}
	return m.actions
}

// Deadline is when Expire has something to do.
func (m *Machine) Deadline() (at Instant, ok bool) { return m.due, m.due != never }

// next is the earliest of all deadlines.
func (m *Machine) next(now Instant) Instant {
	at := m.moveDeadline()
	if m.s.Peered {
		at = min(at, m.beatAt())
	}
	switch {
	case m.role == Active:
		at = min(at, m.lease.until, m.leaseDeadline())
	case m.alone():
		if m.mayAct() {
			at = min(at, now)
		}
	case m.plain():
		if m.router == nil || m.role != Backup {
			break
		}
		if d, ok := m.router.Deadline(); ok {
			at = min(at, d)
		}
		if d := m.mayPreemptAt(); m.s.Preempt && d > now {
			at = min(at, d)
		}
	case m.role == Backup:
		at = min(at, m.quietDeadline(now))
	}
	return at
}

// Expire does what is due.
func (m *Machine) Expire(now Instant) []Action {
	if !m.begin(now) {
		return nil
	}
	m.expireMove(now)
	switch {
	case !m.running:
	case m.role == Active:
		m.expireActive(now)
	case m.alone():
		if m.mayAct() {
			m.acquire(now, now, m.epoch+1, ByAlone)
		}
	case m.plain():
		m.expirePlain(now)
	case m.role == Backup:
		m.expireBackup(now)
	}
	m.beatIfDue(now)
	return m.end(now)
}

// Start begins, as a node that is not well: SetWell comes next.
func (m *Machine) Start(now Instant) []Action {
	m.actions = m.actions[:0]
	if m.running {
		return nil
	}
	m.running, m.since, m.cause = true, now, ByStart
	m.listen(now)
	m.do(Action{Do: Report, What: RoleChanged, Role: Fault, Before: Fault, Cause: ByStart, Epoch: m.epoch})
	m.wit.at = now
	m.beat()
	return m.end(now)
}

// Resume begins as the owner that the process before this one was: its lease
// under this epoch runs until the instant, which was read back from the kernel.
// A lease that has ended is none: then it is Start. The node counts as well
// until SetWell says otherwise. SetPlace comes before it.
func (m *Machine) Resume(now Instant, epoch uint64, until Instant) []Action {
	m.epoch = max(m.epoch, epoch)
	if m.running || now >= until || until-now > int64(m.own.Lease) || m.plain() && m.router == nil {
		return m.Start(now)
	}
	m.actions = m.actions[:0]
	m.running, m.well, m.wellAt, m.owned = true, true, now, m.epoch
	if m.plain() {
		m.router.Startup(now)
		m.router.TakeOver(now)
	}
	m.lease = lease{until: until, proof: now, advert: now, reflect: never}
	m.wit.at = now
	m.become(now, m.role, Active, ByPredecessor)
	m.do(Action{Do: Own, Epoch: m.epoch, Cause: ByPredecessor})
	m.beat()
	return m.end(now)
}

// Recall tells a machine that has not begun what the process before it knew of
// the peer: the Peer.Beat of its Status.
func (m *Machine) Recall(b Beat) {
	if !m.running && m.s.Peered {
		m.peer.beat = b
	}
}

// become changes the role.
func (m *Machine) become(now Instant, before, r Role, c Cause) {
	m.role, m.cause, m.since = r, c, now
	m.do(Action{Do: Report, What: RoleChanged, Role: r, Before: before, Cause: c, Epoch: m.epoch})
}

// SetPlace says what the interface is now. It may come before Start.
func (m *Machine) SetPlace(now Instant, p Place) []Action {
	running := m.begin(now)
	p.Addresses = slices.Clone(p.Addresses)
	for i, a := range p.Addresses {
		p.Addresses[i] = a.WithZone("")
	}
	m.place = p
	if m.plain() {
		m.configureRouter(now)
	}
	if running {
		m.beat()
	}
	return m.end(now)
}

// SetSynced says whether the peer's state is here: who lacks it does not
// preempt. A machine that was told nothing counts as synced.
func (m *Machine) SetSynced(now Instant, ok bool) []Action {
	m.begin(now)
	if ok != m.synced {
		m.synced, m.syncAt = ok, now
	}
	if m.plain() {
		m.configureRouter(now)
	}
	return m.end(now)
}

// SetWell says whether the node may own the addresses. One that is not well any
// more gives them to its peer by a planned move where that is possible; urgent
// is for what cannot wait, such as a link that is down: then they are withdrawn
// at once.
func (m *Machine) SetWell(now Instant, ok, urgent bool) []Action {
	if !m.begin(now) {
		m.well = ok
		return nil
	}
	changed := ok != m.well
	m.well = ok
	switch {
	case ok && changed:
		m.wellAt = now
		if m.role == Fault && m.move.goal != goalStop {
			m.toBackup(now, ByWell)
		}
		m.stay(now)
	case !ok && m.role == Active && urgent:
		m.giveUp(now, ByUnwell)
	case !ok && m.role == Active && changed:
		m.leave(now, goalUnwell)
	case !ok && m.role == Backup:
		m.undo()
		m.toFault(now, ByUnwell)
	}
	if changed {
		m.beat()
	}
	return m.end(now)
}

// toBackup begins to listen.
func (m *Machine) toBackup(now Instant, c Cause) {
	m.become(now, m.role, Backup, c)
	m.listen(now)
	m.startRouter(now)
}

func (m *Machine) toFault(now Instant, c Cause) {
	m.stopRouter(now)
	m.become(now, m.role, Fault, c)
}

// beat tells the peer what is new, when this call has done everything.
func (m *Machine) beat() { m.beating = m.beating || m.s.Peered }

// Change gives the machine other settings while it runs. Whether the group is
// shared, and with whom, cannot change: make another machine.
func (m *Machine) Change(now Instant, s Settings) ([]Action, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if s.VRRP != m.s.VRRP || s.Peered != m.s.Peered || s.ID != m.s.ID {
		return nil, errors.New("election: VRRP, Peered or ID differs: stop this machine and make another")
	}
	running := m.begin(now)
	before := m.own
	m.settle(s)
	m.held, m.keeps = false, false
	if !running {
		return nil, nil
	}
	if m.plain() {
		m.configureRouter(now)
	}
	switch m.role {
	case Active:
		m.changeInterval(now, before)
	case Backup:
		m.listen(now)
		m.startRouter(now)
	}
	m.beat()
	return m.end(now), nil
}

// Status shows how the group stands.
func (m *Machine) Status(now Instant) Status {
	st := Status{
		Role: m.role, Since: m.since, Cause: m.cause, Epoch: m.epoch, Well: m.well, Held: m.held,
		Interval: m.theirs.Interval, Down: m.theirs.Down, Active: m.active, Advert: m.advertAt,
		Asked: m.askedTimes, Answered: m.answeredTimes, LastAnswer: m.lastAnswer,
		Phase: m.move.shown(),
	}
	switch m.role {
	case Active:
		st.Lease, st.Interval, st.Down, st.Active = m.lease.until, m.own.Interval, m.own.Down, netip.Addr{}
	case Backup:
		st.Heard, st.Missing, st.Asking = m.quiet.heard, m.quiet.missing, m.quiet.rounds > 0
	}
	w := &st.Witness
	w.Asked, w.Answered, w.Last, w.Reflected = m.wit.asks, m.wit.answers, m.wit.last, m.wit.reflected
	w.Idle = m.watched() && m.role != Active && !m.mayAct()
	w.Reachable = m.watched() && m.witnessReachable(now)
	p := &st.Peer
	p.Linked, p.Last, p.Beat = m.linked(now), m.peer.last, m.peer.beat
	return st
}
