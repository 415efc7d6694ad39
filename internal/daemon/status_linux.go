package daemon

import (
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/relay"
)

// A view is a service at one moment, taken under Daemon.mu, so that the relay
// can be asked for the rest without it.
type view struct {
	name     string
	relay    *relay.Service
	options  ServiceOptions
	hands    hands
	backends map[string]known
	down     bool
	why      string
	since    time.Time // of down
	draining bool      // it was removed, or the node stops
}

// known is what is known of a backend beside what the relay knows.
type known struct {
	state   health.State
	since   time.Time
	reason  string
	checker *health.Checker
}

// views are the services that a filter lets pass, in the order of the file, then
// what is left of removed ones.
func (d *Daemon) views(service string) []view {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []view
	for i, s := range slices.Concat(d.services, d.leaving) {
		if service != "" && s.name != service {
			continue
		}
		v := view{
			name: s.name, relay: s.relay, options: s.file, hands: s.hands, down: s.down, why: s.why, since: s.since,
			draining: d.stopping || i >= len(d.services), backends: make(map[string]known, len(s.backends)),
		}
		for _, b := range s.backends {
			v.backends[b.spec.Name] = known{b.state, b.since, b.reason, b.checker}
		}
		list = append(list, v)
	}
	return list
}

// passes is what a filter lets pass: backends by their names, and those that
// carry a connection of the clients it names.
func (d *Daemon) passes(f admin.Filter) (func(service, backend string) bool, error) {
	m, err := f.Matcher()
	if err != nil {
		return nil, err
	}
	if err := d.known(f.Service, f.Backend); err != nil {
		return nil, err
	}
	if m.Client.Any() {
		return func(_, backend string) bool { return f.Backend == "" || backend == f.Backend }, nil
	}
	type carrier struct{ service, backend string }
	carriers := make(map[carrier]bool)
	list, _, _ := d.connections(m, 0)
	for _, c := range list {
		carriers[carrier{c.Service, c.Backend}] = true
	}
	return func(service, backend string) bool { return carriers[carrier{service, backend}] }, nil
}

// Services lists the services that the filter lets pass, each with those of its
// backends that do: with a client, those that carry a connection of it. A
// removed one is listed while it has connections, also beside another that has
// taken its name. Errors are [*admin.Error].
func (d *Daemon) Services(f admin.Filter) ([]admin.Service, error) {
	passes, err := d.passes(f)
	if err != nil {
		return nil, err
	}
	list := []admin.Service{}
	for _, v := range d.views(f.Service) {
		s := v.service(passes)
		if (f.Backend != "" || f.Client != "") && len(s.Backends) == 0 {
			continue
		}
		list = append(list, s)
	}
	return limited(list, f.Limit), nil
}

// Backends lists the backends that the filter lets pass, service by service:
// with a client, those that carry a connection of it. One that was removed is
// listed while it has connections. Errors are [*admin.Error].
func (d *Daemon) Backends(f admin.Filter) ([]admin.Backend, error) {
	passes, err := d.passes(f)
	if err != nil {
		return nil, err
	}
	list := []admin.Backend{}
	for _, v := range d.views(f.Service) {
		list = append(list, v.list(passes)...)
	}
	return limited(list, f.Limit), nil
}

func limited[T any](list []T, limit int) []T {
	if limit > 0 && len(list) > limit {
		return list[:limit]
	}
	return list
}

// service is the service as a listing shows it.
func (v *view) service(passes func(service, backend string) bool) admin.Service {
	o := v.options.Relay
	s := admin.Service{
		Name: v.name, Engine: engine, State: "up", Balance: o.Balance.String(), OnBackendLost: o.OnBackendLost.String(),
		Listen: []admin.Listener{}, Backends: v.list(passes),
	}
	switch {
	case v.draining:
		s.State = "drain"
	case v.down:
		s.State = "down"
	}
	for _, l := range v.relay.Listeners() {
		s.Listen = append(s.Listen, admin.Listener{
			Address: l.Address.String(), Queue: l.Queue, QueueMax: l.QueueMax, Dropped: l.Dropped,
		})
	}
	c := v.relay.Counts()
	s.Active, s.Inactive, s.Total, s.Refused, s.BytesIn, s.BytesOut = c.Active, c.Inactive, c.Accepted, c.Refused, c.BytesIn, c.BytesOut
	return s
}

