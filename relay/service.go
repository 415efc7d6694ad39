//go:build linux

package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/internal/sourceport"
)

// A Service is where clients connect, with its backends and policies. It is
// made by [Relay.Listen] or [Relay.Configure].
type Service struct {
	relay   *Relay
	name    string
	options atomic.Pointer[ServiceOptions]     // checked; what it points to does not change
	origins atomic.Pointer[sourceport.Origins] // of its Groups; nil where it has none
	pairs   []chain                            // its connections on each loop, which is who may touch them

	live     atomic.Int64 // connections that have not ended
	changed  chan struct{}
	accepted atomic.Uint64
	turned   atomic.Uint64 // clients that got nothing
	totals                 // of all connections

	mu        sync.Mutex
	pool      *balance.Pool
	targets   map[string]*target
	gone      map[string]*target // removed, and with connections when it was last looked
	listeners []*listener
	stopped   bool // takes no more clients
	draining  bool // all its connections are under the bounds of Drain
}

// A target is a backend as the service knows it. The Backend in it does not
// change: a changed one is a new target, and old connections keep the old.
type target struct {
	Backend
	lost atomic.Pointer[markedDown] // nil: nobody has marked it down
	*totals
}

// markedDown is what MarkDown was told.
type markedDown struct {
	since time.Time
	why   string
}

// totals are a backend's counts, which go on through its changes.
type totals struct {
	total             atomic.Uint64 // established
	bytesIn, bytesOut atomic.Uint64 // of connections that have ended
	shownIn, shownOut uint64        // guarded by Service.mu; see show
}

// newService makes a service of options that were checked.
func newService(r *Relay, opts ServiceOptions) *Service {
	s := &Service{
		relay: r, name: opts.Name, pairs: make([]chain, len(r.loops)), changed: make(chan struct{}, 1),
		targets: make(map[string]*target), gone: make(map[string]*target),
	}
	for i := range s.pairs {
		s.pairs[i].kind = ofService
	}
	s.options.Store(&opts)
	s.setOrigins(opts.Groups)
	s.pool, _ = balance.New(opts.Balance) // the policy was checked
	for _, b := range opts.Backends {
		_ = s.set(b) // it was checked too
	}
	return s
}

// setOrigins takes groups that were checked.
func (s *Service) setOrigins(groups [][]netip.Addr) {
	var origins *sourceport.Origins
	if len(groups) > 0 {
		all, _ := sourceport.NewOrigins(groups)
		origins = &all
	}
	s.origins.Store(origins)
}

// Options returns the service's options as they are now: with the defaults
// filled in, and the backends that it has.
func (s *Service) Options() ServiceOptions {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := *s.options.Load()
	o.Listen, o.Allow, o.Backends = slices.Clone(o.Listen), slices.Clone(o.Allow), nil
	o.Floating, o.Groups = slices.Clone(o.Floating), cloneGroups(o.Groups)
	for _, st := range s.pool.Statuses() {
		o.Backends = append(o.Backends, s.targets[st.Name].Backend)
	}
	return o
}

// Addrs returns what the service listens on, or did before Drain; a port that
// was given as 0 is the one that the kernel chose.
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
func (s *Service) Name() string { return s.name }

