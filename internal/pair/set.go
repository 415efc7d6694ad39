package pair

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
)

// Set is a set of items that one node produces, the leader, and the other one
// holds a copy of. Who leads is told by [Set.Lead]; a set begins as a follower.
// Its methods may be called by several goroutines, before, while and after its
// link runs.
type Set struct {
	o    SetOptions
	both bool

	check func(message) error // of what comes; nil: everything may come

	deliver sync.Mutex // held while the callbacks run; before mu
	mu      sync.Mutex
	r       *replica // nil until a link has it
	wake    func()   // of the link: there is something to send
}

// Bounds of a set.
const (
	defaultMaxItems = 1 << 20
	defaultMaxBytes = 256 << 20
)

// NewSet returns a set that is to be given to a link in its [Options].
func NewSet(o SetOptions) (*Set, error) {
	switch {
	case o.ID == 0:
		return nil, fmt.Errorf("set %q: its ID is 0: give it a number of its own", o.Name)
	case o.MaxItems < 0 || o.MaxBytes < 0:
		return nil, fmt.Errorf("set %q: MaxItems %d and MaxBytes %d: less than nothing cannot be held", o.Name, o.MaxItems, o.MaxBytes)
	}
	if o.MaxItems == 0 {
		o.MaxItems = defaultMaxItems
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	return &Set{o: o}, nil
}

// join gives the set to the link of node self.
func (s *Set) join(self uint8, wake func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r != nil {
		return fmt.Errorf("set %q is of another link: make one for each", s.o.Name)
	}
	s.r = newReplica(s.o.ID, self, s.both, s.o.MaxItems, s.o.MaxBytes)
	s.wake = wake
	return nil
}

var errNoLink = errors.New("the set has no link yet: give it to one in its Options")

// Lead makes this node the leader from the epoch on, with these items and no
// others; nil stands for none. The follower keeps what it has of before until it
// has all of them. Called again, also with the same epoch, it begins anew. It
// fails with an [*EpochError] when somebody leads with a later epoch, and with a
// [*FullError] for the first item that finds no room, after the rest is taken.
// It must not be called by the callbacks of the set.
func (s *Set) Lead(epoch uint64, items iter.Seq2[[]byte, []byte]) error {
	s.deliver.Lock()
	defer s.deliver.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r == nil {
		return fmt.Errorf("cannot lead set %q: %w", s.o.Name, errNoLink)
	}
	// A drawn number is enough: what must not happen is that two runs of the
	// same leader number their changes alike.
	if err := s.r.lead(epoch, rand.Uint64()>>1); err != nil {
		return fmt.Errorf("set %q: %w", s.o.Name, err)
	}
	var full error
	if items != nil {
		for key, value := range items {
			if err := s.put(key, value); err != nil && full == nil {
				full = err
			}
		}
	}
	s.wake()
	return full
}

// Fence refuses every leader of an epoch before this one; one of them that is
// this node leads no longer.
func (s *Set) Fence(epoch uint64) error {
	s.deliver.Lock()
	defer s.deliver.Unlock()
	s.mu.Lock()
	if s.r == nil {
		s.mu.Unlock()
		return fmt.Errorf("cannot fence set %q: %w", s.o.Name, errNoLink)
	}
	step := s.r.fence(epoch)
	s.mu.Unlock()
	s.run(step)
	return nil
}

// Put gives the item key this value, at the leader. It never waits for the
// peer. An error says that the item is not held, and so is unprotected: a
// [*FullError], or that this node does not lead. A set in which an item found no
// room is not synced before the next Lead.
func (s *Set) Put(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.leading(); err != nil {
		return err
	}
	err := s.put(key, value)
	s.wake()
	return err
}

func (s *Set) put(key, value []byte) error {
	switch {
	case len(key) == 0 || len(key) > maxKey:
		return fmt.Errorf("set %q: a key of %d bytes: give it 1 to %d", s.o.Name, len(key), maxKey)
	case len(value) > maxValue:
		return fmt.Errorf("set %q: a value of %d bytes: at most %d", s.o.Name, len(value), maxValue)
	}
	if err := s.r.out.put(key, value); err != nil {
		return fmt.Errorf("set %q: %w", s.o.Name, err)
	}
	return nil
}

func (s *Set) leading() error {
	if s.r == nil {
		return fmt.Errorf("set %q: %w", s.o.Name, errNoLink)
	}
	if !s.r.leads {
		return fmt.Errorf("set %q: this node does not lead it: call Lead first", s.o.Name)
	}
	return nil
}

// Delete removes the item key, at the leader; there may be none.
func (s *Set) Delete(key []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.leading(); err != nil {
		return err
	}
	s.r.out.delete(key)
	s.wake()
	return nil
}

// Protected reports whether the follower has the item as it is now.
func (s *Set) Protected(key []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r != nil && s.r.leads && s.r.out.protects(key)
}

// Complete reports whether this node, as a follower, has everything that it has
// acknowledged, and nothing of an older epoch. It holds across the loss of the
// link: what the leader did since is not known then.
func (s *Set) Complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r != nil && s.r.complete()
}

// State is what is known of the set at this moment.
func (s *Set) State() SetState {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SetState{Name: s.o.Name, State: Down}
	if r := s.r; r != nil {
		st.State, st.Leads, st.Epoch = r.state(), r.leads, r.latest.epoch
		st.Items, st.Unacknowledged, st.Refused, st.Snapshots = r.out.live, r.out.waiting, r.out.refused, r.out.snapshots
	}
	return st
}

// run calls the callbacks for one step; deliver is held, mu is not.
func (s *Set) run(step step) {
	if step.superseded && s.o.OnSuperseded != nil {
		s.o.OnSuperseded(step.epoch)
	}
	if step.is && s.o.OnItem != nil {
		s.o.OnItem(step.item)
	}
}

// receive takes a message of the peer, runs what follows from it, and then
// acknowledges it.
func (s *Set) receive(m message) error {
	if s.check != nil {
		if err := s.check(m); err != nil {
			return err
		}
	}
	s.deliver.Lock()
	defer s.deliver.Unlock()
	s.mu.Lock()
	step, err := s.r.receive(m)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.run(step)
	s.mu.Lock()
	s.r.apply()
	s.mu.Unlock()
	return nil
}

func (s *Set) state() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.state()
}

func (s *Set) connect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r.connect()
}

func (s *Set) disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r.disconnect()
}

// appendNext appends the messages to send to b, until it has limit bytes or
// there are no more.
func (s *Set) appendNext(b []byte, limit int) (_ []byte, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(b) < limit {
		m, ok := s.r.pop()
		if !ok {
			return b, n
		}
		b = m.appendTo(b)
		n++
	}
	return b, n
}
