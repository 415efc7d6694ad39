package vip

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vrrp"
)

// loop is what one thread does. Only that thread touches it, except for post.
type loop struct {
	o     *Owner
	now   int64 // BootTime of this turn
	hands *hands
	rt    *rtnl.Handle
	watch *rtnl.Watch
	steps []Step
	batch *sys.Batch
	// background are the goroutines of steps.
	background sync.WaitGroup

	ports    []*port
	nextKey  uint64
	groups   []*group // in the order of the configuration
	leaving  []*group // configured no more, still giving up
	floating map[netip.Addr]bool
	every    time.Duration // see checkEvery
	checkAt  int64         // when links are asked next; 0: not
	gatesAt  int64         // when gates are asked next; 0: not
	resume   map[string]handed

	frame    frame
	out      []byte // an advert or a frame while it is sent
	alarm    int64  // what the alarm is set to
	changes  []rtnl.Change
	requests []func(*loop)
	ended    []func()

	configuring bool   // groups that end do so because they were changed
	beats       uint64 // number of the last beat
	lateAt      int64  // when the loop last came much later than it wanted to

	stopping bool // give up what is owned, then end
	handing  bool // end and leave everything
}

func (l *loop) post(f func()) { l.o.post(func(*loop) { f() }) }

// run is the body of Owner.Run.
func (o *Owner) run(ctx context.Context, groups []Group) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() {
		if err != nil {
			err = fmt.Errorf("vip: %w", err)
		}
	}()
	defer ahead()()
	ns, err := sys.ThreadNetNS()
	if err != nil {
		return fmt.Errorf("the network namespace of this thread: %w", err)
	}
	defer ns.Close()
	l := &loop{
		o: o, now: sys.BootTime(), hands: newHands(o.waker), steps: o.opts.Steps,
		batch: sys.NewBatch(64, vrrp.MaxSize+60), nextKey: firstPort, out: make([]byte, 0, vrrp.MaxSize+announce.MaxFrame),
	}
	if l.frame.send = o.opts.OnBeat; l.frame.send == nil {
		l.frame.send = func([]byte) {}
	}
	if l.resume, err = readHanded(o.opts.Resume); err != nil {
		return err
	}
	if l.rt, err = rtnl.Open(); err != nil {
		return err
	}
	defer l.rt.Close()
	if l.watch, err = rtnl.OpenWatch(); err != nil {
		return err
	}
	defer l.watch.Close()
	if errno := o.epoll.Add(l.watch.FD(), sys.EventIn, keyWatch); errno != 0 {
		return fmt.Errorf("watch links: %w", errno)
	}
	defer func() { _ = o.epoll.Delete(l.watch.FD()) }() // it is closed next, which takes it out as well

	ending := make(chan struct{})
	handsEnded := inside(ns, func() { l.hands.run(ending) })
	tellerEnded := make(chan struct{})
	go o.tellUntil(ending, tellerEnded)
	unstop := context.AfterFunc(ctx, func() { o.post(func(l *loop) { l.stop() }) })

	l.frame.begin(o.sender)
	l.configure(groups)
	err = l.turns(handsEnded)

	unstop()
	for _, g := range slices.Concat(l.groups, l.leaving) {
		g.end()
	}
	l.background.Wait()
	close(ending)
	if herr, failed := <-handsEnded; failed {
		err = errors.Join(err, herr)
	}
	<-tellerEnded
	err = errors.Join(err, l.closePorts())
	if l.handing {
		o.mu.Lock()
		o.handed = l.handed()
		o.mu.Unlock()
	}
	return err
}

// ahead puts the calling thread one priority above the rest of its process, if
// that runs under real-time priority, and gives the way back.
func ahead() (back func()) {
	p, err := sys.Scheduling()
	if err != nil || p == 0 || p >= 99 || sys.SetRealtime(p+1) != nil {
		return func() {}
	}
	return func() { _ = sys.SetRealtime(p) }
}

func (o *Owner) tellUntil(ending <-chan struct{}, ended chan<- struct{}) {
	defer close(ended)
	o.teller.run(ending)
}

