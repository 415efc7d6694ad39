//go:build linux

package relay

import "sync"

// A chain is a list of pairs, the oldest first, which is also by their ids. It
// belongs to one loop. A walk through it can pause while pairs come and go: it
// meets each pair that lives through it exactly once.
type chain struct {
	first, last *pair
	kind        chainKind
	walks       []*walk // under way
	_           [16]byte
	// A service's chains lie side by side, one for each loop: none shares its
	// cache line with another loop's.
}

// A pair is in two chains: of its loop, and of its service on that loop.
type chainKind uint8

const (
	ofLoop chainKind = iota
	ofService
	chainKinds
)

// links thread a pair into a chain.
type links struct{ prev, next *pair }

// add appends p, whose id is above that of every pair in the chain.
func (c *chain) add(p *pair) {
	p.links[c.kind] = links{prev: c.last}
	if c.last == nil {
		c.first = p
	} else {
		c.last.links[c.kind].next = p
	}
	c.last = p
}

// remove takes p out. A walk that would have come to it next goes on behind it.
func (c *chain) remove(p *pair) {
	at := &p.links[c.kind]
	if at.prev == nil {
		c.first = at.next
	} else {
		at.prev.links[c.kind].next = at.next
	}
	if at.next == nil {
		c.last = at.prev
	} else {
		at.next.links[c.kind].prev = at.prev
	}
	for _, w := range c.walks {
		if w.next == p {
			w.next = at.next
		}
	}
	*at = links{}
}

// A walk visits the pairs of one chain in steps. Between two steps its loop
// serves events.
type walk struct {
	loop  *loop
	chain *chain
	visit func(*pair) // may end the pair it is given
	size  int         // of a step; 0: everything in one
	next  *pair
	upTo  uint64 // ids above are of pairs that came later
	done  func()
}

// Steps of a walk: how many pairs a loop looks at before it serves an event.
const (
	lookStep   = 256 // for visits that only read
	changeStep = 64  // for visits that make system calls
	oneStep    = 0   // when telling comes before everything else
)

func (w *walk) begin() {
	w.next, w.upTo = w.chain.first, w.loop.relay.lastID.Load()
	w.chain.walks = append(w.chain.walks, w)
	w.step()
}

func (w *walk) step() {
	w.loop.now = w.loop.relay.clock()
	for n := 0; w.next != nil && w.next.id <= w.upTo; n++ {
		// A loop that takes no more commands is ending: go on to the end.
		if w.size != oneStep && n == w.size && w.loop.post(w.step) {
			return
		}
		p := w.next
		w.next = p.links[w.chain.kind].next
		w.visit(p)
	}
	c := w.chain
	for i, other := range c.walks {
		if other == w {
			c.walks[i] = c.walks[len(c.walks)-1]
			c.walks = c.walks[:len(c.walks)-1]
			break
		}
	}
	w.done()
}

// walk visits the pairs of one chain on each loop, on the loop's goroutine, and
// waits until all were visited that were there when it began. visitor makes the
// visiting function of a loop.
func (r *Relay) walk(of func(*loop) *chain, size int, visitor func(*loop) func(*pair)) {
	if !r.isRunning() {
		return
	}
	var wg sync.WaitGroup
	for _, l := range r.loops {
		wg.Add(1)
		w := &walk{loop: l, chain: of(l), visit: visitor(l), size: size, done: wg.Done}
		if !l.post(w.begin) {
			wg.Done()
		}
	}
	wg.Wait()
}

// everything is the chain of all that a loop carries.
func (l *loop) everything() *chain { return &l.pairs }

// each visits every pair of the service.
func (s *Service) each(size int, visit func(*pair)) {
	s.relay.walk(func(l *loop) *chain { return &s.pairs[l.number] }, size, func(*loop) func(*pair) { return visit })
}
