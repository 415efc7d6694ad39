//go:build linux

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/admin"
)

// The client and the server mean the same by everything.
func TestClient(t *testing.T) {
	r := run(t, nil)
	ctx := t.Context()
	me := peer{}
	me.UID, me.PID = uint32(os.Getuid()), os.Getpid()
	by := me.String()

	if st, err := r.client.Status(ctx); err != nil || st.Node != "a" || st.Problems == nil || st.Services[0].Backends == nil || st.Totals.ByCause == nil ||
		st.Addresses[0].Present == nil || st.Addresses[0].Takeovers == nil || st.Pair.Differs == nil || st.Pair.Strangers == nil {
		t.Errorf("Status: %+v, %v", st, err)
	}
	if l, err := r.client.Services(ctx, admin.Filter{Service: "s", Backend: "b", Limit: 1}); err != nil || len(l) != 2 || l[0].Name != "redis" {
		t.Errorf("Services: %+v, %v", l, err)
	}
	if l, err := r.client.Backends(ctx, admin.Filter{Service: "s & t"}); err != nil || len(l) != 2 || l[1].Name != "r2" {
		t.Errorf("Backends: %+v, %v", l, err)
	}
	if c, err := r.client.Connections(ctx, admin.Filter{Client: "[fe80::1%eth0]:4711"}); err != nil || c.Matched != 9 || c.Connections == nil {
		t.Errorf("Connections: %+v, %v", c, err)
	}
	if l, err := r.client.Addresses(ctx); err != nil || len(l) != 1 || l[0].Name != "front" || l[0].Track == nil {
		t.Errorf("Addresses: %+v, %v", l, err)
	}
	if got, want := r.node.done(), "services {Service:s Backend:b Client: Limit:1}; backends {Service:s & t Backend: Client: Limit:0}; connections {Service: Backend: Client:[fe80::1%eth0]:4711 Limit:0}"; got != want {
		t.Errorf("the node was asked\n%s, want\n%s", got, want)
	}

	if rl, err := r.client.Reload(ctx); err != nil || len(rl.Changes) != 1 {
		t.Errorf("Reload: %+v, %v", rl, err)
	}
	// Names are whatever the file says: an address, a path.
	for _, name := range []string{"r1", "[2001:db8::1]:80", "unix:/run/a b.sock", "ü%2F?#", ".."} {
		for _, do := range []string{admin.DoDrain, admin.DoResume, admin.DoWeight, admin.DoReset, admin.DoRemove} {
			if b, err := r.client.ChangeBackend(ctx, name, name, admin.BackendCommand{Do: do, Weight: 7}); err != nil || b.Connections != 3 {
				t.Errorf("%s %s: %+v, %v", do, name, b, err)
			}
			weight := 0
			if do == admin.DoWeight {
				weight = 7
			}
			want := fmt.Sprintf("%s %s of %s to %d by %s", do, name, name, weight, by)
			if got := strings.TrimPrefix(r.node.done(), "reload by "+by+"; "); got != want {
				t.Errorf("the node was told\n%s, want\n%s", got, want)
			}
		}
	}
	if n, err := r.client.ResetConnections(ctx, admin.Reset{IDs: []uint64{7, 8}, Service: "s"}); err != nil || n.Connections != 2 {
		t.Errorf("ResetConnections: %+v, %v", n, err)
	}
	if got, want := r.node.done(), "reset {Service:s Backend: Client: Limit:0} [7 8] by "+by; got != want {
		t.Errorf("the node was told %s, want %s", got, want)
	}
	for _, group := range []string{"front", "10.0.0.100", "2001:db8::100", "a/b", ".."} {
		if a, err := r.client.Release(ctx, group); err != nil || a.Groups == nil {
			t.Errorf("Release %s: %+v, %v", group, a, err)
		}
		if got, want := r.node.done(), fmt.Sprintf("release %q by %s", group, by); got != want {
			t.Errorf("the node was told %s, want %s", got, want)
		}
	}
	if a, err := r.client.ReleaseNode(ctx); err != nil || a.Groups == nil {
		t.Errorf("ReleaseNode: %+v, %v", a, err)
	}
	if got, want := r.node.done(), `release "" by `+by; got != want {
		t.Errorf("the node was told %s, want %s", got, want)
	}
	var metrics strings.Builder
	if err := r.client.Metrics(ctx, &metrics); err != nil || metrics.String() != "holdfast_up 1\n" {
		t.Errorf("Metrics: %q, %v", metrics.String(), err)
	}
}

