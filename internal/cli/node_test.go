package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/admin"
)

// A fakeNode answers as a node does, always the same, and notes what it was told
// to do.
type fakeNode struct {
	socket string
	frames int // after so many, a stream ends

	mu    sync.Mutex
	asked []string
}

// startNode serves a fakeNode, whose streams have so many frames, until the test ends.
func startNode(t *testing.T, frames int) *fakeNode {
	t.Helper()
	n := &fakeNode{socket: filepath.Join(t.TempDir(), "s"), frames: frames}
	l, err := net.Listen("unix", n.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(n.handler())
	server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return n
}

func (n *fakeNode) handler() http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, status int, a any) {
		w.Header().Set(admin.HeaderAPI, admin.APIVersion)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(a)
	}
	st := degradedStatus()
	list := testConnections()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, st) })
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, r *http.Request) {
		if s := r.FormValue("service"); s != "" && s != "redis" {
			reply(w, 404, admin.Error{Code: admin.CodeUnknown, Text: fmt.Sprintf("there is no service %q", s), Remedy: "the services are redis, db, old"})
			return
		}
		reply(w, 200, admin.Services{Services: st.Services})
	})
	mux.HandleFunc("GET /v1/addresses", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, admin.Addresses{Addresses: wellPair().Addresses})
	})
	mux.HandleFunc("POST /v1/addresses/{group}/release", func(w http.ResponseWriter, r *http.Request) {
		n.note(r)
		switch group := r.PathValue("group"); group {
		case "db":
			reply(w, 409, admin.Error{Code: admin.CodeRefused, Text: "db is not this node's to release", Remedy: "lb2 owns it: run the command there"})
		default:
			reply(w, 200, admin.ReleaseResult{Groups: []admin.Released{{Group: group, Owner: "lb2", Took: admin.Seconds(70 * time.Millisecond), Text: group + " is lb2's now"}}})
		}
	})
	mux.HandleFunc("POST /v1/node/release", func(w http.ResponseWriter, r *http.Request) {
		n.note(r)
		reply(w, 200, admin.ReleaseResult{Groups: []admin.Released{}})
	})
	mux.HandleFunc("GET /v1/backends", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, admin.Backends{Backends: st.Services[0].Backends})
	})
	mux.HandleFunc("GET /v1/connections", func(w http.ResponseWriter, r *http.Request) {
		n.note(r)
		found := admin.Connections{Connections: list, Matched: 3, Total: 9000}
		if limit, _ := strconv.Atoi(r.FormValue("limit")); limit > 0 && limit < len(list) {
			found.Connections = list[:limit]
		}
		if r.FormValue("client") == "192.0.2.1" {
			found = admin.Connections{Connections: []admin.Connection{}, Total: 9000}
		}
		reply(w, 200, found)
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		n.note(r)
		if r.FormValue("follow") == "" {
			reply(w, 200, admin.Events{Events: testEvents()})
			return
		}
		w.Header().Set(admin.HeaderAPI, admin.APIVersion)
		for _, e := range testEvents()[:n.frames] {
			n.send(w, e)
		}
	})
	mux.HandleFunc("GET /v1/watch", func(w http.ResponseWriter, r *http.Request) {
		n.note(r)
		w.Header().Set(admin.HeaderAPI, admin.APIVersion)
		for range n.frames {
			n.send(w, st)
		}
	})
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 409, admin.Error{Code: admin.CodeRefused, Text: "the file was not taken", Remedy: "the one before it still runs", Config: []admin.ConfigError{
			{File: "h.yaml", Line: 3, Column: 13, Path: "services[0].balance", What: "no policy", Excerpt: "  3 |   balance: x\n    |            ^"},
			{File: "h.yaml", Line: 9, What: "another"},
		}})
	})
	mux.HandleFunc("POST /v1/services/{service}/backends/{backend}/{do}", func(w http.ResponseWriter, r *http.Request) {
		n.note(r)
		reply(w, 200, admin.BackendResult{Text: "done to " + r.PathValue("backend"), Connections: 3})
	})
	mux.HandleFunc("POST /v1/connections/reset", func(w http.ResponseWriter, r *http.Request) {
		var asked admin.Reset
		text := n.note(r)
		_ = json.Unmarshal([]byte(text), &asked)
		if asked.Service == "forbidden" {
			reply(w, 403, admin.Error{Code: admin.CodeForbidden, Text: "uid 1000 may read only", Remedy: "run as root"})
			return
		}
		reply(w, 200, admin.ResetResult{Connections: max(1, len(asked.IDs))})
	})
	return mux
}

