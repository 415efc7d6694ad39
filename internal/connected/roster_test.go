package connected

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-net/holdfast/internal/socktrace"
)

// A machine is a kernel for a Roster, in simulated time.
type machine struct {
	start time.Time

	mu      sync.Mutex
	sockets []socktrace.Socket
	takes   time.Duration // to list them
	watched []netip.Addr
	lost    uint64
	looks   int
	reads   int   // of changes
	opened  int   // listers and tracers that are open
	refuses error // of SetAddresses
	noTrace error // of opening, if there is none
	noList  error
	looking func() // in the midst of a look
	broken  error  // of a look

	changes chan socktrace.Event
	failed  chan error
	closed  chan struct{}
}

func newMachine() *machine {
	return &machine{start: time.Now(), changes: make(chan socktrace.Event, 1000), failed: make(chan error, 1), closed: make(chan struct{})}
}

func (m *machine) boot() int64 { return int64(time.Since(m.start)) + 1 }

func (m *machine) kernel() kernel {
	return kernel{
		trace: func(addrs []netip.Addr) (tracer, error) {
			if m.noTrace != nil {
				return nil, m.noTrace
			}
			m.opened++
			m.watched = addrs
			return m, nil
		},
		list: func() (lister, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.noList != nil {
				return nil, m.noList
			}
			m.opened++
			return listing{m}, nil
		},
		boot: m.boot,
	}
}

func (m *machine) SetAddresses(addrs []netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuses != nil {
		return m.refuses
	}
	m.watched = addrs
	return nil
}

func (m *machine) Lost() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost, nil
}

func (m *machine) Read(events []socktrace.Event) (n int, err error) {
	m.mu.Lock()
	m.reads++
	m.mu.Unlock()
	select {
	case events[0] = <-m.changes:
	case err := <-m.failed:
		return 0, err
	case <-m.closed:
		return 0, os.ErrClosed
	}
	for n = 1; n < len(events); n++ {
		select {
		case events[n] = <-m.changes:
		default:
			return n, nil
		}
	}
	return n, nil
}

func (m *machine) Sockets() iter.Seq2[socktrace.Socket, error] {
	return func(yield func(socktrace.Socket, error) bool) {
		m.mu.Lock()
		m.looks++
		list, takes, looking, broken := slices.Clone(m.sockets), m.takes, m.looking, m.broken
		m.mu.Unlock()
		for i, s := range list {
			if i == len(list)/2 && looking != nil {
				looking()
			}
			if s.At == 0 {
				s.At = m.boot()
			}
			if !yield(s, nil) {
				return
			}
		}
		time.Sleep(takes)
		if broken != nil {
			yield(socktrace.Socket{}, broken)
		}
	}
}

func (m *machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened--
	close(m.closed)
	return nil
}

type listing struct{ *machine }

func (l listing) sockets(context.Context, []netip.Addr) iter.Seq2[socktrace.Socket, error] {
	return l.Sockets()
}

func (l listing) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened--
	return nil
}

// connect makes a socket, and tells of it.
func (m *machine) connect(i int) socktrace.Socket {
	t := simTuples[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	s := socktrace.Socket{Local: t.Local, Remote: t.Remote, Cookie: uint64(len(m.sockets)) + 1000*uint64(i) + 1, At: m.boot(), Acknowledged: 101, NextSend: 101, NextReceive: 201}
	m.sockets = append(m.sockets, s)
	return s
}

func (m *machine) disconnect(s socktrace.Socket) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets = slices.DeleteFunc(m.sockets, func(o socktrace.Socket) bool { return o.Cookie == s.Cookie })
}

// A heard is what a Roster has told.
type heard struct {
	mu      sync.Mutex
	changes []Change
	at      []time.Time
	states  []State
}

func (h *heard) options() Options {
	return Options{
		Addresses: []netip.Addr{simTuples[0].Local.Addr(), simTuples[3].Local.Addr()},
		OnChange: func(list []Change) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changes = append(h.changes, list...)
			for range list {
				h.at = append(h.at, time.Now())
			}
		},
		OnState: func(s State) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.states = append(h.states, s)
		},
	}
}

