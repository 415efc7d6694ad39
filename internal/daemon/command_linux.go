package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/relay"
)

// ChangeBackend does to a backend what a person asks for; by says who. It
// outlives reloads, as Apply says, and not the process. Errors are
// [*admin.Error].
func (d *Daemon) ChangeBackend(serviceName, backendName string, c admin.BackendCommand, by string) (admin.BackendResult, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if d.stopping {
		return admin.BackendResult{}, StoppingError()
	}
	if c.Do == admin.DoReset {
		return d.resetBackend(serviceName, backendName, by)
	}
	s, file, err := d.findInFile(serviceName, backendName)
	if err != nil {
		return admin.BackendResult{}, err
	}
	next, changed, err := s.hands.apply(order{c, s.name, by, time.Now()}, file)
	if err != nil {
		return admin.BackendResult{}, err
	}
	r := admin.BackendResult{Connections: d.carried(s, backendName)}
	spec, removed := next.inForce(file.Backend)
	what := outcome(spec, removed, file.Weight, next)
	if !changed {
		what = "already " + what
	} else if err := d.obey(s, next, spec, removed); err != nil {
		return admin.BackendResult{}, err
	}
	r.Text = fmt.Sprintf("backend %s of service %s %s", backendName, s.name, what)
	if removed || spec.Weight == 0 {
		r.Text += "; " + left(r.Connections)
	}
	if changed {
		d.changedByHand(s, spec, removed, r.Text, by)
	}
	return r, nil
}

// changedByHand tells what a command has done to a backend.
func (d *Daemon) changedByHand(s *service, spec relay.Backend, removed bool, text, by string) {
	state := "changed"
	switch {
	case removed:
		state = "removed"
	case spec.Weight == 0:
		state = "drain"
	}
	e := backendChange(s.name, spec, state, text).event
	e.ByHand = by
	if !removed {
		e.Weight = &spec.Weight
	}
	d.journal.Add(e)
	d.log.Info("changed by hand", "change", text, "service", s.name, "backend", spec.Name, "by", by)
}

// outcome says how a backend stands after a command.
func outcome(spec relay.Backend, removed bool, fileWeight int, h hands) string {
	_, byHand := h[spec.Name]
	switch {
	case removed:
		return "is removed"
	case !byHand && spec.Weight == 0:
		return "is drained, as the file says"
	case !byHand:
		return fmt.Sprintf("has the file's weight of %d", spec.Weight)
	case spec.Weight == 0:
		return "is drained"
	}
	return fmt.Sprintf("has weight %d (the file says %d)", spec.Weight, fileWeight)
}

func left(n int) string {
	switch n {
	case 0:
		return "no connection is left"
	case 1:
		return "1 connection is left"
	}
	return fmt.Sprintf("%d connections are left", n)
}

// obey has the relay and the checks follow what commands have set on a backend.
func (d *Daemon) obey(s *service, next hands, spec relay.Backend, removed bool) error {
	b := s.find(spec.Name)
	backends := s.backends
	var err error
	switch {
	case removed:
		err = s.relay.RemoveBackend(spec.Name)
		backends = slices.DeleteFunc(slices.Clone(backends), func(x *backend) bool { return x == b })
	case b == nil:
		if b, err = s.newBackend(spec, s.file.Check, nil); err != nil {
			return &admin.Error{Code: admin.CodeRefused, Text: err.Error()}
		}
		err = s.relay.SetBackend(spec)
		backends = s.inOrder(append(slices.Clone(backends), b))
	default:
		err = s.relay.SetBackend(spec)
	}
	if err != nil {
		return &admin.Error{Code: admin.CodeInternal, Text: err.Error()}
	}
	now := time.Now()
	d.mu.Lock()
	s.hands = next
	s.retire(backends)
	isNew := false
	if !removed {
		isNew, b.current, b.spec = !b.current, true, spec
	}
	verdict := s.judge(now)
	d.mu.Unlock()
	verdict.record(d.journal)
	verdict.log(d.log)
	if isNew {
		d.start(b)
	}
	return nil
}

// inOrder sorts backends as the file has them.
func (s *service) inOrder(list []*backend) []*backend {
	place := make(map[string]int)
	for i, b := range s.file.Relay.Backends {
		place[b.Name] = i
	}
	slices.SortFunc(list, func(a, b *backend) int { return place[a.spec.Name] - place[b.spec.Name] })
	return list
}

