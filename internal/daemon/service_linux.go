package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/journal"
	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/relay"
)

// ServiceOptions is a service with how its backends are checked. It is plain
// data.
type ServiceOptions struct {
	Relay relay.ServiceOptions // OnEvidence is the daemon's own; without a Name it is called after its first Listen
	Check health.Check         // of every backend; the zero value connects by TCP

	// Hosts says which backends' addresses were looked up, by the backend's name.
	Hosts map[string]Host
}

// Host is what the lookup of a host name found.
type Host struct {
	Name      string          // HOST:PORT, as the file has it
	Addresses []relay.Address // that it stands for; the first is the backend's
}

// backends are the backends as the file says them.
func (o ServiceOptions) backends() []fileBackend {
	list := make([]fileBackend, len(o.Relay.Backends))
	for i, b := range o.Relay.Backends {
		list[i] = fileBackend{Backend: b, host: o.Hosts[b.Name].Name}
	}
	return list
}

// A service is a service of the relay, with a checker for each of its backends.
type service struct {
	daemon *Daemon
	name   string
	relay  *relay.Service

	// byName is for evidence, which comes on the event loops; the map does not
	// change.
	byName atomic.Pointer[map[string]*backend]

	// Guarded by Daemon.changing: by any lock to read, by the whole one to write.
	// Daemon.mu is needed besides, to write, and suffices to read.
	file     ServiceOptions // what the file says
	hands    hands          // what commands have set
	backends []*backend     // that can be chosen, in the order of the file
	leaving  bool           // removed: it listens no more, its connections are left

	// Guarded by Daemon.mu.
	down  bool      // no backend can take a client
	why   string    // it is down
	since time.Time // of down
}

// A backend is one backend of a service, as it runs. It is replaced when its
// address or its check changes.
type backend struct {
	service *service
	check   health.Check
	checker *health.Checker

	// Guarded as service.backends.
	spec    relay.Backend // in force
	current bool          // false once another, or none, is in its place

	// Guarded by Daemon.mu.
	state  health.State
	since  time.Time // of state
	reason string    // why it is down
}

// newBackend makes a backend whose checker does not run yet. was is the one in
// whose place it comes; nil where there is none.
func (s *service) newBackend(spec relay.Backend, check health.Check, was *backend) (*backend, error) {
	b := &backend{service: s, check: check, spec: spec}
	if was != nil && check.Kind != health.None {
		b.state, b.since, b.reason = was.state, was.since, was.reason
	}
	o := health.Options{
		Name: spec.Name, Address: spec.Address.String(), Check: check, Limiter: s.daemon.limiter,
		Logger: s.daemon.log.With("service", s.name), OnChange: b.changed,
	}
	if was != nil && was.spec.Address == spec.Address {
		o.State = b.state // at another address, the first result decides
	}
	var err error
	if b.checker, err = health.New(o); err != nil {
		return nil, fmt.Errorf("service %s: backend %s: %w", s.name, spec.Name, err)
	}
	return b, nil
}

// run checks until ctx is cancelled or the backend is replaced.
func (b *backend) run(ctx context.Context) {
	if err := b.checker.Run(ctx); err != nil {
		b.service.daemon.log.Error("a check ended", "service", b.service.name, "err", err)
	}
}

// noticed passes on what the relay noticed of a backend. It runs on an event
// loop: Report does not block, and answers from the checker's goroutine.
func (s *service) noticed(e relay.Evidence) {
	byName := s.byName.Load()
	if byName == nil {
		return
	}
	b := (*byName)[e.Backend]
	if b == nil {
		return
	}
	kind := health.Refused
	switch e.Kind {
	case relay.EvidenceRefused:
	case relay.EvidenceTimeout:
		kind = health.ConnectTimeout
	case relay.EvidenceReset:
		kind = health.Reset
	}
	b.checker.Report(health.Evidence{Kind: kind, Started: e.Began})
}

