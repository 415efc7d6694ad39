//go:build linux

package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a Checker is made of.
type Options struct {
	// Name is the backend's, in changes, causes and logs; empty: its Address.
	Name string
	// Address is the backend's: HOST:PORT, [IPV6]:PORT or unix:PATH. Required.
	// A host name is resolved in each check, so that a name server that fails is
	// a failed check: give an IP address where that is not wanted.
	Address string
	// Check says how to check; the zero value is a TCP check every second.
	Check Check
	// State is what the checker starts from, for one that takes another's place.
	// The zero value is Unknown: the first result decides. Up needs Fall failures
	// to go down, Down needs Rise successes to come up.
	State State
	// OnChange is called for each change of state, in order, from the
	// goroutine of Run, which does not check while it waits for it. It may be
	// nil, for who only asks Status.
	OnChange func(Change)
	// Limiter is shared with other checkers to bound how many check at one
	// moment; nil: no bound.
	Limiter *Limiter
	// Logger says what cannot be told otherwise: verdicts that were not counted
	// (at level Warn), and single failures (Debug). nil: nothing is logged.
	Logger *slog.Logger
}

// EvidenceKind is what went wrong in an attempt that was not a check.
type EvidenceKind uint8

const (
	// Refused is a connect that was refused.
	Refused EvidenceKind = iota
	// Reset is a connection that the backend reset before it sent any byte. A
	// client can bring that about, so it never completes a row:
	// a check, or evidence of another kind, must do that.
	Reset
	// ConnectTimeout is a connect that nobody answered.
	ConnectTimeout
)

var evidenceSentences = [...]string{
	"a client's connection to %s was refused",
	"a client's connection to %s was reset before any byte came",
	"a client's connection to %s was not answered",
}

// Evidence is a failure that somebody else than the checker saw.
type Evidence struct {
	Kind EvidenceKind
	// Started is when that attempt began. Attempts that overlap count once, so
	// the zero value, which stands for now, counts more than it should when many
	// clients connect in one instant.
	Started time.Time
	// Err is the error, if there is one to be quoted.
	Err error
}

// Status is what a Checker knows at one moment.
type Status struct {
	Name  string
	State State
	Since time.Time // of State; zero while that is the one it started from
	Cause error     // of the last failure; nil after a success

	LastCheck  time.Time // when the last check began
	Checks     uint64    // that have ended, counted or not
	Failures   uint64    // of them, counted
	Reported   uint64    // failures by Report, counted
	Distrusted uint64    // failures not counted, because this machine was late or lacked the means
	Delayed    uint64    // checks that had to wait for the Limiter
}

// maxDistrusted is how many failures in a row are not counted. A live backend
// answers as soon as there is any CPU, so a sixth late timeout is the backend's.
const maxDistrusted = 5

// Checker checks one backend. Make it with New, start it with Run, end it with
// Close. All methods are safe for concurrent use.
type Checker struct {
	options  Options
	logger   *slog.Logger
	probe    probe
	evidence chan Evidence
	pings    chan struct{}

	ran       atomic.Bool
	closed    chan struct{}
	closeOnce sync.Once

	machine machine // of the goroutine of Run

	mu     sync.Mutex
	status Status
}

// New prepares a checker. It does not touch the network. The error names the
// field that is wrong, or the program or user that does not exist.
func New(options Options) (*Checker, error) {
	dialer := &net.Dialer{KeepAlive: -1} // no connection lives that long
	return newChecker(options, environment{dial: dialer.DialContext, random: rand.Float64})
}

func newChecker(options Options, env environment) (*Checker, error) {
	options.Name = cmp.Or(options.Name, options.Address)
	if options.State > Down {
		return nil, fmt.Errorf("health: State is %v, want unknown, up or down", options.State)
	}
	if err := options.Check.Validate(options.Address); err != nil {
		return nil, err
	}
	check := options.Check.withDefaults()
	p := probe{name: options.Name, backend: options.Address, check: check, env: env}
	var err error
	if p.target, err = check.target(options.Address); err != nil {
		return nil, err
	}
	switch check.Kind {
	case HTTP:
		p.statuses, err = parseStatuses(check.HTTP.Status)
	case Command:
		p.program, err = check.Command.lookUp()
	case TCP, Exchange, None:
	}
	if err != nil {
		return nil, err
	}
	logger := options.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Checker{
		options:  options,
		logger:   logger.With("backend", options.Name),
		probe:    p,
		evidence: make(chan Evidence, 64),
		pings:    make(chan struct{}),
		closed:   make(chan struct{}),
		machine:  machine{name: options.Name, fall: check.Fall, rise: check.Rise, state: options.State},
		status:   Status{Name: options.Name, State: options.State},
	}, nil
}

