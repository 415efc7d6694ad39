package vip

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/internal/election"
	"github.com/holdfast-net/holdfast/internal/gate"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/vrrp"
)

// group is a Group as it lives on the loop.
type group struct {
	loop *loop
	spec Group
	// prefixes are what moves (Group.moving), addrs the same without lengths,
	// named those of them that the group names.
	prefixes     []netip.Prefix
	addrs, named []netip.Addr

	port    *port
	track   []*port
	further []*port // other links on which the addresses are announced

	machine *election.Machine
	queue   []decided // what the machine has decided and is not done yet
	calls   uint64    // of act
	lapsed  uint64    // the call whose lease could not be written in time
	acting  bool
	started bool // the machine was told to start
	stopped bool // it has ended

	claims    []net.PacketConn // one for each address: no other process here owns it
	claiming  bool
	claimed   bool
	claimAt   int64 // when it is tried again; 0: not
	claimText string

	// What keeps the node from owning the group.
	well       bool // as the machine was told last
	urgent     bool // it could not even say goodbye
	toldWell   bool // it was told at all
	why        string
	unfit      string // said by SetWell
	unsynced   bool   // said by SetSynced
	setFailed  int64  // until when addresses that could not be set make it unwell
	place      election.Place
	course     *course
	drain      *draining
	primed     bool // for a planned move without a gate: state is there, addresses are not
	prepared   bool // for a planned move to this node: addresses are there, silent
	leaseUntil int64
	lastSent   int64      // when the last advert left, 0 before the first of a reign
	gateEntry  gate.Entry // what the gate was told last
	shutAt     int64      // when the gate is told again that they are closed; 0: not
	addressing addressing
	schedule   announce.Schedule
	adverts    adverts

	gateProblem  string
	contradicted string // what was told of an alien advert last
	counts       counts
	role         Role
	since        time.Time
	cause        Cause
	takeovers    map[Cause]uint64
	lastHeard    [2]int64 // by family, with whose advert it was
	heardFrom    [2]netip.Addr
	quietUntil   map[Kind]int64 // no further change of this kind is told before

	beat       []byte
	peerSender uint64
	peerNumber uint64
	waiting    []func(error) // Release calls
}

// counts of a group since it began.
type counts struct {
	sent, received, late, failed, invalid, alien, forged uint64
	conflicts                                            uint64
	lateness, gaps, heard                                timing
}

// draining is what Drain has asked for.
type draining struct {
	notBefore int64
	stepsDone bool
}

func newGroup(l *loop, spec Group) *group {
	g := &group{
		loop: l, addressing: newAddressing(), since: time.Now(), cause: CauseStart, role: Fault,
		takeovers: make(map[Cause]uint64), quietUntil: make(map[Kind]int64),
	}
	g.take(spec)
	g.claim()
	return g
}

// take makes spec the group's meaning, without doing anything about it.
func (g *group) take(spec Group) {
	g.spec = spec
	g.prefixes = spec.moving()
	g.addrs = nil
	for _, p := range g.prefixes {
		g.addrs = append(g.addrs, p.Addr())
	}
	g.named = g.addrs[:len(spec.Addresses)]
	g.port = g.loop.port(spec.Interface, needs{adverts: spec.VRRP != nil, neighbour: true, gate: true})
	g.track, g.further = nil, nil
	for _, name := range spec.Track {
		g.track = append(g.track, g.loop.port(name, needs{}))
	}
	for _, name := range spec.AnnounceOn {
		if name != spec.Interface {
			g.further = append(g.further, g.loop.port(name, needs{neighbour: true, gate: true}))
		}
	}
	g.adverts = newAdverts(spec)
}

// settings is the group as the election sees it.
func (g *group) electionSettings() election.Settings {
	s := election.Settings{Addresses: g.named, Drain: g.spec.Drain}
	if v := g.spec.VRRP; v != nil {
		s.VRRP, s.ID, s.Priority, s.Interval = true, v.ID, v.Priority, v.Interval
		s.Preempt, s.PreemptDelay = v.Preempt, v.PreemptDelay
		s.Peered, s.First, s.Witness = g.spec.Peered, g.spec.First, g.spec.Witness
	}
	return s
}

