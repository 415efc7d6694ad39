//go:build linux

package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// A Service is where clients connect, with its backends and policies. It is
// made by [Relay.Listen].
type Service struct {
	relay   *Relay
	options ServiceOptions // checked, and not changed after

	live    atomic.Int64 // connections that have not ended
	changed chan struct{}

	mu        sync.Mutex
	pool      *balance.Pool
	targets   map[string]*target
	listeners []*listener
	stopped   bool // takes no more clients
	draining  bool // all its connections are under the bounds of Drain
}

// A target is a backend as the service knows it. The Backend in it does not
// change: a changed one is a new target, and old connections keep the old.
type target struct {
	Backend
	lost     atomic.Pointer[string] // why it is marked down
	draining atomic.Bool
	*totals
}

// totals are a backend's counts, which go on through its changes.
type totals struct {
	total, bytesIn, bytesOut atomic.Uint64
}

func newService(r *Relay, opts ServiceOptions) (*Service, error) {
	opts, err := opts.check()
	if err != nil {
		return nil, err
	}
	s := &Service{relay: r, options: opts, targets: map[string]*target{}, changed: make(chan struct{}, 1)}
	var entries []balance.Backend
	for _, b := range opts.Backends {
		if s.targets[b.Name] != nil {
			return nil, fmt.Errorf("relay: ServiceOptions.Backends: two backends are named %s", b.Name)
		}
		t := &target{Backend: b, totals: new(totals)}
		t.draining.Store(b.Weight == 0)
		s.targets[b.Name] = t
		entries = append(entries, b.entry())
	}
	if s.pool, err = balance.New(opts.Balance, entries...); err != nil {
		return nil, fmt.Errorf("relay: ServiceOptions.Backends: %w", err)
	}
	return s, nil
}

func (s *Service) listen() error {
	for _, a := range s.options.Listen {
		fd, err := listenSocket(a, s.options.Backlog)
		if err != nil {
			return err
		}
		ln := &listener{service: s, fd: fd, addr: a}
		s.listeners = append(s.listeners, ln)
		if a.IsUnix() {
			ln.file, err = os.Lstat(a.path)
		} else {
			var local netip.AddrPort
			local, err = sys.LocalAddr(fd)
			ln.addr = AddressFrom(local)
		}
		if err != nil {
			return &ListenError{Address: a, Err: err}
		}
	}
	if s.options.Name == "" {
		s.options.Name = s.listeners[0].addr.String()
	}
	return nil
}

// closeSockets closes listeners that no loop watches.
func (s *Service) closeSockets() {
	for _, ln := range s.listeners {
		closeListener(ln)
	}
	s.listeners = nil
}

func closeListener(ln *listener) {
	sys.Close(ln.fd)
	if ln.file == nil {
		return
	}
	// A successor may have put its own socket in the same place meanwhile.
	if now, err := os.Lstat(ln.addr.path); err == nil && os.SameFile(now, ln.file) {
		_ = os.Remove(ln.addr.path)
	}
}

// Addrs returns what the service listens on; a port that was given as 0 is the
// one that the kernel chose.
func (s *Service) Addrs() []Address {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := make([]Address, 0, len(s.listeners))
	for _, ln := range s.listeners {
		addrs = append(addrs, ln.addr)
	}
	return addrs
}

// Name returns the service's name.
func (s *Service) Name() string { return s.options.Name }

// MarkDown says that a backend is dead: it gets no new connections, those being
// made to it go to another, and OnBackendLost decides about the established.
// since is when the evidence began, normally the start of the last failed
// check: what was heard from the backend after it counts as life, and such a
// connection may finish while it makes progress. why is for people. Marking a
// backend down again changes nothing. The error is about an unknown name.
func (s *Service) MarkDown(backend string, since time.Time, why string) error {
	changed, err := s.setState(backend, balance.Down, &why)
	if !changed {
		return err
	}
	s.each(func(p *pair) {
		switch {
		case p.target == nil || p.target.Name != backend:
		case s.isUp(backend): // MarkUp came meanwhile
		case p.stage == stageConnecting:
			p.lastErr = backend + ": marked down: " + why
			p.tried = append(p.tried, backend)
			p.abandon()
			p.attempt()
		case s.options.OnBackendLost == LostReset:
			p.backendLost(since, why)
		}
	})
	return nil
}