// take gives what was told since the last call.
func (h *heard) take() []Change {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.changes
	h.changes, h.at = nil, nil
	return list
}

// play runs a Roster on a machine in simulated time.
func play(t *testing.T, set func(*machine, *Options), f func(*testing.T, *machine, *Roster, *heard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, h := newMachine(), new(heard)
		o := h.options()
		if set != nil {
			set(m, &o)
		}
		r, err := newRoster(o, m.kernel())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()
		f(t, m, r, h)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if m.opened != 0 {
			t.Errorf("%d descriptors are left open", m.opened)
		}
		if err := r.Run(t.Context()); err == nil {
			t.Error("it runs twice")
		}
		if _, err := r.Numbers(t.Context(), nil); !errors.Is(err, errEnded) {
			t.Errorf("numbers after the end: %v", err)
		}
	})
}

// A change is told at once after a quiet time; in a crowd, together with what
// comes within the time to gather.
func TestTraced(t *testing.T) {
	play(t, nil, func(t *testing.T, m *machine, r *Roster, h *heard) {
		if s := r.State(); s.Source != Traced || !s.Whole || s.Refresh != minRefresh {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Millisecond)
		began := time.Now()
		s := m.connect(0)
		m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: s}
		list := h.take()
		want := Record{Tuple: simTuples[0], Kind: Socket, HasISN: true, ISN: 100, RemoteISN: 200, Since: began.Round(0).UTC()}
		if len(list) != 1 || list[0].Record != want || list[0].Gone || !time.Now().Equal(began) {
			t.Fatalf("told %+v after %s, want %+v", list, time.Since(began), want)
		}
		// A short one is none, while the kernel need not wake anybody.
		short := m.connect(1)
		m.disconnect(short)
		m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: short}
		m.changes <- socktrace.Event{Kind: socktrace.Closed, Socket: short}
		time.Sleep(10 * time.Millisecond)
		if list := h.take(); len(list) != 0 {
			t.Errorf("told %+v", list)
		}
		m.disconnect(s)
		m.changes <- socktrace.Event{Kind: socktrace.Closed, Socket: s}
		if list := h.take(); len(list) != 1 || !list[0].Gone || list[0].Record.Tuple != simTuples[0] {
			t.Errorf("told %+v", list)
		}
		if len(h.states) != 1 || h.states[0].Source != Traced {
			t.Errorf("states %+v", h.states)
		}
	})
}

// A crowd is read in few pieces, so that the kernel wakes nobody for each of it.
func TestGather(t *testing.T) {
	play(t, func(_ *machine, o *Options) { o.Gather = 5 * time.Millisecond }, func(t *testing.T, m *machine, r *Roster, h *heard) {
		reads := m.reads
		s := m.connect(0)
		for range 1000 {
			time.Sleep(10 * time.Microsecond)
			m.changes <- socktrace.Event{Kind: socktrace.Closed, Socket: socktrace.Socket{Cookie: 77}}
			m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: s}
			m.changes <- socktrace.Event{Kind: socktrace.Closed, Socket: s}
			synctest.Wait()
		}
		// 10 ms, in pieces of 5 ms, of 256 changes at most.
		if n := m.reads - reads; n > 3000/batch+5 {
			t.Errorf("%d reads", n)
		}
		m.disconnect(s)
	})
}

// An address that the kernel does not take at once is tried again.
func TestAddressRefused(t *testing.T) {
	play(t, nil, func(t *testing.T, m *machine, r *Roster, h *heard) {
		m.mu.Lock()
		m.refuses = errors.New("short of something")
		m.mu.Unlock()
		if err := r.SetAddresses([]netip.Addr{simTuples[6].Local.Addr()}); !errors.Is(err, m.refuses) {
			t.Errorf("%v", err)
		}
		time.Sleep(2 * minRest)
		synctest.Wait()
		if s := r.State(); s.Error != "short of something" || s.Whole {
			t.Errorf("%+v", s)
		}
		m.mu.Lock()
		m.refuses = nil
		m.mu.Unlock()
		time.Sleep(minRefresh)
		synctest.Wait()
		if s := r.State(); s.Error != "" || !s.Whole || len(m.watched) != 1 || m.watched[0] != simTuples[6].Local.Addr() {
			t.Errorf("%+v; watched %v", s, m.watched)
		}
	})
}

