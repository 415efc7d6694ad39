//go:build linux

package relay

import (
	"slices"

	"github.com/holdfast-net/holdfast/balance"
)

// BackendStatus is a backend as it stands. Its counts go on when the backend is
// changed, and when one that was removed is added again before its last
// connection is over.
type BackendStatus struct {
	Backend
	State    balance.State
	Why      string // why it is down
	Active   int    // established connections
	Inactive int    // every other one: being made, or ending
	Total    uint64 // connections established since it was added
	BytesIn  uint64 // sent by clients, on connections that live included
	BytesOut uint64 // sent by the backend, on connections that live included
	Removed  bool   // it was removed; its connections are left
}

// Counts are the sums over a service's connections.
type Counts struct {
	Active   int    // established connections
	Inactive int    // every other one: being made, or ending
	Accepted uint64 // clients accepted, those that were refused included
	Refused  uint64 // clients that got nothing, for no fault of their own
	BytesIn  uint64 // from clients, on connections that live included
	BytesOut uint64 // from backends, on connections that live included
}

// tally is what a walk finds of the connections of a backend, or of a service.
type tally struct {
	active, inactive  int
	bytesIn, bytesOut uint64
}

func (t *tally) count(p *pair) {
	if p.state() == established {
		t.active++
	} else {
		t.inactive++
	}
	t.bytesIn += p.in.read
	t.bytesOut += p.out.read
}

func (t *tally) add(other *tally) {
	t.active += other.active
	t.inactive += other.inactive
	t.bytesIn += other.bytesIn
	t.bytesOut += other.bytesOut
}

// show adds up the bytes of connections that have ended, which were read before
// the walk, and of those that live, which the walk has found. One that ended in
// between is in neither. Such a sum is too small for a moment, but it must not
// be smaller than the last: who reads counters takes that for a restart. The
// caller holds Service.mu.
func (t *totals) show(endedIn, endedOut uint64, live *tally) (in, out uint64) {
	t.shownIn = max(t.shownIn, endedIn+live.bytesIn)
	t.shownOut = max(t.shownOut, endedOut+live.bytesOut)
	return t.shownIn, t.shownOut
}

// Backends lists the service's backends in the order in which they were added,
// then those that were removed and still have connections, by name.
func (s *Service) Backends() []BackendStatus {
	type row struct {
		status  BackendStatus
		totals  *totals
		in, out uint64 // of connections that have ended
	}
	var rows []row
	s.mu.Lock()
	states := make(map[string]balance.State)
	var order []*target
	for _, st := range s.pool.Statuses() {
		states[st.Name] = st.State
		order = append(order, s.targets[st.Name])
	}
	present := len(order)
	for i, t := range append(order, s.forgetGone()...) {
		r := row{totals: t.totals, in: t.bytesIn.Load(), out: t.bytesOut.Load()}
		r.status = BackendStatus{Backend: t.Backend, State: balance.Drain, Removed: i >= present, Total: t.total.Load()}
		if !r.status.Removed {
			r.status.State = states[t.Name]
		}
		if lost := t.lost.Load(); lost != nil && !r.status.Removed {
			r.status.Why = lost.why
		}
		rows = append(rows, r)
	}
	s.mu.Unlock()

	shares := make([]map[*totals]*tally, len(s.relay.loops))
	s.relay.walk(func(l *loop) *chain { return &s.pairs[l.number] }, lookStep, func(l *loop) func(*pair) {
		share := make(map[*totals]*tally)
		shares[l.number] = share
		return func(p *pair) {
			if p.target == nil {
				return // looking for a backend
			}
			t := share[p.target.totals]
			if t == nil {
				t = new(tally)
				share[p.target.totals] = t
			}
			t.count(p)
		}
	})

	list := make([]BackendStatus, 0, len(rows))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		var live tally
		for _, share := range shares {
			if t := share[r.totals]; t != nil {
				live.add(t)
			}
		}
		b := r.status
		b.Active, b.Inactive = live.active, live.inactive
		b.BytesIn, b.BytesOut = r.totals.show(r.in, r.out, &live)
		list = append(list, b)
	}
	// A removed one whose last connection has just ended.
	return slices.DeleteFunc(list, func(b BackendStatus) bool { return b.Removed && b.Active+b.Inactive == 0 })
}

// Counts adds up the service's connections.
func (s *Service) Counts() Counts {
	c := Counts{Accepted: s.accepted.Load(), Refused: s.turned.Load()}
	endedIn, endedOut := s.bytesIn.Load(), s.bytesOut.Load()
	shares := make([]tally, len(s.relay.loops))
	s.relay.walk(func(l *loop) *chain { return &s.pairs[l.number] }, lookStep, func(l *loop) func(*pair) {
		return shares[l.number].count
	})
	var live tally
	for i := range shares {
		live.add(&shares[i])
	}
	c.Active, c.Inactive = live.active, live.inactive
	s.mu.Lock()
	defer s.mu.Unlock()
	c.BytesIn, c.BytesOut = s.show(endedIn, endedOut, &live)
	return c
}
