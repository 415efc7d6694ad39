package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/relay"
)

// severity orders problems, the worst first.
var severity = map[string]int{
	admin.ProblemServiceDown: 1, admin.ProblemLimit: 2, admin.ProblemAcceptQueue: 3,
	admin.ProblemListenerGone: 4, admin.ProblemBackendDown: 5, admin.ProblemSourcePorts: 6, admin.ProblemNoWayBack: 7, admin.ProblemEventsLost: 8,
}

// Problems lists why the daemon is not well, the worst first; none when it is.
// A drained backend that is down is no problem: somebody is working on it.
func (d *Daemon) Problems() []admin.Problem {
	list := append(d.watcher.problems(time.Now()), noWayBack(d.relay.Sources())...)
	for _, v := range d.views("") {
		if v.draining {
			continue
		}
		if v.down {
			list = append(list, admin.Problem{
				Code: admin.ProblemServiceDown, Service: v.name, Since: v.since,
				Text: fmt.Sprintf("service %s refuses new clients: %s", v.name, v.why),
			})
		}
		for _, b := range v.options.Relay.Backends {
			k, ok := v.backends[b.Name]
			if b, removed := v.hands.inForce(b); !ok || removed || k.state != health.Down || b.Weight == 0 {
				continue
			}
			list = append(list, admin.Problem{
				Code: admin.ProblemBackendDown, Service: v.name, Backend: b.Name, Since: k.since,
				Text: fmt.Sprintf("backend %s of service %s is down: %s", b.Name, v.name, k.reason),
			})
		}
	}
	slices.SortStableFunc(list, func(a, b admin.Problem) int { return cmp.Compare(severity[a.Code], severity[b.Code]) })
	return list
}

// noWayBack names the backends that do not answer to an address.
func noWayBack(ways []relay.SourceStatus) (list []admin.Problem) {
	for _, w := range ways {
		if w.NoWay.IsZero() {
			continue
		}
		list = append(list, admin.Problem{Code: admin.ProblemNoWayBack, Since: w.NoWay, Text: fmt.Sprintf(
			"backend %v does not answer to %v, only to the node's own address: its connections come from there, and after a takeover nobody can tell it that they are gone; "+
				"give it a route to %v, let its firewall pass that address, then holdfast reload", w.Backend, w.Address, w.Address)})
	}
	return list
}

// Sources says where backend legs come from; nil while none was bound to an address.
func (d *Daemon) Sources() *admin.Sources {
	ways, unbound := d.relay.Sources(), d.relay.Unbound()
	if len(ways) == 0 {
		return nil
	}
	s := &admin.Sources{
		Ports: d.ports.String(), Unbound: map[string]uint64{"ports": unbound.Ports, "no_way": unbound.NoWay, "away": unbound.Away},
	}
	for _, w := range ways {
		s.Ways = append(s.Ways, admin.SourceWay{Address: w.Address.String(), Backend: w.Backend.String(), Used: w.Used, Max: w.Max, NoWay: w.NoWay})
	}
	return s
}

// problems are those of limits and losses.
func (w *watcher) problems(now time.Time) []admin.Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := []admin.Problem{}
	add := func(l *limit, code, why string) {
		if p, ok := l.problem(now, code, why); ok {
			list = append(list, p)
		}
	}
	add(&w.connections, admin.ProblemLimit, w.whyConnections())
	add(&w.descriptors, admin.ProblemLimit, w.whyDescriptors())
	add(&w.short, admin.ProblemLimit, w.whyMemory())
	var queues []string
	for at := range w.queues {
		queues = append(queues, at)
	}
	slices.Sort(queues)
	for _, at := range queues {
		add(w.queues[at], admin.ProblemAcceptQueue, w.queues[at].why)
	}
	for _, at := range slices.Sorted(maps.Keys(w.gone)) {
		g := w.gone[at]
		list = append(list, admin.Problem{
			Code: admin.ProblemListenerGone, Service: g.service, Since: g.since,
			Text: fmt.Sprintf("nobody can connect to service %s at %s: the socket's file was removed or replaced; holdfast reload makes it anew", g.service, at),
		})
	}
	add(&w.losses, admin.ProblemEventsLost, whyLost)
	add(&w.sources, admin.ProblemSourcePorts, whySources)
	return list
}

// Limits says what the daemon can run out of, and how much of it is used.
func (d *Daemon) Limits() []admin.Limit { return d.watcher.limits() }

func (w *watcher) limits() []admin.Limit {
	refusals, connections := w.refusals(), w.count()
	w.mu.Lock()
	defer w.mu.Unlock()
	open, err := sys.OpenFiles()
	source := fmt.Sprintf("RLIMIT_NOFILE %d", w.soft)
	if err != nil {
		open = w.base + forConnection*connections
		source += "; what is open is an estimate, as there is no /proc to count it in"
	}
	list := []admin.Limit{
		{
			Name: w.connections.name, Used: uint64(connections), Max: uint64(w.maxConnections), Remedy: raiseDescriptors,
			Source: fmt.Sprintf("%d descriptors, %d for each connection, %d kept for checks, the admin socket, metrics and logs", w.soft, forConnection, w.reserve),
		},
		{Name: w.descriptors.name, Used: uint64(open), Max: w.soft, Source: source, Remedy: raiseDescriptors},
		{Name: w.short.name, Remedy: w.memory.remedy},
	}
	m := &list[2]
	if w.memoryErr != nil {
		m.Source = "unknown: " + strings.ReplaceAll(w.memoryErr.Error(), "\n", "; ")
	} else {
		m.Used, m.Max = w.memory.used, w.memory.max-w.memory.keep()
		m.Source = fmt.Sprintf("%s, %s, less %s that stay free", w.memory.source, size(w.memory.max), size(w.memory.keep()))
	}
	for i, n := range []uint64{refusals.MaxConnections, refusals.Descriptors, refusals.Refuse} {
		list[i].Reached = n
	}
	list[0].Last, list[1].Last, list[2].Last = w.connections.last, w.descriptors.last, w.short.last
	return list
}

// Lost says how many events and log lines could not be written since the start.
func (d *Daemon) Lost() (events, logLines uint64) { return d.lost() }
