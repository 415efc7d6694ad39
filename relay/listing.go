//go:build linux

package relay

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Connection is one connection as it stands.
type Connection struct {
	ID       uint64
	Service  string
	Client   string
	Backend  string // "" while one is being looked for
	State    string // "connecting", "established", "closing"
	Began    time.Time
	Idle     time.Duration // since a byte last moved
	BytesIn  uint64        // received from the client
	BytesOut uint64        // received from the backend
	Held     uint64        // in the relay's memory, either way
}

// Filter narrows a listing; all of it must match. The zero value lets every
// connection pass.
type Filter struct {
	Service string       // its name, also of a service that was removed
	Backend string       // its name
	Client  netip.Prefix // the client's network; a single address is one of all its bits
	Port    uint16       // the client's port
	Unix    bool         // clients of unix sockets only
	Limit   int          // at most so many, the oldest; 0: all
}

func (f *Filter) matches(p *pair) bool {
	switch {
	case f.Service != "" && p.service.name != f.Service,
		f.Backend != "" && (p.target == nil || p.target.Name != f.Backend),
		f.Client.IsValid() && !f.Client.Contains(p.from.Addr().Unmap().WithZone("")),
		f.Port != 0 && p.from.Port() != f.Port,
		f.Unix && p.from.IsValid():
		return false
	}
	return true
}

// picture is what a loop copies of a pair; strings are made of it elsewhere.
type picture struct {
	id          uint64
	service     *Service
	target      *target
	from        netip.AddrPort
	state       state
	began       time.Time
	idle        time.Duration
	in, out     uint64
	inTo, outTo uint64
}

func (p *pair) picture() picture {
	return picture{
		id: p.id, service: p.service, target: p.target, from: p.from, state: p.state(),
		began: p.began, idle: time.Duration(p.loop.now - p.moved),
		in: p.in.read, out: p.out.read, inTo: p.in.written, outTo: p.out.written,
	}
}

// state is a connection's state for people.
type state uint8

const (
	connecting state = iota
	established
	closing
)

var stateNames = [...]string{connecting: "connecting", established: "established", closing: "closing"}

func (p *pair) state() state {
	switch {
	case p.stage == stageConnecting:
		return connecting
	case p.client.over|p.backend.over != notOver:
		return closing
	}
	return established
}

func (p *picture) connection() Connection {
	c := Connection{
		ID: p.id, Service: p.service.name, Client: clientName(p.from), State: stateNames[p.state], Began: p.began, Idle: max(p.idle, 0),
		BytesIn: p.in, BytesOut: p.out, Held: p.in - p.inTo + p.out - p.outTo,
	}
	if p.target != nil {
		c.Backend = p.target.Name
	}
	return c
}

// Connections lists the connections that f lets pass, by id, which is the
// oldest first. matched is how many there are without f's Limit, total how many
// without f. Each loop answers in steps between two events, so the list is not
// one instant's; whatever lives through the call is in it once.
func (r *Relay) Connections(f Filter) (list []Connection, matched, total int) {
	type share struct {
		pictures       []picture
		matched, total int
	}
	shares := make([]share, len(r.loops))
	if f == (Filter{Limit: f.Limit}) {
		for i, l := range r.loops {
			room := int(max(l.load.Load(), 0))
			if f.Limit > 0 {
				room = min(room, f.Limit)
			}
			shares[i].pictures = make([]picture, 0, room)
		}
	}
	r.walk((*loop).everything, lookStep, func(l *loop) func(*pair) {
		s := &shares[l.number]
		return func(p *pair) {
			s.total++
			if !f.matches(p) {
				return
			}
			s.matched++
			// A chain is in the order of ids: a loop need not go further.
			if f.Limit <= 0 || len(s.pictures) < f.Limit {
				s.pictures = append(s.pictures, p.picture())
			}
		}
	})
	n := 0
	for i := range shares {
		n += len(shares[i].pictures)
		matched += shares[i].matched
		total += shares[i].total
	}
	if f.Limit > 0 {
		n = min(n, f.Limit)
	}
	list = make([]Connection, n)
	for i := range list { // each loop's share is in order: take the oldest of their first
		var first *share
		for j := range shares {
			s := &shares[j]
			if len(s.pictures) > 0 && (first == nil || s.pictures[0].id < first.pictures[0].id) {
				first = s
			}
		}
		list[i] = first.pictures[0].connection()
		first.pictures = first.pictures[1:]
	}
	return list, matched, total
}

// ResetConnections ends the connections that f lets pass and, if there are ids,
// whose id is among them: both ends get a RST at once. Without an id, a zero
// Filter resets nothing. It returns how many it has reset.
func (r *Relay) ResetConnections(f Filter, ids ...uint64) int {
	if len(ids) == 0 && f == (Filter{Limit: f.Limit}) {
		return 0
	}
	var only map[uint64]bool
	if len(ids) > 0 {
		only = make(map[uint64]bool, len(ids))
		for _, id := range ids {
			only[id] = true
		}
	}
	wanted := func(p *pair) bool { return (only == nil || only[p.id]) && f.matches(p) }
	if f.Limit > 0 {
		list := r.oldest(wanted, f.Limit)
		only = make(map[uint64]bool, len(list))
		for _, id := range list {
			only[id] = true
		}
	}
	var n atomic.Int64
	r.walk((*loop).everything, changeStep, func(*loop) func(*pair) {
		return func(p *pair) {
			if wanted(p) {
				p.reset(CauseOperator, ByRelay, "reset by command")
				n.Add(1)
			}
		}
	})
	return int(n.Load())
}

// oldest returns the ids of the oldest connections that are wanted.
func (r *Relay) oldest(wanted func(*pair) bool, limit int) []uint64 {
	shares := make([][]uint64, len(r.loops))
	r.walk((*loop).everything, lookStep, func(l *loop) func(*pair) {
		return func(p *pair) {
			if len(shares[l.number]) < limit && wanted(p) {
				shares[l.number] = append(shares[l.number], p.id)
			}
		}
	})
	ids := slices.Sorted(slices.Values(slices.Concat(shares...)))
	return ids[:min(limit, len(ids))]
}
