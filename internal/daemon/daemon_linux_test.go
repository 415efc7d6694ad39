package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/journal"
	"github.com/holdfast-net/holdfast/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A sink is a writer that can be read and waited for while it is written.
type sink struct {
	mu   sync.Mutex
	text bytes.Buffer
	wake chan struct{}
}

func newSink() *sink { return &sink{wake: make(chan struct{}, 1)} }

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}()
	return s.text.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until text is in the sink.
func (s *sink) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.wake:
		case <-deadline:
			t.Fatalf("%q is not in:\n%s", text, s)
		}
	}
}

// An echo is an echo server that can go away.
type echo struct {
	l    net.Listener
	mu   sync.Mutex
	open []net.Conn
	done sync.WaitGroup
}

func startBackend(t *testing.T, address string) *echo {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b := &echo{l: l}
	b.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.open = append(b.open, c)
			b.mu.Unlock()
			b.done.Go(func() {
				_, _ = io.Copy(c, c)
				c.Close()
			})
		}
	})
	t.Cleanup(b.close)
	return b
}

// refuse closes the listener alone: established connections stay.
func (b *echo) refuse() { b.l.Close() }

func (b *echo) close() {
	b.l.Close()
	b.mu.Lock()
	for _, c := range b.open {
		c.Close()
	}
	b.mu.Unlock()
	b.done.Wait()
}

func (b *echo) address() relay.Address { return relay.MustParseAddress(b.l.Addr().String()) }

// A running is a daemon that serves.
type running struct {
	*Daemon
	log, events *sink
	signals     chan os.Signal
	served      chan error
}

func start(t *testing.T, services ...ServiceOptions) *running {
	t.Helper()
	r := &running{log: newSink(), events: newSink(), signals: make(chan os.Signal, 2), served: make(chan error, 1)}
	var err error
	r.Daemon, err = New(Options{
		Services: services, Loops: 2, Events: r.events,
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { r.served <- r.Serve(ctx, r.signals) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		r.served <- nil
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// address is where the first service listens.
func (r *running) address() string { return r.services[0].relay.Addrs()[0].String() }

// connect makes a client of the first service that has exchanged a line.
func (r *running) connect(t *testing.T) *bufio.ReadWriter {
	t.Helper()
	c, err := net.Dial("tcp", r.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	rw := bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriterSize(c, 1))
	exchange(t, rw)
	return rw
}

func exchange(t *testing.T, rw *bufio.ReadWriter) {
	t.Helper()
	if _, err := rw.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := rw.Flush(); err != nil {
		t.Fatal(err)
	}
	if line, err := rw.ReadString('\n'); line != "hello\n" || err != nil {
		t.Fatalf("the echo is %q, %v", line, err)
	}
}

// isReset reads the end of a connection, which must be a reset.
func isReset(t *testing.T, rw *bufio.ReadWriter) {
	t.Helper()
	if _, err := rw.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v, want a reset", err)
	}
}

// quick is a check that notices within milliseconds.
var quick = health.Check{Interval: 5 * time.Millisecond, Timeout: 500 * time.Millisecond, Fall: 2, Rise: 1}

func echoService(b *echo, listen string) ServiceOptions {
	return ServiceOptions{
		Relay: relay.ServiceOptions{
			Name: "echo", Listen: []relay.Address{relay.MustParseAddress(listen)},
			Backends: []relay.Backend{{Name: "b1", Address: b.address(), Weight: 100}},
		},
		Check: quick,
	}
}

// What a check finds reaches the relay: clients of a backend that is down are
// told, and it gets clients again when it is up.
func TestCheckReachesRelay(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(host, func(t *testing.T) {
			b := startBackend(t, host)
			r := start(t, echoService(b, host))
			client := r.connect(t)
			r.events.await(t, `"state":"up"`)
			b.refuse()
			isReset(t, client)
			r.events.await(t, `"cause":"backend_down"`)
			r.log.await(t, "every backend is down")
			startBackend(t, b.address().String())
			r.log.await(t, "clients are served again")
			r.connect(t)
		})
	}
}

// What the relay notices reaches the check: with one that would ask again only in
// an hour, a refused connect takes the backend down.
func TestEvidenceReachesCheck(t *testing.T) {
	b := startBackend(t, "127.0.0.1:0")
	o := echoService(b, "127.0.0.1:0")
	o.Check.Interval, o.Check.Fall = time.Hour, 1
	r := start(t, o)
	r.events.await(t, `"state":"up"`)
	b.refuse()
	c, err := net.Dial("tcp", r.address())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("a client without a backend got %v, want a reset", err)
	}
	r.events.await(t, `"state":"down","reason":"a client's connection to `)
}

func TestSignalTellsAtOnce(t *testing.T) {
	r := start(t, echoService(startBackend(t, "127.0.0.1:0"), "127.0.0.1:0"))
	client := r.connect(t)
	r.signals <- syscall.SIGTERM
	isReset(t, client)
	r.log.await(t, "msg=stopped")
	if got := r.Totals(); got.Connections != 1 || got.BytesIn != 6 || got.BytesOut != 6 || got.ByCause["shutdown"] != 1 {
		t.Errorf("totals %+v", got)
	}
}

func TestSignalDrains(t *testing.T) {
	o := echoService(startBackend(t, "127.0.0.1:0"), "127.0.0.1:0")
	o.Relay.Drain.Timeout = time.Hour
	r := start(t, o)
	client := r.connect(t)
	r.signals <- syscall.SIGTERM
	r.log.await(t, "connections may end by themselves")
	exchange(t, client)
	r.signals <- syscall.SIGINT
	isReset(t, client)
	r.log.await(t, "msg=stopped")
}

func TestNewFailsWithAReason(t *testing.T) {
	b := startBackend(t, "127.0.0.1:0")
	o := echoService(b, b.address().String())
	_, err := New(Options{Services: []ServiceOptions{o}})
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "in use by this program itself") {
		t.Errorf("New: %v", err)
	}
	o = echoService(b, "127.0.0.1:0")
	o.Check.Fall = -1
	if _, err := New(Options{Services: []ServiceOptions{o}}); err == nil || !strings.Contains(err.Error(), "Fall") {
		t.Errorf("New: %v", err)
	}
}