// Run checks until the context ends or Close is called, and returns nil then. A
// check that is under way is broken off and not counted. Run works once; a second
// call is an error.
func (c *Checker) Run(ctx context.Context) error {
	if !c.ran.CompareAndSwap(false, true) {
		return fmt.Errorf("health: Run of the checker of %s was called before", c.options.Name)
	}
	if c.probe.check.Kind == None {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-c.closed:
				return nil
			case <-c.pings:
			}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRound(c)
	r.loop(ctx, cancel)
	return nil
}

// Close ends Run, and does not wait for it. It can be called more than once, and
// before Run.
func (c *Checker) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return nil
}

// Report adds a failure that somebody else saw. It counts as a failed check in the
// row, or as the first result. It is ignored while the backend is down, for a
// check of kind None, and when the attempt began before the last failure was
// known, or before the backend came up: that says nothing new. A [Reset] is also
// ignored where it would complete the row. Report never blocks; of a flood it
// drops what is too much.
func (c *Checker) Report(e Evidence) {
	if c.probe.check.Kind == None || int(e.Kind) >= len(evidenceSentences) {
		return
	}
	if e.Started.IsZero() {
		e.Started = time.Now()
	}
	select {
	case c.evidence <- e:
	default:
	}
}

// Ping waits until the goroutine of Run answers, or the checker is closed. An
// error says that it did not before the context ended: that it does not run, is
// stuck, or waits for OnChange.
func (c *Checker) Ping(ctx context.Context) error {
	select {
	case c.pings <- struct{}{}: // without a buffer: being taken is the answer
		return nil
	case <-c.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("health: the checker of %s does not answer: %w", c.options.Name, context.Cause(ctx))
	}
}

// Status returns what is known now.
func (c *Checker) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// apply brings the machine's news to the world.
func (c *Checker) apply(change Change, changed bool, count func(*Status)) {
	c.mu.Lock()
	count(&c.status)
	c.status.State, c.status.Since, c.status.Cause = c.machine.state, c.machine.since, c.machine.cause
	c.mu.Unlock()
	if changed && c.options.OnChange != nil {
		c.options.OnChange(change)
	}
}

type phase uint8

const (
	waiting  phase = iota // until the next check is due
	queued                // for the Limiter
	checking              // until there is a verdict
	ending                // until the check has cleaned up
)

// round is the loop of Run: one check after the other.
type round struct {
	*Checker
	phase phase
	// timer fires at due: while waiting, when the next check is; else in short
	// steps, which only serve to see whether this process runs at all.
	timer    *time.Timer
	due      time.Time
	late     time.Duration // the most it was late for this check
	lateSeen time.Time     // when it was last late by more than what is tolerated
	started  time.Time
	verdicts chan verdict  // of the check under way
	ended    chan struct{} // it has cleaned up
	first    bool          // the first check is under way or to come
	again    bool          // at once
	// distrusted counts the failures in a row that were not counted.
	distrusted int
}

func newRound(c *Checker) *round {
	return &round{
		Checker: c, first: true, due: time.Now(), timer: time.NewTimer(0),
		verdicts: make(chan verdict, 1), ended: make(chan struct{}, 1),
	}
}

func (r *round) loop(ctx context.Context, cancel context.CancelFunc) {
	defer r.timer.Stop()
	for {
		var slot chan<- struct{}
		var ended <-chan struct{}
		switch r.phase {
		case queued:
			slot = r.options.Limiter.slots
		case ending:
			ended = r.ended // not before the verdict was taken: both can be there
		case waiting, checking:
		}
		select {
		case <-ctx.Done():
			r.finish()
			return
		case <-r.closed:
			cancel()
			r.finish()
			return
		case e := <-r.evidence:
			r.hear(e)
		case <-r.pings:
		case <-r.timer.C:
			r.fired(ctx)
		case slot <- struct{}{}:
			r.start(ctx)
		case v := <-r.verdicts:
			r.judge(v)
		case <-ended:
			r.release()
			r.schedule()
		}
	}
}