// links are those on which the addresses are known, the group's own first.
func (g *group) links() []*port { return append([]*port{g.port}, g.further...) }

func (g *group) active() bool { return g.role == Active }

func (g *group) epoch() uint64 { return g.machine.Status(g.loop.now).Epoch }

// claim makes sure that no other process of this machine owns the addresses: a
// predecessor that is frozen is not dead. The names belong to the network
// namespace, and go with the process.
func (g *group) claim() {
	if g.claiming || g.claimed {
		return
	}
	g.claiming, g.claimAt = true, 0
	var held []netip.Addr
	for _, c := range g.claims {
		held = append(held, claimOf(c))
	}
	var got []net.PacketConn
	var failed error
	addrs := slices.Clone(g.named)
	g.loop.hands.do(func() {
		for _, a := range addrs {
			if slices.Contains(held, a) {
				continue
			}
			c, err := net.ListenPacket("unixgram", claimName(a))
			if err != nil {
				failed = fmt.Errorf("address %v is owned by another process of this machine (%w): end that one first", a, err)
				return
			}
			got = append(got, c)
		}
	}, func() {
		g.claiming = false
		g.claims = append(g.claims, got...)
		g.claimText = ""
		if failed != nil {
			g.claimText = failed.Error()
			g.claimAt = g.loop.now + int64(addressRenewal)
		}
		g.claimed = failed == nil
		if g.stopped {
			g.unclaim()
			return
		}
		g.start()
		g.checkWell()
	})
}

// claimName is an abstract name: nothing of it is left in a file system.
func claimName(a netip.Addr) string { return "@holdfast/address/" + a.String() }

func claimOf(c net.PacketConn) netip.Addr {
	a, _ := netip.ParseAddr(strings.TrimPrefix(c.LocalAddr().String(), "@holdfast/address/"))
	return a
}

// unclaim gives names back: those of addresses that are the group's no more, or
// all of them if it has ended.
func (g *group) unclaim() {
	g.claims = slices.DeleteFunc(g.claims, func(c net.PacketConn) bool {
		if !g.stopped && slices.Contains(g.named, claimOf(c)) {
			return false
		}
		_ = c.Close()
		return true
	})
}

// start tells the machine to begin, once it is known how the link stands and
// that nobody else here owns the addresses.
func (g *group) start() {
	if g.started || g.stopped || !g.port.known || !g.claimed {
		return
	}
	if g.port.there && g.port.sockets.index == 0 && g.port.problem == "" {
		return // its sockets are on their way
	}
	g.started = true
	g.surveyed()
	g.setPlace()
	var err error
	if g.machine, err = election.New(g.electionSettings()); err != nil {
		// CheckAll has let it pass: the two disagree.
		g.why, g.started = err.Error(), false
		return
	}
	now := g.loop.now
	g.act(g.machine.SetPlace(now, g.place))
	g.recall()
	if epoch, until, ok := g.predecessor(); ok {
		g.leaseUntil = until
		g.act(g.machine.Resume(now, epoch, until))
		if !g.active() {
			g.leaseUntil = 0
			g.shut()
			g.removeLeftovers()
		}
	} else {
		g.shut()
		g.removeLeftovers()
		g.act(g.machine.Start(now))
	}
	if g.unsynced {
		g.act(g.machine.SetSynced(now, false))
	}
	g.toldWell = false
	g.checkWell()
}

// recall tells the machine what its predecessor knew of the peer.
func (g *group) recall() {
	if h := g.loop.resume[g.spec.Name]; len(h.Peer) > 0 {
		if b, err := election.ParseBeat(h.Peer); err == nil {
			g.machine.Recall(b)
		}
	}
}

// predecessor finds what the process before this one has left: its word, or a
// lease that runs on in the gate.
func (g *group) predecessor() (epoch uint64, until int64, ok bool) {
	h, told := g.loop.resume[g.spec.Name]
	delete(g.loop.resume, g.spec.Name)
	if t := g.port.sockets.gate; t != nil {
		for _, a := range g.addrs {
			e, found, err := t.Entry(a)
			if err != nil || !found || e.Mode != gate.Own || e.Until <= g.loop.now || !g.addressing.present[a] {
				until = 0
				break
			}
			if until == 0 || e.Until < until {
				until = e.Until
			}
		}
	} else if told && h.Until > g.loop.now {
		until = h.Until
	}
	return h.Epoch, until, told || until > 0
}

