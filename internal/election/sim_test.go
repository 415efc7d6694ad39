package election

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// This file is a world to try machines in: two nodes with clocks of their own,
// the paths between them, a witness, and what can go wrong with each of them.
// Time is simulated; a choice that is not given is drawn from a seed.

var (
	vip4      = netip.MustParseAddr("10.0.0.100")
	gateway   = netip.MustParseAddr("10.0.0.1")
	vip6      = netip.MustParseAddr("2001:db8::100")
	gateway6  = netip.MustParseAddr("fe80::1")
	allNodes6 = netip.MustParseAddr("ff02::1")
)

const ms = int64(time.Millisecond)

// event is something that happens at a time.
type event struct {
	at  int64
	seq int
	run func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// setup says what world there is.
type setup struct {
	interval   time.Duration
	priority   [2]uint8
	witness    bool
	six        bool
	preempt    bool
	gated      bool
	needsAlive bool // the daemon has to live
	drain      time.Duration
	rate       [2]int64 // parts in a million that a node's clock is fast
	delay      int64    // of a frame, at most
	linkDelay  int64    // of a beat, at most
	late       int64    // of the loop, at most
	double     int      // percent of the frames arrive twice
	loss       int      // percent, of adverts and questions, never more than two in a row
	derive     func(uint8, time.Duration) Times
	seed       uint64
	start      [2]int64 // when each node is started

	// What is broken in this world.
	split        bool    // every path may be cut without a witness
	leaseFirst   bool    // before the advert that should precede it
	writeLate    bool    // a lease, however late
	speakLate    bool    // adverts and beats too
	mute         bool    // kernels answer no questions
	noReflection bool    // the witness does not answer in the peer's name
	carefree     [2]bool // a node that does not know the witness
}

// lossy is a path on which frames may be lost.
type lossy struct {
	cut    bool
	healed int64 // when it was cut no longer
	lost   int   // in a row
}

// world is the nodes and what is between them.
type world struct {
	setup
	t       int64 // true time
	seq     int
	q       events
	rng     *rand.Rand
	node    [2]*node
	advert  [2]lossy // from node i
	ask     [2]lossy // frames from node i to the other
	wit     [2]lossy // between node i and the witness
	linkCut bool
	cutAt   int64 // when a path was cut last
	healed  int64 // when one has healed last

	violations []string
	takeovers  []takeover
	log        func(string)
	onAction   func(n *node, a Action)
}

type takeover struct {
	at    int64
	node  int
	epoch uint64
	cause Cause
}

// node is one host: its clock, its kernel, its elector and its daemon.
type node struct {
	w    *world
	i    int
	name string
	mac  MAC
	addr []netip.Addr
	boot int64 // true time at which its clock was zero

	up     bool // the host
	m      *Machine
	epochs uint64 // what survives a crash of the elector
	recall Beat   // what an upgrade hands over
	due    Instant
	dueAt  int64
	frozen bool // the elector
	stopAt int  // freeze after so many more actions; -1: not
	rest   []Action
	inbox  []func(now Instant)
	wake   int // number of the wake-up that counts
	daemon bool
	silent int64 // since when the daemon is
	well   bool
	slower int64 // its interval is so many times that of the world; 0: once

	// the kernel
	until   Instant // of the lease
	present bool    // the addresses are there
	quietly bool    // and only the peer may know (prepared)
	expires Instant // the addresses, without a gate

	outbox   []func()
	lastBeat int64
}

func newWorld(s setup) *world {
	w := &world{setup: s, rng: rand.New(rand.NewPCG(s.seed, 1))}
	for i := range w.node {
		n := &node{w: w, i: i, name: string(rune('a' + i)), mac: MAC{2, 0, 0, 0, 0, byte(i + 1)}, stopAt: -1}
		n.addr = []netip.Addr{
			netip.AddrFrom4([4]byte{10, 0, 0, byte(11 + i)}),
			netip.MustParseAddr(fmt.Sprintf("fe80::%d", 11+i)),
			netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 11+i)),
		}
		n.boot = -int64(time.Hour) * int64(i+1)
		w.node[i] = n
		w.at(s.start[i], func() { n.powerOn(n.boot) })
	}
	return w
}

