package node

import (
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/journal"
)

// Status says how the node is.
func (n *node) Status() admin.Status {
	services, err := n.daemon.Services(admin.Filter{})
	if err != nil {
		services = nil // the empty filter finds all there are
	}
	s := admin.Status{
		Node: n.name(), Version: n.o.Version, PID: os.Getpid(), Started: n.began, State: "well",
		Problems: n.daemon.Problems(), Config: n.configFile(), Limits: n.daemon.Limits(), Totals: n.daemon.Totals(), Services: services,
		Sources: n.daemon.Sources(),
	}
	s.Pair, s.Elector, s.Addresses = n.pair.status(), n.addresses.status(), n.addresses.list()
	s.Problems = slices.Concat(n.addresses.problems(), n.pair.problems(), s.Problems)
	if p, ok := n.refusedProblem(); ok {
		s.Problems = slices.Concat(s.Problems, []admin.Problem{p})
	}
	switch {
	case n.stopping.Load():
		s.State = "stopping"
	case len(s.Problems) > 0:
		s.State = "degraded"
	}
	return s
}

// configFile says which file runs, and whether it is still the one on disk.
func (n *node) configFile() admin.ConfigFile {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.disk.look(n.o.File, time.Now())
	f := n.file
	f.Changed = n.disk.differs(f.Digest)
	return f
}

func (n *node) refusedProblem() (admin.Problem, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file.Error == "" {
		return admin.Problem{}, false
	}
	return admin.Problem{
		Code:  admin.ProblemReloadRefused,
		Text:  "the last reload was refused, and what ran before runs on: " + n.file.Error + ": correct the file and reload",
		Since: n.since,
	}, true
}

// Lost says how many events and log lines could not be written since the start.
func (n *node) Lost() (events, logLines uint64) {
	if n.events != nil {
		events = n.events.Status().Lost
	}
	return events, n.lines.Status().Lost
}

// Services implements api.Node.
func (n *node) Services(f admin.Filter) ([]admin.Service, error) { return n.daemon.Services(f) }

// Backends implements api.Node.
func (n *node) Backends(f admin.Filter) ([]admin.Backend, error) { return n.daemon.Backends(f) }

// Connections implements api.Node.
func (n *node) Connections(f admin.Filter) (admin.Connections, error) { return n.daemon.Connections(f) }

// Events implements api.Node.
func (n *node) Events(f admin.Filter, after uint64) ([]admin.Event, error) {
	return n.journal.Read(f, after)
}

// Follow implements api.Node.
func (n *node) Follow(f admin.Filter, after uint64) (*journal.Follower, error) {
	return n.journal.Follow(f, after)
}

// ChangeBackend implements api.Node.
func (n *node) ChangeBackend(service, backend string, c admin.BackendCommand, by string) (admin.BackendResult, error) {
	r, err := n.daemon.ChangeBackend(service, backend, c, by)
	if err == nil && c.Do != admin.DoReset {
		n.pair.publish(service, backend)
	}
	return r, err
}

// ResetConnections implements api.Node.
func (n *node) ResetConnections(f admin.Filter, ids []uint64, by string) (int, error) {
	return n.daemon.ResetConnections(f, ids, by)
}

// Ends implements metrics.Source.
func (n *node) Ends() []admin.Ends { return n.daemon.Ends() }

// Metrics implements api.Node.
func (n *node) Metrics() http.Handler { return n.shown }
