package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/journal"
	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/relay"
)

// Options is what a daemon runs.
type Options struct {
	Services []ServiceOptions // unique names; may be empty
	Loops    int              // of the relay; 0: one for each processor
	Half     int              // of relay.DefaultPorts, for backend legs on addresses that move: 1 or 2, as the node's number in its pair; 0: all

	// Logger is also used on event loops: what it writes to must never block,
	// such as a journal.Writer. nil discards.
	Logger *slog.Logger

	// Journal takes the events; nil: the daemon makes one of its own.
	Journal *journal.Journal

	// Events gets every event as a JSON line; nil: nobody does. A writer that
	// blocks costs events, which the stream itself says, and no connection, but
	// Serve returns only when it has taken the last.
	Events io.Writer

	// Ended is called by Serve when no client is served any more, while events are
	// still written; nil: nobody wants to know.
	Ended func()

	// Lost says how many events and log lines could not be written so far, for
	// Problems; nil: none.
	Lost func() (events, logLines uint64)
}

// A Daemon is a relay with its services and their checks. Its methods may be
// called by any goroutine, before, during and after Serve.
type Daemon struct {
	relay   *relay.Relay
	journal *journal.Journal
	events  io.Writer
	lost    func() (events, logLines uint64)
	atEnd   func()
	limiter *health.Limiter
	counter counter
	watcher *watcher
	log     *slog.Logger
	began   time.Time
	ports   relay.PortRange

	// changing is held whole by who changes what runs (Apply, a command, the
	// stop), and shared by who acts on what runs, such as a check with a result.
	// It comes before mu, and never on an event loop.
	changing sync.RWMutex
	serving  context.Context // of Serve; nil before
	tasks    sync.WaitGroup  // of Serve; grows only while it is not stopping

	// mu guards what listings show, for moments.
	mu       sync.Mutex
	services []*service // in the order of the file
	leaving  []*service // removed ones whose connections are left
	stopping bool       // written under changing, too
}

// New listens on every address, and runs nothing: clients wait in the kernel's
// queues until Serve.
func New(o Options) (_ *Daemon, err error) {
	d := &Daemon{journal: o.Journal, events: o.Events, lost: o.Lost, atEnd: o.Ended, log: o.Logger, began: time.Now()}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.journal == nil {
		d.journal = journal.New(journal.Options{})
	}
	if d.lost == nil {
		d.lost = func() (events, logLines uint64) { return 0, 0 }
	}
	d.watcher = newWatcher(watched{
		root:      os.DirFS("/"),
		refusals:  func() relay.Refusals { return d.relay.Refusals() },
		count:     func() int { return d.relay.Count() },
		refuse:    func(why string) { d.relay.Refuse(why) },
		listeners: d.listeners,
		lost:      d.lost,
		unbound:   func() uint64 { return d.relay.Unbound().Ports },
	}, d.journal, d.log)
	d.watcher.measure()
	if d.limiter, err = health.NewLimiter(d.watcher.checks); err != nil {
		return nil, err
	}
	d.ports = relay.DefaultPorts
	if o.Half != 0 {
		d.ports = d.ports.Half(o.Half == 1)
	}
	d.relay, err = relay.New(relay.Options{Loops: o.Loops, Logger: d.log, OnEnd: d.ended, Ports: d.ports})
	if err != nil {
		return nil, err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	if _, err := d.configure(o.Services); err != nil {
		return nil, errors.Join(err, d.relay.Close())
	}
	return d, nil
}

// Close frees what New took, and resets every connection that is left. It must
// not be called while Serve runs. Calling it again does nothing.
func (d *Daemon) Close() error {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.setStopping()
	for _, s := range d.services {
		for _, b := range s.backends {
			b.end()
		}
	}
	return d.relay.Close()
}

// setStopping refuses further changes. The caller holds changing.
func (d *Daemon) setStopping() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping = true
}