// MarkDown says that a backend is dead: it gets no new connections, those being
// made to it go to another, and OnBackendLost decides about the established.
// since is when the evidence began, normally the start of the last failed
// check: what was heard from the backend after it counts as life, and such a
// connection may finish while it makes progress. Connections to an address that
// the backend had before are left alone. why is for people. Marking a backend
// down again changes nothing. The error is about an unknown name.
func (s *Service) MarkDown(backend string, since time.Time, why string) error {
	changed, err := s.setState(backend, balance.Down, &markedDown{since, why})
	if !changed {
		return err
	}
	s.each(oneStep, func(p *pair) {
		switch {
		case p.target == nil || p.target.Name != backend:
		case s.down(p.target) == nil: // MarkUp came meanwhile, or it is connected to another address
		case p.stage == stageConnecting:
			p.lastErr = backend + ": marked down: " + why
			p.tried = append(p.tried, backend)
			p.abandon()
			p.attempt()
		case s.options.Load().OnBackendLost == LostReset:
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
	s.each(lookStep, func(p *pair) {
		if p.target != nil && p.target.Name == backend && s.down(p.target) == nil {
			p.backendFound()
		}
	})
	return nil
}

// setState reports whether it changed anything. lost is nil for Up.
func (s *Service) setState(backend string, state balance.State, lost *markedDown) (changed bool, err error) {
	s.mu.Lock() // also for lost, which set copies to the backend's next target
	defer s.mu.Unlock()
	if err := s.pool.SetState(backend, state); err != nil {
		return false, s.unknown(backend, err)
	}
	t := s.targets[backend]
	if (t.lost.Load() == nil) == (lost == nil) {
		return false, nil
	}
	t.lost.Store(lost)
	return true, nil
}

// down returns what is known of a backend that is marked down, if t is still
// what the service has under its name, or was at the same address.
func (s *Service) down(t *target) *markedDown {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.targets[t.Name]
	if now == nil || now.Address != t.Address {
		return nil
	}
	return now.lost.Load()
}

func (s *Service) unknown(backend string, err error) error {
	return fmt.Errorf("relay: service %s, backend %s: %w", s.name, backend, err)
}

// SetBackend adds a backend, or changes the one of that name. A new address is
// for new connections. Weight 0 drains it, under the bounds of Drain.
func (s *Service) SetBackend(b Backend) error {
	if err := b.check(); err != nil {
		return fmt.Errorf("relay: service %s: %w", s.name, err)
	}
	s.mu.Lock()
	if err := s.set(b); err != nil {
		s.mu.Unlock()
		return s.unknown(b.Name, err)
	}
	s.mu.Unlock()
	s.bound(b.Name)
	return nil
}

// set adds or changes a backend. The caller holds mu, and has bound look at its
// connections afterwards. An error is the pool's, and nothing has changed.
func (s *Service) set(b Backend) error {
	s.forgetGone() // before the pool takes its counts up again
	if err := s.pool.Set(b.entry()); err != nil {
		return err
	}
	old := s.targets[b.Name]
	if old != nil && old.Backend == b {
		return nil
	}
	next := &target{Backend: b, totals: new(totals)}
	if old != nil {
		next.lost.Store(old.lost.Load())
		next.totals = old.totals
	} else if old = s.gone[b.Name]; old != nil {
		next.totals = old.totals
		delete(s.gone, b.Name)
	}
	s.targets[b.Name] = next
	return nil
}

// RemoveBackend takes a backend out of the service. Its connections stay, under
// the bounds of Drain.
func (s *Service) RemoveBackend(backend string) error {
	s.mu.Lock()
	if err := s.remove(backend); err != nil {
		s.mu.Unlock()
		return s.unknown(backend, err)
	}
	s.mu.Unlock()
	s.bound(backend)
	return nil
}

// remove is set's counterpart.
func (s *Service) remove(backend string) error {
	if err := s.pool.Remove(backend); err != nil {
		return err
	}
	t := s.targets[backend]
	delete(s.targets, backend)
	s.gone[backend] = t
	s.forgetGone()
	return nil
}

// forgetGone forgets removed backends whose connections are over.
func (s *Service) forgetGone() (left []*target) {
	if len(s.gone) == 0 {
		return nil
	}
	had := s.gone
	s.gone = make(map[string]*target, len(had))
	for _, st := range s.pool.Removed() {
		if t := had[st.Name]; t != nil {
			s.gone[st.Name] = t
			left = append(left, t)
		}
	}
	return left
}

// bound puts the connections of a backend under the bounds of Drain, or lifts
// them.
func (s *Service) bound(backend string) {
	s.each(lookStep, func(p *pair) {
		if p.stage == stageOpen && p.target.Name == backend {
			p.bound()
		}
	})
}

// ResetBackend ends every established connection of a backend at once: both ends
// get a RST. The backend may have been removed and still have connections. It
// returns how many there were.
func (s *Service) ResetBackend(backend string) (int, error) {
	s.mu.Lock()
	s.forgetGone()
	known := s.targets[backend] != nil || s.gone[backend] != nil
	s.mu.Unlock()
	if !known {
		return 0, s.unknown(backend, balance.ErrUnknown)
	}
	var n atomic.Int64
	s.each(oneStep, func(p *pair) {
		if p.stage == stageOpen && p.target.Name == backend {
			p.reset(CauseOperator, ByRelay, "backend reset by command")
			n.Add(1)
		}
	})
	return int(n.Load()), nil
}

// Live returns how many of the service's connections have not ended.
func (s *Service) Live() int { return int(s.live.Load()) }

// Drain accepts who waits in the kernel's queues, stops listening and waits
// until every connection has ended: by itself, by the bounds of the options'
// Drain, or, when ctx ends first, by a RST to both sides. It returns how many it
// had to reset that way.
func (s *Service) Drain(ctx context.Context) int {
	s.relay.changing.Lock()
	s.stopListening()
	listeners := s.listeners
	s.relay.changing.Unlock()
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	for _, ln := range listeners {
		<-ln.closed // who was in its queue counts as live now
	}
	s.each(lookStep, func(p *pair) {
		if p.stage == stageOpen {
			p.bound()
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
			s.each(oneStep, func(p *pair) {
				p.reset(CauseShutdown, ByRelay, "the service was closed")
				n.Add(1)
			})
			return int(n.Load())
		}
	}
	return 0
}

// stopListening has the loops close the listeners, once they have accepted who
// waits there. The caller holds Relay.changing.
func (s *Service) stopListening() {
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if stopped {
		return
	}
	r := s.relay
	r.mu.Lock()
	defer r.mu.Unlock() // Run must not begin while listeners are dropped
	r.services = slices.DeleteFunc(slices.Clone(r.services), func(x *Service) bool { return x == s })
	for _, ln := range s.listeners {
		r.drop(ln)
	}
}

// What follows is called by the loops.

func (s *Service) allows(from netip.AddrPort) bool {
	allow := s.options.Load().Allow
	if len(allow) == 0 || !from.IsValid() {
		return true
	}
	ip := from.Addr().Unmap().WithZone("")
	for _, n := range allow {
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

// whyNobody says why no backend can take a client: of those that are down, the
// reason of the one that was marked down last.
func (s *Service) whyNobody() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var last *target
	var lost *markedDown
	drained := 0
	for _, t := range s.targets {
		down := t.lost.Load()
		switch {
		case t.Weight == 0:
			drained++
		case down != nil && (lost == nil || down.since.After(lost.since) || down.since.Equal(lost.since) && t.Name < last.Name):
			last, lost = t, down
		}
	}
	switch {
	case len(s.targets) == 0:
		return "the service has no backend"
	case drained == len(s.targets):
		return "every backend is drained"
	case lost == nil:
		return "no backend is up" // one has come up since
	}
	text := "every backend is down"
	if drained > 0 {
		text = "every backend is down or drained"
	}
	if lost.why != "" {
		text += "; the last, " + last.Name + ": " + lost.why
	}
	return text
}

func (s *Service) release(t *target) {
	s.mu.Lock()
	s.pool.Release(t.Name)
	s.mu.Unlock()
}

// isDraining reports whether connections of t are under the bounds of Drain.
func (s *Service) isDraining(t *target) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.targets[t.Name]
	return s.draining || now == nil || now.Weight == 0
}

func (s *Service) opened(t *target) {
	t.total.Add(1)
	s.total.Add(1)
}

// evidence reports a failure of a connect, or of a connection, that began at
// dialed on the loops' clock.
func (s *Service) evidence(t *target, kind EvidenceKind, dialed int64) {
	if found := s.options.Load().OnEvidence; t != nil && found != nil {
		began := s.relay.epoch.Add(time.Duration(dialed))
		found(Evidence{Service: s.name, Backend: t.Name, Kind: kind, Began: began})
	}
}

// refused reports a client that was turned away before it became a connection.
func (s *Service) refused(from netip.AddrPort, cause Cause, detail string) {
	if gotNothing(cause) {
		s.turned.Add(1)
	}
	s.report(refusedEnd(s.relay.lastID.Add(1), s.name, from, cause, detail))
}

// ended reports a connection that is over; open says that it was established.
func (s *Service) ended(p *pair, e End, open bool) {
	e.Service = s.name
	s.bytesIn.Add(e.BytesIn)
	s.bytesOut.Add(e.BytesOut)
	if !open && gotNothing(e.Cause) {
		s.turned.Add(1)
	}
	if t := p.target; t != nil {
		e.Backend = t.Name
		t.bytesIn.Add(e.BytesIn)
		t.bytesOut.Add(e.BytesOut)
		s.release(t)
	}
	s.report(e)
	s.left()
}

// gotNothing says of the cause of an end before the connection was established
// that the client was refused, for no fault of its own.
func gotNothing(c Cause) bool {
	return c == CauseNoBackend || c == CauseUnreachable || c == CauseResources
}

// left counts a client that is gone.
func (s *Service) left() {
	s.relay.gate.leave()
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
	s.relay.log.LogAttrs(context.Background(), slog.LevelWarn, msg, append(attrs, slog.String("service", s.name))...)
}

// ErrUnknownBackend is what errors about a backend that the service does not
// have match.
var ErrUnknownBackend = balance.ErrUnknown