// removeLeftovers takes away what a dead predecessor has left without a lease.
// What has no end of its lifetime is somebody else's.
func (g *group) removeLeftovers() {
	var left []netip.Prefix
	for _, p := range g.prefixes {
		if a := p.Addr(); g.addressing.present[a] && !g.addressing.byHand[a] {
			left = append(left, p)
		}
	}
	if len(left) > 0 {
		g.removeAddresses(left, nil)
	}
	for _, p := range g.prefixes {
		if a := p.Addr(); g.addressing.byHand[a] {
			g.tell(KindAddress, fmt.Sprintf("%v is on %s already and has no end: somebody has configured it; %s: remove it", a, g.spec.Interface, g.kept()))
		}
	}
}

// setPlace says where the addresses go.
func (g *group) setPlace() {
	g.place = election.Place{MAC: g.port.mac(), Gated: g.port.sockets.gate != nil}
	for _, p := range g.port.own {
		g.place.Addresses = append(g.place.Addresses, p.Addr())
	}
}

func samePlace(a, b election.Place) bool {
	return a.MAC == b.MAC && a.Gated == b.Gated && slices.Equal(a.Addresses, b.Addresses)
}

// portChanged takes that one of the group's links stands otherwise.
func (g *group) portChanged(p *port, was rtnl.Link) {
	g.start()
	if !g.started || g.stopped {
		return
	}
	if p == g.port {
		g.surveyed()
		before := g.place
		if g.setPlace(); !samePlace(before, g.place) {
			g.act(g.machine.SetPlace(g.loop.now, g.place))
		}
		if !p.there || p.link.Index != was.Index {
			clear(g.addressing.removing)
		}
		g.setFailed = 0
	}
	g.gateProblem = ""
	if p.sockets.gate != nil {
		g.regate()
	}
	if p.there && was.Index != 0 && p.link.MAC != was.MAC {
		g.tell(KindLink, fmt.Sprintf("link %s has another hardware address", p.name))
		if g.active() {
			g.schedule.Start(g.loop.now)
		}
	}
	wasUp := was.Index != 0 && was.Up && was.Carrier
	if p.up() != wasUp && !p.fresh {
		if p.up() {
			g.tell(KindLink, fmt.Sprintf("link %s is up", p.name))
			if g.active() && p != g.port {
				g.schedule.Start(g.loop.now)
			}
		} else {
			g.tell(KindLink, p.why())
		}
	}
	g.checkWell()
}

// judge says what keeps this node from owning the group; "" is nothing.
func (g *group) judge() string {
	if !g.claimed {
		return g.claimText
	}
	if why := g.port.why(); why != "" {
		return why
	}
	if g.spec.VRRP != nil && !g.canAdvertise() {
		if a := g.port.tentative; a.IsValid() {
			return fmt.Sprintf("link %s: %v, from which adverts could come, is tentative: duplicate address detection runs, or another host has it", g.spec.Interface, a)
		}
		return fmt.Sprintf("link %s has no address of its own that adverts could come from; give it one of a family of the group", g.spec.Interface)
	}
	for _, p := range g.track {
		if why := p.why(); why != "" {
			return "tracked " + why
		}
	}
	if g.unfit != "" {
		return g.unfit
	}
	if g.spec.NeedsAlive && g.aliveUntil() <= g.loop.now {
		return fmt.Sprintf("nobody has said for %v that what the addresses are for is alive", AliveTimeout)
	}
	if g.setFailed > g.loop.now {
		return "its addresses cannot be set: " + g.addressing.problem
	}
	return ""
}

func (g *group) canAdvertise() bool {
	for i := range g.adverts.own {
		if len(g.adverts.own[i].Addresses) > 0 && g.port.source[i].IsValid() {
			return true
		}
	}
	return false
}

func (g *group) aliveUntil() int64 {
	at := g.loop.o.alive.Load()
	if at == 0 {
		return 0
	}
	// Who was stopped has not heard those who spoke meanwhile.
	return max(at, g.loop.lateAt) + int64(AliveTimeout)
}