// finish waits for the check under way, whose context has ended.
func (r *round) finish() {
	if r.phase == checking || r.phase == ending {
		<-r.ended
		r.release()
	}
}

func (r *round) release() {
	if r.options.Limiter != nil {
		<-r.options.Limiter.slots
	}
}

// tolerance is how late a timer may be: enough for the scheduler of a machine that
// works, and too little to matter to a backend that answers.
func (r *round) tolerance() time.Duration { return r.probe.check.Timeout / 4 }

// notice measures how late the timer is now.
func (r *round) notice() {
	late := time.Since(r.due)
	r.late = max(r.late, late)
	if late > r.tolerance() {
		r.lateSeen = time.Now()
	}
}

func (r *round) fired(ctx context.Context) {
	r.notice()
	if r.phase != waiting {
		r.watch()
		return
	}
	if r.options.Limiter == nil {
		r.start(ctx)
		return
	}
	select {
	case r.options.Limiter.slots <- struct{}{}:
		r.start(ctx)
	default:
		r.phase = queued
		r.watch()
		r.mu.Lock()
		r.status.Delayed++
		r.mu.Unlock()
	}
}

// watch sets the timer for the next short step.
func (r *round) watch() {
	step := max(r.probe.check.Timeout/8, time.Millisecond)
	r.due = time.Now().Add(step)
	r.timer.Reset(step)
}

func (r *round) start(ctx context.Context) {
	r.phase = checking
	r.started = time.Now()
	go r.attempt(ctx, r.started.Add(r.probe.check.Timeout))
	r.watch()
}

func (r *round) attempt(ctx context.Context, deadline time.Time) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	v, cleanup := r.probe.run(ctx)
	r.verdicts <- v
	cleanup()
	r.ended <- struct{}{}
}

func (r *round) judge(v verdict) {
	r.phase = ending
	r.notice()
	r.watch()
	if v.timedOut {
		r.late = max(r.late, v.at.Sub(r.started.Add(r.probe.check.Timeout)))
	}
	lateTimeout := v.timedOut && r.late > r.tolerance()
	count := func(s *Status) {
		s.Checks++
		s.LastCheck = r.started
	}
	if v.err != nil && r.distrusted < maxDistrusted && (lateTimeout || isLocal(v.err)) {
		r.distrusted++
		r.again = lateTimeout
		r.logger.Warn("a failed check is not counted: this machine was late or lacked the means",
			"error", v.err, "late", r.late, "in_a_row", r.distrusted)
		r.apply(Change{}, false, func(s *Status) {
			count(s)
			s.Distrusted++
		})
		return
	}
	r.distrusted = 0
	if v.err != nil {
		r.logger.Debug("a check failed", "error", v.err)
	}
	change, changed := r.machine.check(result{cause: v.err, started: r.started, at: v.at})
	r.apply(change, changed, func(s *Status) {
		count(s)
		if v.err != nil {
			s.Failures++
		}
	})
}

// schedule sets the timer for the next check.
func (r *round) schedule() {
	r.notice()
	interval := float64(r.probe.check.Interval)
	gap := interval * (1 - r.probe.env.random()/10)
	if r.first {
		gap = interval * (1 - r.probe.env.random())
	}
	now := time.Now()
	r.due = r.started.Add(time.Duration(gap))
	if r.again || r.due.Before(now) {
		r.due = now
	}
	r.phase, r.first, r.again, r.late = waiting, false, false, 0
	r.timer.Reset(r.due.Sub(now))
}

func (r *round) hear(e Evidence) {
	r.notice()
	// A connect that timed out in a process that stood still was this process's
	// fault, just as a check would be.
	if e.Kind == ConnectTimeout && e.Started.Before(r.lateSeen) {
		r.logger.Warn("a reported timeout is not counted: this machine was late", "error", e.Err)
		r.apply(Change{}, false, func(s *Status) { s.Distrusted++ })
		return
	}
	sentence := fmt.Sprintf(evidenceSentences[e.Kind], r.options.Name)
	cause := errors.New(sentence)
	if e.Err != nil {
		cause = fmt.Errorf("%s: %w", sentence, e.Err)
	}
	before := r.machine.failures
	change, changed := r.machine.evidence(result{cause: cause, started: e.Started, at: time.Now(), provoked: e.Kind == Reset})
	r.apply(change, changed, func(s *Status) {
		if r.machine.failures != before {
			s.Reported++
		}
	})
}