// list are the service's backends that pass.
func (v *view) list(passes func(service, backend string) bool) []admin.Backend {
	list := []admin.Backend{}
	place := make(map[string]int)
	for i, b := range v.options.Relay.Backends {
		place[b.Name] = i
	}
	statuses := v.relay.Backends()
	slices.SortStableFunc(statuses, func(a, b relay.BackendStatus) int {
		switch { // those that are gone stand last
		case a.Removed != b.Removed && a.Removed:
			return 1
		case a.Removed != b.Removed:
			return -1
		}
		return place[a.Name] - place[b.Name]
	})
	for _, b := range statuses {
		if passes(v.name, b.Name) {
			list = append(list, v.backend(b))
		}
	}
	return list
}

// backend is a backend as a listing shows it.
func (v *view) backend(b relay.BackendStatus) admin.Backend {
	a := admin.Backend{
		Service: v.name, Name: b.Name, Address: b.Address.String(), Weight: b.Weight, Backup: b.Backup,
		MaxConnections: b.MaxConnections, Active: b.Active, Inactive: b.Inactive, Total: b.Total,
		BytesIn: b.BytesIn, BytesOut: b.BytesOut, Removed: b.Removed || v.draining && len(v.backends) == 0,
		ByHand: v.hands.byHand(b.Name), Check: admin.Check{Kind: v.options.Check.Kind.String()},
	}
	k, ok := v.backends[b.Name]
	if !ok || a.Removed {
		a.State = "drain"
		return a
	}
	a.Since, a.Reason = k.since, k.reason
	switch {
	case k.state == health.Down:
		a.State = "down"
	case b.Weight == 0:
		a.State = "drain"
	default:
		a.State = "up"
	}
	if k.state == health.Unknown && v.options.Check.Kind != health.None {
		a.Reason = "not checked yet"
	}
	st := k.checker.Status()
	a.Check.Last, a.Check.Checks, a.Check.Failures = st.LastCheck, st.Checks, st.Failures
	a.Check.Reported, a.Check.Distrusted = st.Reported, st.Distrusted
	return a
}

// Connections lists the connections that the filter lets pass, the oldest first.
// Errors are [*admin.Error].
func (d *Daemon) Connections(f admin.Filter) (admin.Connections, error) {
	m, err := f.Matcher()
	if err != nil {
		return admin.Connections{}, err
	}
	if err := d.known(f.Service, f.Backend); err != nil {
		return admin.Connections{}, err
	}
	list, matched, total := d.connections(m, f.Limit)
	now := time.Now()
	c := admin.Connections{Connections: make([]admin.Connection, len(list)), Matched: matched, Total: total}
	for i, x := range list {
		c.Connections[i] = admin.Connection{
			ID: x.ID, Service: x.Service, Client: x.Client, Backend: x.Backend, Engine: engine, State: x.State,
			Began: x.Began, Age: admin.Seconds(now.Sub(x.Began)), Idle: admin.Seconds(x.Idle),
			BytesIn: x.BytesIn, BytesOut: x.BytesOut, Held: x.Held,
		}
	}
	return c, nil
}

// connections asks the relay; the zone of a client, which its filter does not
// know, is looked at here.
func (d *Daemon) connections(m admin.Matcher, limit int) (list []relay.Connection, matched, total int) {
	f := relayFilter(m)
	if m.Client.Zone == "" {
		f.Limit = limit
		return d.relay.Connections(f)
	}
	list, _, total = d.relay.Connections(f)
	list = slices.DeleteFunc(list, func(c relay.Connection) bool { return !m.Client.Match(c.Client) })
	return limited(list, limit), len(list), total
}

func relayFilter(m admin.Matcher) relay.Filter {
	return relay.Filter{Service: m.Service, Backend: m.Backend, Client: m.Client.Network, Port: m.Client.Port, Unix: m.Client.Unix}
}

func idsOf(list []relay.Connection) []uint64 {
	ids := make([]uint64, len(list))
	for i, c := range list {
		ids[i] = c.ID
	}
	return ids
}

// listeners are all of them, for the watcher.
func (d *Daemon) listeners() []listenerAt {
	d.mu.Lock()
	services := make(map[string]*relay.Service, len(d.services))
	for _, s := range d.services {
		services[s.name] = s.relay
	}
	d.mu.Unlock()
	var list []listenerAt
	for name, s := range services {
		for _, l := range s.Listeners() {
			list = append(list, listenerAt{name, l})
		}
	}
	return list
}

// checkKinds are what the backends' checks do, one for each.
func (d *Daemon) checkKinds() []health.Kind {
	var kinds []health.Kind
	for _, s := range d.services {
		for _, b := range s.backends {
			kinds = append(kinds, b.check.Kind)
		}
	}
	return kinds
}
