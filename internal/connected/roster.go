package connected

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/internal/socktrace"
)

// A Roster knows who is connected. Its methods may be called at the same time,
// before, while and after it runs.
type Roster struct {
	o      Options
	kernel kernel
	ran    atomic.Bool
	done   chan struct{} // Run has ended

	tell chan struct{} // there may be something to tell
	look chan struct{} // a look is wanted before its time
	asks chan ask

	mu             sync.Mutex
	core           *core
	tracer         tracer // nil unless sockets are traced
	why            error  // why they are not
	opened, closed bool
	lost           uint64 // as the tracer last said
	state          State
	published      State // what OnState was last told

	queue sync.Mutex // of what the relay says; taken by its loops
	legs  []leg
}

// A leg is something that the relay says.
type leg struct {
	record Record
	gone   bool
}

// An ask is a wish for exact numbers.
type ask struct {
	at     func(netip.Addr) bool
	answer chan<- answer // has room
}

type answer struct {
	sockets []socktrace.Socket
	err     error
}

// kernel is what a Roster asks of the system; tests give another one.
type kernel struct {
	trace func([]netip.Addr) (tracer, error) // its error says what to do
	list  func() (lister, error)
	boot  func() int64 // the boot clock, in ns
}

// tracer is socktrace.Tracer.
type tracer interface {
	SetAddresses([]netip.Addr) error
	Read([]socktrace.Event) (int, error)
	Lost() (uint64, error)
	Sockets() iter.Seq2[socktrace.Socket, error]
	Close() error
}

// lister lists sockets without numbers.
type lister interface {
	// sockets lists those that are connected at the addresses.
	sockets(context.Context, []netip.Addr) iter.Seq2[socktrace.Socket, error]
	Close() error
}

// Bounds and defaults of Options.
const (
	defaultGather = 2 * time.Millisecond
	maxGather     = time.Second
	defaultPoll   = 100 * time.Millisecond
	minPoll       = 10 * time.Millisecond
	maxPoll       = time.Minute
	defaultMax    = 1 << 20
)

// The time between two looks: the longer one takes the rarer they are.
const (
	// Where changes are traced, looks take two parts of a hundred of a processor
	// until one takes 80 ms; then numbers that are young enough count for more.
	minRefresh = 500 * time.Millisecond
	maxRefresh = 4 * time.Second
	restOfLook = 50 // times what it took
	// Where looks are all there is, and where one is wanted at once.
	restOfPoll = 4
	minRest    = 10 * time.Millisecond
)

// batch is how many sockets are taken at once, so that nobody waits long for
// the Roster's lock.
const batch = 256

// ErrNoNumbers is the error of [Roster.Numbers] where eBPF may not be used.
var ErrNoNumbers = errors.New("sequence numbers are not known: sockets are not traced by eBPF here")

// errEnded is the error of what needs a Roster that runs.
var errEnded = errors.New("the roster does not run any more")

// New checks the options. It opens nothing.
func New(o Options) (*Roster, error) { return newRoster(o, system()) }

func newRoster(o Options, k kernel) (*Roster, error) {
	r := &Roster{
		o: o, kernel: k, done: make(chan struct{}),
		tell: make(chan struct{}, 1), look: make(chan struct{}, 1), asks: make(chan ask),
		state: State{Source: Starting},
	}
	switch {
	case o.Gather < 0 || o.Gather > maxGather:
		return nil, fmt.Errorf("roster: Gather %s: give it 1ns to %s, or 0 for %s", o.Gather, maxGather, defaultGather)
	case o.Poll != 0 && (o.Poll < minPoll || o.Poll > maxPoll):
		return nil, fmt.Errorf("roster: Poll %s: give it %s to %s, or 0 for %s", o.Poll, minPoll, maxPoll, defaultPoll)
	case o.Max < 0:
		return nil, fmt.Errorf("roster: Max %d: give it 1 or more, or 0 for %d", o.Max, defaultMax)
	}
	if r.o.Gather == 0 {
		r.o.Gather = defaultGather
	}
	if r.o.Poll == 0 {
		r.o.Poll = defaultPoll
	}
	if r.o.Max == 0 {
		r.o.Max = defaultMax
	}
	if r.o.Logger == nil {
		r.o.Logger = slog.New(slog.DiscardHandler)
	}
	r.core = newCore(r.o.Max)
	watched, err := addressSet(o.Addresses)
	if err != nil {
		return nil, err
	}
	r.core.watch(watched)
	return r, nil
}

func addressSet(addrs []netip.Addr) (map[netip.Addr]struct{}, error) {
	set := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		if !a.IsValid() || a.IsUnspecified() {
			return nil, fmt.Errorf("roster: watch %s: give it the address of a host", a)
		}
		set[a.Unmap().WithZone("")] = struct{}{}
	}
	if len(set) > socktrace.Addresses {
		return nil, fmt.Errorf("roster: watch %d addresses: at most %d", len(set), socktrace.Addresses)
	}
	return set, nil
}

// Open begins to trace, where that is possible; Run does it otherwise. It is for
// a process that gives up CAP_BPF and CAP_PERFMON before it runs the Roster, which
// needs them no longer then. The calling thread is in the same network namespace
// as that of Run. A Roster that was opened is run, or closed.
func (r *Roster) Open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opened || r.closed {
		return
	}
	r.opened = true
	if r.o.NoTrace {
		r.why = errors.New("tracing is switched off")
		return
	}
	if r.tracer, r.why = r.kernel.trace(r.watched()); r.why != nil {
		r.tracer = nil
	}
}

