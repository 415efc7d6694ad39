//go:build linux

package health

import (
	"fmt"
	"time"
)

// State is what is known about a backend.
type State uint8

const (
	// Unknown is before the first result: "unknown". It counts as up. It is the
	// zero value.
	Unknown State = iota
	// Up is "up".
	Up
	// Down is "down".
	Down
)

var stateNames = [...]string{"unknown", "up", "down"}

// String returns the state's name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("health: unknown state %d", uint8(s))
	}
	return []byte(stateNames[s]), nil
}

// Change says that a backend's state is another one now.
type Change struct {
	// Name is the backend's, from Options.
	Name string
	// State is the new one, From the one before. From Unknown to Up nothing
	// changes for a balancer, but it is certain now.
	State, From State
	// Cause is, for Down, why: a sentence that wraps the last failure (so that
	// errors.Is finds syscall.ECONNREFUSED and the like). For Up it is nil.
	Cause error
	// FirstFailedStart and LastFailedStart are, for Down, when the first and the
	// last failed check of the row began (or the attempt that was reported). A
	// connection that made progress after LastFailedStart was alive when the
	// check was not. For Up they are zero.
	FirstFailedStart, LastFailedStart time.Time
	// At is when the result that decided was there.
	At time.Time
}

// machine is the state of one backend: results in, changes out. It has no clock
// and no side effect.
type machine struct {
	name       string
	fall, rise int

	state State
	since time.Time // of state
	cause error     // of the last failure, nil after a success

	successes, failures     int // in a row; at most one is not zero
	firstFailed, lastFailed time.Time
	lastFailure             time.Time // when the last failure was known
}

// result is what one check, or one attempt of somebody else, came to.
type result struct {
	cause       error // nil: success
	started, at time.Time
	provoked    bool // a client may have brought it about
}

// check takes the result of a check. It reports whether the state changed.
func (m *machine) check(r result) (Change, bool) {
	m.cause = r.cause
	if r.cause == nil {
		m.failures = 0
		m.successes++
		if m.state == Unknown || m.state == Down && m.successes >= m.rise {
			return m.become(Up, r), true
		}
		return Change{}, false
	}
	m.successes = 0
	m.failures++
	if m.failures == 1 || r.started.Before(m.firstFailed) {
		m.firstFailed = r.started
	}
	if m.failures == 1 || r.started.After(m.lastFailed) {
		m.lastFailed = r.started
	}
	m.lastFailure = r.at
	if m.state == Unknown || m.state == Up && m.failures >= m.fall {
		return m.become(Down, r), true
	}
	return Change{}, false
}

// evidence takes a failure that somebody else saw. It says nothing new about a
// backend that is down; nor does an attempt that began before the last failure
// was known, as attempts that overlap are one observation and not a row: a
// hundred clients that connect in one instant of trouble must not outvote Fall.
// What a client may have provoked counts in the row but never completes it: one
// that sends what the server drops would otherwise end everybody's connections.
func (m *machine) evidence(r result) (Change, bool) {
	if m.state == Down || r.started.Before(m.lastFailure) || r.started.Before(m.since) {
		return Change{}, false
	}
	if r.provoked && (m.state == Unknown || m.failures+1 >= m.fall) {
		return Change{}, false
	}
	return m.check(r)
}

func (m *machine) become(s State, r result) Change {
	change := Change{Name: m.name, State: s, From: m.state, At: r.at}
	m.state, m.since = s, r.at
	if s == Down {
		change.FirstFailedStart, change.LastFailedStart = m.firstFailed, m.lastFailed
		change.Cause = r.cause
		if m.failures > 1 {
			change.Cause = fmt.Errorf("%d failures in a row, the last: %w", m.failures, r.cause)
		}
	}
	return change
}
