package vip

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/internal/election"
	"github.com/holdfast-net/holdfast/internal/gate"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// passing is how long frames that still come for an address that was given
// away go on to its new owner.
const passing = 5 * time.Second

// act does what the machine has decided, in its order. What is decided while it
// is done, by an event that an action brings about, comes behind it.
func (g *group) act(actions []election.Action) {
	g.calls++
	for i := range actions {
		g.queue = append(g.queue, decided{actions[i], g.calls})
	}
	if g.acting {
		return
	}
	g.acting = true
	for i := 0; i < len(g.queue); i++ { //nolint:intrange // it grows meanwhile
		if d := &g.queue[i]; d.call != g.lapsed {
			g.do(&d.Action, d.call)
		}
	}
	g.queue, g.acting = g.queue[:0], false
}

// decided is an action, and by which call of the machine it came.
type decided struct {
	election.Action
	call uint64
}

// late says whether there is no time left for an action: a process that was
// stopped on the way here must not have a lease that its peer knows nothing of,
// nor speak as an owner. What the machine has decided with it is dropped then.
func (g *group) late(a *election.Action, call uint64) bool {
	if a.Deadline == 0 {
		return false
	}
	now := sys.BootTime()
	if now < a.Deadline {
		return false
	}
	g.lapsed, g.loop.now = call, now
	g.act(g.machine.Lapsed(now))
	return true
}

// lease writes the end of a lease.
func (g *group) lease(until int64) {
	g.leaseUntil = until
	if m := g.gateEntry.Mode; m == gate.Own || m == gate.Handing {
		g.renewGate(until)
	}
}

func (g *group) do(a *election.Action, call uint64) {
	if g.late(a, call) {
		return
	}
	switch a.Do {
	case election.SendAdvert:
		g.sendAdvert(a.Priority, a.Interval)
	case election.SendBeat:
		g.sendBeat()
	case election.Lease:
		g.lease(a.Until)
	case election.Own:
		g.takeOver(*a)
	case election.Announce:
		g.announceNow()
	case election.Ask:
		g.ask(a.Target, a.From, g.port.mac())
	case election.Reflect:
		g.ask(a.Target, a.From, a.MAC)
	case election.Prepare:
		g.prepare(*a)
	case election.Undo:
		g.silence()
	case election.Hand:
		g.setGate(gate.Entry{Mode: gate.Handing, Until: g.leaseUntil, Peer: a.MAC})
	case election.Keep:
		g.keep()
	case election.Drain:
		g.drainFor(*a)
	case election.Withdraw:
		g.withdrawFor(*a)
	case election.Report:
		g.report(*a)
	}
}

// takeOver is the order of a takeover, from the gate on: the advert and the
// lease came before.
func (g *group) takeOver(a election.Action) {
	cause := causes[a.Cause]
	g.setGate(gate.Entry{Mode: gate.Own, Until: g.leaseUntil})
	c := g.begin()
	c.epoch = a.Epoch
	if g.primed {
		g.primed = false // its steps have been done
		g.addAddresses(c, func() { g.announced(c, cause, true) })
		return
	}
	if g.prepared {
		// Everything is here already, silent until now.
		g.prepared = false
		g.announced(c, cause, true)
		return
	}
	g.steps(c, BeforeAddress, cause, false, func() {
		g.addAddresses(c, func() { g.announced(c, cause, false) })
	})
}

// announced is the rest of a takeover.
func (g *group) announced(c *course, cause Cause, planned bool) {
	g.schedule.Start(g.loop.now)
	g.schedule.Due(g.loop.now)
	g.announceNow()
	g.steps(c, AfterAnnounce, cause, planned, func() { c.over = true })
}

// prepare makes ready for a planned takeover: state, then the addresses, which
// stay silent.
func (g *group) prepare(a election.Action) {
	g.leaseUntil = g.loop.now + int64(addressLifetime)
	g.setGate(gate.Entry{Mode: gate.Taking, Until: g.leaseUntil, Peer: a.MAC})
	c := g.begin()
	c.epoch = a.Epoch
	if g.port.sockets.gate == nil {
		// Without a gate nothing keeps addresses silent: they are added when
		// they are this node's.
		g.steps(c, BeforeAddress, CauseHandover, true, func() {
			c.over, g.primed = true, true
			g.act(g.machine.Prepared(g.loop.now, a.Epoch, true))
		})
		return
	}
	g.steps(c, BeforeAddress, CauseHandover, true, func() {
		g.addAddresses(c, func() {
			c.over = true
			g.prepared = g.addressing.problem == ""
			g.act(g.machine.Prepared(g.loop.now, a.Epoch, g.prepared))
		})
	})
}