// changed takes what a check found to the relay. It runs on the checker's
// goroutine.
func (b *backend) changed(c health.Change) {
	s, d := b.service, b.service.daemon
	d.changing.RLock()
	defer d.changing.RUnlock()
	if !b.current {
		return // another has taken its place meanwhile
	}
	reason := ""
	var err error
	switch c.State {
	case health.Down:
		reason = c.Cause.Error()
		err = s.relay.MarkDown(c.Name, c.LastFailedStart, reason)
	case health.Up:
		err = s.relay.MarkUp(c.Name)
	case health.Unknown: // never changed to
	}
	if err != nil {
		d.log.Error("a check's result did not reach the relay", "service", s.name, "backend", c.Name, "err", err)
		return
	}
	d.mu.Lock()
	// For whoever looks, a backend that stayed down through a change of its check
	// has been down all the time.
	if b.state != c.State {
		b.state, b.since = c.State, c.At
	}
	b.reason = reason
	d.journal.Add(admin.Event{
		Event: admin.EventBackend, Time: c.At, Service: s.name, Backend: c.Name,
		Change: &admin.Change{Address: b.spec.Address.String(), State: c.State.String(), Reason: reason},
	})
	verdict := s.judge(c.At)
	verdict.record(d.journal)
	d.mu.Unlock()

	attrs := []slog.Attr{
		slog.String("service", s.name), slog.String("backend", c.Name), slog.String("address", b.spec.Address.String()),
	}
	if c.State == health.Down {
		d.log.LogAttrs(context.Background(), slog.LevelWarn, "backend is down", append(attrs, slog.String("reason", reason))...)
	} else {
		d.log.LogAttrs(context.Background(), slog.LevelInfo, "backend is up", attrs...)
	}
	verdict.log(d.log)
}

// A verdict is what became of a service as a whole; the zero value is nothing.
type verdict struct {
	service string
	at      time.Time
	down    bool
	why     string // it is down
}

// judge looks whether any backend can take a client, and says when that has
// changed. Daemon.mu is held.
func (s *service) judge(now time.Time) verdict {
	drained := 0
	well := false
	for _, b := range s.backends {
		switch {
		case b.spec.Weight == 0:
			drained++
		case b.state != health.Down:
			well = true
		}
	}
	if s.down == !well {
		return verdict{}
	}
	s.down, s.since = !well, now
	v := verdict{service: s.name, at: now, down: s.down}
	switch n := len(s.backends); {
	case well:
	case n == 0:
		v.why = "it has no backend"
	case drained == n:
		v.why = "every backend is drained"
	case drained > 0:
		v.why = "every backend is down or drained"
	default:
		v.why = "every backend is down"
	}
	s.why = v.why
	return v
}

// record adds it to the events.
func (v verdict) record(j *journal.Journal) {
	if v.service == "" {
		return
	}
	change := &admin.Change{State: "up"}
	if v.down {
		change = &admin.Change{State: "down", Reason: v.why}
	}
	j.Add(admin.Event{Event: admin.EventService, Time: v.at, Service: v.service, Change: change})
}

func (v verdict) log(log *slog.Logger) {
	switch {
	case v.service == "":
	case v.down:
		log.Error(v.why+": new clients are refused until one is back", "service", v.service)
	default:
		log.Info("clients are served again", "service", v.service)
	}
}

// announce says what the service does.
func (s *service) announce() {
	o := s.file.Relay
	s.daemon.log.Info("listening", "service", s.name, "addresses", joined(s.relay.Addrs(), " "), "engine", engine,
		"balance", o.Balance.String(), "on_backend_lost", o.OnBackendLost.String())
	for _, b := range s.backends {
		attrs := []any{
			"service", s.name, "backend", b.spec.Name, "address", b.spec.Address.String(),
			"weight", b.spec.Weight, "check", b.check.Kind.String(),
		}
		if b.spec.Backup {
			attrs = append(attrs, "backup", true)
		}
		if b.spec.MaxConnections > 0 {
			attrs = append(attrs, "max_connections", b.spec.MaxConnections)
		}
		if h, ok := s.file.Hosts[b.spec.Name]; ok {
			attrs = append(attrs, "host", h.Name)
			if len(h.Addresses) > 1 {
				attrs = append(attrs, "left_out", joined(h.Addresses[1:], " "))
			}
		}
		s.daemon.log.Info("backend", attrs...)
	}
}

// engine is what carries the connections.
const engine = "relay"

// explainListen looks for the reason why a listener could not be made.
func explainListen(err error) error {
	l, ok := errors.AsType[*relay.ListenError](err)
	switch {
	case !ok:
		return err
	case l.Owner != "":
		return fmt.Errorf("cannot listen on %s: service %s listens on %s, and the kernel does not let one follow the other at once: take that out of the file and reload, then add this and reload again",
			l.Address, l.Owner, l.InTheWay)
	case l.Address.IsUnix():
		return probe.ExplainListenUnix(l.Address.Path(), l.Err)
	default:
		return probe.ExplainListen(l.Address.AddrPort(), l.Err)
	}
}