// checkWell tells the machine whether this node can own the group.
func (g *group) checkWell() {
	why := g.judge()
	if g.spec.NeedsAlive && g.aliveUntil() <= g.loop.now {
		g.loop.o.dozing.Store(true)
	}
	g.why = why
	urgent := why != "" && !g.port.up()
	if !g.started || g.stopped || g.toldWell && g.well == (why == "") && g.urgent == urgent {
		return
	}
	g.well, g.urgent, g.toldWell = why == "", urgent, true
	g.act(g.machine.SetWell(g.loop.now, g.well, urgent))
}

// deadline is when expire has something to do.
func (g *group) deadline() int64 {
	at := int64(math.MaxInt64)
	sooner := func(t int64) {
		if t > 0 {
			at = min(at, t)
		}
	}
	sooner(g.claimAt)
	if !g.started || g.stopped {
		return at
	}
	if t, ok := g.machine.Deadline(); ok {
		sooner(max(t, 1))
	}
	sooner(g.addressing.renewAt)
	sooner(g.shutAt)
	if t, ok := g.schedule.Deadline(); ok {
		sooner(t)
	}
	if g.spec.NeedsAlive && g.well {
		sooner(g.aliveUntil())
	}
	if g.setFailed > 0 {
		sooner(g.setFailed)
	}
	if g.drain != nil && g.drain.stepsDone {
		sooner(g.drain.notBefore)
	}
	return at
}

// expire does what is due.
func (g *group) expire() {
	now := g.loop.now
	if g.claimAt > 0 && now >= g.claimAt {
		g.claim()
	}
	if !g.started || g.stopped {
		return
	}
	if g.setFailed > 0 && now >= g.setFailed {
		g.setFailed = 0
		g.checkWell()
	}
	if g.spec.NeedsAlive && g.well != (g.aliveUntil() > now) {
		g.checkWell()
	}
	if at, ok := g.machine.Deadline(); ok && now >= at {
		if g.active() && g.spec.VRRP != nil {
			g.counts.lateness.add(now - at)
			if now-at > int64(g.spec.VRRP.Interval/2) {
				g.counts.late++
			}
		}
		g.act(g.machine.Expire(now))
	}
	if g.addressing.renewAt > 0 && now >= g.addressing.renewAt {
		g.renew()
	}
	if g.shutAt > 0 && now >= g.shutAt {
		g.shut()
	}
	if g.schedule.Due(now) {
		g.announceNow()
		g.tellNeighbours()
	}
	if d := g.drain; d != nil && d.stepsDone && now >= d.notBefore {
		g.drain = nil
		g.act(g.machine.Drained(now))
	}
}

// renew gives the addresses another lifetime, and the gate of a node that has
// them ready for a planned move.
func (g *group) renew() {
	if g.prepared {
		g.leaseUntil = g.loop.now + int64(addressLifetime)
		g.renewGate(g.leaseUntil)
	}
	g.renewAddresses()
}

// hear takes an advert for the group.
func (g *group) hear(from, to netip.Addr, hopLimit int, message []byte) {
	if !g.started || g.stopped {
		return
	}
	i := family(from)
	if hopLimit != vrrp.HopLimit && !g.excused(from, to) {
		g.counts.invalid++
		return
	}
	c := &g.adverts.as[i]
	if c.from != from || c.to != to || !slices.Equal(c.raw, message) {
		a, err := vrrp.Parse(message, from, to)
		if err != nil {
			g.counts.invalid++
			return
		}
		c.from, c.to, c.advert = from, to, a
		c.raw = append(c.raw[:0], message...)
		g.contradicts(from, a)
	}
	if g.foreign(from, i) {
		if g.spec.Peered {
			g.act(g.machine.Advert(g.loop.now, from, c.advert)) // it judges by itself, and tells
		}
		return
	}
	g.counts.received++
	if c.advert.Priority > 0 {
		if g.heardFrom[i] == from && g.lastHeard[i] > 0 {
			g.counts.heard.add(g.loop.now - g.lastHeard[i])
		}
		g.heardFrom[i], g.lastHeard[i] = from, g.loop.now
	} else {
		g.lastHeard[i] = 0
	}
	g.act(g.machine.Advert(g.loop.now, from, c.advert))
}