// MarkUp says that a backend is well again.
func (s *Service) MarkUp(backend string) error {
	changed, err := s.setState(backend, balance.Up, nil)
	if !changed {
		return err
	}
	s.each(func(p *pair) {
		if p.target != nil && p.target.Name == backend {
			p.backendFound()
		}
	})
	return nil
}

// setState reports whether it changed anything. why is nil for Up.
func (s *Service) setState(backend string, state balance.State, why *string) (changed bool, err error) {
	s.mu.Lock() // also for lost, which SetBackend copies to the backend's next target
	defer s.mu.Unlock()
	if err := s.pool.SetState(backend, state); err != nil {
		return false, s.unknown(backend, err)
	}
	t := s.targets[backend]
	if (t.lost.Load() == nil) == (why == nil) {
		return false, nil
	}
	t.lost.Store(why)
	return true, nil
}

// isUp reports whether the service has the backend and nobody has marked it
// down.
func (s *Service) isUp(backend string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[backend]
	return t != nil && t.lost.Load() == nil
}

func (s *Service) unknown(backend string, err error) error {
	return fmt.Errorf("relay: service %s, backend %s: %w", s.options.Name, backend, err)
}

// SetBackend adds a backend, or changes the one of that name. A new address is
// for new connections. Weight 0 drains it, under the bounds of Drain.
func (s *Service) SetBackend(b Backend) error {
	if err := b.check(); err != nil {
		return fmt.Errorf("relay: service %s: %w", s.options.Name, err)
	}
	s.mu.Lock()
	if err := s.pool.Set(b.entry()); err != nil {
		s.mu.Unlock()
		return s.unknown(b.Name, err)
	}
	t := s.targets[b.Name]
	if t == nil || t.Backend != b {
		next := &target{Backend: b, totals: new(totals)}
		if t != nil {
			next.lost.Store(t.lost.Load())
			next.totals = t.totals
			t.draining.Store(b.Weight == 0)
		}
		next.draining.Store(b.Weight == 0)
		s.targets[b.Name] = next
	}
	s.mu.Unlock()
	s.bound(b.Name, b.Weight == 0)
	return nil
}

// RemoveBackend takes a backend out of the service. Its connections stay, under
// the bounds of Drain.
func (s *Service) RemoveBackend(backend string) error {
	s.mu.Lock()
	if err := s.pool.Remove(backend); err != nil {
		s.mu.Unlock()
		return s.unknown(backend, err)
	}
	s.targets[backend].draining.Store(true)
	delete(s.targets, backend)
	s.mu.Unlock()
	s.bound(backend, true)
	return nil
}

// bound puts the connections of a backend under the bounds of Drain, or lifts
// them.
func (s *Service) bound(backend string, draining bool) {
	s.each(func(p *pair) {
		switch {
		case p.stage != stageOpen || p.target.Name != backend:
		case draining:
			p.drain()
		case !s.isDraining(p.target) && p.lost == nil:
			p.undrain()
		}
	})
}

// ResetBackend ends every connection of a backend at once: both ends get a RST.
// It returns how many there were.
func (s *Service) ResetBackend(backend string) (int, error) {
	s.mu.Lock()
	known := s.targets[backend] != nil
	s.mu.Unlock()
	if !known {
		return 0, s.unknown(backend, balance.ErrUnknown)
	}
	var n atomic.Int64
	s.each(func(p *pair) {
		if p.stage == stageOpen && p.target.Name == backend {
			p.reset(CauseOperator, ByRelay, "backend reset by command")
			n.Add(1)
		}
	})
	return int(n.Load()), nil
}

// each runs f for every connection of the service, on its loop, and waits. f
// may end the connection it is given.
func (s *Service) each(f func(*pair)) {
	s.relay.ask(func(l *loop) {
		l.now = l.relay.clock()
		// Backwards, because ending one moves the last into its place.
		for i := len(l.pairs) - 1; i >= 0; i-- {
			if p := l.pairs[i]; p.service == s {
				f(p)
			}
		}
	})
}

// BackendStatus is a backend as it stands.
type BackendStatus struct {
	Backend
	State    balance.State
	Why      string // why it is down
	Active   int    // connections it carries or is being asked to
	Total    uint64 // connections established since it was added
	BytesIn  uint64 // sent by clients, on connections that have ended
	BytesOut uint64 // sent by the backend, on connections that have ended
}