// Close closes what Open has opened, of a Roster that is not run.
func (r *Roster) Close() error {
	if r.ran.Swap(true) {
		return nil // it is Run's
	}
	close(r.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	t := r.tracer
	r.tracer = nil
	if t == nil {
		return nil
	}
	return t.Close()
}

// SetAddresses says which addresses are watched from now on; zones are ignored.
// Who is connected to a new one is known a moment later; who is connected to one
// that is left out is told to be gone. After an error it is tried again at every
// look.
func (r *Roster) SetAddresses(addrs []netip.Addr) error {
	watched, err := addressSet(addrs)
	if err != nil {
		return err
	}
	r.mu.Lock()
	if r.tracer != nil {
		// Before the look that follows, and together with the core.
		err = r.tracer.SetAddresses(addrs)
	}
	r.core.watch(watched)
	r.mu.Unlock()
	signal(r.tell)
	signal(r.look)
	return err
}

// Add takes a connection of the relay: Record.Tuple, Kind, Owner, and Since, which
// is now if it is zero. Its numbers come from the kernel where it gives them. It
// may be called for any address; what is not watched is kept and not told. It
// never waits, and may be called on an event loop. A Tuple that is there already
// is replaced.
func (r *Roster) Add(record Record) error {
	t, err := record.normal()
	if err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	if len(record.Owner) > MaxOwner {
		return fmt.Errorf("roster: %s: an owner's name of %d bytes: at most %d", t, len(record.Owner), MaxOwner)
	}
	record.Tuple = t
	if record.Since.IsZero() {
		record.Since = time.Now()
	}
	record.Since = record.Since.Round(0).UTC()
	r.put(leg{record: record})
	return nil
}

// Remove takes the end of a connection of the relay, like Add. The connection is
// told to be gone when its socket is.
func (r *Roster) Remove(t Tuple) {
	if t, err := t.normal(); err == nil {
		r.put(leg{record: Record{Tuple: t}, gone: true})
	}
}

func (r *Roster) put(l leg) {
	r.queue.Lock()
	r.legs = append(r.legs, l)
	r.queue.Unlock()
	signal(r.tell)
}

// takeLegs gives the core what the relay has said; mu is held.
func (r *Roster) takeLegs() {
	r.queue.Lock()
	legs := r.legs
	r.legs = nil
	r.queue.Unlock()
	for _, l := range legs {
		if l.gone {
			r.core.remove(l.record.Tuple)
		} else {
			r.core.add(l.record)
		}
	}
}

// signal wakes who waits on c, if nobody has done so already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Records lists who is connected to the addresses that are watched.
func (r *Roster) Records() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.takeLegs()
	list := make([]Record, 0, len(r.core.entries))
	r.core.records(func(record Record) bool { list = append(list, record); return true })
	signal(r.tell)
	return list
}

// Items gives what OnChange was told of as items of a pair.Set, for
// [pair.Set.Lead]: what it does not give is told to OnChange after the last
// item was taken, and what it does give may be told again. So a set that puts
// and deletes in OnChange, and leads with Items, is never without a connection
// that was told. The Roster waits meanwhile; nothing of it must be called.
func (r *Roster) Items() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		var key, value []byte
		for record := range r.core.toldSoFar() {
			key, value = AppendKey(key[:0], record.Tuple), AppendValue(value[:0], record)
			if !yield(key, value) {
				return
			}
		}
	}
}

// State is what is known of the Roster at this moment.
func (r *Roster) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now()
}

// now is the state; mu is held.
func (r *Roster) now() State {
	s := r.state
	s.Refused, s.Changes, s.Lost = r.core.refused, r.core.changes, r.lost
	s.Whole = s.Whole && s.Refused == 0
	s.Connections = r.core.told
	return s
}

// Numbers gives the sockets at the addresses for which at says so, nil for all
// that are watched, with their exact sequence numbers at the moment that each
// names. It is answered between two looks. The error is [ErrNoNumbers] where
// the Roster polls.
func (r *Roster) Numbers(ctx context.Context, at func(netip.Addr) bool) ([]socktrace.Socket, error) {
	answers := make(chan answer, 1)
	select {
	case r.asks <- ask{at, answers}:
	case <-r.done:
		return nil, fmt.Errorf("roster: exact numbers: %w", errEnded)
	case <-ctx.Done():
		return nil, fmt.Errorf("roster: exact numbers: %w", ctx.Err())
	}
	select {
	case a := <-answers:
		return a.sockets, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("roster: exact numbers: %w", ctx.Err())
	}
}

func (r *Roster) answer(a ask) {
	if r.tracer == nil {
		a.answer <- answer{err: ErrNoNumbers}
		return
	}
	var list []socktrace.Socket
	for s, err := range r.tracer.Sockets() {
		if err != nil {
			a.answer <- answer{err: fmt.Errorf("roster: exact numbers: %w", err)}
			return
		}
		if a.at == nil || a.at(s.Local.Addr()) {
			list = append(list, s)
		}
	}
	a.answer <- answer{sockets: list}
}