// closePorts closes sockets. The gate goes from the links, unless another Owner
// is to carry on.
func (l *loop) closePorts() error {
	var errs []error
	for _, p := range l.ports {
		if g := p.sockets.gate; g != nil && !l.handing {
			errs = append(errs, g.Detach())
			p.sockets.gate = nil
		}
		errs = append(errs, p.sockets.close())
	}
	return errors.Join(errs...)
}

// turns runs until nothing is left to do.
func (l *loop) turns(handsEnded <-chan error) error {
	events := make([]sys.Event, 0, 64)
	for {
		l.setAlarm()
		var err error
		if events, err = l.o.epoll.Wait(events, -1); err != nil {
			return err
		}
		if err := l.turn(events); err != nil {
			return err
		}
		select {
		case err, failed := <-handsEnded:
			if failed {
				return err
			}
		default:
		}
		if l.handing || l.stopping && l.quiet() {
			return nil
		}
	}
}

// veryLate is how late a loop comes that was stopped, and not only held up.
const veryLate = 200 * time.Millisecond

// clock reads the clock.
func (l *loop) clock() { l.now = sys.BootTime() }

// turn does what has become due. What has arrived is judged by a clock that was
// read after it was received: a process that was stopped between both would
// think that it came long ago.
func (l *loop) turn(events []sys.Event) error {
	l.clock()
	if l.alarm > 0 && l.now > l.alarm+int64(veryLate) {
		l.lateAt = l.now
	}
	l.frame.begin(l.o.sender)
	for _, ev := range events {
		switch ev.Key {
		case keyWaker:
			l.o.waker.Clear()
		case keyAlarm:
			l.o.alarm.Clear()
			l.alarm = 0
		case keyWatch:
			if err := l.readWatch(); err != nil {
				return err
			}
		default:
			// Every socket is read below if something is due, these in any case.
			if p := l.portByKey(ev.Key); p != nil {
				l.receive(p)
			}
		}
	}
	// Silence is judged after everything has been heard that has arrived: a
	// loop that comes late finds it in its sockets.
	if l.due() {
		for _, p := range l.ports {
			l.receive(p)
		}
	}
	l.requests = l.o.requests.take(l.requests[:0])
	l.clock()
	for i, f := range l.requests {
		f(l)
		l.requests[i] = nil
	}
	l.ended = l.hands.ended.take(l.ended[:0])
	for i, f := range l.ended {
		f()
		l.ended[i] = nil
	}
	l.checkLinks()
	l.checkGates()
	for _, p := range l.ports {
		if p.retryAt > 0 && l.now >= p.retryAt {
			p.retryAt = 0
			l.look(p)
		}
	}
	for _, g := range l.groups {
		g.expire()
	}
	for _, g := range l.leaving {
		g.expire()
	}
	l.sweep()
	l.frame.flush()
	return nil
}

// deadline is when something is due for a group; math.MaxInt64 for never.
func (l *loop) deadline() int64 {
	at := int64(math.MaxInt64)
	for _, g := range l.groups {
		at = min(at, g.deadline())
	}
	for _, g := range l.leaving {
		at = min(at, g.deadline())
	}
	if l.checkAt > 0 {
		at = min(at, l.checkAt)
	}
	if l.gatesAt > 0 {
		at = min(at, l.gatesAt)
	}
	for _, p := range l.ports {
		if p.retryAt > 0 {
			at = min(at, p.retryAt)
		}
	}
	return at
}

// checkEvery is how often the links of shared groups are asked whether their
// carrier is there: of some drivers the kernel tells its loss up to a second
// late. 0: there are none.
func (l *loop) checkEvery() (every time.Duration) {
	for _, g := range l.groups {
		if v := g.spec.VRRP; v != nil {
			d := min(max(2*v.Interval, 50*time.Millisecond), 250*time.Millisecond)
			if every == 0 || d < every {
				every = d
			}
		}
	}
	return every
}