func (w *world) at(t int64, f func()) {
	w.seq++
	heap.Push(&w.q, event{at: max(t, w.t), seq: w.seq, run: f})
}

// run lets the world go on until a true time.
func (w *world) run(until int64) {
	for len(w.q) > 0 && w.q[0].at <= until {
		e := heap.Pop(&w.q).(event)
		w.t = e.at
		e.run()
	}
	w.t = until
}

// some gives a duration up to most.
func (w *world) some(most int64) int64 {
	if most <= 0 {
		return 0
	}
	return w.rng.Int64N(most + 1)
}

// passes says whether a frame gets through.
func (w *world) passes(p *lossy) bool {
	if p.cut {
		return false
	}
	if p == &w.advert[0] && w.ask[0].cut || p == &w.advert[1] && w.ask[1].cut {
		return true // what a lost advert would have said, a question must be able to find out
	}
	if w.loss > 0 && p.lost < 2 && w.rng.IntN(100) < w.loss {
		p.lost++
		p.healed = w.t
		return false
	}
	p.lost = 0
	return true
}

// fly delivers a frame after a while, and now and then once more.
func (w *world) fly(f func()) {
	w.at(w.t+w.some(w.delay), f)
	if w.double > 0 && w.rng.IntN(100) < w.double {
		w.at(w.t+w.some(w.delay), f)
	}
}

func (w *world) note(format string, args ...any) {
	if w.log != nil {
		w.log(fmt.Sprintf(format, args...))
	}
}

// clock is a node's time.
func (n *node) clock() Instant {
	d := n.w.t - n.boot
	return d + d/1_000_000*n.w.rate[n.i]
}

// when is the true time at which a node's clock shows an instant.
func (n *node) when(at Instant) int64 {
	t := n.boot + at - at/1_000_000*n.w.rate[n.i]
	for range 8 { // the inverse of clock, to the nanosecond
		d := t - n.boot
		show := d + d/1_000_000*n.w.rate[n.i]
		if show == at {
			break
		}
		t += at - show
	}
	return t
}

func (n *node) peer() *node { return n.w.node[1-n.i] }

func (n *node) settings() Settings {
	w := n.w
	s := Settings{
		VRRP: true, ID: 51, Priority: w.priority[n.i], Interval: w.interval, Peered: true,
		First: n.i == 0, Preempt: w.preempt, Drain: w.drain,
	}
	s.Interval *= time.Duration(max(n.slower, 1))
	s.Addresses = []netip.Addr{vip4}
	if w.witness && !w.carefree[n.i] {
		s.Witness = gateway
	}
	if w.six {
		s.Addresses = []netip.Addr{vip6}
		if w.witness {
			s.Witness = gateway6
		}
	}
	return s
}

// powerOn starts the host. boot is the true time at which its clock is zero.
func (n *node) powerOn(boot int64) {
	if n.up {
		return
	}
	n.up, n.boot, n.daemon, n.epochs, n.well = true, boot, true, 0, true
	n.startElector(false)
}

// startElector starts a machine, with what the kernel still has if resume is
// set.
func (n *node) startElector(resume bool) {
	m, err := New(n.settings())
	if err != nil {
		panic(err)
	}
	if n.w.derive != nil {
		m.derive = n.w.derive
		m.settle(m.s)
	}
	m.epoch = n.epochs
	if resume {
		m.Recall(n.recall)
	}
	n.m, n.frozen, n.rest, n.inbox, n.stopAt, n.due = m, false, nil, nil, -1, 0
	now := n.clock()
	n.do(m.SetPlace(now, Place{MAC: n.mac, Addresses: n.addr, Gated: n.w.gated}))
	if resume && n.running() && n.present && !n.quietly {
		n.do(m.Resume(now, n.epochs, n.until))
	} else {
		n.until, n.present = 0, false
		n.do(m.Start(now))
	}
	n.do(m.SetWell(now, n.well, true))
	n.turn()
}

