package vip

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/holdfast-net/holdfast/internal/gate"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// Owner owns groups of addresses. Its methods may be called at the same time,
// and none of them from a callback.
type Owner struct {
	opts   Options
	sender uint64 // of beats, drawn
	epoll  *sys.Epoll
	waker  *sys.Waker
	alarm  *sys.BootAlarm
	teller *teller

	openGate func(ifindex int) (*gate.Gate, error)

	requests queue[func(*loop)]
	alive    atomic.Int64 // BootTime of the last Alive
	dozing   atomic.Bool  // a group is not well for want of it

	mu       sync.Mutex // never taken on the loop
	groups   []Group    // as configured last
	running  bool
	closed   bool
	stop     context.CancelFunc
	finished chan struct{} // closed when Run has returned
	handed   []byte        // what Hand returns, set by the loop before finished is closed
}

// Keys of the loop's own events; those of ports are larger.
const (
	keyWaker = iota
	keyAlarm
	keyWatch
	firstPort
)

// New makes an Owner. Nothing is touched before [Owner.Run]; an unused Owner
// must be closed all the same.
func New(opts Options) (_ *Owner, err error) {
	opts, err = opts.check()
	if err != nil {
		return nil, err
	}
	if _, err := readHanded(opts.Resume); err != nil {
		return nil, err
	}
	var draw [8]byte
	rand.Read(draw[:]) // never fails
	o := &Owner{
		opts: opts, sender: binary.BigEndian.Uint64(draw[:]),
		teller: newTeller(opts.OnChange, opts.Logger),
		groups: cloneGroups(opts.Groups), finished: make(chan struct{}), openGate: gate.Open,
	}
	defer func() {
		if err != nil {
			o.release()
			err = fmt.Errorf("vip: %w", err)
		}
	}()
	if o.epoll, err = sys.NewEpoll(64); err != nil {
		return nil, err
	}
	if o.waker, err = sys.NewWaker(o.epoll, keyWaker); err != nil {
		return nil, err
	}
	if o.alarm, err = sys.NewBootAlarm(); err != nil {
		return nil, err
	}
	if errno := o.epoll.Add(o.alarm.FD(), sys.EventIn, keyAlarm); errno != 0 {
		return nil, fmt.Errorf("watch the alarm: %w", errno)
	}
	return o, nil
}

func (o *Owner) release() {
	if o.alarm != nil {
		_ = o.alarm.Close()
	}
	if o.waker != nil {
		_ = o.waker.Close()
	}
	if o.epoll != nil {
		_ = o.epoll.Close()
	}
}

func cloneGroups(groups []Group) []Group {
	out := make([]Group, 0, len(groups))
	for _, g := range groups {
		out = append(out, g.withDefaults())
	}
	return out
}

// Run owns the groups' addresses until ctx is done, in the network namespace of
// the calling thread. Then what is owned is given up: steps BeforeWithdraw, the
// addresses, an advert of priority 0. It returns nil when ctx ended it, and can
// be called once.
func (o *Owner) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	o.mu.Lock()
	if o.running || o.closed {
		o.mu.Unlock()
		return fmt.Errorf("vip: Run on an Owner that was run or closed before: %w", net.ErrClosed)
	}
	o.running, o.stop = true, stop
	groups := o.groups
	o.mu.Unlock()
	defer close(o.finished)
	return o.run(ctx, groups)
}

// Close ends Run as its context would, waits for it, and frees what New took.
// Calling it again does nothing.
func (o *Owner) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil
	}
	o.closed = true
	running, stop := o.running, o.stop
	o.mu.Unlock()
	if running {
		stop()
		<-o.finished
	}
	o.release()
	return nil
}

// errEnded is for what is asked of an Owner that does not run any more.
var errEnded = fmt.Errorf("vip: the Owner has ended: %w", net.ErrClosed)

// post has f run on the loop; it is dropped if Run has ended.
func (o *Owner) post(f func(*loop)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.requests.push(f)
	o.waker.Wake()
}

// ask runs f on the loop and waits for it, or for the end of ctx.
func (o *Owner) ask(ctx context.Context, f func(*loop, func(error))) error {
	answer := make(chan error, 1)
	o.post(func(l *loop) {
		f(l, func(err error) {
			select {
			case answer <- err:
			default:
			}
		})
	})
	select {
	case err := <-answer:
		return err
	case <-o.finished:
		select {
		case err := <-answer:
			return err
		default:
			return errEnded
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *Owner) started() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.running
}

// Configure replaces all groups. What is wrong with them is returned before
// anything changes. A group that keeps its meaning keeps its lease and its
// addresses; of one that changes, only what differs is touched, except that
// another Interface or VRRP.ID makes it another group.
func (o *Owner) Configure(groups []Group) error {
	if err := CheckAll(groups); err != nil {
		return err
	}
	groups = cloneGroups(groups)
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return errEnded
	}
	o.groups = groups
	running := o.running
	if running {
		o.requests.push(func(l *loop) { l.configure(groups) })
		o.waker.Wake()
	}
	o.mu.Unlock()
	if !running {
		return nil
	}
	return o.ask(context.Background(), func(_ *loop, done func(error)) { done(nil) })
}

