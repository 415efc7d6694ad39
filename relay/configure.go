//go:build linux

package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// Change is what [Relay.Configure] did.
type Change struct {
	// Services are those asked for, in the same order. One that was there before
	// under the same name is the same.
	Services []*Service
	// Removed are those that are no longer asked for. They have stopped
	// listening; their connections carry on until [Service.Drain] is called.
	Removed []*Service
}

// Configure makes the relay's services those of want, all or nothing: when it
// returns an error, nothing has changed. Services are told apart by Name.
//
// Established connections are not touched. A service that is kept keeps its
// totals and the state of its backends; a service that is not in want stops
// listening, and is the caller's to drain. A backend that is added starts up;
// one that is no longer asked for, or has the weight 0, gets no new connections
// and keeps those it has, under the bounds of Drain; another address is for new
// connections. Changed policies hold for established connections too, from now
// on: IdleTimeout, DeadPeerTimeout, OnBackendLost (also of a backend that is
// down already), and Drain, whose timeout counts from when draining began.
// Allow and Balance are for new clients, ConnectTimeout also for connects under
// way.
//
// Addresses that stay, in the same service or another, keep their listening
// socket with everybody in its queue; a unix socket whose file is no longer there
// gets a new one. New ones are bound before anything
// changes; an error of these is a [*ListenError]. For one that is given up,
// those who are in its queue are accepted first. A port of 0 stays what the
// kernel chose for as long as its service asks for it.
//
// Configure returns when every listener that was given up is closed, and the
// loops have applied what has changed.
func (r *Relay) Configure(want []ServiceOptions) (Change, error) {
	options, err := checkAll(want)
	if err != nil {
		return Change{}, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	p, err := r.plan(options)
	if err != nil {
		return Change{}, err
	}
	change, later, err := r.carryOut(p)
	if err != nil {
		return Change{}, err
	}
	for _, f := range later {
		f()
	}
	for _, ln := range p.dropped {
		<-ln.closed
	}
	r.lanes.Anew(func(netip.Addr) bool { return true })
	r.lanes.Forget(func(to netip.AddrPort) bool {
		return slices.ContainsFunc(options, func(o ServiceOptions) bool {
			return slices.ContainsFunc(o.Backends, func(b Backend) bool { return b.Address.ip == to })
		})
	})
	return change, nil
}

// checkAll checks everything that can be without looking at the relay.
func checkAll(want []ServiceOptions) ([]ServiceOptions, error) {
	var errs []error
	options := make([]ServiceOptions, len(want))
	names := make(map[string]bool)
	owners := make(map[Address]string)
	for i, o := range want {
		o, err := o.check()
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", o.Name, err))
		}
		options[i] = o
		switch {
		case o.Name == "":
			errs = append(errs, fmt.Errorf("relay: service number %d has no name", i+1))
		case names[o.Name]:
			errs = append(errs, fmt.Errorf("relay: two services are named %s", o.Name))
		}
		names[o.Name] = true
		for _, a := range o.Listen {
			if !a.IsUnix() && a.ip.Port() == 0 {
				continue
			}
			if owner, taken := owners[a]; taken {
				errs = append(errs, fmt.Errorf("relay: service %s: %s is listened on by service %s", o.Name, a, owner))
			}
			owners[a] = o.Name
		}
	}
	return options, errors.Join(errs...)
}

// A plan is a change that cannot fail any more.
type plan struct {
	services []planned
	fresh    []*listener // of services
	dropped  []*listener
	removed  []*Service
}

type planned struct {
	options   ServiceOptions
	service   *Service // nil: a new one
	listeners []*listener
}

// plan finds out what becomes of each service and listener, and makes the
// sockets that are missing. The caller holds changing.
func (r *Relay) plan(options []ServiceOptions) (_ *plan, err error) {
	if r.isClosed() {
		return nil, fmt.Errorf("relay: %w", net.ErrClosed)
	}
	p := &plan{services: make([]planned, len(options))}
	free := make(map[*listener]bool) // no service has asked for it yet
	for _, s := range r.services {
		for _, ln := range s.listeners {
			free[ln] = true
		}
	}
	find := func(services []*Service, fits func(*listener) bool) *listener {
		for _, s := range services {
			for _, ln := range s.listeners {
				if free[ln] && fits(ln) && !ln.gone() {
					delete(free, ln)
					return ln
				}
			}
		}
		return nil
	}
	for i, o := range options {
		s := r.serviceNamed(o.Name)
		p.services[i] = planned{options: o, service: s, listeners: make([]*listener, len(o.Listen))}
		if s == nil {
			continue
		}
		for j, a := range o.Listen {
			p.services[i].listeners[j] = find([]*Service{s}, func(ln *listener) bool { return ln.asked == a })
		}
	}
	var errs []error
	for i := range p.services {
		pl := &p.services[i]
		for j, a := range pl.options.Listen {
			if pl.listeners[j] == nil {
				pl.listeners[j] = find(r.services, func(ln *listener) bool { return ln.addr == a })
			}
			if pl.listeners[j] != nil {
				continue
			}
			ln, err := bindListener(a, pl.options.floats(a))
			if err != nil {
				errs = append(errs, r.explainOverlap(a, err))
				continue
			}
			pl.listeners[j] = ln
			p.fresh = append(p.fresh, ln)
		}
	}
	// Nobody can connect before all are bound, and be reset because one is not.
	if len(errs) == 0 {
		for _, pl := range p.services {
			for _, ln := range pl.listeners {
				if slices.Contains(p.fresh, ln) {
					if err := ln.listen(pl.options.Backlog); err != nil {
						errs = append(errs, err)
					}
				}
			}
		}
	}
	if len(errs) > 0 {
		closeAll(p.fresh)
		return nil, errors.Join(errs...)
	}
	for _, s := range r.services {
		if !slices.ContainsFunc(p.services, func(pl planned) bool { return pl.service == s }) {
			p.removed = append(p.removed, s)
		}
		for _, ln := range s.listeners {
			if free[ln] {
				p.dropped = append(p.dropped, ln)
			}
		}
	}
	return p, nil
}