// The names of the fields are a promise, and so is their order in a line.
func TestEventFields(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	weight := 0
	j := journal.New(journal.Options{})
	j.AddEnd(relay.End{
		ID: 7, Service: "redis", Client: "10.0.0.9:4000", Backend: "r1", Began: at, Age: 1500 * time.Millisecond,
		BytesIn: 1, BytesOut: 2, Undelivered: 3, Cause: relay.CauseBackendDown, By: relay.ByRelay,
		ToldClient: relay.ToldRST, ToldBackend: relay.ToldRST, Attempts: 1, Detail: "why",
	})
	j.Add(admin.Event{
		Event: admin.EventBackend, Time: at, Service: "redis", Backend: "r1",
		Change: &admin.Change{Address: "[::1]:6379", State: "down", Reason: "why"},
	})
	j.Add(admin.Event{
		Event: admin.EventBackend, Time: at, Service: "redis", Backend: "r1",
		Change: &admin.Change{Address: "[::1]:6379", State: "drain", Reason: "why", ByHand: "uid 0", Weight: &weight},
	})
	j.Add(admin.Event{Event: admin.EventLost, Time: at, Count: 3})
	want := []string{
		`{"seq":1,"event":"connection","time":"2026-01-02T03:04:06.5Z","service":"redis","backend":"r1","id":7,"client":"10.0.0.9:4000",` +
			`"engine":"relay","cause":"backend_down","by":"holdfast","age":1.5,"bytes_in":1,"bytes_out":2,"undelivered":3,` +
			`"told_client":"rst","told_backend":"rst","attempts":1,"detail":"why"}`,
		`{"seq":2,"event":"backend","time":"2026-01-02T03:04:05Z","service":"redis","backend":"r1","address":"[::1]:6379","state":"down","reason":"why"}`,
		`{"seq":3,"event":"backend","time":"2026-01-02T03:04:05Z","service":"redis","backend":"r1","address":"[::1]:6379","state":"drain","reason":"why","by_hand":"uid 0","weight":0}`,
		`{"seq":4,"event":"lost","time":"2026-01-02T03:04:05Z","count":3}`,
	}
	events, err := j.Read(admin.Filter{}, 0)
	if err != nil || len(events) != len(want) {
		t.Fatalf("%d events, %v, want %d", len(events), err, len(want))
	}
	for i, e := range events {
		if got, err := json.Marshal(e); err != nil || string(got) != want[i] {
			t.Errorf("got  %s, %v\nwant %s", got, err, want[i])
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// A full disk costs the events, and no connection.
func TestEventsCannotBeWritten(t *testing.T) {
	b := startBackend(t, "127.0.0.1:0")
	log := newSink()
	d, err := New(Options{
		Services: []ServiceOptions{echoService(b, "127.0.0.1:0")}, Events: broken{},
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := &running{Daemon: d, log: log, signals: make(chan os.Signal, 1), served: make(chan error, 1)}
	go func() { r.served <- d.Serve(t.Context(), r.signals) }()
	log.await(t, "events are no longer written; connections carry on")
	exchange(t, r.connect(t))
	r.signals <- syscall.SIGTERM
	if err := <-r.served; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Serve: %v, want the reason why events were not written", err)
	}
}