// carried counts the connections of a backend.
func (d *Daemon) carried(s *service, backend string) int {
	n := 0
	for _, b := range s.relay.Backends() {
		if b.Name == backend {
			n += b.Active + b.Inactive
		}
	}
	return n
}

// resetBackend tells both ends of every established connection of a backend at
// once, also of one that was removed. A client that is still being connected to it
// is not reset: its connect may succeed, or go to another backend. The caller
// holds changing.
func (d *Daemon) resetBackend(serviceName, backendName, by string) (admin.BackendResult, error) {
	if err := d.known(serviceName, backendName); err != nil {
		return admin.BackendResult{}, err
	}
	d.mu.Lock()
	services := slices.Concat(d.services, d.leaving)
	d.mu.Unlock()
	n := 0
	for _, s := range services {
		if s.name != serviceName {
			continue
		}
		// A service that has taken the name of a removed one need not have the backend.
		told, err := s.relay.ResetBackend(backendName)
		if err != nil && !errors.Is(err, relay.ErrUnknownBackend) {
			return admin.BackendResult{}, err
		}
		n += told
	}
	text := fmt.Sprintf("%s of backend %s of service %s %s told", plural(n, "connection"), backendName, serviceName, wasOrWere(n))
	d.journal.Add(admin.Event{
		Event: admin.EventBackend, Service: serviceName, Backend: backendName, Count: uint64(n),
		Change: &admin.Change{State: "reset", Reason: text, ByHand: by},
	})
	d.log.Info("reset by hand", "change", text, "service", serviceName, "backend", backendName, "by", by)
	return admin.BackendResult{Text: text, Connections: n}, nil
}

func wasOrWere(n int) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

// ResetConnections tells both ends of the connections that have one of the ids,
// or of any where there is none, and pass the filter; one of both must be given.
// by says who wants it. It returns how many there were. Errors are
// [*admin.Error].
func (d *Daemon) ResetConnections(f admin.Filter, ids []uint64, by string) (int, error) {
	if f.Limit = 0; f == (admin.Filter{}) && len(ids) == 0 {
		return 0, &admin.Error{
			Code: admin.CodeInvalid, Text: "it is not said which connections to reset",
			Remedy: "give their ids, a service, a backend or a client; 0.0.0.0/0 and ::/0 are every client",
		}
	}
	m, err := f.Matcher()
	if err != nil {
		return 0, err
	}
	if err := d.known(f.Service, f.Backend); err != nil {
		return 0, err
	}
	if m.Client.Zone != "" { // which the relay's filter does not know
		found, _, _ := d.connections(m, 0)
		ids = slices.DeleteFunc(idsOf(found), func(id uint64) bool { return len(ids) > 0 && !slices.Contains(ids, id) })
		if len(ids) == 0 {
			return 0, nil
		}
	}
	n := d.relay.ResetConnections(relayFilter(m), ids...)
	if n == 0 && len(ids) > 0 && f == (admin.Filter{}) {
		return 0, &admin.Error{
			Code: admin.CodeUnknown, Text: "there is no connection " + joinIDs(ids),
			Remedy: "it has ended, or never was: holdfast connections lists those there are",
		}
	}
	text := fmt.Sprintf("%s %s told by command", plural(n, "connection"), wasOrWere(n))
	d.journal.Add(admin.Event{
		Event: admin.EventReset, Service: f.Service, Backend: f.Backend, Count: uint64(n),
		Change: &admin.Change{State: "reset", Reason: text, ByHand: by},
	})
	attrs := []slog.Attr{slog.Int("connections", n), slog.String("by", by)}
	for _, a := range []struct{ key, value string }{
		{"service", f.Service}, {"backend", f.Backend}, {"client", f.Client}, {"ids", joinIDs(ids)},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	d.log.LogAttrs(context.Background(), slog.LevelInfo, "connections were reset by hand", attrs...)
	return n, nil
}

// joinIDs is at most a few of them.
func joinIDs(ids []uint64) string {
	const most = 8
	var text []string
	for i, id := range ids {
		if i == most {
			text = append(text, "...")
			break
		}
		text = append(text, fmt.Sprint(id))
	}
	return strings.Join(text, ", ")
}