// has says whether a group is configured.
func (o *Owner) has(name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return errEnded
	}
	for _, g := range o.groups {
		if g.Name == name {
			return nil
		}
	}
	return fmt.Errorf("vip: there is no group %q", name)
}

// SetWell says what somebody else thinks of this node's ability to own a group,
// such as a command that tracks a program; why is for people. A group that
// nobody has judged is well.
func (o *Owner) SetWell(group string, ok bool, why string) error {
	if err := o.has(group); err != nil {
		return err
	}
	o.post(func(l *loop) { l.setWell(group, ok, why) })
	return nil
}

// SetSynced says whether this node knows all that the peer does of a group, so
// that it may ask for the addresses ([VRRP].Preempt). It does until it is told
// otherwise.
func (o *Owner) SetSynced(group string, ok bool) error {
	if err := o.has(group); err != nil {
		return err
	}
	o.post(func(l *loop) { l.setSynced(group, ok) })
	return nil
}

// Alive says that those for whom groups are owned live ([Group].NeedsAlive).
func (o *Owner) Alive() {
	o.alive.Store(sys.BootTime())
	if o.dozing.CompareAndSwap(true, false) {
		o.post(func(*loop) {})
	}
}

// Deliver takes what the other Owner's OnBeat was given. An error says that it
// cannot be read.
func (o *Owner) Deliver(beat []byte) error {
	if len(beat) > MaxBeat {
		return fmt.Errorf("vip: beat of %d bytes; the largest has %d", len(beat), MaxBeat)
	}
	if err := readFrame(beat, func(uint64, []byte, uint64, []byte) {}); err != nil {
		return err
	}
	own := append([]byte(nil), beat...)
	o.post(func(l *loop) { l.deliver(own) })
	return nil
}

// LinkDown says that no beat will come until one is delivered again.
func (o *Owner) LinkDown() {
	o.post(func(l *loop) { l.linkDown() })
}

// ErrNotOwner is why Release refuses a group that this node does not own.
var ErrNotOwner = errors.New("this node does not own the addresses")

// Release gives a group's addresses to the peer, in the order of a planned
// release (see [Order]), and returns when it is done. If the peer cannot take
// them it is refused, and nothing has changed. Without a peer those who use the
// addresses are told and the addresses are withdrawn; they stay so until
// Configure is called.
func (o *Owner) Release(ctx context.Context, group string) error {
	if err := o.has(group); err != nil {
		return err
	}
	if !o.started() {
		return fmt.Errorf("vip: group %q: %w", group, ErrNotOwner)
	}
	return o.ask(ctx, func(l *loop, done func(error)) { l.release(group, done) })
}

// Status gives every group as it stands, in the order of the configuration.
func (o *Owner) Status() []Status {
	if o.started() {
		var list []Status
		if o.ask(context.Background(), func(l *loop, done func(error)) { list = l.status(); done(nil) }) == nil {
			return list
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []Status
	for _, g := range o.groups {
		list = append(list, Status{Group: g.Name, Interface: g.Interface, Addresses: g.Addresses, Role: Fault, Why: "the Owner does not run"})
	}
	return list
}

// Lost counts the changes that OnChange was too slow for.
func (o *Owner) Lost() uint64 { return o.teller.lost.Load() }

// Hand ends Run and leaves everything as it is: addresses, leases, the gate. It
// returns what the Owner of another process needs to carry on
// ([Options].Resume), which has to start before the leases end. If ctx ends before
// the loop has begun to end, nothing has changed, and Run goes on; from then on
// Hand waits for it. An Owner that is ending in order does so.
func (o *Owner) Hand(ctx context.Context) ([]byte, error) {
	if !o.started() {
		return nil, errors.New("vip: Hand of an Owner that does not run: there is nothing to hand over")
	}
	var settled atomic.Bool // by the first: the loop, which then ends, or ctx
	o.post(func(l *loop) {
		if !l.stopping && settled.CompareAndSwap(false, true) {
			l.handing = true
		}
	})
	select {
	case <-o.finished:
	case <-ctx.Done():
		if settled.CompareAndSwap(false, true) {
			return nil, fmt.Errorf("vip: Hand: the loop did not come to it: %w", ctx.Err())
		}
		<-o.finished
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.handed == nil {
		return nil, errEnded
	}
	return o.handed, nil
}