// What the node refuses reaches the caller as it is.
func TestErrorsReachTheClient(t *testing.T) {
	r := run(t, nil)
	for _, want := range []*admin.Error{
		{Code: admin.CodeUnknown, Text: "there is no service x", Remedy: "there are redis, pg"},
		{Code: admin.CodeRefused, Text: "the backend is gone"},
		{Code: admin.CodeInvalid, Text: "bad file", Config: []admin.ConfigError{{File: "f", Line: 3, Column: 4, Path: "p", What: "w", Excerpt: "x"}}},
	} {
		r.node.fail(fmt.Errorf("wrapped: %w", want))
		_, err := r.client.Reload(t.Context())
		got, ok := errors.AsType[*admin.Error](err)
		if !ok || cmp.Diff(want, got) != "" {
			t.Errorf("%v arrived as %v", want, err)
		}
	}
	r.node.fail(errors.New("no memory"))
	_, err := r.client.Services(t.Context(), admin.Filter{})
	if e, ok := errors.AsType[*admin.Error](err); !ok || e.Code != admin.CodeInternal || e.Text != "no memory" {
		t.Errorf("a fault of the node arrived as %v", err)
	}
	if !strings.Contains(r.log.String(), `level=ERROR msg="a request failed" method=GET path=/v1/services err="no memory"`) {
		t.Errorf("it is not logged:\n%s", r.log)
	}
}