// carryOut changes the relay as planned, and returns what the loops are to do
// about it. The error is that the relay was closed meanwhile, and then it has
// changed nothing. The caller holds changing.
func (r *Relay) carryOut(p *plan) (change Change, later []func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.ending {
		closeAll(p.fresh)
		return Change{}, nil, fmt.Errorf("relay: %w", net.ErrClosed)
	}
	for _, pl := range p.services {
		s := pl.service
		if s == nil {
			s = newService(r, pl.options)
		} else if f := s.configure(pl.options); f != nil {
			later = append(later, f)
		}
		s.mu.Lock()
		s.listeners = pl.listeners
		s.mu.Unlock()
		for j, ln := range pl.listeners {
			ln.asked = pl.options.Listen[j]
			old := ln.service.Swap(s)
			if old == nil {
				r.watchOnLoops(ln)
			} else if backlog := pl.options.Backlog; ln.backlog != backlog {
				if err := ln.listen(backlog); err != nil {
					s.warn("the length of an accept queue stays what it was", slog.Any("err", err))
				}
			}
		}
		change.Services = append(change.Services, s)
	}
	for _, s := range p.removed {
		s.mu.Lock()
		s.stopped, s.listeners = true, nil
		s.mu.Unlock()
		change.Removed = append(change.Removed, s)
	}
	for _, ln := range p.dropped {
		r.drop(ln)
	}
	r.services = slices.Clone(change.Services)
	return change, later, nil
}

// configure takes options that were checked, and returns what is to be done
// about the connections that there are, if anything.
func (s *Service) configure(now ServiceOptions) (later func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.options.Swap(&now)
	s.setOrigins(now.Groups)
	_ = s.pool.SetPolicy(now.Balance) // it was checked, like the backends
	drains := false
	wanted := make(map[string]bool, len(now.Backends))
	for _, b := range now.Backends {
		wanted[b.Name] = true
	}
	for name := range s.targets {
		if !wanted[name] {
			_ = s.remove(name)
			drains = true
		}
	}
	for _, b := range now.Backends {
		had := s.targets[b.Name]
		drains = drains || had == nil && s.gone[b.Name] != nil || had != nil && (had.Weight == 0) != (b.Weight == 0)
		_ = s.set(b)
	}
	if !drains && old.ConnectTimeout == now.ConnectTimeout && old.IdleTimeout == now.IdleTimeout &&
		old.DeadPeerTimeout == now.DeadPeerTimeout && old.OnBackendLost == now.OnBackendLost && old.Drain == now.Drain {
		return nil
	}
	return func() { s.each(changeStep, func(p *pair) { p.adopt(old, &now) }) }
}

// bindAll makes a socket for each address of a service, or none.
func (r *Relay) bindAll(opts *ServiceOptions) ([]*listener, error) {
	var listeners []*listener
	for _, a := range opts.Listen {
		ln, err := bindListener(a, opts.floats(a))
		if err != nil {
			closeAll(listeners)
			return nil, err
		}
		listeners = append(listeners, ln)
	}
	return listeners, nil
}

func listenAll(listeners []*listener, backlog int) error {
	for _, ln := range listeners {
		if err := ln.listen(backlog); err != nil {
			return err
		}
	}
	return nil
}

// closeAll closes sockets that no loop has come to know.
func closeAll(listeners []*listener) {
	for _, ln := range listeners {
		ln.close()
	}
}

// explainOverlap names the listener of this relay that keeps a from being
// bound, although it is to go.
func (r *Relay) explainOverlap(a Address, err error) error {
	failed, ok := errors.AsType[*ListenError](err)
	if !ok || a.IsUnix() || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	covers := func(x, y netip.AddrPort) bool {
		return x.Port() == y.Port() && x.Addr().Is4() == y.Addr().Is4() && (x.Addr().IsUnspecified() || y.Addr().IsUnspecified())
	}
	for _, s := range r.services {
		for _, ln := range s.listeners {
			if !ln.addr.IsUnix() && covers(ln.addr.ip, a.ip) {
				failed.InTheWay, failed.Owner = ln.addr, s.name
				return failed
			}
		}
	}
	return err
}