// checkLinks has the hands ask.
func (l *loop) checkLinks() {
	if l.checkAt == 0 || l.now < l.checkAt {
		return
	}
	l.checkAt = 0
	if l.every > 0 {
		l.checkAt = l.now + int64(l.every)
	}
	for _, p := range l.ports {
		if !p.needs.adverts || !p.there || p.asking {
			continue
		}
		p.asking = true
		var link rtnl.Link
		var err error
		index := p.link.Index
		l.hands.do(func() { link, err = l.rt.Link(index) }, func() {
			p.asking = false
			if err == nil && link != p.link {
				l.changed(&rtnl.Change{Kind: rtnl.LinkSet, Index: index, Link: link})
			}
		})
	}
}

func (l *loop) due() bool { return l.deadline() <= l.now }

func (l *loop) setAlarm() {
	at := l.deadline()
	if at == math.MaxInt64 {
		at = 0
	}
	if at == l.alarm {
		return
	}
	if l.o.alarm.Set(at) == nil {
		l.alarm = at
	}
}

func (l *loop) portByKey(key uint64) *port {
	for _, p := range l.ports {
		if p.key == key {
			return p
		}
	}
	return nil
}

// maxBatches bounds what is read of one socket in a turn: more frames than its
// buffer holds by default. Who sends without end (a storm, an attacker) must not
// keep this node from its own adverts.
const maxBatches = 32

// receive takes everything that has arrived on a port.
func (l *loop) receive(p *port) {
	for _, s := range p.sockets.adverts {
		for range maxBatches {
			if s == nil {
				break
			}
			n, errno := s.Receive(l.batch)
			if errno != 0 {
				break // nothing there; a link that went is told by the watch
			}
			l.clock()
			for i := range n {
				l.datagram(p, i)
			}
			if !l.batch.Full() {
				break
			}
		}
	}
	for range maxBatches {
		if p.sockets.neighbour == nil {
			break
		}
		n, errno := p.sockets.neighbour.Receive(l.batch)
		if errno == syscall.ENETDOWN {
			continue // told once, then what is left
		}
		if errno != 0 {
			break
		}
		l.clock()
		for i := range n {
			l.neighbour(p, i)
		}
		if !l.batch.Full() {
			break
		}
	}
}

// datagram takes one advert.
func (l *loop) datagram(p *port, i int) {
	d, ok := l.batch.Datagram(i)
	if !ok || len(d.Message) < 2 {
		return
	}
	g := l.groupByID(p, d.Message[1])
	if g == nil {
		return // of a router that is none of ours
	}
	g.hear(d.From, d.To, d.HopLimit, d.Message)
}

func (l *loop) groupByID(p *port, id uint8) *group {
	is := func(g *group) bool { return g.port == p && g.spec.VRRP != nil && g.spec.VRRP.ID == id }
	if i := slices.IndexFunc(l.groups, is); i >= 0 && l.groups[i].started {
		return l.groups[i]
	}
	if i := slices.IndexFunc(l.leaving, is); i >= 0 {
		return l.leaving[i]
	}
	return nil
}

// neighbour takes one frame of ARP or neighbour discovery.
func (l *loop) neighbour(p *port, i int) {
	raw, outgoing := l.batch.Frame(i)
	n, ok := announce.ParseNeighbour(raw)
	if !ok {
		return
	}
	for _, g := range l.groups {
		g.neighbour(p, n, outgoing)
	}
	for _, g := range l.leaving {
		g.neighbour(p, n, outgoing)
	}
}

// readWatch takes what the kernel tells of links and addresses. Where some was
// lost everything is looked at, when the rest has been read: until then the
// kernel drops more without a word.
func (l *loop) readWatch() error {
	lost := false
	for more := true; more; {
		var resync bool
		var err error
		l.changes, more, resync, err = l.watch.Read(l.changes[:0])
		if err != nil {
			return fmt.Errorf("watch links: %w", err)
		}
		lost = lost || resync
		for i := range l.changes {
			l.changed(&l.changes[i])
		}
	}
	if lost {
		for _, p := range l.ports {
			l.look(p)
		}
	}
	return nil
}