func TestRequestsThatAreNotUnderstood(t *testing.T) {
	r := run(t, nil)
	const backend = "/v1/services/redis/backends/r1/"
	for _, tt := range []struct {
		method, url, body string
		code              int
		want              string // part of the answer
	}{
		{"GET", "/v1/nothing", "", 404, `"code":"unknown","error":"this node (version 1.2.3) has no path /v1/nothing","remedy":"it has GET /v1/status, GET /v1/services,`},
		{"GET", "/", "", 404, `POST /v1/node/release"`},
		{"POST", "/v1/status", "", 405, `/v1/status takes GET, not POST`},
		{"GET", "/v1/reload", "", 405, `/v1/reload takes POST, not GET`},
		{"DELETE", backend + "drain", "", 405, `takes POST, not DELETE`},
		{"GET", "/v1/status?x=1", "", 400, `/v1/status takes no query, and \"x\" was given`},
		{"GET", "/v1/backends?srv=a", "", 400, `/v1/backends does not know the query key \"srv\"; it knows service, backend, client, limit`},
		{"GET", "/v1/services?after=1", "", 400, `does not know the query key \"after\"`},
		{"GET", "/v1/connections?service=a&service=b", "", 400, `the query key \"service\" is given 2 times`},
		{"GET", "/v1/connections?limit=0", "", 400, `limit is \"0\", want a number from 1`},
		{"GET", "/v1/connections?limit=", "", 400, `limit is \"\"`},
		{"GET", "/v1/connections?client=10.0.0.1/8", "", 400, `write 10.0.0.0/8 for the network`},
		{"GET", "/v1/connections?client=%zz", "", 400, `cannot be read`},
		{"GET", "/v1/events?after=x", "", 400, `after is \"x\", want the number of an event`},
		{"GET", "/v1/events?follow=yes", "", 400, `follow is \"yes\", want 1 or 0`},
		{"GET", "/v1/events?follow=1&after=-1", "", 400, `after is \"-1\"`},
		{"GET", "/v1/watch?every=1", "", 400, `every is \"1\", want a time such as 500ms`},
		{"GET", "/v1/watch?every=1ms", "", 400, `from 100ms to 1h`},
		{"POST", "/v1/reload?now=1", "", 400, `takes no query`},
		{"POST", "/v1/reload", `{"now":1}`, 400, `/v1/reload takes no body, and the field \"now\" was given`},
		{"POST", "/v1/reload", `[]`, 400, `the body is a JSON array, want an object`},
		{"POST", "/v1/reload", `{`, 400, `the body is not JSON: unexpected EOF`},
		{"POST", "/v1/reload", `{}}`, 400, `the body goes on after its JSON object`},
		{"POST", "/v1/reload", `{} {}`, 400, `the body goes on after its JSON object`},
		{"POST", "/v1/reload", strings.Repeat(" ", maxBody+1), 400, `the body is larger than 1048576 bytes`},
		{"POST", backend + "dran", "", 404, `there is no command \"dran\" for a backend","remedy":"use one of drain, resume, weight, reset, remove"`},
		{"POST", backend + "drain", `{"weight":3}`, 400, `takes no body`},
		{"POST", backend + "weight", "", 400, `the weight is missing: {\"weight\": 20}`},
		{"POST", backend + "weight", `{"weigth":3}`, 400, `does not know the field \"weigth\"; it knows \"weight\"`},
		{"POST", backend + "weight", `{"weight":"3"}`, 400, `the field \"weight\" is a string, want a whole number`},
		{"POST", backend + "weight", `{"weight":1.5}`, 400, `the field \"weight\" is a number 1.5, want a whole number`},
		{"POST", backend + "weight?weight=1", ``, 400, `takes no query`},
		{"GET", "/v1/addresses?service=a", "", 400, `/v1/addresses takes no query`},
		{"POST", "/v1/addresses", "", 405, `/v1/addresses takes GET, not POST`},
		{"GET", "/v1/node/release", "", 405, `/v1/node/release takes POST, not GET`},
		{"POST", "/v1/node/release", `{"group":"a"}`, 400, `takes no body`},
		{"POST", "/v1/addresses/front/release?now=1", "", 400, `takes no query`},
		{"POST", "/v1/addresses/front/release", `{"to":"lb2"}`, 400, `takes no body`},
		{"POST", "/v1/connections/reset", `{"ids":[-1]}`, 400, `want a whole number from 0`},
		{"POST", "/v1/connections/reset", `{"id":7}`, 400, `does not know the field \"id\"; it knows \"ids\", \"service\", \"backend\", \"client\"`},
	} {
		code, header, answer := r.ask(t, tt.method, tt.url, tt.body)
		if code != tt.code || !strings.Contains(answer, tt.want) {
			t.Errorf("%s %s %.40s: %d %s\nwant %d %s", tt.method, tt.url, tt.body, code, answer, tt.code, tt.want)
		}
		if header.Get("Content-Type") != "application/json" || header.Get(headerAPI) != apiVersion || header.Get(admin.HeaderVersion) != "1.2.3" {
			t.Errorf("%s %s: header %v", tt.method, tt.url, header)
		}
		if (tt.code == 405) != (header.Get("Allow") != "") {
			t.Errorf("%s %s: Allow is %q", tt.method, tt.url, header.Get("Allow"))
		}
		if err := json.Unmarshal([]byte(answer), new(admin.Error)); err != nil {
			t.Errorf("%s %s: the answer is no JSON: %v", tt.method, tt.url, err)
		}
		if did := r.node.done(); did != "" && tt.code != 404 {
			t.Errorf("%s %s: the node did %s", tt.method, tt.url, did)
		}
	}
}