// Who finds no room is counted, and nothing is whole then.
func TestNoRoom(t *testing.T) {
	play(t, func(_ *machine, o *Options) { o.Max = 2 }, func(t *testing.T, m *machine, r *Roster, h *heard) {
		for i := range 4 {
			m.connect(i)
		}
		time.Sleep(2 * minRefresh)
		synctest.Wait()
		if s := r.State(); s.Refused != 2 || s.Whole || s.Connections != 2 {
			t.Errorf("%+v", s)
		}
		if last := h.states[len(h.states)-1]; last.Whole || last.Refused != 2 {
			t.Errorf("states %+v", h.states)
		}
	})
}

// After a loss everything is looked at again, at once, and told as whole only then.
func TestLoss(t *testing.T) {
	play(t, nil, func(t *testing.T, m *machine, r *Roster, h *heard) {
		gone, stays := m.connect(0), m.connect(1)
		m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: gone}
		m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: stays}
		time.Sleep(20 * time.Millisecond)
		h.take()
		looks := m.looks

		m.disconnect(gone) // which is lost
		missed, seen := m.connect(2), m.connect(3)
		m.mu.Lock()
		m.lost = 2
		m.mu.Unlock()
		m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: seen}
		time.Sleep(minRest + 5*time.Millisecond)
		list := h.take()
		if m.looks != looks+1 {
			t.Errorf("%d looks, want %d", m.looks, looks+1)
		}
		if len(list) != 2 || list[0].Record.Tuple.Remote != seen.Remote || list[1].Record.Tuple.Remote != missed.Remote {
			t.Errorf("told %+v", list)
		}
		if s := r.State(); !s.Whole || s.Lost != 2 || s.Resyncs != 1 || s.Connections != 4 {
			t.Errorf("%+v", s)
		}
		// The one whose end was lost is given up by the second look.
		time.Sleep(minRefresh)
		if list := h.take(); len(list) != 1 || !list[0].Gone || list[0].Record.Tuple != simTuples[0] {
			t.Errorf("told %+v", list)
		}
		if last := h.states[len(h.states)-1]; !last.Whole || last.Lost != 2 {
			t.Errorf("states %+v", h.states)
		}

		// A loss while a look is under way: that look is not enough.
		m.mu.Lock()
		m.looking = func() {
			m.mu.Lock()
			m.looking = nil
			m.lost++
			m.mu.Unlock()
			m.changes <- socktrace.Event{Kind: socktrace.Closed, Socket: socktrace.Socket{Cookie: 12345}}
		}
		looks = m.looks
		m.mu.Unlock()
		time.Sleep(minRefresh + 5*time.Millisecond)
		synctest.Wait()
		time.Sleep(minRest)
		synctest.Wait()
		if s := r.State(); m.looks != looks+2 || !s.Whole || s.Lost != 3 {
			t.Errorf("%d looks, want %d; %+v", m.looks, looks+2, s)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, s := range h.states {
			if s.Lost == 3 {
				if s.Whole {
					t.Errorf("it is whole by a look during which something was lost: %+v", h.states)
				}
				break
			}
		}
	})
}

// What ends while a look is under way does not come back by it.
func TestEndDuringLook(t *testing.T) {
	play(t, nil, func(t *testing.T, m *machine, r *Roster, h *heard) {
		a, b := m.connect(0), m.connect(1)
		m.mu.Lock()
		m.looking = func() {
			m.mu.Lock()
			m.looking = nil
			m.mu.Unlock()
			m.disconnect(b)
			m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: a}
			m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: b}
			m.changes <- socktrace.Event{Kind: socktrace.Closed, Socket: b}
			time.Sleep(50 * time.Millisecond)
		}
		m.mu.Unlock()
		time.Sleep(minRefresh + 100*time.Millisecond)
		list := h.take()
		if len(list) != 1 || list[0].Gone || list[0].Record.Tuple != simTuples[0] {
			t.Errorf("told %+v", list)
		}
		if got := r.Records(); len(got) != 1 {
			t.Errorf("known %+v", got)
		}
	})
}