// ended runs on the event loops: nothing in it waits for anybody.
func (d *Daemon) ended(e relay.End) {
	d.counter.add(&e)
	d.journal.AddEnd(e)
	if d.log.Enabled(context.Background(), slog.LevelDebug) {
		d.log.LogAttrs(context.Background(), slog.LevelDebug, "connection ended", slog.Any("connection", e))
	}
}

// Serve carries connections until ctx is cancelled, which tells every
// connection, or a signal comes, which first lets them end by themselves within
// the bounds of the services' Drain; a service without such bounds, and a second
// signal, tell at once. Its events of [admin.EventNode] say when it begins and
// when it begins to stop. It can be called once.
func (d *Daemon) Serve(ctx context.Context, signals <-chan os.Signal) error {
	d.announce()
	d.nodeEvent("started", "")

	// The events are the last to end: the others add to them.
	eventCtx, endEvents := context.WithCancel(context.WithoutCancel(ctx))
	defer endEvents()
	var writer sync.WaitGroup
	var eventErr error
	if d.events != nil {
		follower, err := d.journal.Follow(admin.Filter{}, 0)
		if err != nil {
			return fmt.Errorf("events: %w", err)
		}
		defer follower.Close()
		writer.Go(func() {
			if eventErr = journal.Lines(eventCtx, follower, d.events); eventErr != nil {
				d.log.Error("events are no longer written; connections carry on", "err", eventErr)
			}
		})
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d.begin(ctx)
	d.tasks.Go(func() { d.reportRefusals(ctx) })
	d.tasks.Go(func() { d.watcher.run(ctx) })
	var relayErr error
	d.tasks.Go(func() {
		defer stop() // a broken relay ends the rest
		relayErr = d.relay.Run(ctx)
	})

	select {
	case <-ctx.Done():
		d.beginStop("told to")
	case sig := <-signals:
		d.beginStop("signal: " + sig.String())
		d.drain(ctx, signals, sig)
		stop()
	}
	d.tasks.Wait()
	if d.atEnd != nil {
		d.atEnd()
	}
	endEvents()
	writer.Wait()
	d.log.Info("stopped", "ran", time.Since(d.began).Round(time.Millisecond).String(), "total", totals(d.Totals()))
	return errors.Join(relayErr, eventErr)
}

// begin starts the checks.
func (d *Daemon) begin(ctx context.Context) {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.serving = ctx
	for _, s := range d.services {
		for _, b := range s.backends {
			d.start(b)
		}
	}
}

// start starts a backend's checks, or leaves that to Serve. The caller holds
// changing.
func (d *Daemon) start(b *backend) {
	if ctx := d.serving; ctx != nil {
		d.tasks.Go(func() { b.run(ctx) })
	}
}

// nodeEvent tells of the node as a whole.
func (d *Daemon) nodeEvent(state, reason string) {
	d.journal.Add(admin.Event{Event: admin.EventNode, Change: &admin.Change{State: state, Reason: reason}})
}

// announce says what runs, and how much of it fits.
func (d *Daemon) announce() {
	d.changing.RLock()
	for _, s := range d.services {
		s.announce()
	}
	d.changing.RUnlock()
	for _, r := range probe.Relay() {
		d.log.Debug("probed", "name", r.Name, "answer", r.Answer.String(), "evidence", r.Evidence, "needed_for", r.For)
	}
	d.watcher.announce()
}

// Ping waits until every event loop and every check has answered: for a
// watchdog. The error names who did not before ctx ended.
func (d *Daemon) Ping(ctx context.Context) error {
	if err := d.relay.Ping(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	var checkers []*health.Checker
	for _, s := range d.services {
		for _, b := range s.backends {
			checkers = append(checkers, b.checker)
		}
	}
	d.mu.Unlock()
	for _, c := range checkers {
		if err := c.Ping(ctx); err != nil {
			return err
		}
	}
	return nil
}
