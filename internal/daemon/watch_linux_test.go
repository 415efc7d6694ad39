package daemon

import (
	"context"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/journal"
	"github.com/holdfast-net/holdfast/relay"
)

// A machine is what a watcher sees in a test.
type machine struct {
	mu       sync.Mutex
	files    map[string]string
	counts   relay.Refusals
	live     int // connections
	queue    []listenerAt
	dropped  uint64 // of events
	unbound  uint64
	refusing string
}

func (m *machine) set(change func(*machine)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

// Open implements fs.FS.
func (m *machine) Open(name string) (fs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return root(m.files).Open(name)
}

// memory is a cgroup of 64 MiB, of which 8 MiB are kept free.
func (m *machine) memory(used string) {
	m.files = map[string]string{
		"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
		"sys/fs/cgroup/memory.max": "67108864", "sys/fs/cgroup/memory.current": used,
	}
}

// watch runs a watcher in a bubble until the test ends, and returns it with the
// machine that it sees.
func watch(t *testing.T) (*watcher, *machine, *sink) {
	t.Helper()
	m := &machine{}
	m.memory("1000")
	log := newSink()
	w := newWatcher(watched{
		root:      m,
		refusals:  func() relay.Refusals { m.mu.Lock(); defer m.mu.Unlock(); return m.counts },
		count:     func() int { m.mu.Lock(); defer m.mu.Unlock(); return m.live },
		refuse:    func(why string) { m.set(func(m *machine) { m.refusing = why }) },
		listeners: func() []listenerAt { m.mu.Lock(); defer m.mu.Unlock(); return m.queue },
		lost:      func() (uint64, uint64) { m.mu.Lock(); defer m.mu.Unlock(); return m.dropped, 0 },
		unbound:   func() uint64 { m.mu.Lock(); defer m.mu.Unlock(); return m.unbound },
	}, journal.New(journal.Options{}), slog.New(slog.NewTextHandler(log, nil)))
	w.soft, w.hard, w.base, w.checks = 1000, 1000, 20, 62
	w.fit([]health.Kind{health.TCP, health.TCP})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w, m, log
}

// pass lets simulated time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// told are the events so far, as "state: reason".
func told(t *testing.T, w *watcher) []string {
	t.Helper()
	events, err := w.journal.Read(admin.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range events {
		if e.Event != admin.EventLimit {
			t.Errorf("an event %q of a watcher", e.Event)
		}
		list = append(list, e.State+": "+e.Reason)
	}
	return list
}

// New clients are refused above one mark, and admitted again below another.
func TestWatcherMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, log := watch(t)
		for i, step := range []struct {
			used    string
			refuses bool
		}{
			{"58000000", false}, // 8.6 MiB are free
			{"59000000", true},  // 7.7
			{"58000000", true},  // not enough more
			{"57000000", true},  // 9.6
			{"56000000", false}, // 10.5
			{"58000000", false},
			{"67108864", true},
			{"", true}, // it cannot be read, and the machine's own says nothing of this
		} {
			m.set(func(m *machine) {
				if m.memory(step.used); step.used == "" {
					m.files = nil
				}
			})
			pass(watchInterval)
			m.set(func(m *machine) {
				if step.used == "" {
					if m.refusing != "" {
						t.Errorf("clients are refused for what nobody knows")
					}
					return
				}
				if (m.refusing != "") != step.refuses {
					t.Errorf("step %d, %s bytes used: refusing %q, want %t", i, step.used, m.refusing, step.refuses)
				}
			})
		}
		if got := told(t, w); len(got) == 0 || !strings.HasPrefix(got[0], "memory: reached: memory is short: 56 MiB of 64 MiB are in use by memory.max of the cgroup /") {
			t.Errorf("events %q", got)
		}
		log.await(t, "a limit is reached")
	})
}

// However many clients are refused, the events are few; status tells of it for a
// minute more.
func TestWatcherTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, _ := watch(t)
		problem := func() (n int) {
			for _, p := range w.problems(time.Now()) {
				if p.Code == admin.ProblemLimit {
					n++
				}
			}
			return n
		}
		pass(time.Minute)
		if got := told(t, w); len(got) != 0 || problem() != 0 {
			t.Fatalf("nothing happened, and events are %q", got)
		}
		for range 300 { // a flood of five minutes
			m.set(func(m *machine) { m.counts.MaxConnections += 1000; m.live = 433 })
			pass(watchInterval)
		}
		if got := told(t, w); len(got) != 1 || !strings.Contains(got[0], "connections: reached: the node carries at most 433 connections, as many as 1000 descriptors allow") {
			t.Errorf("during the flood: %q", got)
		}
		if problem() != 1 {
			t.Error("the flood is no problem")
		}
		l := w.limits()[0]
		if l.Name != "connections" || l.Used != 433 || l.Max != 433 || l.Reached != 300000 || time.Since(l.Last) > watchInterval {
			t.Errorf("the limit: %+v", l)
		}
		pass(time.Minute)
		if got := told(t, w); len(got) != 1 {
			t.Errorf("the flood is over, and every place is still taken: %q", got)
		}
		m.set(func(m *machine) { m.live = 0 })
		pass(watchInterval)
		if got := told(t, w); len(got) != 2 || !strings.Contains(got[1], "connections: no longer reached: 300000 clients refused in 6m") {
			t.Errorf("after the flood: %q", got)
		}
		if problem() != 1 {
			t.Error("what ended just now is no problem any more")
		}
		pass(recent)
		if problem() != 0 {
			t.Error("a flood of a minute ago is still a problem")
		}
		for range 100 { // one each second is one story
			m.set(func(m *machine) { m.counts.Descriptors++ })
			pass(time.Second)
		}
		if got := told(t, w); len(got) != 3 {
			t.Errorf("one client a second: %q", got)
		}
	})
}