func (l *loop) changed(c *rtnl.Change) {
	for _, p := range l.ports {
		switch {
		case c.Kind == rtnl.LinkSet && (c.Link.Name == p.name || p.there && c.Index == p.link.Index):
			if p.there && p.link == c.Link {
				continue // nothing that matters here
			}
			if p.there && p.link.Index == c.Index && p.name == c.Link.Name {
				was := p.link
				p.link = c.Link // known at once; addresses follow
				l.portChanged(p, was)
			}
			l.look(p)
		case c.Kind == rtnl.LinkGone && p.there && c.Index == p.link.Index:
			was := p.link
			p.there = false
			l.portChanged(p, was)
			l.look(p)
		case (c.Kind == rtnl.AddressSet || c.Kind == rtnl.AddressGone) && p.there && c.Index == p.link.Index:
			addr := c.Address.Prefix.Addr()
			if !l.floating[addr] {
				l.look(p)
				continue
			}
			for _, g := range slices.Concat(l.groups, l.leaving) {
				if g.port == p && slices.Contains(g.addrs, addr) {
					g.addressChanged(addr, c.Kind == rtnl.AddressSet, c.Address)
				}
			}
		}
	}
}

// look has the hands look at a port; what they find is taken by looked.
func (l *loop) look(p *port) {
	if p.looking {
		p.again = true
		return
	}
	p.looking, p.again = true, false
	open, needs := p.sockets, p.needs
	var f finding
	l.hands.do(func() { f = l.lookAt(p.name, open, needs) }, func() { l.looked(p, f) })
}

func (l *loop) looked(p *port, f finding) {
	p.looking = false
	if p.dropped {
		if f.sockets != nil {
			l.closeLater(*f.sockets, true)
		}
		return
	}
	was, wasThere := p.link, p.there
	p.fresh = !p.known
	p.known, p.there, p.problem = true, f.there, f.problem
	if f.there {
		p.link, p.addresses = f.link, f.addresses
	}
	if f.sockets != nil {
		l.closeLater(p.sockets, false)
		p.sockets = *f.sockets
		l.listen(p)
	}
	p.pick(l.floating)
	if !wasThere {
		was = rtnl.Link{}
	}
	l.portChanged(p, was)
	if !p.there {
		l.closeLater(p.sockets, false)
		p.sockets = sockets{}
	}
	p.retryAt = 0
	if p.problem != "" {
		p.retryAt = l.now + int64(retryAfter)
	}
	if p.again {
		l.look(p)
	}
}

// retryAfter is how long after a failure the sockets of a link are tried again.
const retryAfter = time.Second

// listen adds a port's sockets to what wakes the loop.
func (l *loop) listen(p *port) {
	fds := make([]int, 0, 3)
	for _, s := range p.sockets.adverts {
		if s != nil {
			fds = append(fds, s.FD())
		}
	}
	if p.sockets.neighbour != nil {
		fds = append(fds, p.sockets.neighbour.FD())
	}
	for _, fd := range fds {
		if errno := l.o.epoll.Add(fd, sys.EventIn, p.key); errno != 0 {
			p.problem = fmt.Sprintf("link %s: watch its sockets: %v", p.name, errno)
		}
	}
}

// closeLater has the hands close sockets; for good: the gate goes from the link
// too.
func (l *loop) closeLater(s sockets, forGood bool) {
	if s.index == 0 {
		return
	}
	l.hands.do(func() {
		if s.gate != nil && forGood {
			_ = s.gate.Detach()
			s.gate = nil
		}
		_ = s.close()
	}, nil)
}

// portChanged tells the groups that a link or its own addresses are different.
func (l *loop) portChanged(p *port, was rtnl.Link) {
	for _, g := range slices.Concat(l.groups, l.leaving) {
		if g.port == p || slices.Contains(g.track, p) || slices.Contains(g.further, p) {
			g.portChanged(p, was)
		}
	}
}

// port gives the port of a link, new ones without anything.
func (l *loop) port(name string, n needs) *port {
	for _, p := range l.ports {
		if p.name == name {
			p.needs = p.needs.or(n)
			return p
		}
	}
	p := &port{name: name, key: l.nextKey, needs: n}
	l.nextKey++
	l.ports = append(l.ports, p)
	return p
}