// excused says whether an advert came to this node alone from a peer that is named
// and is no Owner: keepalived sends those in IPv6 with the system's hop limit.
func (g *group) excused(from, to netip.Addr) bool {
	return !g.spec.Peered && !to.IsMulticast() && slices.Contains(g.spec.VRRP.Peers, from)
}

// contradicts counts and tells what another router's adverts say otherwise.
func (g *group) contradicts(from netip.Addr, a vrrp.Advert) {
	text := g.contradiction(a)
	if text == "" {
		return
	}
	g.counts.alien++
	if text = fmt.Sprintf("adverts of %v contradict this node's: %s; make both the same", from, text); text != g.contradicted {
		g.contradicted = text
		g.tell(KindForged, text)
	}
}

// foreign says whether an advert comes from a host that is not among the peers
// that are named. Between Owners the election knows better who the peer is.
func (g *group) foreign(from netip.Addr, i int) bool {
	if g.spec.Peered {
		// It says so itself, now and then; here they are counted.
		if peer := g.machine.Status(g.loop.now).Peer.Beat.Addresses; len(peer) > 0 && !slices.Contains(peer, from) {
			g.counts.forged++
			return true
		}
		return false
	}
	peers := g.adverts.to[i]
	if len(peers) == 0 || peers[0].IsMulticast() || slices.Contains(peers, from) {
		return false
	}
	g.counts.forged++
	g.forged(from, "one of VRRP.Peers")
	return true
}

func (g *group) forged(from netip.Addr, want string) {
	g.tellSometimes(KindForged, fmt.Sprintf("%v sends adverts with id %d and is not %s: they are not heeded; find out who it is", from, g.spec.VRRP.ID, want))
}

// neighbour takes a frame of ARP or neighbour discovery from one of the group's
// links.
func (g *group) neighbour(p *port, n announce.Neighbour, outgoing bool) {
	if !g.started || g.stopped || p != g.port {
		return
	}
	if !slices.Contains(g.addrs, n.Sender) && !slices.Contains(g.addrs, n.Target) && n.Sender != g.spec.Witness && n.Target != g.spec.Witness &&
		!slices.ContainsFunc(p.own, func(own netip.Prefix) bool { return own.Addr() == n.Target }) {
		return
	}
	g.act(g.machine.Neighbour(g.loop.now, election.Neighbour{
		// A frame in the name of an address tells where it is, also if it asks.
		Answer: n.Kind == announce.Answers || slices.Contains(g.addrs, n.Sender), Own: outgoing || n.From == p.mac(),
		Sender: n.Sender, Target: n.Target, MAC: n.MAC,
	}))
}

// tell tells a change.
func (g *group) tell(kind Kind, text string) { g.tellOf(kind, false, text) }

// tellOver tells that what was told of a kind is over.
func (g *group) tellOver(kind Kind, text string) { g.tellOf(kind, true, text) }

func (g *group) tellOf(kind Kind, over bool, text string) {
	g.loop.o.teller.tell(Change{
		Group: g.spec.Name, Kind: kind, At: time.Now(), Role: g.role, From: g.role, Epoch: g.knownEpoch(), Cause: g.cause, Over: over, Text: text,
	})
}

func (g *group) knownEpoch() uint64 {
	if g.machine == nil {
		return 0
	}
	return g.epoch()
}

// tellSometimes tells a change of a kind that can come with every frame once in
// ten seconds.
func (g *group) tellSometimes(kind Kind, text string) {
	if g.loop.now < g.quietUntil[kind] {
		return
	}
	g.quietUntil[kind] = g.loop.now + int64(10*time.Second)
	g.tell(kind, text)
}

// stop has the group give up; gone says when it has.
func (g *group) stop() {
	if !g.started {
		g.stopped = true
	}
	if g.stopped {
		g.unclaim()
		return
	}
	g.act(g.machine.Stop(g.loop.now))
}

// gone says whether nothing of the group is left to be done.
func (g *group) gone() bool { return g.stopped && !g.claiming && (g.course == nil || g.course.over) }

// end frees what the group holds; its goroutines end.
func (g *group) end() {
	if g.course != nil {
		g.course.cancel()
	}
	g.stopped = true
	g.unclaim()
}
