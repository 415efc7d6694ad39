package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/relay"
)

// Apply makes the services what a new file says, and returns what changed, one
// sentence each. It does everything or, with an error, nothing.
//
// Established connections are not touched, apart from the bounds and timeouts
// that hold for them. A backend's check goes on where neither its address nor
// its settings changed; otherwise it starts anew, and a backend that was down
// stays so until the new check finds it well. What commands have set lasts as
// long as the file says of it what it said when they were given.
//
// A removed service listens no more. What it carries ends by itself, or by the
// bounds of its Drain; where both are 0 there is no bound. Until then it is
// listed as in drain, and a stop of the daemon ends it.
func (d *Daemon) Apply(services []ServiceOptions) (changes []string, err error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if d.stopping {
		return nil, StoppingError()
	}
	list, err := d.configure(services)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		d.log.LogAttrs(context.Background(), slog.LevelInfo, "changed", c.attrs()...)
	}
	return sentences(list), nil
}

// StoppingError is the answer to a change that comes when the node is stopping.
func StoppingError() error {
	return &admin.Error{Code: admin.CodeRefused, Text: "the node is stopping", Remedy: "nothing can be changed until it runs again"}
}

// A plan is what a service is to become.
type plan struct {
	*service
	next     version
	options  relay.ServiceOptions
	backends []*backend
}

// configure takes the daemon to what the file says. The caller holds changing.
func (d *Daemon) configure(services []ServiceOptions) ([]change, error) {
	plans := make([]plan, 0, len(services))
	want := make([]relay.ServiceOptions, 0, len(services))
	for _, so := range services {
		p, err := d.plan(so)
		if err != nil {
			return nil, err
		}
		plans = append(plans, p)
		want = append(want, p.options)
	}
	if err := d.removeStale(want); err != nil {
		return nil, err
	}
	lost := d.lostListeners(want)
	done, err := d.relay.Configure(want)
	if err != nil {
		return nil, explainListen(err)
	}

	// From here on nothing fails.
	before := d.versions()
	started, verdicts := d.take(plans, done.Services)
	list := append(differences(before, d.versions()), lost...)
	if d.serving == nil {
		d.watcher.measureBase()
	}
	d.relay.SetMaxConnections(d.watcher.fit(d.checkKinds()))
	if len(before) == 0 && d.serving == nil {
		list = nil // the start
	}
	for _, c := range list {
		d.journal.Add(c.event)
	}
	for _, v := range verdicts {
		v.record(d.journal)
		v.log(d.log)
	}
	for _, b := range started {
		d.start(b)
	}
	return list, nil
}

// plan works out what a service of the file becomes, and changes nothing.
func (d *Daemon) plan(so ServiceOptions) (plan, error) {
	if so.Relay.Name == "" && len(so.Relay.Listen) > 0 {
		so.Relay.Name = so.Relay.Listen[0].String()
	}
	i := slices.IndexFunc(d.services, func(s *service) bool { return s.name == so.Relay.Name })
	s := &service{daemon: d, name: so.Relay.Name}
	if i >= 0 {
		s = d.services[i]
		so = keepAddresses(s.file, so)
	}
	p := plan{service: s, next: version{so, s.hands.after(so.backends())}, options: so.Relay}
	p.options.Backends = nil
	p.options.OnEvidence = s.noticed
	for _, spec := range so.Relay.Backends {
		spec, removed := p.next.hands.inForce(spec)
		if removed {
			continue
		}
		p.options.Backends = append(p.options.Backends, spec)
		b := s.find(spec.Name)
		if b == nil || b.spec.Address != spec.Address || !sameCheck(b.check, so.Check) {
			var err error
			if b, err = s.newBackend(spec, so.Check, b); err != nil {
				return plan{}, err
			}
		}
		p.backends = append(p.backends, b)
	}
	return p, nil
}

// find finds a backend that can be chosen; nil where there is none.
func (s *service) find(name string) *backend {
	for _, b := range s.backends {
		if b.spec.Name == name {
			return b
		}
	}
	return nil
}

// keepAddresses keeps a backend at the address it has as long as its host name
// still stands for that: name servers change the order of what they answer, and
// a reload is no reason to move clients.
func keepAddresses(before, after ServiceOptions) ServiceOptions {
	var kept []relay.Backend
	for i, b := range after.Relay.Backends {
		host, ok := after.Hosts[b.Name]
		if !ok || host.Name != before.Hosts[b.Name].Name {
			continue
		}
		j := slices.IndexFunc(before.Relay.Backends, func(was relay.Backend) bool { return was.Name == b.Name })
		if j < 0 || !slices.Contains(host.Addresses, before.Relay.Backends[j].Address) {
			continue
		}
		if kept == nil {
			kept = slices.Clone(after.Relay.Backends)
		}
		kept[i].Address = before.Relay.Backends[j].Address
	}
	if kept != nil {
		after.Relay.Backends = kept
	}
	return after
}