// A fault in a handler is answered and logged, and the process lives.
func TestPanic(t *testing.T) {
	r := run(t, nil)
	r.node.set(func(n *fakeNode) { n.panics = true })
	code, _, answer := r.ask(t, "GET", "/v1/status", "")
	if code != 500 || !strings.Contains(answer, `a fault of the program met GET /v1/status: a fault`) {
		t.Errorf("%d %s", code, answer)
	}
	if log := r.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "fake_test.go") {
		t.Errorf("the log has no stack:\n%s", log)
	}
	half := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "half"); panic("a fault") })
	r.node.set(func(n *fakeNode) { n.metrics = half })
	if err := r.client.Metrics(t.Context(), &strings.Builder{}); err == nil {
		t.Error("an answer that was cut looks complete")
	}
	r.node.set(func(n *fakeNode) { n.metrics = nil })
	if code, _, _ := r.ask(t, "GET", "/metrics", ""); code != 404 {
		t.Errorf("without metrics: %d", code)
	}
	if code, _, _ := r.ask(t, "GET", "/v1/services", ""); code != 200 {
		t.Errorf("afterwards: %d", code)
	}
}

// Those who ask too much are told so, and an operator gets through.
func TestGates(t *testing.T) {
	g := gate{max: 4}
	for i, want := range []bool{true, true, true, false} {
		if g.enter(false) != want {
			t.Errorf("entrance %d of a reader: %v", i, !want)
		}
	}
	if !g.enter(true) || g.enter(true) {
		t.Error("the last place is not for the privileged")
	}
	g.leave()
	g.leave()
	if !g.enter(false) {
		t.Error("nobody gets in after two have left")
	}

	r := run(t, func(s *Server) { s.requests.max = 1 })
	reloads := make(chan struct{})
	r.node.set(func(n *fakeNode) { n.reloads = reloads })
	done := make(chan error)
	go func() { _, err := r.client.Reload(t.Context()); done <- err }()
	eventually(t, "the reload waits", func() bool { r.requests.mu.Lock(); defer r.requests.mu.Unlock(); return r.requests.now == 1 })
	for _, path := range []string{"/v1/status", "/v1/events", "/metrics"} {
		code, header, answer := r.ask(t, "GET", path, "")
		if code != 503 || header.Get("Retry-After") != "1" || !strings.Contains(answer, `"code":"busy"`) {
			t.Errorf("%s: %d %s", path, code, answer)
		}
	}
	close(reloads)
	if err := <-done; err != nil {
		t.Errorf("Reload: %v", err)
	}
}

// eventually waits until ok, which something else brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it did not come to it that %s", what)
		}
	}
}

// Connections that say nothing do not take the place of others for ever, and
// those beyond the bound are told.
func TestTooManyConnections(t *testing.T) {
	r := run(t, func(s *Server) { s.connections.max = 4 })
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range 4 {
		c, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	_, err := r.client.Status(t.Context())
	if e, ok := errors.AsType[*admin.Error](err); !ok || e.Code != admin.CodeBusy {
		t.Errorf("a connection too many: %v", err)
	}
	open[0].Close()
	eventually(t, "there is room again", func() bool { _, err := r.client.Status(t.Context()); return err == nil })
}

// The end of the server lets a request finish.
func TestGracefulEnd(t *testing.T) {
	r := run(t, nil)
	reloads := make(chan struct{})
	r.node.set(func(n *fakeNode) { n.reloads = reloads })
	done := make(chan error)
	go func() { _, err := r.client.Reload(t.Context()); done <- err }()
	eventually(t, "the reload waits", func() bool { r.requests.mu.Lock(); defer r.requests.mu.Unlock(); return r.requests.now == 1 })
	ended := make(chan error)
	go func() { ended <- r.end() }()
	<-r.stopping.Done()
	close(reloads)
	if err := <-done; err != nil {
		t.Errorf("Reload: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(r.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := r.client.Status(t.Context()); err == nil {
		t.Error("it still answers")
	}
}

// Whoever asks for a reload and leaves ends it.
func TestClientLeaves(t *testing.T) {
	r := run(t, nil)
	reloads := make(chan struct{})
	r.node.set(func(n *fakeNode) { n.reloads = reloads })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { _, err := r.client.Reload(ctx); done <- err }()
	busy := func(n int) func() bool {
		return func() bool { r.requests.mu.Lock(); defer r.requests.mu.Unlock(); return r.requests.now == n }
	}
	eventually(t, "the reload waits", busy(1))
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Reload: %v", err)
	}
	eventually(t, "the reload has ended", busy(0))
}
