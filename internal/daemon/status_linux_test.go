package daemon

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/relay"
)

// codes are the problems that there are.
func (r *running) codes() []string {
	var list []string
	for _, p := range r.Problems() {
		list = append(list, strings.TrimSuffix(p.Code+" "+p.Backend, " "))
	}
	return list
}

// A backend that is down is a problem unless somebody has drained it; a service
// that can serve nobody is one whatever the reason.
func TestProblems(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	b2 := startBackend(t, "127.0.0.1:0")
	o := with(echoService(b2, "127.0.0.1:0"),
		relay.Backend{Name: "b1", Address: relay.MustParseAddress(dead.Addr().String()), Weight: 100},
		relay.Backend{Name: "b2", Address: b2.address(), Weight: 100})
	empty := with(echoService(b2, "127.0.0.1:0"))
	empty.Relay.Name = "empty"
	r := start(t, o)
	r.events.await(t, `"state":"down"`)
	expect := func(what string, want ...string) {
		t.Helper()
		await(t, what, func() bool { return slices.Equal(r.codes(), want) })
	}
	expect("a backend is down", "backend_down b1")
	p := r.Problems()[0]
	if p.Service != "echo" || p.Since.IsZero() || !strings.HasPrefix(p.Text, "backend b1 of service echo is down: ") {
		t.Errorf("%+v", p)
	}
	r.do(t, "b1", admin.DoDrain, 0, "backend b1 of service echo is drained; no connection is left")
	expect("somebody works on it")
	r.do(t, "b2", admin.DoDrain, 0, "backend b2 of service echo is drained; no connection is left")
	expect("nobody can serve", "service_down")
	if p := r.Problems()[0]; p.Text != "service echo refuses new clients: every backend is drained" || time.Since(p.Since) > time.Minute {
		t.Errorf("%+v", p)
	}
	list, err := r.Services(admin.Filter{})
	if err != nil || len(list) != 1 || list[0].State != "down" || list[0].Backends[0].State != "down" || list[0].Backends[1].State != "drain" {
		t.Errorf("%+v, %v", list, err)
	}
	r.do(t, "b1", admin.DoResume, 0, "backend b1 of service echo has the file's weight of 100")
	r.do(t, "b2", admin.DoResume, 0, "backend b2 of service echo has the file's weight of 100")
	expect("as it was", "backend_down b1")
	if _, err := r.Apply([]ServiceOptions{o, empty}); err != nil {
		t.Fatal(err)
	}
	expect("a service without backends", "service_down", "backend_down b1")
	r.events.await(t, `"event":"service","time":`)
	r.events.await(t, `"service":"empty","state":"down","reason":"it has no backend"`)
}

// What a listing says of a service and its listeners.
func TestServices(t *testing.T) {
	r, _ := twoBackends(t, "127.0.0.1:0")
	r.connect(t)
	if err := tryOnce(r.address()); err != nil {
		t.Fatal(err)
	}
	await(t, "one has ended", func() bool { return r.Totals().Connections == 1 })
	list, err := r.Services(admin.Filter{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	s := list[0]
	if s.State != "up" || s.Engine != "relay" || s.Balance != "least-connections" || s.OnBackendLost != "reset" ||
		s.Active != 1 || s.Inactive != 0 || s.Total != 2 || s.Refused != 0 || s.BytesIn != 12 || s.BytesOut != 12 || len(s.Backends) != 2 {
		t.Errorf("%+v", s)
	}
	if len(s.Listen) != 1 || s.Listen[0].Address != r.address() || s.Listen[0].QueueMax == 0 || s.Listen[0].Dropped != 0 {
		t.Errorf("%+v", s.Listen)
	}
	list, err = r.Services(admin.Filter{Backend: "b2"})
	if err != nil || len(list) != 1 || len(list[0].Backends) != 1 || list[0].Backends[0].Name != "b2" {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := r.Backends(admin.Filter{Limit: 1}); err != nil || len(list) != 1 || list[0].Name != "b1" {
		t.Errorf("%+v, %v", list, err)
	}
	var names []string
	for _, l := range r.Limits() {
		names = append(names, l.Name)
		if l.Used == 0 || l.Max < l.Used || l.Source == "" || l.Remedy == "" || l.Reached != 0 || !l.Last.IsZero() {
			t.Errorf("%+v", l)
		}
	}
	if !slices.Equal(names, []string{"connections", "descriptors", "memory"}) {
		t.Errorf("limits %q", names)
	}
}

// blocked does not come back from Write before it is told to.
type blocked struct {
	once    sync.Once
	entered chan struct{}
	goOn    chan struct{}
}

func (b *blocked) Write(p []byte) (int, error) {
	b.once.Do(func() { close(b.entered) })
	<-b.goOn
	return len(p), nil
}

// Whoever does not read the events stops nothing: connections, checks, commands
// and reloads go on.
func TestEventsBlocked(t *testing.T) {
	b := startBackend(t, "127.0.0.1:0")
	o := echoService(b, "127.0.0.1:0")
	out := &blocked{entered: make(chan struct{}), goOn: make(chan struct{})}
	d, err := New(Options{Services: []ServiceOptions{o}, Loops: 1, Events: out})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	served := make(chan error, 1)
	r := &running{Daemon: d, log: newSink(), events: newSink()}
	go func() { served <- d.Serve(t.Context(), r.signals) }()
	<-out.entered
	for range 50 {
		if err := tryOnce(r.address()); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the check has a result", func() bool { return !r.backendOf(t, "b1").Since.IsZero() })
	r.do(t, "b1", admin.DoWeight, 7, "backend b1 of service echo has weight 7 (the file says 100)")
	if err := d.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	close(out.goOn)
	if err := d.relay.Close(); err != nil { // as a broken relay would, which ends the rest
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