// running says whether the kernel lets the addresses speak.
func (n *node) running() bool {
	if !n.up {
		return false
	}
	return n.clock() < n.until
}

// answers says whether the kernel answers for the addresses.
func (n *node) answers() bool {
	if !n.up || !n.present || n.quietly {
		return false
	}
	if n.w.gated {
		return n.running()
	}
	return n.clock() < n.expires
}

// call runs something in the elector's loop, now or when it goes on.
func (n *node) call(f func(now Instant)) {
	if n.m == nil || !n.up {
		return
	}
	if n.frozen {
		if len(n.inbox) < 256 {
			n.inbox = append(n.inbox, f)
		}
		return
	}
	f(n.clock())
	n.turn()
}

// turn ends one turn of the loop: the next look at the deadline is arranged.
func (n *node) turn() {
	if n.m == nil || n.frozen {
		return
	}
	at, ok := n.m.Deadline()
	if ok && at == n.due && n.dueAt >= n.w.t {
		return // it is arranged
	}
	n.wake++
	if !ok {
		n.due = 0
		return
	}
	number := n.wake
	n.due, n.dueAt = at, max(n.when(at), n.w.t)+n.w.some(n.w.late)
	n.w.at(n.dueAt, func() {
		if n.wake != number || n.m == nil || n.frozen || !n.up {
			return
		}
		n.due = 0
		n.expire()
		n.turn()
	})
}

// expire does what is due. More than three times at one moment is a loop.
func (n *node) expire() {
	for range 3 {
		now := n.clock()
		if at, ok := n.m.Deadline(); !ok || now < at || n.frozen {
			return
		}
		n.do(n.m.Expire(now))
	}
	if at, ok := n.m.Deadline(); ok && at <= n.clock() && !n.frozen {
		n.w.violations = append(n.w.violations, fmt.Sprintf("%v: %s would spin", time.Duration(n.w.t), n.name))
	}
}

// freeze stops the elector: at once, or before the one of its next actions that
// has this number.
func (n *node) freeze(after int) {
	if n.m == nil || n.frozen {
		return
	}
	if after == 0 {
		n.frozen = true
		n.wake++
		return
	}
	n.stopAt = after - 1
}

// thaw lets it go on: what it was about to do comes first, then what has come
// in, then what is due.
func (n *node) thaw() {
	n.stopAt = -1
	if n.m == nil || !n.frozen || !n.up {
		return
	}
	n.frozen = false
	rest := n.rest
	n.rest = nil
	n.do(rest)
	inbox := n.inbox
	n.inbox = nil
	for _, f := range inbox {
		f(n.clock())
	}
	n.expire()
	n.due = 0
	n.turn()
}

// die ends the elector; the kernel keeps what it has.
func (n *node) die() {
	if n.m != nil {
		n.epochs, n.recall = max(n.epochs, n.m.epoch), n.m.Status(n.clock()).Peer.Beat
	}
	n.m, n.frozen, n.rest, n.inbox = nil, false, nil, nil
	n.wake++
}

// halt ends the host.
func (n *node) halt() {
	n.die()
	n.up, n.until, n.present, n.outbox = false, 0, false, nil
}

// do carries actions out, one by one.
func (n *node) do(actions []Action) {
	actions = slices.Clone(actions)
	if n.w.leaseFirst {
		slices.SortStableFunc(actions, func(a, b Action) int {
			return cmp.Compare(rank(a), rank(b))
		})
	}
	for _, a := range actions {
		switch {
		case n.frozen:
			n.rest = append(n.rest, a)
			continue
		case n.stopAt == 0:
			n.frozen, n.stopAt = true, -1
			n.wake++
			n.rest = append(n.rest, a)
			continue
		case n.stopAt > 0:
			n.stopAt--
		}
		late := a.Deadline != 0 && n.clock() >= a.Deadline
		if late && !(a.Do == Lease && n.w.writeLate) && !(a.Do != Lease && n.w.speakLate) {
			n.do(n.m.Lapsed(n.clock()))
			return
		}
		n.act(a)
	}
}