// The longer looks take the rarer they are.
func TestRefresh(t *testing.T) {
	play(t, func(m *machine, _ *Options) { m.takes = 30 * time.Millisecond }, func(t *testing.T, m *machine, r *Roster, _ *heard) {
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.State(); s.Took < m.takes || s.Took > m.takes+time.Millisecond || s.Refresh != restOfLook*s.Took {
			t.Errorf("%+v", s)
		}
		m.mu.Lock()
		m.takes = 10 * time.Second
		m.mu.Unlock()
		time.Sleep(30 * time.Second)
		if s := r.State(); s.Refresh != maxRefresh {
			t.Errorf("%+v", s)
		}
	})
}

// A look that is wanted comes at once, but looks that are wanted all the time leave
// time for the rest of the machine.
func TestWantedLooks(t *testing.T) {
	addrs := []netip.Addr{simTuples[0].Local.Addr()}
	for _, polled := range []bool{false, true} {
		play(t, func(m *machine, o *Options) {
			o.NoTrace, o.Poll = polled, time.Minute
		}, func(t *testing.T, m *machine, r *Roster, h *heard) {
			time.Sleep(minRefresh + minRefresh/2) // it is between two looks
			m.connect(0)
			if err := r.SetAddresses(addrs); err != nil {
				t.Fatal(err)
			}
			if list := h.take(); len(list) != 1 {
				t.Errorf("polled %v: told %+v", polled, list)
			}
			m.mu.Lock()
			m.takes = 30 * time.Millisecond
			looks := m.looks
			m.mu.Unlock()
			for range 1000 {
				time.Sleep(time.Millisecond)
				if err := r.SetAddresses(addrs); err != nil {
					t.Fatal(err)
				}
			}
			if n := m.looks - looks; n < 5 || n > 1000/(30+restOfPoll*30)+2 {
				t.Errorf("polled %v: %d looks in a second, each of 30 ms", polled, n)
			}
		})
	}
}

// Where nothing may be traced the list is read, and it is said why.
func TestPolled(t *testing.T) {
	play(t, func(m *machine, _ *Options) { m.noTrace = errors.New("no rights: get some") }, func(t *testing.T, m *machine, r *Roster, h *heard) {
		s := m.connect(0)
		began := time.Now()
		for len(h.take()) == 0 {
			time.Sleep(time.Millisecond)
			if time.Since(began) > 2*defaultPoll {
				t.Fatal("it is not told")
			}
		}
		if got := r.Records(); len(got) != 1 || got[0].HasISN || got[0].ISN != 0 {
			t.Errorf("known %+v", got)
		}
		if _, err := r.Numbers(t.Context(), nil); !errors.Is(err, ErrNoNumbers) {
			t.Errorf("numbers: %v", err)
		}
		if s := r.State(); s.Source != Polled || !strings.Contains(s.Reason, "get some") || !s.Whole || s.Refresh != defaultPoll {
			t.Errorf("%+v", s)
		}
		m.disconnect(s)
		time.Sleep(3 * defaultPoll)
		if list := h.take(); len(list) != 1 || !list[0].Gone {
			t.Errorf("told %+v", list)
		}
		// It fails for a while: who is known stays known, and it is said.
		m.connect(1)
		time.Sleep(2 * defaultPoll)
		h.take()
		m.mu.Lock()
		m.broken = errors.New("short of something")
		list := m.sockets
		m.sockets = nil
		m.mu.Unlock()
		time.Sleep(10 * defaultPoll)
		if list := h.take(); len(list) != 0 {
			t.Errorf("told %+v", list)
		}
		if s := r.State(); s.Whole || s.Error != "short of something" || s.Connections != 1 {
			t.Errorf("%+v", s)
		}
		m.mu.Lock()
		m.broken, m.sockets = nil, list
		m.mu.Unlock()
		time.Sleep(2 * defaultPoll)
		synctest.Wait()
		if s := r.State(); !s.Whole || s.Error != "" {
			t.Errorf("%+v", s)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.states) != 3 || h.states[1].Error == "" || h.states[2].Error != "" {
			t.Errorf("states %+v", h.states)
		}
	})
}

