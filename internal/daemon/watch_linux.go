package daemon

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/journal"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/relay"
)

// watchInterval is how often the watcher looks. What a second of new clients may
// take in memory is what it keeps free.
const watchInterval = time.Second

// What is kept of the descriptors for everything that is no connection.
const (
	forConnection = 2
	forOthers     = 112 // admin socket 64, metrics 32, logs and files 16
	forCommand    = 6   // pipes and handles of one check by a program
)

// A watched is what the watcher looks at: the relay, but for tests.
type watched struct {
	root      fs.FS
	refusals  func() relay.Refusals
	count     func() int // connections now
	refuse    func(why string)
	listeners func() []listenerAt
	lost      func() (events, logLines uint64)
	unbound   func() uint64 // connections that found no source port on an address
}

// A listenerAt is a listener of a service.
type listenerAt struct {
	service string
	relay.ListenerStatus
}

// A watcher knows what can run out, looks once a second what is left, and has
// the relay refuse new clients before the rest would suffer. Its events are few
// however many clients it is about.
type watcher struct {
	watched
	journal *journal.Journal
	log     *slog.Logger

	// Of descriptors; soft is 0 when nobody knows.
	soft, hard uint64
	checks     int // that run at one moment, at most

	mu             sync.Mutex
	base           int // open before the first connection
	reserve        int // of descriptors
	maxConnections int
	memory         memory
	memoryErr      error
	refusing       bool // for want of memory
	connections    limit
	descriptors    limit
	short          limit // of memory
	queues         map[string]*limit
	gone           map[string]gone // unix sockets whose files somebody has taken away, by their addresses
	losses         limit
	sources        limit // of ports
}

// gone is a listener that nobody can reach any more.
type gone struct {
	service string
	since   time.Time // noticed
}

// measure asks for the limits of descriptors, and shares them out: how many
// checks may run at one moment.
func (w *watcher) measure() {
	var err error
	if w.soft, w.hard, err = sys.FileLimit(); err != nil {
		w.log.Warn("the limit of descriptors could not be read", "err", err)
	}
	w.checks = checksFor(w.soft)
}

// measureBase counts what is open before the first connection.
func (w *watcher) measureBase() {
	open, err := sys.OpenFiles()
	if err != nil {
		open = 32 // a guess; there is no /proc to ask
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.base = open
}

// checksFor is how many checks may run at one moment. One holds a descriptor
// only for moments: few are enough, and who is short of descriptors needs them
// for clients.
func checksFor(descriptors uint64) int { return int(min(max(descriptors/16, 16), 1024)) }

func newWatcher(what watched, j *journal.Journal, log *slog.Logger) *watcher {
	refusing := func(name string) limit { return limit{name: name, what: "client", became: "refused"} }
	return &watcher{
		watched: what, journal: j, log: log, queues: make(map[string]*limit), gone: make(map[string]gone),
		connections: refusing("connections"), descriptors: refusing("descriptors"), short: refusing("memory"),
		losses:  limit{name: "events", what: "event or log line", became: "lost"},
		sources: limit{name: "source_ports", what: "connection", became: "made from the node's own address"},
	}
}

// fit works out how many connections there may be beside everything else, with
// a check of one of these kinds for each backend, and returns it.
func (w *watcher) fit(checks []health.Kind) int {
	need, most := 0, w.checks
	for _, k := range checks {
		switch k {
		case health.Command:
			need, most = need+forCommand, w.checks*forCommand
		case health.TCP, health.HTTP, health.Exchange:
			need++
		case health.None:
		}
	}
	soft := int(min(w.soft, math.MaxInt32))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reserve = min(w.base+min(need, most)+forOthers, soft/2)
	w.maxConnections = max((soft-w.reserve)/forConnection, 1)
	return w.maxConnections
}

// announce says what fits, and what it cannot see.
func (w *watcher) announce() {
	w.look(time.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	attrs := []any{
		"descriptors", w.soft, "hard_limit", w.hard, "connections_fit", w.maxConnections, "kept_descriptors", w.reserve,
	}
	if w.memoryErr == nil {
		attrs = append(attrs, "memory", w.memory.max, "memory_kept", w.memory.keep(), "memory_by", w.memory.source)
	} else {
		w.log.Warn("memory is not watched: clients are not refused before it runs out", "err", strings.ReplaceAll(w.memoryErr.Error(), "\n", "; "))
	}
	if w.maxConnections < 512 {
		w.log.Warn("few connections fit: "+raiseDescriptors, "connections_fit", w.maxConnections, "hard_limit", w.hard)
	}
	w.log.Info("ready", attrs...)
}

const raiseDescriptors = "raise the hard limit of descriptors (LimitNOFILE= in a unit, ulimit -Hn in a shell)"

// run looks until ctx is cancelled.
func (w *watcher) run(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			w.look(now)
		}
	}
}