// rank puts a Lease before a SendAdvert.
func rank(a Action) int {
	if a.Do == Lease {
		return 0
	}
	return 1
}

func (n *node) act(a Action) {
	w := n.w
	if w.onAction != nil {
		w.onAction(n, a)
	}
	switch a.Do {
	case SendAdvert:
		if a.Priority > 0 {
			w.mayClaim(n, "advertises")
		}
		n.sendAdvert(a)
	case SendBeat:
		n.sendBeat()
	case Lease:
		n.until = a.Until
		n.expires = n.clock() + int64(2*time.Second)
		w.check(n)
	case Own:
		n.present, n.quietly = true, false
		n.expires = n.clock() + int64(2*time.Second)
		w.check(n)
		if a.Cause != ByPredecessor {
			w.takeovers = append(w.takeovers, takeover{w.t, n.i, a.Epoch, a.Cause})
		}
	case Ask:
		n.ask(a)
	case Reflect:
		n.reflect(a)
	case Prepare:
		n.present, n.quietly = true, true
		m, epoch := n.m, a.Epoch
		w.at(w.t+w.some(int64(time.Millisecond)), func() {
			n.call(func(now Instant) {
				if n.m == m {
					n.do(m.Prepared(now, epoch, true))
				}
			})
		})
	case Undo:
		n.present, n.quietly = false, false
	case Drain:
		m := n.m
		w.at(w.t+int64(a.AtLeast)+w.some(int64(a.AtMost-a.AtLeast)), func() {
			n.call(func(now Instant) {
				if n.m == m {
					n.do(m.Drained(now))
				}
			})
		})
	case Withdraw:
		n.until, n.present, n.quietly = 0, false, false
	}
}

// check looks for two leases.
func (w *world) check(n *node) {
	if n.running() && n.peer().running() {
		w.violations = append(w.violations, fmt.Sprintf("%v: %s may speak until %v, %s has a lease until %v",
			time.Duration(w.t), n.name, time.Duration(n.when(n.until)), n.peer().name, time.Duration(n.peer().when(n.peer().until))))
	}
}

// mayClaim is for what says that a node is the owner: it must not be said while
// the other one has the lease.
func (w *world) mayClaim(n *node, does string) {
	if !n.running() && n.peer().running() && !w.split {
		w.violations = append(w.violations, fmt.Sprintf("%v: %s %s, whose lease has ended; %s has one until %v",
			time.Duration(w.t), n.name, does, n.peer().name, time.Duration(n.peer().when(n.peer().until))))
	}
}

func (n *node) sendAdvert(a Action) {
	w, p := n.w, n.peer()
	adv := vrrp.Advert{Family: vrrp.IPv4, ID: 51, Priority: a.Priority, Interval: a.Interval, Addresses: []netip.Addr{vip4}}
	from := n.addr[0]
	if w.six {
		adv.Family, adv.Addresses, from = vrrp.IPv6, []netip.Addr{vrrp.LinkLocal(51), vip6}, n.addr[1]
	}
	if !w.passes(&w.advert[n.i]) {
		return
	}
	w.fly(func() {
		p.call(func(now Instant) { p.do(p.m.Advert(now, from, adv)) })
	})
}

