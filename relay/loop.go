//go:build linux

package relay

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

const (
	eventBatch  = 256
	acceptBatch = 64 // accepts for one event, so that a flood of clients does not starve the established
	pumpBudget  = 8  // reads for one direction before others have their turn

	legEvents = sys.EventIn | sys.EventOut | sys.EventPeerEnd | sys.EventEdge
)

// Keys of the epoll instance that are not legs.
const (
	keyWaker    = 0
	keyListener = 1 << 31 // plus the listener's index
)

// kernel is what a loop asks of the system to move bytes; tests replace it to
// stop at any byte.
type kernel struct {
	recv func(fd int, p []byte) (int, syscall.Errno)
	send func(fd int, p []byte) (int, syscall.Errno)
}

var realKernel = kernel{recv: sys.Recv, send: sys.Send}

// A loop owns a share of the connections for their whole life. Everything
// below is its goroutine's alone, but for what mu guards.
type loop struct {
	relay  *Relay
	number int
	kernel kernel
	epoll  *sys.Epoll
	waker  *sys.Waker
	store  *store

	now       int64 // nanoseconds since the relay's epoch, read once a batch
	legs      []*leg
	gens      []uint32 // generation of each slot of legs, so that a late event meets nobody
	freeLegs  []uint32
	listeners []*listener
	pairs     chain
	timers    timers
	again     []*pair // pairs that used up their budget
	rounds    int     // batches to serve before deadlines are judged again; see caughtUp
	scratch   int32   // the slot that the next read goes to
	paused    []int   // listeners that are left alone until pausedTo
	pausedTo  int64
	spare     int // a descriptor to give up when there are none left, so that a client can be refused
	stopping  bool
	changes   []LegChange // that are not told yet

	acceptLogged   int64  // when an accept that failed was last logged
	acceptFailures uint64 // since then

	load atomic.Int64 // connections given to this loop

	mu       sync.Mutex
	commands []func()
	done     bool // the loop takes no more commands

	posted atomic.Bool // there are commands: asked after each event, without the lock
}

func newLoop(r *Relay, id, entries int) (_ *loop, err error) {
	l := &loop{relay: r, number: id, kernel: realKernel, legs: make([]*leg, 1), gens: make([]uint32, 1), spare: -1}
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	if l.store, err = newStore(fmt.Sprintf("holdfast-relay-%d", id), entries); err != nil {
		return nil, err
	}
	if l.epoll, err = sys.NewEpoll(eventBatch); err != nil {
		return nil, err
	}
	if l.waker, err = sys.NewWaker(l.epoll, keyWaker); err != nil {
		return nil, err
	}
	if l.scratch, err = l.store.take(); err != nil {
		return nil, err
	}
	l.openSpare()
	return l, nil
}

// release closes what newLoop opened.
func (l *loop) release() {
	if l.waker != nil {
		l.waker.Close()
	}
	if l.epoll != nil {
		l.epoll.Close()
	}
	if l.store != nil {
		l.store.close()
	}
	if l.spare >= 0 {
		sys.Close(l.spare)
	}
}

func (l *loop) openSpare() {
	if fd, errno := sys.Socket(netip.Addr{}); errno == 0 {
		l.spare = fd
	}
}

// post has the loop run f between two events. It reports false, and f never
// runs, once the loop has ended.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return false
	}
	l.commands = append(l.commands, f)
	l.posted.Store(true)
	// Not after the unlocking: the loop could end in between and be released,
	// and its descriptor be somebody else's.
	l.waker.Wake()
	l.mu.Unlock()
	return true
}

// run serves events until a command sets stopping; then it ends every
// connection it has.
func (l *loop) run() error {
	events := make([]sys.Event, 0, eventBatch)
	var err error
	for !l.stopping {
		if events, err = l.epoll.Wait(events, l.waitTime()); err != nil {
			break
		}
		l.now = l.relay.clock()
		for _, ev := range events {
			l.dispatch(ev)
			l.obey()
		}
		if l.caughtUp(len(events)) {
			l.expire()
		}
		l.resume()
		l.unpause()
		l.tellChanges()
	}
	l.stopping = true // also after a failure: commands that are left admit nobody
	for l.pairs.first != nil {
		l.pairs.first.reset(CauseShutdown, ByRelay, "the relay was closed")
	}
	l.tellChanges()
	l.mu.Lock()
	l.done = true
	left := l.commands
	l.commands = nil
	l.mu.Unlock()
	for _, f := range left {
		f()
	}
	return err
}