// look brings everything up to date.
func (w *watcher) look(now time.Time) {
	m, err := readMemory(w.root)
	refusals, connections := w.refusals(), w.count()
	listeners := w.listeners()
	events, lines := w.lost()
	unbound := w.unbound()

	w.mu.Lock()
	defer w.mu.Unlock()
	w.memory, w.memoryErr = m, err
	w.judgeMemory()
	w.tell(&w.connections, now, refusals.MaxConnections, connections >= w.maxConnections, w.whyConnections())
	w.tell(&w.descriptors, now, refusals.Descriptors, false, w.whyDescriptors())
	w.tell(&w.short, now, refusals.Refuse, w.refusing, w.whyMemory())
	w.tell(&w.losses, now, events+lines, false, whyLost)
	w.tell(&w.sources, now, unbound, false, whySources)
	there := make(map[string]bool)
	for _, l := range listeners {
		at := l.Address.String()
		there[at] = true
		q := w.queues[at]
		if q == nil {
			q = &limit{name: "accept_queue", what: "connect", became: "dropped"}
			w.queues[at] = q
		}
		q.service = l.service // an address can pass from one to another
		w.tell(q, now, l.Dropped, false, whyQueue(l))
		w.judgeGone(now, l)
	}
	for at := range w.queues {
		if !there[at] {
			delete(w.queues, at)
			delete(w.gone, at)
		}
	}
}

// judgeGone notices that nobody can reach a unix socket any more.
func (w *watcher) judgeGone(now time.Time, l listenerAt) {
	at := l.Address.String()
	switch _, known := w.gone[at]; {
	case !l.Gone:
		delete(w.gone, at)
	case !known:
		w.gone[at] = gone{l.service, now}
		w.log.Warn("nobody can connect to a unix socket: its file was removed or replaced; a reload makes it anew", "service", l.service, "address", at)
	}
}

// judgeMemory refuses new clients while there is too little, and admits them
// again only when there is clearly more.
func (w *watcher) judgeMemory() {
	free, keep := w.memory.free(), w.memory.keep()
	switch {
	case w.memoryErr != nil: // what is not known is no reason to refuse anybody
		if w.refusing {
			w.refusing = false
			w.refuse("")
		}
	case !w.refusing && free < keep:
		w.refusing = true
		w.refuse("memory is short: " + w.memory.source)
	case w.refusing && free >= keep+keep/4:
		w.refusing = false
		w.refuse("")
	}
}

// tell looks at one limit, and passes its news on.
func (w *watcher) tell(l *limit, now time.Time, total uint64, pressing bool, why string) {
	e, news := l.look(now, total, pressing, why)
	if !news {
		return
	}
	w.journal.Add(e)
	attrs := []any{"limit", e.State, "count", e.Count}
	if e.Service != "" {
		attrs = append(attrs, "service", e.Service)
	}
	if l.reached {
		w.log.Warn("a limit is reached", append(attrs, "reason", e.Reason)...)
	} else {
		w.log.Info("a limit is no longer reached", append(attrs, "reason", e.Reason)...)
	}
}

func (w *watcher) whyConnections() string {
	return fmt.Sprintf("the node carries at most %d connections, as many as %d descriptors allow; %s", w.maxConnections, w.soft, raiseDescriptors)
}

func (w *watcher) whyDescriptors() string {
	return fmt.Sprintf("all %d descriptors are in use; %s", w.soft, raiseDescriptors)
}

func (w *watcher) whyMemory() string {
	return fmt.Sprintf("memory is short: %s of %s are in use by %s, and %s stay free for the connections there are; %s",
		size(w.memory.used), size(w.memory.max), w.memory.source, size(w.memory.keep()), w.memory.remedy)
}

func whyQueue(l listenerAt) string {
	return fmt.Sprintf("more clients connect to %s at once than its queue of %d holds, or than the node accepts; raise net.core.somaxconn where it is below 4096, or look for what takes the processor",
		l.Address, l.QueueMax)
}

const whyLost = "they could not be written as fast as they came; look at what reads the events file or the log: a full disk, a pipe that nobody reads"

const whySources = "every source port of this node from an address to a backend was in use, and after a takeover nobody can tell that backend that they are gone; " +
	"add backends, or set idle_timeout, so that connections that are not used end"

// size is a number of bytes for people.
func size(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