// Backends lists the service's backends in the order in which they were added.
func (s *Service) Backends() []BackendStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []BackendStatus
	for _, st := range s.pool.Statuses() {
		t := s.targets[st.Name]
		b := BackendStatus{
			Backend: t.Backend, State: st.State, Active: st.Active,
			Total: t.total.Load(), BytesIn: t.bytesIn.Load(), BytesOut: t.bytesOut.Load(),
		}
		if why := t.lost.Load(); why != nil {
			b.Why = *why
		}
		list = append(list, b)
	}
	return list
}

// Live returns how many of the service's connections have not ended.
func (s *Service) Live() int { return int(s.live.Load()) }

// Drain stops listening and waits until every connection has ended: by itself,
// by the bounds of the options' Drain, or, when ctx ends first, by a RST to
// both sides. It returns how many it had to reset that way.
func (s *Service) Drain(ctx context.Context) int {
	s.stopListening()
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.each(func(p *pair) {
		if p.stage == stageOpen {
			p.drain()
		}
	})
	defer s.wake() // another Drain may wait beside this one
	for s.live.Load() > 0 {
		select {
		case <-s.changed:
		case <-s.relay.finished:
			return 0
		case <-ctx.Done():
			var n atomic.Int64
			s.each(func(p *pair) {
				p.reset(CauseShutdown, ByRelay, "the service was closed")
				n.Add(1)
			})
			return int(n.Load())
		}
	}
	return 0
}

// stopListening closes the listeners. Clients in their queues that were not
// accepted yet get a RST from the kernel.
func (s *Service) stopListening() {
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if stopped {
		return
	}
	for _, l := range s.relay.loops {
		release := func() {
			for _, ln := range s.listeners {
				l.dropListener(ln)
				s.unref(ln)
			}
		}
		if !l.post(release) {
			for _, ln := range s.listeners {
				s.unref(ln)
			}
		}
	}
}

// unref closes a listener when no loop watches it any more.
func (s *Service) unref(ln *listener) {
	s.mu.Lock()
	ln.refs--
	last := ln.refs == 0
	s.mu.Unlock()
	if last {
		closeListener(ln)
	}
}

// What follows is called by the loops.

func (s *Service) allows(from netip.AddrPort) bool {
	if len(s.options.Allow) == 0 || !from.IsValid() {
		return true
	}
	ip := from.Addr().Unmap().WithZone("")
	for _, n := range s.options.Allow {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

func (s *Service) pick(client netip.Addr, tried []string) (*target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, err := s.pool.Pick(client, tried...)
	if err != nil {
		return nil, err
	}
	return s.targets[name], nil
}

func (s *Service) release(t *target) {
	s.mu.Lock()
	s.pool.Release(t.Name)
	s.mu.Unlock()
}

func (s *Service) isDraining(t *target) bool {
	if t.draining.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func (s *Service) opened(t *target) { t.total.Add(1) }

// evidence reports a failure of a connect, or of a connection, that began at
// dialed on the loops' clock.
func (s *Service) evidence(t *target, kind EvidenceKind, dialed int64) {
	if t != nil && s.options.OnEvidence != nil {
		began := s.relay.epoch.Add(time.Duration(dialed))
		s.options.OnEvidence(Evidence{Service: s.options.Name, Backend: t.Name, Kind: kind, Began: began})
	}
}

// refused reports a client that was turned away before it became a connection.
func (s *Service) refused(from netip.AddrPort, cause Cause, detail string) {
	s.report(refusedEnd(s.relay.lastID.Add(1), s.options.Name, from, cause, detail))
}

// ended reports a connection that is over.
func (s *Service) ended(p *pair, e End) {
	e.Service = s.options.Name
	if t := p.target; t != nil {
		e.Backend = t.Name
		t.bytesIn.Add(e.BytesIn)
		t.bytesOut.Add(e.BytesOut)
		s.release(t)
	}
	s.report(e)
	s.left()
}

// left counts a client that is gone.
func (s *Service) left() {
	if s.live.Add(-1) == 0 {
		s.wake()
	}
}

// wake has Drain look again.
func (s *Service) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Service) report(e End) {
	if s.relay.onEnd != nil {
		s.relay.onEnd(e)
	}
}

func (s *Service) warn(msg string, attrs ...slog.Attr) {
	s.relay.log.LogAttrs(context.Background(), slog.LevelWarn, msg, append(attrs, slog.String("service", s.options.Name))...)
}

// ErrUnknownBackend is what errors about a backend that the service does not
// have match.
var ErrUnknownBackend = balance.ErrUnknown