// Nothing at all may be read: that is said, and tried again.
func TestNothingToRead(t *testing.T) {
	play(t, func(m *machine, o *Options) { o.NoTrace, m.noList = true, errors.New("no sock_diag") }, func(t *testing.T, m *machine, r *Roster, h *heard) {
		if s := r.State(); s.Source != Polled || s.Whole || s.Error != "no sock_diag" || s.Reason == "" {
			t.Errorf("%+v", s)
		}
		// The relay's are known anyway.
		if err := r.Add(Record{Tuple: simTuples[0], Kind: RelayClient}); err != nil {
			t.Error(err)
		}
		if list := h.take(); len(list) != 1 {
			t.Errorf("told %+v", list)
		}
		m.mu.Lock()
		m.noList = errors.New("no memory")
		m.mu.Unlock()
		time.Sleep(2 * defaultPoll)
		synctest.Wait()
		if last := h.states[len(h.states)-1]; last.Error != "no memory" {
			t.Errorf("states %+v", h.states)
		}
		m.mu.Lock()
		m.noList = nil
		m.mu.Unlock()
		time.Sleep(2 * defaultPoll)
		synctest.Wait()
		if s := r.State(); !s.Whole || s.Error != "" {
			t.Errorf("%+v", s)
		}
	})
}

