package metrics

import (
	"runtime"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// node is what a scrape found, with one entry for each name: what is removed and
// what has come in its place under the same name are shown as one.
type node struct {
	admin.Status
	services      []*service
	ends          []admin.Ends
	lostEvents    uint64
	lostLogLines  uint64
	goVersion     string
	problemCounts map[string]int
}

type service struct {
	admin.Service
	listeners []*admin.Listener
	backends  []*admin.Backend
}

// look asks the source, once for a scrape.
func look(s Source) *node {
	n := &node{Status: s.Status(), goVersion: runtime.Version(), problemCounts: make(map[string]int)}
	n.lostEvents, n.lostLogLines = s.Lost()
	n.services = joinServices(n.Services)
	n.ends = s.Ends()
	for _, p := range n.Problems {
		n.problemCounts[p.Code]++
	}
	return n
}

func joinServices(all []admin.Service) []*service {
	var joined []*service
	byName := make(map[string]*service)
	for _, one := range all {
		s := byName[one.Name]
		switch {
		case s == nil:
			s = &service{Service: one}
			byName[one.Name] = s
			joined = append(joined, s)
		default:
			if s.State == serviceDrain { // the other one takes clients
				s.State, s.Engine, s.Balance, s.OnBackendLost = one.State, one.Engine, one.Balance, one.OnBackendLost
			}
			s.Active += one.Active
			s.Inactive += one.Inactive
			s.Total += one.Total
			s.BytesIn += one.BytesIn
			s.BytesOut += one.BytesOut
		}
		for _, l := range one.Listen {
			s.listeners = joinListener(s.listeners, l)
		}
		for _, b := range one.Backends {
			s.backends = joinBackend(s.backends, b)
		}
	}
	return joined
}

func joinListener(all []*admin.Listener, l admin.Listener) []*admin.Listener {
	for _, a := range all {
		if a.Address == l.Address {
			a.Dropped += l.Dropped
			a.Queue = max(a.Queue, l.Queue)
			a.QueueMax = max(a.QueueMax, l.QueueMax)
			return all
		}
	}
	return append(all, &l)
}

func joinBackend(all []*admin.Backend, b admin.Backend) []*admin.Backend {
	for _, a := range all {
		if a.Name != b.Name {
			continue
		}
		if a.Removed { // the other one is the one that is meant now
			*a, b = b, *a
		}
		a.Active += b.Active
		a.Inactive += b.Inactive
		a.Total += b.Total
		a.BytesIn += b.BytesIn
		a.BytesOut += b.BytesOut
		a.Check.Checks += b.Check.Checks
		a.Check.Failures += b.Check.Failures
		a.Check.Reported += b.Check.Reported
		a.Check.Distrusted += b.Check.Distrusted
		return all
	}
	return append(all, &b)
}

// The states of the API, as the values of labels.
const (
	serviceUp    = "up"
	serviceDrain = "drain"
)

var (
	nodeStates    = []string{"well", "degraded", "stopping"}
	backendStates = []string{"up", "down", "drain"}

	problemCodes = []string{
		admin.ProblemServiceDown, admin.ProblemBackendDown, admin.ProblemReloadRefused,
		admin.ProblemLimit, admin.ProblemAcceptQueue, admin.ProblemListenerGone, admin.ProblemEventsLost,
		admin.ProblemAddressFault, admin.ProblemAddressConflict, admin.ProblemAddressReleased, admin.ProblemAddressSettings,
		admin.ProblemForgedAdverts, admin.ProblemAdvertsLost,
		admin.ProblemSourcePorts, admin.ProblemNoWayBack,
		admin.ProblemPairDown, admin.ProblemPairSyncing, admin.ProblemConfiguration, admin.ProblemWitness,
		admin.ProblemElectorDown, admin.ProblemElector, admin.ProblemNoLeaseGate, admin.ProblemNotify,
	}

	// refusals are the causes by which a client gets nothing.
	refusals = []string{"no_backend", "unreachable", "not_allowed", "resources"}

	// endings are how the other connections end: shown from the start, as a
	// counter that begins with its first increase hides that one from increase().
	endings = []ending{
		{"closed", byClient}, {"closed", byBackend},
		{"reset", byClient}, {"reset", byBackend},
		{"dead_peer", byClient}, {"dead_peer", byBackend},
		{"backend_down", byBackend},
		{"idle_timeout", byHoldfast}, {"drained", byHoldfast}, {"operator", byHoldfast}, {"shutdown", byHoldfast}, {"address", byHoldfast},
	}
)

const (
	byClient   = "client"
	byBackend  = "backend"
	byHoldfast = "holdfast"
)

type ending struct{ cause, by string }

// boolean is 1 or 0.
func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is a point in time as Prometheus has it; nothing is reported for one
// that has not come.
func seconds(t time.Time, set setFunc, labels ...string) {
	if !t.IsZero() {
		set(float64(t.UnixNano())/1e9, labels...)
	}
}

// oneOf reports a state as a 1 among 0s.
func oneOf(state string, states []string, set setFunc, labels ...string) {
	for _, s := range states {
		set(boolean(s == state), append(labels[:len(labels):len(labels)], s)...)
	}
}

// table sums values by their labels, and reports each sum once.
type table struct {
	rows  map[[3]string]float64
	order [][3]string
	width int
}

func newTable(width int) *table { return &table{rows: make(map[[3]string]float64), width: width} }

func (t *table) add(value float64, labels ...string) {
	var key [3]string
	copy(key[:], labels)
	if _, ok := t.rows[key]; !ok {
		t.order = append(t.order, key)
	}
	t.rows[key] += value
}

func (t *table) report(set setFunc) {
	for _, key := range t.order {
		labels := key // a copy: the callee may change it
		set(t.rows[key], labels[:t.width]...)
	}
}
