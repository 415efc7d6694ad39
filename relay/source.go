//go:build linux

package relay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sources says for each address of ServiceOptions.Groups where the backend leg of
// a client that has connected to it comes from.
type sources map[netip.Addr]origin

// An origin is an address for backends of each family; the zero Addr is none.
type origin struct{ v4, v6 netip.Addr }

func newSources(groups [][]netip.Addr) (sources, error) {
	all := make(sources)
	for i, group := range groups {
		var first origin
		for j, a := range group {
			switch _, known := all[a]; {
			case !a.IsValid() || a.Zone() != "" || a.Is4In6():
				return nil, fmt.Errorf("relay: ServiceOptions.Groups[%d][%d] is %v; it must be an address without a zone", i, j, a)
			case known:
				return nil, fmt.Errorf("relay: ServiceOptions.Groups[%d][%d]: %v is there twice", i, j, a)
			case a.Is4() && !first.v4.IsValid():
				first.v4 = a
			case a.Is6() && !a.IsLinkLocalUnicast() && !first.v6.IsValid():
				first.v6 = a
			}
			all[a] = origin{}
		}
		for _, a := range group {
			o := first
			switch {
			case a.Is4():
				o.v4 = a
			case !a.IsLinkLocalUnicast():
				o.v6 = a
			}
			all[a] = o
		}
	}
	return all, nil
}

// to is where a leg to a backend comes from; the zero Addr: from wherever the
// kernel likes.
func (o origin) to(backend Address) netip.Addr {
	ip := backend.ip.Addr()
	switch {
	case backend.IsUnix() || ip.IsLoopback() || ip.Is6() && ip.IsLinkLocalUnicast():
		return netip.Addr{}
	case ip.Is4():
		return o.v4
	}
	return o.v6
}

// portSet is a relay's source ports, in an order that is its own: who counts them
// through learns nothing of the next.
type portSet struct {
	PortRange
	order []uint16
}

// newPortSet takes the ports of a range that are not reserved. If all are, they are
// reserved for this.
func newPortSet(of PortRange, reserved func(uint16) bool) portSet {
	s := portSet{PortRange: of}
	for p := int(of.First); p <= int(of.Last); p++ {
		if !reserved(uint16(p)) {
			s.order = append(s.order, uint16(p))
		}
	}
	if len(s.order) == 0 {
		return newPortSet(of, func(uint16) bool { return false })
	}
	rand.Shuffle(len(s.order), func(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] })
	return s
}

// reservedPorts reads net.ipv4.ip_local_reserved_ports, which also holds for IPv6.
// Where it cannot be read, none is known to be reserved.
func reservedPorts() func(uint16) bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return func(uint16) bool { return false }
	}
	ranges := parsePorts(string(text))
	return func(p uint16) bool {
		return slices.ContainsFunc(ranges, func(r PortRange) bool { return r.First <= p && p <= r.Last })
	}
}

// parsePorts understands the kernel's "8080,9148,30000-31000".
func parsePorts(text string) (list []PortRange) {
	for item := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		from, to, ok := strings.Cut(item, "-")
		if !ok {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil {
			list = append(list, PortRange{uint16(first), uint16(last)})
		}
	}
	return list
}

// lanes are all that there are, and how many legs could not take one.
type lanes struct {
	ports portSet
	mu    sync.RWMutex
	all   map[way]*lane

	byPorts, byNoWay, byAway atomic.Uint64
}

// A way leads from one address to one backend.
type way struct {
	from netip.Addr
	to   netip.AddrPort
}