// note remembers a request, and returns its body.
func (n *fakeNode) note(r *http.Request) string {
	body, _ := io.ReadAll(r.Body)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	return string(body)
}

func (n *fakeNode) send(w http.ResponseWriter, a any) {
	text, _ := json.Marshal(a)
	fmt.Fprintf(w, "data: %s\n\n", text)
	w.(http.Flusher).Flush()
}

// run runs a command line on the node.
func (n *fakeNode) run(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	t.Setenv(admin.SocketVariable, n.socket)
	n.asked = nil
	var o, e bytes.Buffer
	code = Main(args, Streams{Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestCommandsAsk(t *testing.T) {
	n := startNode(t, 3)
	for _, tt := range []struct {
		args  string
		code  int
		out   string // is in the output
		err   string // is on standard error; "" is nothing there
		asked string // the last request
	}{
		{"status", 0, "lb1 is degraded: 3 problems", "", ""},
		{"status --check", 2, "lb1 is degraded: backend redis/r2 is down: connect: connection refused (for ", "", ""},
		{"status --check -o json", 2, `"state": "degraded"`, "", ""},
		{"services", 0, "least-connections", "", ""},
		{"services --service web", 1, "", "holdfast: there is no service \"web\": the services are redis, db, old\n", ""},
		{"backends", 0, "by hand: weight 20, the file says 100", "", ""},
		{"connections --limit 1", 0, "3 of 9,000 connections match, 1 shown", "", "GET /v1/connections?limit=1"},
		{"connections --service redis --backend r1 --client 2001:db8::/32", 0, "3 of 9,000 connections match\n", "", "GET /v1/connections?backend=r1&client=2001%3Adb8%3A%3A%2F32&service=redis"},
		{"connections --client nonsense", 2, "", "holdfast: --client: ", ""},
		{"connections --limit -1", 2, "", "holdfast: --limit: -1 is negative; 0 is all\n", ""},
		{"connections --service=", 2, "", "holdfast: --service is empty: leave it out for all\n", ""},
		{"connections -o yaml", 2, "", "holdfast: --output: \"yaml\" is neither table nor json\n", ""},
		{"events", 0, "connection 4711 of 10.0.0.5:51234: closed by client", "", "GET /v1/events?limit=100"},
		{"events --limit 0 --after 7", 0, "node started", "", "GET /v1/events?after=7"},
		{"events --follow", 1, "node started", "holdfast: the node has ended, and its events with it; the last one was number 3\n", "GET /v1/events?follow=1&limit=10"},
		{"events --follow --limit 0", 1, "node started", "holdfast: the node has ended", "GET /v1/events?follow=1&limit=2147483647"},
		{"events --follow --after 2 --service redis", 1, "node started", "holdfast: the node has ended", "GET /v1/events?after=2&follow=1&limit=2147483647&service=redis"},
		{"events -o json", 0, `{"seq":1,"event":"node",`, "", ""},
		{"reload", 1, "", "holdfast: the file was not taken: the one before it still runs\nh.yaml:3:13: services[0].balance: no policy\n  3 |   balance: x\n    |            ^\nh.yaml:9: another\n2 mistakes\n", ""},
		{"backend drain redis r1", 0, "done to r1\n", "", "POST /v1/services/redis/backends/r1/drain {}"},
		{"backend resume redis r1", 0, "done to r1\n", "", "POST /v1/services/redis/backends/r1/resume {}"},
		{"backend weight redis 10.0.0.1:80 20", 0, "done to 10.0.0.1:80\n", "", `POST /v1/services/redis/backends/10.0.0.1:80/weight {"weight":20}`},
		{"backend weight redis r1 0", 0, "done to r1\n", "", `POST /v1/services/redis/backends/r1/weight {"weight":0}`},
		{"backend reset redis unix:/run/a -o json", 0, "{\n  \"text\": \"done to unix:/run/a\",\n  \"connections\": 3\n}\n", "", `POST /v1/services/redis/backends/unix:%2Frun%2Fa/reset {}`},
		{"backend remove redis r1", 0, "done to r1\n", "", "POST /v1/services/redis/backends/r1/remove {}"},
		{"backend weight redis r1", 2, "", "holdfast: the weight is missing: see `holdfast backends`\n", ""},
		{"backend weight redis r1 65536", 2, "", "holdfast: the weight \"65536\" is not a number from 0 to 65535\n", ""},
		{"backend drain redis", 2, "", "holdfast: BACKEND is missing", ""},
		{"backend drain", 2, "", "holdfast: SERVICE and BACKEND are missing", ""},
		{"backend drain redis r1 r2", 2, "", `holdfast: ["r2"] is too much: one backend at a time`, ""},
		{"backend drian redis r1", 2, "", "holdfast: there is no command \"drian\"; did you mean drain?\n", ""},
		{"connection reset 1 2", 0, "2 connections were reset: both ends are told\n", "", `POST /v1/connections/reset {"ids":[1,2]}`},
		{"connection reset", 2, "", "holdfast: which connections?", ""},
		{"connection reset --client 10.0.0.5", 1, "", "holdfast: nothing was reset: 3 connections were found; say --all to reset what the filter finds, or --limit N for the oldest N (`holdfast connections --client 10.0.0.5` lists them)\n", "GET /v1/connections?client=10.0.0.5&limit=1"},
		{"connection reset --client 192.0.2.1", 0, "no connection was reset: none was found\n", "", "GET /v1/connections?client=192.0.2.1&limit=1"},
		{"connection reset --service redis --limit 2", 0, "2 connections were reset: both ends are told\n", "", `POST /v1/connections/reset {"ids":[1,8123]}`},
		{"connection reset --service redis --client 10.0.0.0/8 --all", 0, "1 connection was reset: both ends are told\n", "", `POST /v1/connections/reset {"service":"redis","client":"10.0.0.0/8"}`},
		{"connection reset --service forbidden --all", 1, "", "holdfast: uid 1000 may read only: run as root\n", ""},
		{"addresses", 0, "front  10.0.0.100/24", "", ""},
		{"addresses lb2", 2, "", "holdfast: holdfast addresses takes no arguments, and got [\"lb2\"]\n", ""},
		{"address release front", 0, "front is lb2's now\n", "", "POST /v1/addresses/front/release {}"},
		{"address release 10.0.0.100/24", 0, "10.0.0.100 is lb2's now\n", "", "POST /v1/addresses/10.0.0.100/release {}"},
		{"address release [2001:db8::100] -o json", 0, "\"owner\": \"lb2\",\n      \"took\": 0.07,", "", "POST /v1/addresses/2001:db8::100/release {}"},
		{"address release db", 1, "", "holdfast: db is not this node's to release: lb2 owns it: run the command there\n", ""},
		{"address release", 2, "", "holdfast: ADDRESS is missing: an address, or the name of a group; see `holdfast addresses`\n", ""},
		{"address release a b", 2, "", "holdfast: [\"b\"] is too much: one group at a time; `holdfast node release` gives up all\n", ""},
		{"address relase a", 2, "", "holdfast: there is no command \"relase\"; did you mean release?\n", ""},
		{"address", 2, "", "holdfast: holdfast address needs a command: release\n", ""},
		{"node release", 0, "nothing was released: this node owns no addresses\n", "", "POST /v1/node/release {}"},
		{"node release front", 2, "", "holdfast: holdfast node release takes no arguments", ""},
		{"node", 2, "", "holdfast: holdfast node needs a command: release\n", ""},
		{"top --once", 0, "new 0/s", "", "GET /v1/watch?every=1s"},
		{"top --every 200ms", 1, "new 0/s", "holdfast: the node has ended\n", "GET /v1/watch?every=200ms"},
		{"top --every 1ms", 2, "", "holdfast: --every: 1ms is not from 100ms to 1h0m0s\n", ""},
		{"status --socket " + n.socket + "x", 1, "", "holdfast: no node answers at " + n.socket + "x: there is no such socket; is the node running?", ""},
		{"completion bash", 0, "__complete", "", ""},
		{"completion zsh", 0, "#compdef holdfast", "", ""},
		{"completion fish", 0, "complete -c holdfast", "", ""},
		{"completion tcsh", 2, "", "holdfast: which shell? bash, zsh or fish\n", ""},
	} {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errs := n.run(t, strings.Fields(tt.args)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.Contains(out, tt.out) || tt.out == "" && out != "" {
				t.Errorf("the output is %q, want %q in it", out, tt.out)
			}
			if !strings.HasPrefix(errs, tt.err) || tt.err == "" && errs != "" {
				t.Errorf("standard error is %q, want %q", errs, tt.err)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			if tt.asked != "" && (len(n.asked) == 0 || n.asked[len(n.asked)-1] != tt.asked) {
				t.Errorf("the node was asked %q, want %q", n.asked, tt.asked)
			}
		})
	}
}

// TestJSON says that -o json is what the API answers, field by field; a listing
// is a list.
func TestJSON(t *testing.T) {
	n := startNode(t, 3)
	st := degradedStatus()
	compare := func(args string, want, back any) {
		t.Helper()
		_, out, errs := n.run(t, append(strings.Fields(args), "-o", "json")...)
		if err := json.Unmarshal([]byte(out), back); err != nil {
			t.Errorf("%s: %v: %s%s", args, err, out, errs)
			return
		}
		text, _ := json.Marshal(want)
		again, _ := json.Marshal(back)
		if diff := cmp.Diff(string(text), string(again)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
	compare("status", st, &admin.Status{})
	compare("services", st.Services, &[]admin.Service{})
	compare("backends", st.Services[0].Backends, &[]admin.Backend{})
	compare("connections", testConnections(), &[]admin.Connection{})
	compare("addresses", wellPair().Addresses, &[]admin.AddressGroup{})

	_, out, _ := n.run(t, "events", "-o", "json")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != len(testEvents()) {
		t.Fatalf("%d lines for %d events", len(lines), len(testEvents()))
	}
	for i, e := range testEvents() {
		text, _ := json.Marshal(e)
		if lines[i] != string(text) {
			t.Errorf("event %d is %s, want %s", i, lines[i], text)
		}
	}
}

func TestCompletion(t *testing.T) {
	n := startNode(t, 3)
	for args, want := range map[string]string{
		"backend drain":                         "redis\tup, 7 backends",
		"backend drain redis":                   "r1\t10.0.0.21:6379, up, weight 20",
		"backend weight redis r1":               "",
		"backend":                               "weight\tGive a backend another weight",
		"connections --service":                 "db\tdown, 0 backends",
		"connections --service redis --backend": "r2\t",
		"events --backend":                      "r2\t",
		"connection reset":                      "8123\t[2001:db8:aaaa:bbbb::17]:51234, redis/, connecting",
		"address release":                       "2001:db8::100\tactive of front",
		"address release front":                 "",
		"address":                               "release\t",
		"status -o":                             "json",
		"completion":                            "zsh",
	} {
		code, out, _ := n.run(t, append(append([]string{"__complete"}, strings.Fields(args)...), "")...)
		found := want == ""
		for line := range strings.Lines(out) {
			found = found || want != "" && strings.HasPrefix(line, want)
		}
		if code != 0 || !found {
			t.Errorf("%s: %q is not offered (exit code %d): %s", args, want, code, out)
		}
	}
	// What is on the line already is not offered again.
	if _, out, _ := n.run(t, "__complete", "connection", "reset", "8123", ""); strings.Contains(out, "8123\t") || !strings.Contains(out, "123456789\t") {
		t.Errorf("offered is %s", out)
	}
}

// TestCompletionWithoutNode says that a shell never waits, and prints nothing,
// where no node answers: none there, and one that says nothing.
func TestCompletionWithoutNode(t *testing.T) {
	silent := filepath.Join(t.TempDir(), "silent")
	l, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, socket := range []string{silent, silent + "x"} {
		n := &fakeNode{socket: socket}
		began := time.Now()
		code, out, _ := n.run(t, "__complete", "backend", "drain", "")
		if code != 0 || strings.TrimSpace(out) != ":4" {
			t.Errorf("%s: exit code %d, and %q", socket, code, out)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s: a shell waited for %v", socket, d)
		}
	}
}
