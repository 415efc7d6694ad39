package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/relay"
)

// ServiceOptions is a service with how its backends are checked.
type ServiceOptions struct {
	Relay relay.ServiceOptions // OnEvidence is the Service's own: it must be nil
	Check health.Check         // of every backend; the zero value connects by TCP
}

// A Service is a service of the relay, with a checker for each of its backends.
type Service struct {
	relay    *relay.Service
	options  ServiceOptions
	checkers map[string]*health.Checker
	group    *health.Group
	events   *eventWriter
	log      *slog.Logger
}

// newService listens for a service. Nothing runs before Run.
func newService(r *relay.Relay, o ServiceOptions, events *eventWriter, log *slog.Logger) (_ *Service, err error) {
	s := &Service{
		options:  o,
		checkers: make(map[string]*health.Checker),
		events:   events,
		log:      log,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	var names []string
	addresses := make(map[string]relay.Address)
	for _, b := range o.Relay.Backends {
		addresses[b.Name] = b.Address
		names = append(names, b.Name)
		c, err := health.New(health.Options{
			Name: b.Name, Address: b.Address.String(), Check: o.Check, Logger: log,
			OnChange: func(c health.Change) { s.changed(b, c) },
		})
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", b.Name, err)
		}
		s.checkers[b.Name] = c
	}
	s.group = health.NewGroup(s.groupChanged, names...)
	for _, a := range o.Relay.Listen {
		if a.IsUnix() {
			if err := probe.RemoveStaleSocket(a.Path()); err != nil {
				return nil, err
			}
		}
	}
	o.Relay.OnEvidence = s.noticed
	if s.relay, err = r.Listen(o.Relay); err != nil {
		return nil, explainListen(err)
	}
	return s, nil
}

// explainListen looks for the reason why a listener could not be made.
func explainListen(err error) error {
	l, ok := errors.AsType[*relay.ListenError](err)
	switch {
	case !ok:
		return err
	case l.Address.IsUnix():
		return probe.ExplainListenUnix(l.Address.Path(), l.Err)
	default:
		return probe.ExplainListen(l.Address.AddrPort(), l.Err)
	}
}

// run checks the backends until ctx is cancelled.
func (s *Service) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, c := range s.checkers {
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				s.log.Error("a check ended", "service", s.Name(), "err", err)
			}
		})
	}
	wg.Wait()
}

// Name returns the service's name.
func (s *Service) Name() string { return s.relay.Name() }

// Close ends the checks. The relay's service ends with its relay.
func (s *Service) Close() error {
	var errs []error
	for _, c := range s.checkers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// noticed passes on what the relay noticed of a backend. It runs on an event
// loop; Report does not block, and answers from the checker's goroutine.
func (s *Service) noticed(e relay.Evidence) {
	c := s.checkers[e.Backend]
	if c == nil {
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
	c.Report(health.Evidence{Kind: kind, Started: e.Began})
}

// changed takes what a check found to the relay.
func (s *Service) changed(b relay.Backend, c health.Change) {
	event := Event{
		Event: "backend", Time: c.At, Service: s.relay.Name(), Backend: b.Name,
		BackendChange: &BackendChange{Address: b.Address, State: c.State.String()},
	}
	attrs := []slog.Attr{
		slog.String("service", s.relay.Name()), slog.String("backend", b.Name), slog.String("address", b.Address.String()),
	}
	var err error
	switch c.State {
	case health.Down:
		event.Reason = c.Cause.Error()
		err = s.relay.MarkDown(b.Name, c.LastFailedStart, event.Reason)
		s.log.LogAttrs(context.Background(), slog.LevelWarn, "backend is down", append(attrs, slog.String("reason", event.Reason))...)
	case health.Up:
		err = s.relay.MarkUp(b.Name)
		s.log.LogAttrs(context.Background(), slog.LevelInfo, "backend is up", attrs...)
	case health.Unknown:
		return // is before the first change
	}
	if err != nil {
		s.log.Debug("a backend that was checked is gone", "err", err)
		return
	}
	s.events.send(event)
	s.group.Set(b.Name, c.State)
}

func (s *Service) groupChanged(g health.GroupChange) {
	attrs := []any{"service", s.relay.Name(), "backends", g.Backends}
	if g.AllDown {
		s.log.Error("every backend is down: new clients are refused until one is back", attrs...)
		return
	}
	s.log.Info("clients are served again", append(attrs, "backend", g.Backend)...)
}

// announce says what the service does.
func (s *Service) announce() {
	var listen []string
	for _, a := range s.relay.Addrs() {
		listen = append(listen, a.String())
	}
	o := s.options.Relay
	s.log.Info("listening", "service", s.Name(), "addresses", strings.Join(listen, " "), "engine", engine,
		"balance", o.Balance.String(), "on_backend_lost", o.OnBackendLost.String())
	for _, b := range o.Backends {
		attrs := []any{"service", s.Name(), "backend", b.Name, "address", b.Address.String(), "weight", b.Weight, "check", s.options.Check.Kind.String()}
		if b.Backup {
			attrs = append(attrs, "backup", true)
		}
		if b.MaxConnections > 0 {
			attrs = append(attrs, "max_connections", b.MaxConnections)
		}
		s.log.Info("backend", attrs...)
	}
}
