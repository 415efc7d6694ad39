//go:build linux

package scene

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// ServerCommand is the hidden command under which the program runs
// [traffic.ServerMain].
const ServerCommand = "lab-server"

// servicePort is where the scenes' services and backends listen.
const servicePort = 7000

// A Relay is `holdfast relay`, or another command that serves, running in a
// host.
type Relay struct {
	*lab.Process
	events lines[RelayEvent]
}

// A RelayEvent is an event as a line of `--events -` says it. Its parts are
// always there: what the line does not have is zero.
type RelayEvent admin.Event

// UnmarshalJSON reads a line.
func (e *RelayEvent) UnmarshalJSON(line []byte) error {
	*e = RelayEvent{ConnectionEnd: new(admin.ConnectionEnd), Change: new(admin.Change)}
	return json.Unmarshal(line, (*admin.Event)(e))
}

// String is the line as people read it in a verdict.
func (e RelayEvent) String() string {
	if *e.ConnectionEnd == (admin.ConnectionEnd{}) {
		e.ConnectionEnd = nil
	}
	if *e.Change == (admin.Change{}) {
		e.Change = nil
	}
	line, err := json.Marshal(admin.Event(e))
	if err != nil {
		return err.Error()
	}
	return string(line)
}

// Began returns when a connection that has ended was accepted.
func (e RelayEvent) Began() time.Time { return e.Time.Add(-e.Age.Duration()) }

// StartRelay runs `holdfast relay` with args in the host, as the user nobody,
// and waits until it is ready.
func (e *Env) StartRelay(ctx context.Context, h *lab.Host, args ...string) (*Relay, error) {
	c, err := e.Program.Unprivileged(append([]string{"relay", "--events", "-"}, args...)...)
	if err != nil {
		return nil, err
	}
	r := &Relay{}
	return r, r.Start(ctx, h, c)
}

// Start runs a command that writes its events to its standard output, and waits
// until it is ready.
func (r *Relay) Start(ctx context.Context, h *lab.Host, c lab.Command) (err error) {
	c.Stdout = &r.events
	if r.Process, err = h.Start(c); err != nil {
		return err
	}
	// The last line that it says before it serves.
	return r.Await(ctx, "msg=ready")
}

// Events returns what the relay has reported so far.
func (r *Relay) Events() []RelayEvent { return r.events.all() }

// Warnings returns what the relay has said that it should not have had to.
func (r *Relay) Warnings() []string {
	var found []string
	for line := range strings.Lines(r.Output()) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// AwaitEvent waits for an event that match accepts.
func (r *Relay) AwaitEvent(ctx context.Context, match func(RelayEvent) bool) (RelayEvent, error) {
	return r.events.await(ctx, match)
}

// A Server is a [traffic.Serve] server running in a host, as a process of its
// own.
type Server struct {
	*lab.Process
	Name    string
	Address netip.AddrPort
	Journal *traffic.Journal // what it has said of its connections

	events lines[traffic.Event]
}

// StartServer runs a server called name in the host and waits until it
// listens; args as for [traffic.ServerMain].
func (e *Env) StartServer(ctx context.Context, h *lab.Host, name string, at netip.AddrPort, args ...string) (*Server, error) {
	s := &Server{Name: name, Address: at, Journal: &traffic.Journal{}}
	s.events.on = s.Journal.Add
	c := e.Program.Command(append([]string{ServerCommand, "-listen", at.String(), "-name", name}, args...)...)
	c.Stdout = &s.events
	var err error
	if s.Process, err = h.Start(c); err != nil {
		return nil, err
	}
	if _, err := s.events.awaitOr(ctx, s.Done(), func(ev traffic.Event) bool { return ev.Kind == traffic.EventReady }); err != nil {
		return nil, fmt.Errorf("server %s: %w; it said: %q", name, err, s.Output())
	}
	return s, nil
}

// Events returns what the server has reported so far.
func (s *Server) Events() []traffic.Event { return s.events.all() }

// AwaitEvent waits for an event that match accepts.
func (s *Server) AwaitEvent(ctx context.Context, match func(traffic.Event) bool) (traffic.Event, error) {
	return s.events.await(ctx, match)
}

// lines takes in a stream of JSON lines, as the output of a process.
type lines[T any] struct {
	on func(T) // called for each; nil: not

	mu      sync.Mutex
	rest    []byte
	got     []T
	changed chan struct{}
}

// Write takes in output. Lines that are not JSON are left out: they are for
// people.
func (l *lines[T]) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			break
		}
		l.rest = rest
		var v T
		if json.Unmarshal(line, &v) == nil {
			l.got = append(l.got, v)
			if l.on != nil {
				l.on(v)
			}
		}
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return len(b), nil
}

func (l *lines[T]) all() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.got[:len(l.got):len(l.got)]
}

func (l *lines[T]) await(ctx context.Context, match func(T) bool) (T, error) {
	return l.awaitOr(ctx, nil, match)
}

// awaitOr also gives up when the process that writes is done.
func (l *lines[T]) awaitOr(ctx context.Context, done <-chan struct{}, match func(T) bool) (T, error) {
	var zero T
	for seen := 0; ; {
		l.mu.Lock()
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed, got := l.changed, l.got
		l.mu.Unlock()
		for ; seen < len(got); seen++ {
			if match(got[seen]) {
				return got[seen], nil
			}
		}
		select {
		case <-changed:
		case <-done:
			return zero, fmt.Errorf("the process ended before it reported that")
		case <-ctx.Done():
			return zero, fmt.Errorf("waiting for a report: %w", ctx.Err())
		}
	}
}

// AddrPort is a host's address in the scene's family, with the service's port.
func (e *Env) AddrPort(h *lab.Host) netip.AddrPort { return h.AddrPort(e.Family, servicePort) }
