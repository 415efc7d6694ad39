//go:build linux

package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/journal"
)

// A fakeNode has two services and remembers what it was told to do.
type fakeNode struct {
	journal *journal.Journal
	metrics http.Handler

	mu      sync.Mutex
	did     []string
	err     error
	reloads chan struct{} // not nil: a reload waits for it
	panics  bool
}

func newFakeNode() *fakeNode {
	return &fakeNode{
		journal: journal.New(journal.Options{}),
		metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "holdfast_up 1") }),
	}
}

func (n *fakeNode) note(format string, args ...any) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.did = append(n.did, fmt.Sprintf(format, args...))
	return n.err
}

func (n *fakeNode) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

// done returns what was done since the last call.
func (n *fakeNode) done() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := strings.Join(n.did, "; ")
	n.did = nil
	return text
}

func (n *fakeNode) Status() admin.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.panics {
		panic("a fault")
	}
	return admin.Status{Node: "a", Version: "1.2.3", State: "well", Services: []admin.Service{{Name: "redis"}}, Addresses: []admin.AddressGroup{{Name: "front"}}, Pair: &admin.Pair{}}
}

func (n *fakeNode) Services(f admin.Filter) ([]admin.Service, error) {
	return []admin.Service{{Name: "redis"}, {Name: "pg"}}, n.note("services %+v", f)
}

func (n *fakeNode) Backends(f admin.Filter) ([]admin.Backend, error) {
	return []admin.Backend{{Service: "redis", Name: "r1"}, {Service: "redis", Name: "r2"}}, n.note("backends %+v", f)
}

func (n *fakeNode) Connections(f admin.Filter) (admin.Connections, error) {
	return admin.Connections{Matched: 9, Total: 12}, n.note("connections %+v", f)
}

func (n *fakeNode) Events(f admin.Filter, after uint64) ([]admin.Event, error) {
	return n.journal.Read(f, after)
}

func (n *fakeNode) Follow(f admin.Filter, after uint64) (*journal.Follower, error) {
	return n.journal.Follow(f, after)
}

func (n *fakeNode) Reload(ctx context.Context, by string) (admin.Reload, error) {
	n.mu.Lock()
	reloads := n.reloads
	n.mu.Unlock()
	if reloads != nil {
		select {
		case <-reloads:
		case <-ctx.Done():
			return admin.Reload{}, ctx.Err()
		}
	}
	return admin.Reload{File: "holdfast.yaml", Changes: []string{"backend r3 of redis is new"}}, n.note("reload by %s", by)
}

func (n *fakeNode) ChangeBackend(service, backend string, c admin.BackendCommand, by string) (admin.BackendResult, error) {
	return admin.BackendResult{Text: "done", Connections: 3}, n.note("%s %s of %s to %d by %s", c.Do, backend, service, c.Weight, by)
}

func (n *fakeNode) ResetConnections(f admin.Filter, ids []uint64, by string) (int, error) {
	return 2, n.note("reset %+v %v by %s", f, ids, by)
}

func (n *fakeNode) Addresses() []admin.AddressGroup { return []admin.AddressGroup{{Name: "front"}} }

func (n *fakeNode) Release(_ context.Context, group, by string) (admin.ReleaseResult, error) {
	return admin.ReleaseResult{}, n.note("release %q by %s", group, by)
}

func (n *fakeNode) Metrics() http.Handler {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.metrics
}

// set changes what the node is like, while it is asked.
func (n *fakeNode) set(change func(*fakeNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

// A sink is a log that can be read while it is written.
type sink struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// A running is a Server that serves.
type running struct {
	*Server
	node   *fakeNode
	log    *sink
	path   string // of its socket
	client *admin.Client
	end    func() error
}

// run serves a fake node on a socket of its own; prepare changes the server before.
func run(t *testing.T, prepare func(*Server)) *running {
	t.Helper()
	r := &running{node: newFakeNode(), log: &sink{}, path: filepath.Join(t.TempDir(), "node.sock")}
	var err error
	r.Server, err = New(Options{
		Node: r.node, Version: "1.2.3",
		Logger: logger(r.log),
	})
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(r.Server)
	}
	l, err := Listen(r.path, 0o660, "")
	if err != nil {
		t.Fatal(err)
	}
	r.end = serve(t, r.Server, l)
	r.client = &admin.Client{Socket: r.path}
	return r
}

func serve(t *testing.T, s *Server, l net.Listener) (end func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	end = sync.OnceValue(func() error { cancel(); return <-served })
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return end
}

// ask makes one plain request, as curl does.
func (r *running) ask(t *testing.T, method, url, body string) (code int, header http.Header, answer string) {
	t.Helper()
	return ask(t, "unix", r.path, method, url, body)
}

func ask(t *testing.T, network, address, method, url, body string) (int, http.Header, string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://node"+url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return res.StatusCode, res.Header, string(text)
}

func logger(to io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func noDeadline() context.Context { return context.Background() }
