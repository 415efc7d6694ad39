package sourceport

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Way leads from an address to a backend.
type Way struct {
	From netip.Addr
	To   netip.AddrPort
}

// Lanes are those of all ways. Safe for concurrent use.
type Lanes struct {
	ports *Set
	mu    sync.RWMutex
	all   map[Way]*Lane
}

// New makes lanes that share the numbers of a set: a port in use on one is free on
// the others.
func New(ports *Set) *Lanes { return &Lanes{ports: ports, all: make(map[Way]*Lane)} }

// Lane returns that of a way.
func (s *Lanes) Lane(w Way) *Lane {
	s.mu.RLock()
	l := s.all[w]
	s.mu.RUnlock()
	if l != nil {
		return l
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l = s.all[w]; l == nil {
		l = newLane(w, s.ports)
		s.all[w] = l
	}
	return l
}

// Forget forgets lanes that nobody uses and whose backend is not wanted any more.
func (s *Lanes) Forget(wanted func(backend netip.AddrPort) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w, l := range s.all {
		if !wanted(w.To) && l.Status().Used == 0 {
			delete(s.all, w)
		}
	}
}

// Anew forgets that backends have not answered to some of the addresses: the next
// connection asks them.
func (s *Lanes) Anew(from func(netip.Addr) bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for w, l := range s.all {
		if from(w.From) {
			l.mu.Lock()
			l.misses, l.noWay, l.retryAt, l.pause = 0, 0, 0, 0
			l.mu.Unlock()
		}
	}
}

// Status is a lane at one moment.
type Status struct {
	Way
	Used, Max int   // ports
	NoWay     int64 // since when the backend has not answered; 0: it does
}

// Status lists the lanes, by address and backend.
func (s *Lanes) Status() []Status {
	s.mu.RLock()
	list := make([]Status, 0, len(s.all))
	for _, l := range s.all {
		list = append(list, l.Status())
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b Status) int {
		if c := a.From.Compare(b.From); c != 0 {
			return c
		}
		return a.To.Compare(b.To)
	})
	return list
}

// A Lane is a way with its ports, and with what is known of the backend at its end.
// Times are nanoseconds of the caller's clock, above zero. Safe for concurrent use.
type Lane struct {
	Way
	ports *Set

	mu     sync.Mutex
	used   []uint64 // bits, by the port's distance from the first
	next   int      // in ports.order
	live   int      // ports in use
	room   int      // ports there are
	proven bool     // the backend has answered when it was last asked

	misses  int   // connections since it has answered that it answered only otherwise
	noWay   int64 // since when it does not; 0: it does, or nobody knows
	retryAt int64 // when somebody is to ask it again
	pause   time.Duration
}

func newLane(w Way, ports *Set) *Lane {
	n := int(ports.of.Last-ports.of.First) + 1
	l := &Lane{Way: w, ports: ports, used: make([]uint64, (n+63)/64), room: len(ports.order), next: rand.IntN(len(ports.order))}
	if own := w.To.Port(); w.From == w.To.Addr() && slices.Contains(ports.order, own) {
		l.mark(own, true) // from there a connection would reach itself
		l.room--
	}
	return l
}

func (l *Lane) bit(port uint16) (word *uint64, bit uint64) {
	i := port - l.ports.of.First
	return &l.used[i/64], 1 << (i % 64)
}

func (l *Lane) mark(port uint16, used bool) {
	word, bit := l.bit(port)
	if used {
		*word |= bit
	} else {
		*word &^= bit
	}
}

// Take takes the free port that was given back the longest ago; false: there is
// none.
func (l *Lane) Take() (uint16, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live >= l.room {
		return 0, false
	}
	for {
		port := l.ports.order[l.next]
		l.next = (l.next + 1) % len(l.ports.order)
		if word, bit := l.bit(port); *word&bit == 0 {
			l.mark(port, true)
			l.live++
			return port, true
		}
	}
}

// Give gives a port back that was taken. The kernel may hold it for a while, and
// then does not let it be used.
func (l *Lane) Give(port uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark(port, false)
	l.live--
}

// How long a backend that does not answer is not asked again; each time it does not,
// twice as long.
const (
	MinPause = time.Minute
	MaxPause = time.Hour
)

// Open reports whether a connection may go this way, and whether it is the one to
// find out if the backend answers: what becomes of it is to be told by Prove, or by
// Doubt and Shut.
func (l *Lane) Open(now int64) (ok, trial bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.noWay == 0:
		return true, !l.proven
	case now < l.retryAt:
		return false, false
	}
	l.retryAt = now + int64(l.pause) // one is enough
	return true, true
}

// Prove notes that the backend has answered, and reports whether that is news after
// a Shut.
func (l *Lane) Prove() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := l.noWay != 0
	l.proven, l.misses, l.noWay, l.pause = true, 0, 0, 0
	return news
}

// Doubt notes that the backend has not answered, for whatever reason.
func (l *Lane) Doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proven = false
}

// Shut notes that the backend has not answered here and has answered otherwise, and
// reports whether it is known from now on that there is no way: the second time, as
// one packet can be lost. It changes nothing if it has answered meanwhile.
func (l *Lane) Shut(now int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proven {
		return false
	}
	if l.misses++; l.misses == 1 {
		return false
	}
	news := l.noWay == 0
	if news {
		l.noWay = now
	}
	l.pause = min(max(2*l.pause, MinPause), MaxPause)
	l.retryAt = now + int64(l.pause)
	return news
}

// Status is the lane at this moment.
func (l *Lane) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Status{Way: l.Way, Used: l.live, Max: l.room, NoWay: l.noWay}
}
