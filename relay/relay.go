//go:build linux

package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
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
	epoch  time.Time
	loops  []*loop
	lastID atomic.Uint64

	// descriptors is held by who takes one, and exclusively by who gives up a
	// spare one for a moment.
	descriptors sync.RWMutex

	mu       sync.Mutex
	services []*Service
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
	r := &Relay{log: opts.Logger, onEnd: opts.OnEnd, epoch: time.Now(), finished: make(chan struct{})}
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
	services := r.services
	r.ending = true
	r.mu.Unlock()
	for _, s := range services {
		s.stopListening()
	}
	for _, l := range r.loops {
		l.post(func() { l.stopping = true })
	}
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
}

// Error names the address and the cause.
func (e *ListenError) Error() string {
	return "relay: listening on " + e.Address.String() + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.Err }

// Listen adds a service and binds its listeners, whether the relay runs yet or
// not. An address that cannot be listened on is a [*ListenError].
func (r *Relay) Listen(opts ServiceOptions) (*Service, error) {
	s, err := newService(r, opts)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.ending {
		err = fmt.Errorf("relay: %w", net.ErrClosed)
	} else {
		err = s.listen()
	}
	if err != nil {
		s.closeSockets()
		return nil, err
	}
	r.services = append(r.services, s)
	for _, ln := range s.listeners {
		ln.refs = len(r.loops)
		for _, l := range r.loops {
			l.post(func() { l.addListener(ln) })
		}
	}
	return s, nil
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

// listenSocket makes a listening socket.
func listenSocket(a Address, backlog int) (int, error) {
	fd, errno := sys.Socket(a.ip.Addr())
	if errno != 0 {
		return -1, &ListenError{Address: a, Err: os.NewSyscallError("socket", errno)}
	}
	if err := prepareListener(fd, a, backlog); err != nil {
		sys.Close(fd)
		return -1, &ListenError{Address: a, Err: err}
	}
	return fd, nil
}

func prepareListener(fd int, a Address, backlog int) error {
	if !a.IsUnix() {
		if errno := sys.SetReuseAddr(fd); errno != 0 {
			return os.NewSyscallError("setsockopt SO_REUSEADDR", errno)
		}
		// Accepted sockets inherit it. A failure costs latency only.
		_ = sys.SetNoDelay(fd)
	}
	if a.ip.Addr().Is6() {
		if errno := sys.SetV6Only(fd); errno != 0 {
			return os.NewSyscallError("setsockopt IPV6_V6ONLY", errno)
		}
	}
	if err := sys.Bind(fd, a.ip, a.path); err != nil {
		return err
	}
	return sys.Listen(fd, backlog)
}

// Connection is one connection as it stands.
type Connection struct {
	ID       uint64
	Service  string
	Client   string
	Backend  string // "" while one is being looked for
	State    string // "connecting", "established", "closing"
	Began    time.Time
	Idle     time.Duration // since a byte last moved
	BytesIn  uint64        // received from the client
	BytesOut uint64        // received from the backend
	Held     uint64        // in the relay's memory, either way
}

// Connections lists every connection. Each loop answers between two batches of
// events; the list is not one instant's.
func (r *Relay) Connections() []Connection {
	var mu sync.Mutex
	var list []Connection
	r.ask(func(l *loop) {
		part := make([]Connection, 0, len(l.pairs))
		for _, p := range l.pairs {
			part = append(part, p.describe())
		}
		mu.Lock()
		list = append(list, part...)
		mu.Unlock()
	})
	return list
}

// ask runs f on every loop and waits for all. A loop that has ended is
// skipped, and so is one that does not run yet.
func (r *Relay) ask(f func(*loop)) {
	r.mu.Lock()
	running := r.running
	r.mu.Unlock()
	if !running {
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

// ResetConnection ends a connection at once: both ends get a RST. It reports
// whether there was one with that id.
func (r *Relay) ResetConnection(id uint64) bool {
	var found atomic.Bool
	r.ask(func(l *loop) {
		for _, p := range l.pairs {
			if p.id == id {
				p.reset(CauseOperator, ByRelay, "reset by command")
				found.Store(true)
				return
			}
		}
	})
	return found.Load()
}

func (p *pair) describe() Connection {
	c := Connection{
		ID: p.id, Service: p.service.options.Name, Client: clientName(p.from), State: "established",
		Began: p.began, Idle: time.Duration(p.loop.relay.clock() - p.moved),
		BytesIn: p.in.read, BytesOut: p.out.read, Held: p.in.read - p.in.written + p.out.read - p.out.written,
	}
	if p.target != nil {
		c.Backend = p.target.Name
	}
	switch {
	case p.stage == stageConnecting:
		c.State = "connecting"
	case p.client.over|p.backend.over != notOver:
		c.State = "closing"
	}
	return c
}

// refusedEnd is the record of a client that was turned away at the door.
func refusedEnd(id uint64, service string, from netip.AddrPort, cause Cause, detail string) End {
	return End{ID: id, Service: service, Client: clientName(from), Began: time.Now(), Cause: cause, By: ByRelay, ToldClient: ToldRST, Detail: detail}
}