// silence takes back prepare.
func (g *group) silence() {
	c := g.begin()
	g.prepared, g.primed, g.leaseUntil = false, false, 0
	g.shut()
	g.withdraw(func() { c.over = true })
}

// keep takes back that the addresses are given away.
func (g *group) keep() {
	g.drain = nil
	c := g.begin()
	g.setGate(gate.Entry{Mode: gate.Own, Until: g.leaseUntil})
	if g.addressing.want {
		c.over = true
		return
	}
	g.addAddresses(c, func() { g.announced(c, g.cause, false) })
}

// drainFor lets those who use the addresses end, then has those who are left
// told.
func (g *group) drainFor(a election.Action) {
	c := g.begin()
	d := &draining{notBefore: g.loop.now + int64(a.AtLeast)}
	g.drain = d
	c.bound = a.AtMost
	g.steps(c, Draining, CauseReleased, true, func() {
		g.steps(c, BeforeWithdraw, CauseReleased, true, func() {
			c.over = true
			d.stepsDone = true // Drained is told when notBefore has come
		})
	})
}

// withdrawFor gives the addresses up: silence first.
func (g *group) withdrawFor(a election.Action) {
	c := g.begin()
	g.drain, g.prepared, g.primed, g.leaseUntil = nil, false, false, 0
	if a.MAC != (election.MAC{}) {
		g.setGate(gate.Entry{Mode: gate.Passing, Until: g.loop.now + int64(passing), Peer: a.MAC})
	} else {
		g.shut()
	}
	g.schedule.Stop()
	g.lastSent = 0
	cause := causes[a.Cause]
	g.withdraw(func() {
		if g.course == c {
			g.steps(c, AfterWithdraw, cause, a.MAC != (election.MAC{}), func() { c.over = true })
		}
	})
}

func (g *group) sendBeat() {
	g.loop.beats++
	g.beat = g.machine.Beat(sys.BootTime()).AppendTo(g.beat[:0])
	g.loop.frame.add(g.spec.Name, g.loop.beats, g.beat)
}

// causes are those of the election in the words of this package.
var causes = map[election.Cause]Cause{
	election.ByStart: CauseStart, election.ByAlone: CauseAlone, election.BySilence: CauseSilence,
	election.ByFarewell: CauseFarewell, election.ByHandover: CauseHandover, election.ByPreempt: CausePreempt,
	election.ByRank: CauseOutranked, election.ByLease: CauseLease, election.ByWitness: CauseWitness,
	election.ByUnwell: CauseUnwell, election.ByWell: CauseWell, election.ByRelease: CauseReleased,
	election.ByStop: CauseStopped, election.ByPredecessor: CausePredecessor,
}

var roles = map[election.Role]Role{election.Backup: Backup, election.Active: Active, election.Fault: Fault}

