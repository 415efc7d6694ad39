package notice

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/sockdiag"
)

// A Teller tells ends. It works in the network namespace of the thread that made
// it, and is safe for use by several goroutines. While it has nothing to do, it costs
// the machine nothing.
type Teller struct {
	options Options
	out     *sys.PacketSender
	in      [2]*sys.PacketReceiver // IPv4, IPv6
	here    *sockdiag.Conn         // the loop's
	epoll   *sys.Epoll
	waker   *sys.Waker
	alarm   *sys.BootAlarm

	running atomic.Bool

	destroying sync.Mutex // held while destroyer is used
	destroyer  *sockdiag.Conn

	mu      sync.Mutex
	tasks   []*task // handed over, not taken yet
	stopped []*task // whose context has ended
	closed  bool    // nothing is handed over any more
	ended   bool    // the descriptors are closed
	inside  bool    // Run uses them
}

// Keys of the epoll instance; the receivers' are 0 and 1.
const (
	keyWaker = 2 + iota
	keyAlarm
)

// New opens a Teller in the network namespace of the calling thread. It needs
// CAP_NET_RAW; with CAP_NET_ADMIN it may keep more packets that wait for a neighbour.
// Errors name what is missing.
func New(o Options) (t *Teller, err error) {
	o, err = o.check()
	if err != nil {
		return nil, err
	}
	t = &Teller{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.release())
		}
	}()
	if t.out, err = sys.OpenPacketSender(); err != nil {
		return nil, failed(err)
	}
	if t.here, err = sockdiag.Open(); err != nil {
		return nil, failed(err)
	}
	if t.destroyer, err = sockdiag.Open(); err != nil {
		return nil, failed(err)
	}
	if t.epoll, err = sys.NewEpoll(8); err != nil {
		return nil, failed(err)
	}
	if t.waker, err = sys.NewWaker(t.epoll, keyWaker); err != nil {
		return nil, failed(err)
	}
	if t.alarm, err = sys.NewBootAlarm(); err != nil {
		return nil, failed(err)
	}
	if errno := t.epoll.Add(t.alarm.FD(), sys.EventIn, keyAlarm); errno != 0 {
		return nil, failed(errno)
	}
	for i := range t.in {
		if t.in[i], err = sys.OpenPacketReceiver(i == 1); err != nil {
			return nil, failed(err)
		}
		if errno := t.epoll.Add(t.in[i].FD(), sys.EventIn, uint64(i)); errno != 0 {
			return nil, failed(errno)
		}
	}
	return t, nil
}

// Close ends Run and every call that waits; what was not decided is Undecided with
// ErrClosed. It may be called again.
func (t *Teller) Close() error {
	t.mu.Lock()
	t.closed = true
	release := !t.inside && !t.ended
	t.ended = t.ended || release
	waiting := t.tasks
	if release {
		t.tasks = nil
	}
	if !release && !t.ended {
		t.waker.Wake()
	}
	t.mu.Unlock()
	if !release {
		return nil
	}
	for _, k := range waiting {
		k.abandon(ErrClosed)
	}
	return t.release()
}

// release closes what New has opened.
func (t *Teller) release() error {
	var errs []error
	for _, r := range t.in {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	if t.alarm != nil {
		errs = append(errs, t.alarm.Close())
	}
	if t.waker != nil {
		errs = append(errs, t.waker.Close())
	}
	if t.epoll != nil {
		errs = append(errs, t.epoll.Close())
	}
	if t.here != nil {
		errs = append(errs, t.here.Close())
	}
	if t.out != nil {
		errs = append(errs, t.out.Close())
	}
	t.destroying.Lock()
	defer t.destroying.Unlock()
	if t.destroyer != nil {
		errs = append(errs, t.destroyer.Close())
		t.destroyer = nil
	}
	return errors.Join(errs...)
}

// Run does the work of all calls until the context ends, which is no error, or
// Close. The Teller cannot be run again afterwards. It must not be called twice.
func (t *Teller) Run(ctx context.Context) error {
	if !t.running.CompareAndSwap(false, true) {
		return errors.New("notice: Run was called twice")
	}
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return ErrClosed
	}
	t.inside = true
	t.mu.Unlock()
	stop := context.AfterFunc(ctx, t.stop)
	err := newLoop(t).run()
	stop()

	t.mu.Lock()
	t.closed, t.inside, t.ended = true, false, true
	waiting := t.tasks
	t.tasks = nil
	t.mu.Unlock()
	for _, k := range waiting {
		k.abandon(ErrClosed)
	}
	return errors.Join(err, t.release())
}

// stop ends the loop.
func (t *Teller) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if !t.ended {
		t.waker.Wake()
	}
}

// Tell tells the remote ends of connections that are gone, and gives each one's
// result to each, in the order in which they are decided, from the calling goroutine. It
// returns when all are, which takes Options.Bound and 2.5 s at most, and the time
// that Rate asks for; or soon after the context has ended: then the rest
// is Undecided. Until then the slice must not change. each may be nil.
//
// A connection that is given twice is told once, and has two results. Tell waits
// for Run to be called.
func (t *Teller) Tell(ctx context.Context, gone []Connection, each func(Result)) Summary {
	return t.do(ctx, &task{connections: gone}, each)
}

// do hands a task to the loop and waits for its results.
func (t *Teller) do(ctx context.Context, k *task, each func(Result)) Summary {
	begun := time.Now()
	k.begun, k.news = sys.BootTime(), make(chan struct{}, 1)
	var sum Summary
	if len(k.connections) == 0 {
		return sum
	}
	t.mu.Lock()
	if t.closed {
		k.abandon(ErrClosed)
	} else {
		t.tasks = append(t.tasks, k)
		t.waker.Wake()
	}
	t.mu.Unlock()

	for left, done := len(k.connections), ctx.Done(); left > 0; {
		select {
		case <-k.news:
		case <-done:
			done = nil
			t.cancel(k, context.Cause(ctx))
		}
		for _, r := range k.take() {
			left--
			sum.Results[r.Verdict]++
			if each != nil {
				each(r)
			}
		}
	}
	sum.Segments = k.segments
	sum.Took = time.Since(begun)
	return sum
}

// cancel gives a task up, or makes the loop do it.
func (t *Teller) cancel(k *task, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.tasks, k); i >= 0 {
		t.tasks = slices.Delete(t.tasks, i, i+1)
		k.abandon(why)
		return
	}
	if t.closed {
		return // it is given up anyway
	}
	k.why = why
	t.stopped = append(t.stopped, k)
	t.waker.Wake()
}

// task is one call.
type task struct {
	connections []Connection
	ended       []bool // which had a socket here that was destroyed; nil: none
	begun       int64
	why         error // of its end before its time

	news chan struct{} // one, if there are results

	mu       sync.Mutex
	results  []Result
	segments int
}

// put hands over a result.
func (k *task) put(r Result) {
	k.mu.Lock()
	k.results = append(k.results, r)
	k.mu.Unlock()
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// take gives the results that there are.
func (k *task) take() []Result {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.results
	k.results = nil
	return r
}

// abandon ends a task that the loop has not taken.
func (k *task) abandon(why error) {
	for _, c := range k.connections {
		k.put(Result{Connection: c, Err: why})
	}
}

func random() [2]uint32 {
	n := rand.Uint64()
	return [2]uint32{uint32(n), uint32(n >> 32)}
}

func failed(err error) error { return fmt.Errorf("notice: open: %w", err) }
