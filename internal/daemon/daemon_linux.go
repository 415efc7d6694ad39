package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/relay"
)

// Options is what a daemon runs.
type Options struct {
	Services []ServiceOptions
	Loops    int          // of the relay; 0: one for each processor
	Logger   *slog.Logger // nil discards
	Events   io.Writer    // JSON lines, see Event; nil: none
}

// A Daemon is a relay with its services and their checks.
type Daemon struct {
	relay    *relay.Relay
	services []*Service
	events   *eventWriter
	counter  counter
	log      *slog.Logger
	began    time.Time
}

// New listens on every address, and runs nothing: clients wait in the kernel's
// queues until Serve.
func New(o Options) (_ *Daemon, err error) {
	d := &Daemon{log: o.Logger, began: time.Now()}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if o.Events != nil {
		d.events = newEventWriter(o.Events)
	}
	d.relay, err = relay.New(relay.Options{Loops: o.Loops, Logger: d.log, OnEnd: d.ended})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	for _, so := range o.Services {
		s, err := newService(d.relay, so, d.events, d.log)
		if err != nil {
			return nil, err
		}
		d.services = append(d.services, s)
	}
	return d, nil
}

// Close frees what New took, and resets every connection that is left. Calling
// it again does nothing.
func (d *Daemon) Close() error {
	var errs []error
	for _, s := range d.services {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, d.relay.Close())...)
}

// Totals are the sums over all connections that have ended.
func (d *Daemon) Totals() Totals { return d.counter.sum() }

// ended runs on the event loops.
func (d *Daemon) ended(e relay.End) {
	d.counter.add(&e)
	if d.events != nil {
		d.events.send(endEvent(&e))
	}
	if d.log.Enabled(context.Background(), slog.LevelDebug) {
		d.log.LogAttrs(context.Background(), slog.LevelDebug, "connection ended", slog.Any("connection", e))
	}
}

// Serve carries connections until ctx is cancelled, which tells every
// connection, or a signal comes, which first lets them end by themselves within
// the bounds of the services' Drain; a service without such bounds, and a second
// signal, tell at once. It can be called once.
func (d *Daemon) Serve(ctx context.Context, signals <-chan os.Signal) error {
	d.announce()

	// The event writer is the last to end: the others write to it.
	eventCtx, endEvents := context.WithCancel(context.WithoutCancel(ctx))
	defer endEvents()
	var writers sync.WaitGroup
	var eventErr error
	if d.events != nil {
		writers.Go(func() {
			if eventErr = d.events.run(eventCtx); eventErr != nil {
				d.log.Error("events are no longer written; connections carry on", "err", eventErr)
				d.events.discard()
			}
		})
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var relayErr error
	for _, s := range d.services {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Go(func() { d.reportRefusals(ctx) })
	wg.Go(func() {
		defer stop() // a broken relay ends the rest
		relayErr = d.relay.Run(ctx)
	})

	select {
	case <-ctx.Done():
	case sig := <-signals:
		d.drain(ctx, signals, sig)
		stop()
	}
	wg.Wait()
	endEvents()
	writers.Wait()
	d.log.Info("stopped", "ran", time.Since(d.began).Round(time.Millisecond).String(), "total", d.Totals())
	return errors.Join(relayErr, eventErr)
}

// drain lets connections end by themselves, as far as the services say.
func (d *Daemon) drain(ctx context.Context, signals <-chan os.Signal, sig os.Signal) {
	ctx, now := context.WithCancel(ctx)
	defer now()
	var wg sync.WaitGroup
	for _, s := range d.services {
		attrs := []any{"signal", sig.String(), "service", s.Name(), "connections", s.relay.Live()}
		bounds := s.options.Relay.Drain
		if bounds == (relay.Drain{}) {
			d.log.Info("stopping: every connection is told at once", attrs...)
			wg.Go(func() { s.relay.Drain(ended()) })
			continue
		}
		d.log.Info("stopping: no new clients; connections may end by themselves, a second signal tells them at once",
			append(attrs, "drain_timeout", bounds.Timeout.String(), "drain_idle", bounds.Idle.String())...)
		wg.Go(func() { s.relay.Drain(ctx) })
	}
	drained := make(chan struct{})
	go func() {
		wg.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case sig := <-signals:
		d.log.Info("second signal: every connection is told now", "signal", sig.String())
		now()
		<-drained
	case <-ctx.Done():
		<-drained
	}
}

// ended is a context that has ended already.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// announce says what runs, and how much of it fits.
func (d *Daemon) announce() {
	for _, s := range d.services {
		s.announce()
	}
	for _, r := range probe.Relay() {
		d.log.Debug("probed", "name", r.Name, "answer", r.Answer.String(), "evidence", r.Evidence, "needed_for", r.For)
	}
	soft, hard, err := sys.FileLimit()
	open, openErr := sys.OpenFiles()
	if err := errors.Join(err, openErr); err != nil {
		d.log.Warn("the limit of descriptors could not be read", "err", err)
		d.log.Info("ready")
		return
	}
	const forConnection = 2
	fits := (int64(soft) - int64(open)) / forConnection
	attrs := []any{"descriptors", soft, "hard_limit", hard, "connections_fit", max(fits, 0)}
	if fits < 512 {
		d.log.Warn("few connections fit: raise the hard limit of descriptors (LimitNOFILE= in a unit, ulimit -Hn in a shell)", attrs...)
	}
	d.log.Info("ready", attrs...)
}

// refusalInterval is how often clients that got nothing are reported; at a
// flood, one line for each would be the next problem.
const refusalInterval = 5 * time.Second

// reportRefusals logs how many clients were turned away, while there are any.
func (d *Daemon) reportRefusals(ctx context.Context) {
	ticker := time.NewTicker(refusalInterval)
	defer ticker.Stop()
	before := make(map[relay.Cause]uint64)
	report := func() {
		now := d.counter.sum().ByCause
		var parts []string
		for _, c := range refusals {
			if n := now[c] - before[c]; n > 0 {
				parts = append(parts, fmt.Sprintf("%s=%d", c, n))
			}
		}
		before = now
		if len(parts) > 0 {
			d.log.Warn("clients were refused", "within", refusalInterval.String(), "causes", strings.Join(parts, " "))
		}
	}
	for {
		select {
		case <-ctx.Done():
			report()
			return
		case <-ticker.C:
			report()
		}
	}
}
