package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/api"
	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/daemon"
	"github.com/holdfast-net/holdfast/internal/journal"
	"github.com/holdfast-net/holdfast/internal/metrics"
	"github.com/holdfast-net/holdfast/internal/systemd"
)

// A node is everything that runs.
type node struct {
	o       Options
	log     *slog.Logger
	logs    *logSwitch
	lines   *journal.Writer // what log writes to
	events  *journal.Writer // nil: none
	journal *journal.Journal
	daemon  *daemon.Daemon
	server  *api.Server
	socket  *api.Listener
	manager *systemd.Notifier // nil: nobody asks

	addresses *addresses
	pair      *partner // nil: a single node

	began time.Time

	shown http.Handler // the metrics

	stopping atomic.Bool
	stopped  chan struct{} // closed with it

	// reloading is held by the one who takes the file; it comes before mu.
	reloading sync.Mutex
	metrics   *metricsListener // over TCP; nil: none
	serving   context.Context  // of Run, for listeners that a reload adds
	tasks     sync.WaitGroup   // of Run

	// mu guards what status shows, for moments.
	mu     sync.Mutex
	config *config.Config
	file   admin.ConfigFile
	since  time.Time // of the last refusal
	disk   fileOnDisk
}

// Run runs a node until a signal stops it, or ctx ends, which tells every
// connection at once. An error at the start says everything that is wrong, a
// line each, and nothing has run then.
//
// SIGTERM and SIGINT stop it as the services' drain says, a second one at once.
// SIGHUP is a reload. SIGUSR2 changes nothing. The process goes on catching these
// signals when Run has returned.
func Run(ctx context.Context, o Options) (err error) {
	n := &node{o: o, began: time.Now(), stopped: make(chan struct{})}
	n.shown = metrics.Handler(n)
	n.journal = journal.New(journal.Options{})
	// Before anything else is there, so that whoever sees that may signal.
	signals := catchSignals()

	n.lines = journal.NewWriter(o.Err, journal.WriterOptions{Name: "the log"})
	n.log, n.logs = newLogger(n.lines)
	n.addresses = newAddresses(n)
	endLines := background(n.lines.Run)
	defer func() { _ = endLines() }() // the last to end: everybody logs. Where the log fails, there is nobody to tell

	runtime, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runtime.close()) }()
	defer func() { err = errors.Join(err, n.close()) }()
	if o.DropCapabilities {
		daemon.DropCapabilities(n.log)
	}
	return n.run(ctx, signals)
}

// take takes what the node needs, or says what it lacks. After an error there is
// nothing to close.
func (n *node) take(ctx context.Context) (_ *runtimeDir, err error) {
	c, err := config.Load(n.o.File)
	if err != nil {
		return nil, err
	}
	if err := n.logs.set(c.Log); err != nil {
		return nil, err
	}
	if n.manager, err = systemd.New(); err != nil {
		n.log.Warn("the service manager is not told anything", "err", err)
	}
	runtime, err := takeRuntime(c.Directories.Runtime)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close(), runtime.close())
		}
	}()
	n.taken(c)
	// Each of the rest says for itself what it lacks.
	var services []daemon.ServiceOptions
	openDaemon := func() (err error) {
		services, err = n.openDaemon(ctx, c)
		return err
	}
	if err := errors.Join(n.openEvents(), n.openServer(c), n.openMetrics(c), n.openPair(c), openDaemon()); err != nil {
		return runtime, err
	}
	// The last: from here on this node may own addresses, and its services listen on
	// them.
	return runtime, n.addresses.open(ctx, c, services)
}

func (n *node) openPair(c *config.Config) (err error) {
	n.pair, err = openPair(n, c)
	return err
}

func (n *node) openEvents() (err error) {
	n.events, err = journal.OpenEvents(n.o.EventsFile, n.o.Out, n.log)
	return err
}

func (n *node) openServer(c *config.Config) (err error) {
	n.server, err = api.New(api.Options{Node: n, Version: n.o.Version, Group: c.Admin.Group, Logger: n.log})
	if err != nil {
		return err
	}
	n.socket, err = api.Listen(c.Admin.Socket, os.FileMode(c.Admin.Mode), c.Admin.Group)
	return err
}

func (n *node) openDaemon(ctx context.Context, c *config.Config) ([]daemon.ServiceOptions, error) {
	services, err := daemon.Resolve(ctx, c)
	if err != nil {
		return nil, err
	}
	var events io.Writer
	if n.events != nil {
		events = n.events
	}
	n.daemon, err = daemon.New(daemon.Options{
		Services: services, Loops: n.o.Loops, Half: n.pair.number(), Logger: n.log, Journal: n.journal, Events: events, Lost: n.Lost, Ended: n.leave,
	})
	return services, err
}

// close frees what take took.
func (n *node) close() error {
	errs := []error{n.addresses.close(), n.pair.close()}
	if n.daemon != nil {
		errs = append(errs, n.daemon.Close())
	}
	if n.metrics != nil {
		errs = append(errs, n.metrics.Close())
	}
	if n.socket != nil {
		errs = append(errs, n.socket.Close())
	}
	if n.events != nil {
		errs = append(errs, n.events.Close())
	}
	return errors.Join(append(errs, n.manager.Close())...)
}

// run serves until a signal, or the end of ctx. At the end, clients go first,
// then the metrics; the admin socket answers until the last connection has
// ended, and the events are written until then.
func (n *node) run(ctx context.Context, signals <-chan os.Signal) (err error) {
	if n.events != nil {
		end := background(n.events.Run)
		defer func() { err = errors.Join(err, end()) }()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.serving = ctx
	if n.metrics != nil { // before anybody can ask for a reload, which may replace it
		n.showMetrics(n.metrics)
	}
	endServer := background(func(ctx context.Context) error { return n.server.Serve(ctx, n.socket) })
	defer func() { err = errors.Join(err, endServer()) }()

	stops := make(chan os.Signal, 2)
	n.tasks.Go(func() { n.handle(ctx, signals, stops) })
	n.tasks.Go(func() { n.beat(ctx) })
	n.tasks.Go(func() { n.tell(ctx) })
	n.tasks.Go(func() { n.reap(ctx) })
	n.tasks.Go(func() { n.addresses.run(ctx) })
	linked, endLink := context.WithCancel(context.WithoutCancel(ctx))
	defer endLink()
	if n.pair != nil {
		n.tasks.Go(func() { n.pair.run(linked) })
	}

	n.log.Info("started", "node", n.name(), "version", n.o.Version, "pid", os.Getpid(), "file", n.o.File)
	n.notified(n.manager.Ready(n.summary()))
	err = n.daemon.Serve(ctx, stops)

	n.stop("it has ended")
	endLink()
	cancel()
	// A reload under way ends; one that comes later is refused, and starts nothing
	// that would have to be waited for. Those that wait for their turn are tasks.
	n.reloading.Lock()
	n.reloading.Unlock() //nolint:staticcheck // the lock is not for what is done under it
	n.tasks.Wait()
	return err
}

// leave gives every address up, when no client is served any more and the events
// are still written.
func (n *node) leave() {
	n.stop("it ends")
	// A reload under way may be adding groups.
	n.reloading.Lock()
	n.reloading.Unlock() //nolint:staticcheck // the lock is not for what is done under it
	n.addresses.stop("the node stops")
}

// background starts f, which runs until its context ends. The function it returns
// ends it, waits for it and returns its error.
func background(f func(context.Context) error) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}
