//go:build linux

package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// A Relay carries the connections of services on a few event loops.
//
// A program that gives a relay whole processors should set GOMAXPROCS to the
// number of loops plus two: loops wait inside the kernel, and without a spare
// the Go scheduler keeps taking their processors away and giving them back,
// which costs a tenth of the throughput.
type Relay struct {
	log    *slog.Logger
	onEnd  func(End)
	onLegs func([]LegChange)
	epoch  time.Time
	loops  []*loop
	lastID atomic.Uint64
	gate   gate
	lanes  lanes

	// descriptors is held by who takes one, and exclusively by who gives up a
	// spare one for a moment.
	descriptors sync.RWMutex

	// changing is held while services or their listeners are added or dropped.
	changing sync.Mutex

	mu       sync.Mutex
	services []*Service // those that listen; changed under changing and mu
	running  bool
	closed   bool
	ending   bool          // the loops are told to stop
	finished chan struct{} // closed when Run has returned
}

// maxEntries bounds the address space that a loop reserves.
const maxEntries = 1 << 19

// New makes a relay without services. Nothing runs before [Relay.Run]; an
// unused relay must be closed all the same.
func New(opts Options) (*Relay, error) {
	opts, err := opts.check()
	if err != nil {
		return nil, err
	}
	files, _, err := sys.FileLimit()
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{log: opts.Logger, onEnd: opts.OnEnd, onLegs: opts.OnLegs, epoch: time.Now(), finished: make(chan struct{})}
	r.lanes.openLanes(opts.Ports)
	// A connection takes two descriptors, so there are never more than half.
	entries := int(min(files/2+1, maxEntries))
	for i := range opts.Loops {
		l, err := newLoop(r, i, entries)
		if err != nil {
			for _, l := range r.loops {
				l.release()
			}
			return nil, fmt.Errorf("relay: %w", err)
		}
		r.loops = append(r.loops, l)
	}
	r.gate.fallback = connectionsThatFit(files)
	r.SetMaxConnections(opts.MaxConnections)
	return r, nil
}

// clock is the time since the relay was made, in nanoseconds, at least one.
func (r *Relay) clock() int64 { return int64(time.Since(r.epoch)) + 1 }

// Run carries connections until ctx is done; then it resets every connection
// that is left, on both sides, and closes the listeners. For a gentler end call
// [Service.Drain] before. It returns nil when ctx ended it, and can be called
// once.
func (r *Relay) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.closed || r.running {
		r.mu.Unlock()
		return fmt.Errorf("relay: Run on a relay that was run or closed before: %w", net.ErrClosed)
	}
	r.running = true
	r.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, r.stopLoops)
	defer stop()
	errs := make([]error, len(r.loops))
	var wg sync.WaitGroup
	for i, l := range r.loops {
		wg.Go(func() {
			errs[i] = l.run()
			cancel() // one broken loop must not leave half a relay
		})
	}
	wg.Wait()
	close(r.finished)
	return errors.Join(errs...)
}

func (r *Relay) stopLoops() {
	r.mu.Lock()
	r.ending = true
	r.mu.Unlock()
	r.changing.Lock() // nobody adds a listener any more
	for _, s := range r.services {
		s.stopListening()
	}
	r.changing.Unlock()
	for _, l := range r.loops {
		l.post(func() { l.stopping = true })
	}
}

func (r *Relay) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed || r.ending
}

func (r *Relay) isRunning() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running
}

// Close ends Run as its context would, waits for it, and frees what New took.
// Calling it again does nothing.
func (r *Relay) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	running := r.running
	r.mu.Unlock()
	r.stopLoops()
	if running {
		<-r.finished
	} else {
		for _, l := range r.loops {
			_ = l.run() // executes what was posted, stopLoops last
		}
	}
	for _, l := range r.loops {
		l.release()
	}
	return nil
}

// A ListenError says which of a service's addresses could not be listened on.
// errors.Is finds the cause, such as syscall.EADDRINUSE.
type ListenError struct {
	Address Address
	Err     error

	// InTheWay is where the service Owner of this relay listens, which keeps Address
	// from being taken in the same change: the kernel lets no two sockets listen
	// where one of them takes every address. Owner is "" where it is somebody else.
	InTheWay Address
	Owner    string
}

// Error names the address and the cause.
func (e *ListenError) Error() string {
	text := "relay: listening on " + e.Address.String() + ": " + e.Err.Error()
	if e.Owner != "" {
		text += fmt.Sprintf(": service %s listens on %s; give that up with one change, and take this with the next", e.Owner, e.InTheWay)
	}
	return text
}

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }

// Listen adds a service and binds its listeners, whether the relay runs yet or
// not. An address that cannot be listened on is a [*ListenError].
func (r *Relay) Listen(opts ServiceOptions) (_ *Service, err error) {
	opts, err = opts.check()
	if err != nil {
		return nil, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if opts.Name != "" && r.serviceNamed(opts.Name) != nil {
		return nil, fmt.Errorf("relay: ServiceOptions.Name: there is a service named %s", opts.Name)
	}
	listeners, err := r.bindAll(&opts)
	if err != nil {
		return nil, err
	}
	if opts.Name == "" {
		opts.Name = listeners[0].addr.String()
	}
	if err := listenAll(listeners, opts.Backlog); err != nil {
		closeAll(listeners)
		return nil, err
	}
	s := newService(r, opts)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.ending {
		closeAll(listeners)
		return nil, fmt.Errorf("relay: %w", net.ErrClosed)
	}
	s.listeners = listeners
	r.services = append(r.services, s)
	for _, ln := range listeners {
		ln.service.Store(s)
		r.watchOnLoops(ln)
	}
	return s, nil
}

// serviceNamed finds a service that listens. The caller holds changing.
func (r *Relay) serviceNamed(name string) *Service {
	for _, s := range r.services {
		if s.name == name {
			return s
		}
	}
	return nil
}

// leastLoaded is the loop for a new connection; asking prefers itself, since
// handing over costs a wake-up.
func (r *Relay) leastLoaded(asking *loop) *loop {
	best, load := asking, asking.load.Load()-1
	for _, l := range r.loops {
		if n := l.load.Load(); n < load {
			best, load = l, n
		}
	}
	return best
}

// ask runs f on every loop and waits for all. A loop that has ended is
// skipped, and so is one that does not run yet.
func (r *Relay) ask(f func(*loop)) {
	if !r.isRunning() {
		return
	}
	var wg sync.WaitGroup
	for _, l := range r.loops {
		wg.Add(1)
		if !l.post(func() { defer wg.Done(); f(l) }) {
			wg.Done()
		}
	}
	wg.Wait()
}

// refusedEnd is the record of a client that was turned away at the door.
func refusedEnd(id uint64, service string, from netip.AddrPort, cause Cause, detail string) End {
	return End{ID: id, Service: service, Client: clientName(from), Began: time.Now(), Cause: cause, By: ByRelay, ToldClient: ToldRST, Detail: detail}
}