// sendBeat gives a beat to the daemon, which gives it to the other one. Beats do
// not overtake each other; a frozen daemon delivers them when it goes on.
func (n *node) sendBeat() {
	w, p := n.w, n.peer()
	if n.m == nil {
		return
	}
	b := n.m.Beat(n.clock())
	if b.Running {
		w.mayClaim(n, "says that it is active")
	}
	raw := b.AppendTo(nil)
	deliver := func() {
		if w.linkCut || !p.up {
			return
		}
		at := max(w.t+w.some(w.linkDelay), n.lastBeat)
		n.lastBeat = at
		w.at(at, func() {
			hand := func() {
				b, err := ParseBeat(raw)
				if err != nil {
					panic(err)
				}
				p.call(func(now Instant) { p.do(p.m.Hear(now, b)) })
			}
			if p.daemon {
				hand()
			} else if p.up {
				p.outbox = append(p.outbox, hand)
			}
		})
	}
	if n.daemon {
		deliver()
	} else {
		n.outbox = append(n.outbox, deliver)
	}
}

// stopDaemon and startDaemon freeze the daemon, and let it go on.
func (n *node) stopDaemon() {
	n.daemon, n.silent = false, n.w.t
	if n.w.needsAlive {
		at := n.w.t
		n.w.at(at+int64(time.Second), func() {
			if !n.daemon && n.silent == at {
				n.setWell(false, true)
			}
		})
	}
}

func (n *node) startDaemon() {
	n.daemon = true
	box := n.outbox
	n.outbox = nil
	for _, f := range box {
		f()
	}
	if n.w.needsAlive {
		n.setWell(true, true)
	}
}

func (n *node) setWell(ok, urgent bool) {
	n.well = ok
	n.call(func(now Instant) { n.do(n.m.SetWell(now, ok, urgent)) })
}

// cutLink and healLink: the daemons notice the former after a while.
func (w *world) cutLink() {
	w.linkCut = true
	at := w.t
	w.at(at+300*ms, func() {
		if w.linkCut {
			for _, n := range w.node {
				n.call(func(now Instant) { n.do(n.m.LinkDown(now)) })
			}
		}
	})
}

// heard is a frame that arrives at a node's elector.
func (n *node) heard(f Neighbour) {
	n.call(func(now Instant) { n.do(n.m.Neighbour(now, f)) })
}

// ask sends a question of the elector's.
func (n *node) ask(a Action) {
	w, p := n.w, n.peer()
	to := a.From
	if to.IsUnspecified() && to.Is6() {
		to = allNodes6
	}
	question := Neighbour{Sender: a.From, Target: a.Target, MAC: n.mac}
	if a.Target == gateway || a.Target == gateway6 {
		if w.passes(&w.wit[n.i]) {
			w.fly(func() {
				n.heard(Neighbour{Answer: true, Sender: a.Target, Target: to, MAC: MAC{2, 9}})
			})
		}
		return
	}
	if !w.passes(&w.ask[n.i]) {
		return
	}
	w.fly(func() {
		if !p.up {
			return
		}
		p.heard(question)
		own := a.Target == p.addr[0] || a.Target == p.addr[1] || a.Target == p.addr[2]
		if w.mute && !own || !own && !p.answers() || w.ask[p.i].cut {
			return
		}
		w.fly(func() {
			n.heard(Neighbour{Answer: true, Sender: a.Target, Target: to, MAC: p.mac})
		})
	})
}

// reflect sends a question to the witness in the peer's name.
func (n *node) reflect(a Action) {
	w, p := n.w, n.peer()
	to := a.From
	if to.Is6() && to.IsUnspecified() {
		to = allNodes6
	}
	if w.noReflection || !w.passes(&w.wit[n.i]) {
		return
	}
	w.fly(func() {
		answer := Neighbour{Answer: true, Sender: a.Target, Target: to, MAC: MAC{2, 9}}
		if p.up && !w.wit[p.i].cut && (a.MAC == broadcast || a.MAC == p.mac) {
			p.heard(answer)
		}
		if a.MAC == broadcast {
			n.heard(answer)
		}
	})
}

// owners gives the names of those whose lease runs.
func (w *world) owners() string {
	var s []string
	for _, n := range w.node {
		if n.running() && n.present {
			s = append(s, n.name)
		}
	}
	return strings.Join(s, "+")
}