// A trace that fails is followed by polling, and nobody is told to be gone by it.
func TestTraceFails(t *testing.T) {
	play(t, nil, func(t *testing.T, m *machine, r *Roster, h *heard) {
		m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: m.connect(0)}
		time.Sleep(10 * time.Millisecond)
		h.take()
		m.failed <- errors.New("it broke")
		time.Sleep(defaultPoll)
		// Nobody looks after its numbers now: they would be too old some day.
		if list := h.take(); len(list) != 1 || list[0].Gone || list[0].Record.HasISN {
			t.Errorf("told %+v", list)
		}
		if s := r.State(); s.Source != Polled || !strings.Contains(s.Reason, "it broke") || !s.Whole || s.Connections != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// Looks that fail while changes are told: who is connected stays known, and after
// a while without numbers, which nobody knows the age of.
func TestLooksFail(t *testing.T) {
	play(t, nil, func(t *testing.T, m *machine, r *Roster, h *heard) {
		m.changes <- socktrace.Event{Kind: socktrace.Established, Socket: m.connect(0)}
		time.Sleep(10 * time.Millisecond)
		h.take()
		m.mu.Lock()
		m.broken = errors.New("short of something")
		m.mu.Unlock()
		time.Sleep((allowedFailures - 1) * minRefresh)
		if list := h.take(); len(list) != 0 {
			t.Errorf("told %+v", list)
		}
		time.Sleep(2 * minRefresh)
		if list := h.take(); len(list) != 1 || list[0].Gone || list[0].Record.HasISN {
			t.Errorf("told %+v, want no numbers", list)
		}
		m.mu.Lock()
		m.broken = nil
		m.mu.Unlock()
		time.Sleep(2 * minRefresh)
		if list := h.take(); len(list) != 1 || !list[0].Record.HasISN {
			t.Errorf("told %+v, want numbers", list)
		}
	})
}

// Legs and addresses.
func TestLegsAndAddresses(t *testing.T) {
	play(t, nil, func(t *testing.T, m *machine, r *Roster, h *heard) {
		moment := time.Now()
		for i := range 4 {
			rec := Record{Tuple: simTuples[2*i], Kind: RelayBackend, Owner: "web"}
			if i == 0 {
				rec.Since = moment.In(time.FixedZone("elsewhere", 3600))
			}
			if err := r.Add(rec); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(10 * time.Millisecond)
		if list := h.take(); len(list) != 3 || list[0].Record.Since != moment.Round(0).UTC() || list[1].Record.Since != moment.Round(0).UTC() {
			t.Errorf("told %+v; the fourth is not at an address that is watched", list)
		}
		looks := m.looks
		if err := r.SetAddresses([]netip.Addr{simTuples[3].Local.Addr(), simTuples[6].Local.Addr()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * minRest)
		list := h.take()
		gone := 0
		for _, c := range list {
			if c.Gone {
				gone++
			}
		}
		if len(list) != 3 || gone != 2 || m.looks != looks+1 || len(m.watched) != 2 {
			t.Errorf("told %+v; %d looks, %d watched", list, m.looks-looks, len(m.watched))
		}
		items := 0
		for key, value := range r.Items() {
			if rec, err := Decode(key, value); err != nil || rec.Owner != "web" {
				t.Errorf("%+v, %v", rec, err)
			}
			items++
		}
		if items != 2 {
			t.Errorf("%d items", items)
		}
		for i := range 4 {
			r.Remove(simTuples[2*i])
		}
		if list := h.take(); len(list) != 2 || !list[0].Gone {
			t.Errorf("told %+v", list)
		}
		for _, bad := range []Record{
			{}, {Tuple: tuple("10.0.0.1:1", "[::1]:2")}, {Tuple: simTuples[0], Owner: strings.Repeat("x", MaxOwner+1)},
		} {
			if err := r.Add(bad); err == nil {
				t.Errorf("%+v is taken", bad)
			}
		}
		for _, bad := range [][]netip.Addr{{{}}, {netip.IPv4Unspecified()}, make([]netip.Addr, 1)} {
			if err := r.SetAddresses(bad); err == nil {
				t.Errorf("%s are watched", bad)
			}
		}
	})
}

// Exact numbers are those of the addresses that are asked for, and a look does not wait for them.
func TestNumbersOnDemand(t *testing.T) {
	play(t, nil, func(t *testing.T, m *machine, r *Roster, _ *heard) {
		m.connect(0)
		want := m.connect(3)
		list, err := r.Numbers(t.Context(), func(a netip.Addr) bool { return a == want.Local.Addr() })
		if err != nil || len(list) != 1 || list[0] != want {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := r.Numbers(t.Context(), nil); err != nil || len(list) != 2 {
			t.Errorf("%+v, %v", list, err)
		}
		m.mu.Lock()
		m.broken = errors.New("short of something")
		m.mu.Unlock()
		if _, err := r.Numbers(t.Context(), nil); !errors.Is(err, m.broken) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 { // it may be answered, too
			if _, err := r.Numbers(ctx, nil); err == nil {
				t.Error("a list that broke is whole")
			}
		}
	})
}

// What is opened and not run is closed.
func TestOpenAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, h := newMachine(), new(heard)
		r, err := newRoster(h.options(), m.kernel())
		if err != nil {
			t.Fatal(err)
		}
		r.Open()
		r.Open()
		if m.opened != 1 {
			t.Errorf("%d are open", m.opened)
		}
		if err := r.SetAddresses(nil); err != nil || len(m.watched) != 0 {
			t.Errorf("%v; watched %v", err, m.watched)
		}
		for range 2 {
			if err := r.Close(); err != nil || m.opened != 0 {
				t.Errorf("%v; %d are open", err, m.opened)
			}
		}
		r.Open()
		if err := r.Run(t.Context()); err == nil || m.opened != 0 {
			t.Errorf("it runs after Close: %v; %d are open", err, m.opened)
		}
		if _, err := r.Numbers(t.Context(), nil); !errors.Is(err, errEnded) {
			t.Errorf("numbers: %v", err)
		}
	})
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{Gather: -1}, {Gather: time.Minute}, {Poll: time.Millisecond}, {Poll: time.Hour}, {Max: -1},
		{Addresses: []netip.Addr{{}}}, {Addresses: []netip.Addr{netip.IPv6Unspecified()}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	r, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.State(); s.Source != Starting || s.Whole {
		t.Errorf("%+v", s)
	}
}
