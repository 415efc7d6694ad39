package vrrp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Instant is a point in time in nanoseconds, on whatever clock the caller uses;
// it must never go back.
type Instant = int64

// State is what a router is (RFC 9568, 6.3).
type State uint8

// The three states.
const (
	Initialize State = iota
	Backup
	Active
)

func (s State) String() string {
	switch s {
	case Initialize:
		return "initialize"
	case Backup:
		return "backup"
	case Active:
		return "active"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Config is what a router is told about itself.
type Config struct {
	ID       uint8         // the virtual router, 1..255
	Priority uint8         // 1..PriorityOwner; PriorityOwner always preempts
	Interval time.Duration // between its own adverts: MinInterval..MaxInterval
	Preempt  bool          // take over from an active router of a lower priority
	// Source4 and Source6 are the addresses that its adverts come from; the
	// zero Addr means that it sends none in that family. One is needed.
	Source4, Source6 netip.Addr
	// Listen makes a router of PriorityOwner start as a backup too, instead of
	// becoming active before it has heard anybody.
	Listen bool
}

func (c Config) check() error {
	switch {
	case c.ID == 0:
		return errors.New("vrrp: ID 0: ids are 1 to 255")
	case c.Priority == PriorityStop:
		return fmt.Errorf("vrrp: Priority %d of id %d: priorities are 1 to %d", c.Priority, c.ID, PriorityOwner)
	case !c.Source4.IsValid() && !c.Source6.IsValid():
		return fmt.Errorf("vrrp: id %d has neither Source4 nor Source6: adverts come from an address of the interface", c.ID)
	case c.Source4.IsValid() && !c.Source4.Is4():
		return fmt.Errorf("vrrp: Source4 %v of id %d is no IPv4 address", c.Source4, c.ID)
	case c.Source6.IsValid() && (!c.Source6.Is6() || c.Source6.Is4In6()):
		return fmt.Errorf("vrrp: Source6 %v of id %d is no IPv6 address", c.Source6, c.ID)
	}
	if err := CheckInterval(c.Interval); err != nil {
		return fmt.Errorf("vrrp: Interval of id %d: %w", c.ID, err)
	}
	return nil
}

// Skew is how much longer than its better a backup of this priority waits, so
// that the best one left is the first to act (Skew_Time).
func Skew(priority uint8, interval time.Duration) time.Duration {
	return time.Duration(256-int64(priority)) * interval / 256
}

// DownInterval is how long the active router must have been silent before a
// backup of this priority acts (Active_Down_Interval). interval is the active
// router's.
func DownInterval(priority uint8, interval time.Duration) time.Duration {
	return 3*interval + Skew(priority, interval)
}

// Do is what the caller is to do.
type Do uint8

// What there is to do.
const (
	// Become: the router is in Action.State now. Active: set the addresses.
	// Backup or Initialize, from Active: take them away.
	Become Do = iota + 1
	// Advertise: send an advert of Action.Priority in each family.
	Advertise
	// Announce: tell the neighbours whose the addresses are, by gratuitous ARP
	// and unsolicited neighbour advertisements.
	Announce
)

// Cause is why a router changes its state.
type Cause uint8

// Why a state changes.
const (
	_          Cause = iota
	ByStartup        // it starts
	ByShutdown       // it stops
	BySilence        // nobody was heard for the down interval
	ByStop           // the active router said that it stops
	ByPriority       // an active router has a higher priority
	ByAddress        // an active router has the same priority and a higher address
	ByCaller         // TakeOver, StepDown or Release was called
)

func (c Cause) String() string {
	switch c {
	case ByStartup:
		return "startup"
	case ByShutdown:
		return "shutdown"
	case BySilence:
		return "the active router was silent"
	case ByStop:
		return "the active router stopped"
	case ByPriority:
		return "a higher priority"
	case ByAddress:
		return "the same priority, a higher address"
	case ByCaller:
		return "by command"
	}
	return fmt.Sprintf("Cause(%d)", uint8(c))
}

// Action is one thing to do. Those of one call are done in their order.
type Action struct {
	Do       Do
	State    State // of Become
	Cause    Cause // of Become
	Priority uint8 // of Advertise
}

// Router is the state machine of section 6.4 for one group of addresses. It is
// not safe for concurrent use. The actions that a call returns are valid until
// the next one. Instants that are given to it must not go back; a call that
// comes late is taken as of the instant it is given.
type Router struct {
	config Config
	state  State
	// activeInterval is Active_Adver_Interval: what the active router's adverts
	// say, or our own while there was none.
	activeInterval time.Duration
	deadline       Instant // Adver_Timer when active, Active_Down_Timer when backup
	held           Instant // the Active_Down_Timer does not fire before
	stopped        bool    // the Active_Down_Timer runs because of priority 0
	actions        [4]Action
}

// NewRouter makes a router in state Initialize.
func NewRouter(c Config) (*Router, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Router{config: c, activeInterval: c.Interval}, nil
}

// State gives the state.
func (r *Router) State() State { return r.state }

// Config gives what the router was told last.
func (r *Router) Config() Config { return r.config }

// ActiveInterval is the interval of the active router, as far as one was heard.
func (r *Router) ActiveInterval() time.Duration { return r.activeInterval }

// DownInterval is how long this router waits as a backup.
func (r *Router) DownInterval() time.Duration {
	return DownInterval(r.config.Priority, r.activeInterval)
}

// Deadline is when Expire has something to do; there is none in Initialize.
func (r *Router) Deadline() (at Instant, ok bool) {
	switch r.state {
	case Backup:
		return max(r.deadline, r.held), true
	case Active:
		return r.deadline, true
	}
	return 0, false
}

// Startup leaves Initialize (6.4.1).
func (r *Router) Startup(now Instant) []Action {
	if r.state != Initialize {
		return nil
	}
	r.activeInterval = r.config.Interval
	if r.config.Priority == PriorityOwner && !r.config.Listen {
		return r.activate(now, ByStartup)
	}
	return r.backUp(now, ByStartup, r.actions[:0])
}

// Shutdown enters Initialize, from Active with an advert that says so (6.4.2,
// 6.4.3).
func (r *Router) Shutdown(Instant) []Action {
	out := r.actions[:0]
	switch r.state {
	case Initialize:
		return nil
	case Active:
		out = append(out, Action{Do: Advertise, Priority: PriorityStop})
	}
	r.state = Initialize
	return append(out, Action{Do: Become, State: Initialize, Cause: ByShutdown})
}

// Receive takes an advert for this router's id that came from a neighbour with
// the right hop limit (6.4.2, 6.4.3). One of another id, of a family that this
// router does not speak, or from one of its own addresses changes nothing.
func (r *Router) Receive(now Instant, from netip.Addr, a Advert) []Action {
	own := r.source(a.Family)
	if a.ID != r.config.ID || !own.IsValid() || from.WithZone("") == own.WithZone("") {
		return nil
	}
	switch r.state {
	case Backup:
		return r.receiveAsBackup(now, a)
	case Active:
		return r.receiveAsActive(now, from, a)
	}
	return nil
}

func (r *Router) source(f Family) netip.Addr {
	if f == IPv4 {
		return r.config.Source4
	}
	return r.config.Source6
}

func (r *Router) receiveAsBackup(now Instant, a Advert) []Action {
	switch {
	case a.Priority == PriorityStop:
		r.deadline = now + int64(Skew(r.config.Priority, r.activeInterval))
		r.stopped = true
	case !r.preempts() || a.Priority >= r.config.Priority:
		r.Heard(now, a.Interval)
	}
	return nil
}

// preempts says whether a lower priority is not listened to. The owner of the
// addresses always preempts (6.1).
func (r *Router) preempts() bool { return r.config.Preempt || r.config.Priority == PriorityOwner }

func (r *Router) receiveAsActive(now Instant, from netip.Addr, a Advert) []Action {
	cause := ByPriority
	switch {
	case a.Priority == PriorityStop:
		r.deadline = now + int64(r.config.Interval)
		return append(r.actions[:0], Action{Do: Advertise, Priority: r.config.Priority})
	case a.Priority == r.config.Priority:
		if a.Family == IPv6 && r.config.Source4.IsValid() {
			return nil // IPv4 decides; an answer would be answered, and so on
		}
		cause = ByAddress
		if from.WithZone("").Less(r.source(a.Family).WithZone("")) {
			return r.assert()
		}
	case a.Priority < r.config.Priority:
		return r.assert()
	}
	r.activeInterval = a.Interval
	return r.backUp(now, cause, r.actions[:0])
}

// assert tells a router that should be a backup, and switches that have learnt
// its port, who is active. The Adver_Timer runs on.
func (r *Router) assert() []Action {
	return append(r.actions[:0], Action{Do: Advertise, Priority: r.config.Priority})
}

// Expire does what is due at now (6.4.2, 6.4.3).
func (r *Router) Expire(now Instant) []Action {
	at, ok := r.Deadline()
	if !ok || now < at {
		return nil
	}
	if r.state == Active {
		// From deadline to deadline, so that adverts do not drift with the
		// lateness of the caller; after a longer absence there is no burst.
		r.deadline += int64(r.config.Interval)
		if r.deadline <= now {
			r.deadline = now + int64(r.config.Interval)
		}
		return append(r.actions[:0], Action{Do: Advertise, Priority: r.config.Priority})
	}
	if r.stopped {
		return r.activate(now, ByStop)
	}
	return r.activate(now, BySilence)
}

func (r *Router) activate(now Instant, cause Cause) []Action {
	r.state, r.stopped, r.held = Active, false, 0
	r.deadline = now + int64(r.config.Interval)
	return append(r.actions[:0],
		Action{Do: Become, State: Active, Cause: cause},
		Action{Do: Advertise, Priority: r.config.Priority},
		Action{Do: Announce})
}

func (r *Router) backUp(now Instant, cause Cause, out []Action) []Action {
	r.state, r.stopped, r.held = Backup, false, 0
	r.deadline = now + int64(r.DownInterval())
	return append(out, Action{Do: Become, State: Backup, Cause: cause})
}

// The rest is not in the RFC: it is for callers that know more than adverts say.

// Heard is an advert's effect on a backup, without the advert: there is other
// evidence that an active router lives. interval is that router's, 0 if it is
// not known.
func (r *Router) Heard(now Instant, interval time.Duration) {
	if r.state != Backup {
		return
	}
	if interval > 0 {
		r.activeInterval = interval
	}
	r.deadline = now + int64(r.DownInterval())
	r.stopped = false
}

// Hold keeps a backup from becoming active by silence before the instant,
// whatever it hears or does not hear. A later Hold replaces an earlier one.
func (r *Router) Hold(until Instant) {
	if r.state == Backup {
		r.held = until
	}
}

// TakeOver makes a backup active at once: the active router has handed over to
// it.
func (r *Router) TakeOver(now Instant) []Action {
	if r.state != Backup {
		return nil
	}
	return r.activate(now, ByCaller)
}

// StepDown makes an active router a backup without a word: it may not, or must
// not, send anything.
func (r *Router) StepDown(now Instant) []Action {
	if r.state != Active {
		return nil
	}
	r.activeInterval = r.config.Interval
	return r.backUp(now, ByCaller, r.actions[:0])
}

// Release makes an active router a backup, after an advert that says that it
// stops: somebody else is to take over now.
func (r *Router) Release(now Instant) []Action {
	if r.state != Active {
		return nil
	}
	r.activeInterval = r.config.Interval
	return r.backUp(now, ByCaller, append(r.actions[:0], Action{Do: Advertise, Priority: PriorityStop}))
}

// Change gives the router another configuration while it runs; its id stays. An
// active one stays active, and advertises at once what is new. A backup's
// silence counts from now if it is to last for another time, or if adverts count
// that did not, as a lower priority's do not for a router that preempts.
func (r *Router) Change(now Instant, c Config) ([]Action, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.ID != r.config.ID {
		return nil, fmt.Errorf("vrrp: id %d cannot become %d: make another router", r.config.ID, c.ID)
	}
	before, preempted := r.DownInterval(), r.config.Preempt
	if r.activeInterval == r.config.Interval {
		r.activeInterval = c.Interval
	}
	r.config = c
	switch r.state {
	case Backup:
		if r.DownInterval() != before || preempted && !c.Preempt {
			r.deadline = now + int64(r.DownInterval())
			r.stopped = false
		}
	case Active:
		r.deadline = now + int64(c.Interval)
		return append(r.actions[:0], Action{Do: Advertise, Priority: c.Priority}), nil
	}
	return nil, nil
}