// waitTime is how long the loop may sleep, in milliseconds.
func (l *loop) waitTime() int {
	if len(l.again) > 0 {
		return 0
	}
	due, ok := l.timers.next()
	if len(l.paused) > 0 && (!ok || l.pausedTo < due) {
		due, ok = l.pausedTo, true
	}
	if !ok {
		return -1
	}
	wait := time.Duration(due - l.relay.clock())
	if wait <= 0 {
		return 0
	}
	return int(min((wait+time.Millisecond-1)/time.Millisecond, 1<<30))
}

// obey runs what was posted. It comes between any two events, because a batch
// of bulk transfers takes many milliseconds, and whoever is to be told that its
// backend is lost must not wait for them.
func (l *loop) obey() {
	if !l.posted.Load() {
		return
	}
	l.mu.Lock()
	commands := l.commands
	l.commands = nil
	l.posted.Store(false)
	l.mu.Unlock()
	for _, f := range commands {
		f()
	}
}

func (l *loop) dispatch(ev sys.Event) {
	index, gen := uint32(ev.Key), uint32(ev.Key>>32)
	switch {
	case ev.Key == keyWaker:
		l.waker.Clear()
	case index&keyListener != 0:
		if ln := l.listeners[index&^keyListener]; ln != nil {
			l.accept(ln)
		}
	case l.gens[index] == gen && l.legs[index] != nil:
		g := l.legs[index]
		g.note(ev.Bits)
		g.pair.advance()
	}
}

// lateness is how long after a deadline the loop looks at the world first.
const lateness = 20 * time.Millisecond

// caughtUp reports whether deadlines may be judged after a batch of n events. A
// loop that was away (the process was stopped, or got no processor) finds
// deadlines that have passed and, in its sockets, what happened before they
// did: that comes first, or a connection is killed for its relay's silence. One
// round through the sockets is enough, however many more events come.
func (l *loop) caughtUp(n int) bool {
	due, ok := l.timers.next()
	switch {
	case !ok || l.now-due < int64(lateness):
		l.rounds = 0
		return true
	case l.rounds == 0: // this batch may be empty: SIGCONT interrupts the wait
		l.rounds = len(l.legs)/eventBatch + 2
		return false
	}
	l.rounds--
	if n < eventBatch {
		l.rounds = 0
	}
	return l.rounds == 0
}

// expire runs what is due.
func (l *loop) expire() {
	for {
		due, ok := l.timers.next()
		if !ok || due > l.now {
			return
		}
		p := l.timers[0]
		l.timers.remove(p)
		p.tick()
	}
}

// resume gives those that used up their budget another turn, once.
func (l *loop) resume() {
	n := len(l.again)
	for _, p := range l.again[:n] {
		p.queued = false
		if p.stage != stageOver {
			p.advance()
		}
		l.obey()
	}
	rest := copy(l.again, l.again[n:])
	clear(l.again[rest:])
	l.again = l.again[:rest]
}

// watch adds a leg's socket to the epoll instance.
func (l *loop) watch(g *leg) syscall.Errno {
	var index uint32
	if n := len(l.freeLegs); n > 0 {
		index, l.freeLegs = l.freeLegs[n-1], l.freeLegs[:n-1]
	} else {
		index = uint32(len(l.legs))
		l.legs = append(l.legs, nil)
		l.gens = append(l.gens, 0)
	}
	l.legs[index], g.index = g, index
	if errno := l.epoll.Add(g.fd, legEvents, uint64(l.gens[index])<<32|uint64(index)); errno != 0 {
		l.unwatch(g)
		return errno
	}
	return 0
}

// unwatch forgets a leg; its socket must be closed right after, which takes it
// out of the epoll instance.
func (l *loop) unwatch(g *leg) {
	if g.index == 0 {
		return
	}
	l.legs[g.index] = nil
	l.gens[g.index]++
	l.freeLegs = append(l.freeLegs, g.index)
	g.index = 0
}