// report tells what the machine has to say.
func (g *group) report(a election.Action) {
	v := g.spec.VRRP
	switch a.What {
	case election.RoleChanged:
		g.roleChanged(a)
	case election.AdvertsMissing:
		g.tell(KindAdverts, fmt.Sprintf("adverts of id %d do not arrive on %s, although the peer lives: look for what filters IP protocol 112 or multicast between both nodes", v.ID, g.spec.Interface))
	case election.AdvertsBack:
		text := fmt.Sprintf("adverts of id %d arrive again on %s", v.ID, g.spec.Interface)
		if g.machine.Status(g.loop.now).Role == election.Active {
			text = fmt.Sprintf("adverts of id %d are not awaited any more: this node sends them", v.ID)
		}
		g.tellOver(KindAdverts, text)
	case election.Forged:
		if slices.Contains(g.machine.Status(g.loop.now).Peer.Beat.Addresses, a.From) {
			g.tellSometimes(KindForged, fmt.Sprintf("adverts with id %d come from %v, the peer's address, and the link to the peer says that it sends none: they are not heeded; find out who sends them", v.ID, a.From))
			return
		}
		g.forged(a.From, "the peer, as the link to it tells")
	case election.Strange:
		g.tellSometimes(KindStranger, fmt.Sprintf("a host at %v that is neither node answers for %v: find it and take the address away from it", mac(a.MAC), a.Target))
	case election.Conflict:
		g.counts.conflicts++
		g.announceNow() // at most once in ten seconds (RFC 5227, 2.4)
		g.tellSometimes(KindConflict, fmt.Sprintf("another host, at %v, answers for %v, which this node owns; this node announces it again: find that host and take the address away from it", mac(a.MAC), a.Target))
	case election.Contended:
		g.tell(KindConflict, "the peer is active too; this node goes before it and stays")
	case election.Superseded:
		g.tell(KindConflict, fmt.Sprintf("both nodes have had the same epoch; this one goes on with %d", a.Epoch))
	case election.WitnessLost:
		g.tell(KindWitness, fmt.Sprintf("witness %v no longer answers on %s", g.spec.Witness, g.spec.Interface))
	case election.WitnessBack:
		g.tellOver(KindWitness, fmt.Sprintf("witness %v answers again on %s", g.spec.Witness, g.spec.Interface))
	case election.Late:
		g.tellSometimes(KindLate, fmt.Sprintf("this process was stopped, or got no processor, for %v: what it heard before proves nothing", a.By.Round(time.Millisecond)))
	case election.MoveRefused:
		err := fmt.Errorf("vip: group %q was not given to the peer: %s", g.spec.Name, whys[a.Why])
		g.tell(KindRefused, err.Error())
		g.answer(err)
	case election.Moved, election.Released:
		g.answer(nil)
	case election.Stopped:
		g.stopped = true
		g.answer(errEnded)
	}
}

func mac(m election.MAC) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

var whys = map[election.Why]string{
	election.NoAnswer:    "it did not say in time that it is ready; nothing has changed",
	election.PeerRefused: "it is not well, or could not prepare, as its status says; nothing has changed",
	election.PeerLost:    "it fell silent meanwhile; nothing has changed",
	election.NotTaken:    "it did not take the addresses over in time; nobody owns them until one of both does",
}

func (g *group) answer(err error) {
	for _, done := range g.waiting {
		done(err)
	}
	g.waiting = g.waiting[:0]
}

// release begins a planned move to the peer, or withdraws for good where there
// is none.
func (g *group) release(done func(error)) {
	if !g.active() {
		done(fmt.Errorf("vip: group %q: %w", g.spec.Name, ErrNotOwner))
		return
	}
	g.waiting = append(g.waiting, done)
	g.act(g.machine.Release(g.loop.now))
}

func (g *group) roleChanged(a election.Action) {
	from := g.role
	g.role, g.since, g.cause = roles[a.Role], time.Now(), causes[a.Cause]
	if a.Cause == election.ByStop && g.loop.configuring {
		g.cause = CauseConfigured
	}
	if g.role == Active {
		g.takeovers[g.cause]++
	} else if from == Active && g.cause != CauseReleased && g.cause != CauseHandover && g.cause != CausePreempt {
		g.answer(fmt.Errorf("vip: group %q was lost while it was being released: %s", g.spec.Name, g.cause))
	}
	if g.role == from {
		return
	}
	text := "" // the rest says all of it
	if g.role == Fault || g.cause == CauseUnwell {
		text = g.why
	}
	g.loop.o.teller.tell(Change{
		Group: g.spec.Name, Kind: KindRole, At: g.since, Role: g.role, From: from, Epoch: a.Epoch, Cause: g.cause, Text: text,
	})
}

var errUnread = errors.New("the beat cannot be read")

// deliver takes a beat of the peer's.
func (g *group) deliver(sender, number uint64, raw []byte) error {
	if !g.started || g.stopped || !g.spec.Peered {
		return nil
	}
	if sender == g.peerSender && number <= g.peerNumber {
		return nil // repeated by the link
	}
	b, err := election.ParseBeat(raw)
	if err != nil {
		return errors.Join(errUnread, err)
	}
	g.peerSender, g.peerNumber = sender, number
	g.act(g.machine.Hear(g.loop.now, b))
	return nil
}