// removeStale removes what dead processes have left where unix sockets are to
// be. Those on which this daemon listens already are its own, unless somebody has
// taken their files away.
func (d *Daemon) removeStale(want []relay.ServiceOptions) error {
	own := make(map[relay.Address]bool)
	for _, l := range d.listeners() {
		own[l.Address] = !l.Gone
	}
	for _, o := range want {
		for _, a := range o.Listen {
			if !a.IsUnix() || own[a] {
				continue
			}
			if err := probe.RemoveStaleSocket(a.Path()); err != nil {
				return err
			}
		}
	}
	return nil
}

// lostListeners says which unix sockets are wanted again whose files somebody has
// taken away.
func (d *Daemon) lostListeners(want []relay.ServiceOptions) (list []change) {
	for _, l := range d.listeners() {
		for _, o := range want {
			if l.Gone && o.Name == l.service && slices.Contains(o.Listen, l.Address) {
				text := fmt.Sprintf("service %s: listens on %s again, whose file was gone", l.service, l.Address)
				list = append(list, serviceChange(l.service, "changed", text))
			}
		}
	}
	return list
}

func (d *Daemon) versions() []version {
	list := make([]version, len(d.services))
	for i, s := range d.services {
		list[i] = version{s.file, s.hands}
	}
	return list
}

// take replaces what runs by the plans, which the relay follows already. It
// returns the backends whose checks are to be started.
func (d *Daemon) take(plans []plan, relays []*relay.Service) (started []*backend, verdicts []verdict) {
	now := time.Now()
	var removed []*service
	d.mu.Lock()
	for _, s := range d.services {
		if !slices.ContainsFunc(plans, func(p plan) bool { return p.service == s }) {
			s.leaving = true
			s.retire(nil)
			removed = append(removed, s)
		}
	}
	d.leaving = append(d.leaving, removed...)
	d.services = nil
	for i, p := range plans {
		s := p.service
		s.relay = relays[i]
		s.file, s.hands = p.next.ServiceOptions, p.next.hands
		s.retire(p.backends)
		for i, b := range s.backends {
			b.spec = p.options.Backends[i]
			if !b.current {
				b.current = true
				started = append(started, b)
			}
		}
		d.services = append(d.services, s)
		verdicts = append(verdicts, s.judge(now))
	}
	d.mu.Unlock()

	for _, p := range plans {
		for _, b := range p.service.backends {
			b.mark()
		}
	}
	for _, s := range removed {
		d.release(s)
	}
	return started, verdicts
}

// retire puts backends in the place of those that a service has, and ends the
// checks of who is not among them. The caller holds changing and mu.
func (s *service) retire(next []*backend) {
	for _, b := range s.backends {
		if !slices.Contains(next, b) {
			b.current = false
			b.end()
		}
	}
	s.backends = next
	byName := make(map[string]*backend, len(next))
	for _, b := range next {
		byName[b.spec.Name] = b
	}
	s.byName.Store(&byName)
}

// end ends the checks of a backend, and does not wait for one under way.
func (b *backend) end() { _ = b.checker.Close() }

// mark has the relay know what is known of a backend.
func (b *backend) mark() {
	s := b.service
	var err error
	if b.state == health.Down {
		err = s.relay.MarkDown(b.spec.Name, b.since, b.reason)
	} else {
		err = s.relay.MarkUp(b.spec.Name)
	}
	if err != nil {
		s.daemon.log.Error("the relay does not have a backend that it was given", "err", err)
	}
}

// release lets the connections of a removed service end.
func (d *Daemon) release(s *service) {
	gone := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.leaving = slices.DeleteFunc(d.leaving, func(l *service) bool { return l == s })
	}
	ctx := d.serving
	if ctx == nil { // it never had a connection
		s.relay.Drain(ended())
		gone()
		return
	}
	bounds := s.file.Relay.Drain
	d.log.Info("a removed service drains", "service", s.name, "connections", s.relay.Live(),
		"drain_timeout", bounds.Timeout.String(), "drain_idle", bounds.Idle.String())
	d.tasks.Go(func() {
		told := s.relay.Drain(ctx)
		gone()
		d.log.Info("a removed service is gone", "service", s.name, "told", told)
	})
}