// Each listener's dropped connects are told apart.
func TestWatcherQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, _ := watch(t)
		at := func(service, address string, dropped uint64) listenerAt {
			return listenerAt{service, relay.ListenerStatus{Address: relay.MustParseAddress(address), QueueMax: 128, Dropped: dropped}}
		}
		m.set(func(m *machine) { m.queue = []listenerAt{at("web", "10.0.0.1:80", 0), at("web", "[::1]:80", 0)} })
		pass(watchInterval)
		m.set(func(m *machine) { m.queue = []listenerAt{at("web", "10.0.0.1:80", 0), at("web", "[::1]:80", 12)} })
		pass(watchInterval)
		list := w.problems(time.Now())
		if len(list) != 1 || list[0].Code != admin.ProblemAcceptQueue || list[0].Service != "web" ||
			!strings.HasPrefix(list[0].Text, "12 connects dropped: more clients connect to [::1]:80 at once than its queue of 128 holds") {
			t.Errorf("problems %+v", list)
		}
		m.set(func(m *machine) { m.queue, m.dropped = nil, 3 })
		pass(watchInterval)
		list = w.problems(time.Now())
		if len(list) != 1 || list[0].Code != admin.ProblemEventsLost || !strings.HasPrefix(list[0].Text, "3 ") {
			t.Errorf("the listener is gone, events were lost: %+v", list)
		}
	})
}

// Connections that find no source port are two events, and a problem for a minute.
func TestWatcherSourcePorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, log := watch(t)
		pass(watchInterval)
		m.set(func(m *machine) { m.unbound = 5 })
		pass(watchInterval)
		list := w.problems(time.Now())
		if len(list) != 1 || list[0].Code != admin.ProblemSourcePorts || !strings.HasPrefix(list[0].Text, "5 connections made from the node's own address: every source port") {
			t.Errorf("problems %+v", list)
		}
		pass(recent + calm)
		if list := w.problems(time.Now()); len(list) != 0 {
			t.Errorf("problems %+v long after", list)
		}
		if n := strings.Count(log.String(), "limit"); n < 2 {
			t.Errorf("it was logged as\n%s", log.String())
		}
	})
}

// A backend that has no way back is named with what to do.
func TestNoWayBack(t *testing.T) {
	since := time.Unix(1000, 0)
	to := netip.MustParseAddrPort("10.0.0.21:6379")
	list := noWayBack([]relay.SourceStatus{
		{Address: netip.MustParseAddr("10.0.0.100"), Backend: to, NoWay: since},
		{Address: netip.MustParseAddr("10.0.0.101"), Backend: to},
	})
	if len(list) != 1 || list[0].Code != admin.ProblemNoWayBack || !list[0].Since.Equal(since) ||
		!strings.Contains(list[0].Text, "10.0.0.21:6379 does not answer to 10.0.0.100") {
		t.Errorf("problems %+v", list)
	}
}

// A unix socket whose file is taken away is a problem until it is back.
func TestWatcherGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, log := watch(t)
		look := func(gone bool) []admin.Problem {
			status := relay.ListenerStatus{Address: relay.MustParseAddress("unix:/run/app.sock"), Gone: gone}
			m.set(func(m *machine) { m.queue = []listenerAt{{"web", status}} })
			pass(watchInterval)
			return w.problems(time.Now())
		}
		if list := look(false); len(list) != 0 {
			t.Errorf("problems %+v", list)
		}
		look(true)
		noticed := time.Now()
		list := look(true)
		if len(list) != 1 || list[0].Code != admin.ProblemListenerGone || list[0].Service != "web" || list[0].Since.After(noticed) ||
			!strings.HasPrefix(list[0].Text, "nobody can connect to service web at unix:/run/app.sock: ") {
			t.Errorf("problems %+v", list)
		}
		if n := strings.Count(log.String(), "nobody can connect"); n != 1 {
			t.Errorf("%d lines were logged, want 1", n)
		}
		if list := look(false); len(list) != 0 {
			t.Errorf("problems %+v after it is back", list)
		}
	})
}

// What is kept of the descriptors never takes more than half of them.
func TestFit(t *testing.T) {
	checks := func(n int, k health.Kind) []health.Kind { return slices.Repeat([]health.Kind{k}, n) }
	for _, tt := range []struct {
		soft   uint64
		checks []health.Kind
		want   int
	}{
		{64, nil, (64 - 32) / 2},
		{1024, checks(10, health.None), (1024 - 20 - 112) / 2},
		{1024, checks(10, health.TCP), (1024 - 20 - 10 - 112) / 2},
		{1024, checks(10, health.Command), (1024 - 20 - 60 - 112) / 2},
		{1024, checks(1000, health.HTTP), (1024 - 20 - 64 - 112) / 2},
		{10000, checks(1000, health.Command), (10000 - 20 - 625*6 - 112) / 2},
		{1 << 40, nil, (1<<31 - 1 - 20 - 112) / 2},
	} {
		w := newWatcher(watched{}, nil, nil)
		w.soft, w.base = tt.soft, 20
		w.checks = checksFor(tt.soft)
		if got := w.fit(tt.checks); got != tt.want {
			t.Errorf("%d descriptors, %d checks: %d connections, want %d", tt.soft, len(tt.checks), got, tt.want)
		}
	}
}