// lane finds the one of a way, and makes it where it is the first time.
func (s *lanes) lane(w way) *lane {
	s.mu.RLock()
	l := s.all[w]
	s.mu.RUnlock()
	if l != nil {
		return l
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l = s.all[w]; l == nil {
		if s.all == nil {
			s.all = make(map[way]*lane)
		}
		l = newLane(w, &s.ports)
		s.all[w] = l
	}
	return l
}

// forget forgets lanes without a leg whose backend is not wanted any more.
func (s *lanes) forget(wanted func(netip.AddrPort) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w, l := range s.all {
		if !wanted(w.to) && l.idle() {
			delete(s.all, w)
		}
	}
}

// A lane is a way with the source ports that are in use on it, and what is known
// of it. It is shared by all loops and services.
type lane struct {
	way
	ports *portSet

	mu     sync.Mutex
	used   []uint64 // by the port's distance from the first
	next   int      // in ports.order
	live   int      // ports in use
	room   int      // ports there are
	proven bool     // the last leg on it that was tried came to be

	// The backend answers to the machine's own address and not to this one.
	noWay   int64         // since when, on the relay's clock; 0: it does answer, or was not asked
	retryAt int64         // when the next leg asks it again
	pause   time.Duration // after that
}

func newLane(w way, ports *portSet) *lane {
	l := &lane{way: w, ports: ports, used: make([]uint64, (ports.Len()+63)/64), room: len(ports.order)}
	l.next = rand.IntN(l.room)
	if own := w.to.Port(); w.from == w.to.Addr() && slices.Contains(ports.order, own) {
		l.mark(own, true) // from there a leg would connect to itself
		l.room--
	}
	return l
}

func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live == 0
}

func (l *lane) bit(port uint16) (word *uint64, bit uint64) {
	i := port - l.ports.First
	return &l.used[i/64], 1 << (i % 64)
}

func (l *lane) mark(port uint16, used bool) {
	word, bit := l.bit(port)
	if used {
		*word |= bit
	} else {
		*word &^= bit
	}
}

// take takes the port that has not been in use for the longest time; false: there
// is none.
func (l *lane) take() (uint16, bool) {
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

// give gives a port back. The kernel may still hold it for a while, and then does
// not let it be taken.
func (l *lane) give(port uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark(port, false)
	l.live--
}

// How long a backend that does not answer to an address is not asked again; each
// time it does not, twice as long.
const (
	minNoWay = time.Minute
	maxNoWay = time.Hour
)

// open reports whether a leg may go this way, and whether it is the one to find out
// if the backend answers.
func (l *lane) open(now int64) (ok, trial bool) {
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

// prove notes that a leg on it came to be, and reports whether that is news.
func (l *lane) prove() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := l.noWay != 0
	l.proven, l.noWay, l.pause = true, 0, 0
	return news
}

// doubt notes that a leg on it did not come to be.
func (l *lane) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proven = false
}

// shut notes that the backend has not answered on it, and has otherwise. It
// reports whether that is news.
func (l *lane) shut(now int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.proven {
		return false // meanwhile another leg came to be
	}
	news := l.noWay == 0
	if news {
		l.noWay = now
	}
	l.pause = min(max(2*l.pause, minNoWay), maxNoWay)
	l.retryAt = now + int64(l.pause)
	return news
}

// Unbound returns the counts since New.
func (r *Relay) Unbound() Unbound {
	return Unbound{Ports: r.lanes.byPorts.Load(), NoWay: r.lanes.byNoWay.Load(), Away: r.lanes.byAway.Load()}
}

// Sources returns the state of the source ports from each address to each backend
// that a leg was bound for, or was to be, by address and backend.
func (r *Relay) Sources() []SourceStatus {
	r.lanes.mu.RLock()
	var list []SourceStatus
	for w, l := range r.lanes.all {
		l.mu.Lock()
		s := SourceStatus{Address: w.from, Backend: w.to, Used: l.live, Max: l.room}
		if l.noWay != 0 {
			s.NoWay = r.epoch.Add(time.Duration(l.noWay))
		}
		l.mu.Unlock()
		list = append(list, s)
	}
	r.lanes.mu.RUnlock()
	slices.SortFunc(list, func(a, b SourceStatus) int {
		if c := a.Address.Compare(b.Address); c != 0 {
			return c
		}
		return a.Backend.Compare(b.Backend)
	})
	return list
}
