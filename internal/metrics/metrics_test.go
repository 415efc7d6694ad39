package metrics

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/admin"
)

var update = flag.Bool("update", false, "write testdata again")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a node that was written down.
type fake struct {
	status        admin.Status
	ends          []admin.Ends
	events, lines uint64
}

func (f *fake) Status() admin.Status        { return f.status }
func (f *fake) Ends() []admin.Ends          { return f.ends }
func (f *fake) Lost() (uint64, uint64)      { return f.events, f.lines }
func at(second int64, nano int64) time.Time { return time.Unix(second, nano) }

// full is a node in which everything has happened: every metric has a value.
func full() *fake {
	return &fake{
		events: 3, lines: 4,
		status: admin.Status{
			Node: "lb1", Version: "v0.3.0", PID: 4711, Started: at(1000, 500_000_000), State: "degraded",
			Problems: []admin.Problem{
				{Code: admin.ProblemBackendDown, Service: "redis", Backend: "r2"},
				{Code: admin.ProblemBackendDown, Service: "web", Backend: "w1"},
				{Code: "a_new_one"},
			},
			Config: admin.ConfigFile{
				File: "/etc/holdfast/holdfast.yaml", Digest: "0123456789ab", Loaded: at(2000, 0),
				Reloads: 5, Refused: 2, Error: "3 mistakes", Changed: true,
			},
			Limits: []admin.Limit{
				{Name: "connections", Used: 12, Max: 5000, Reached: 7, Last: at(3000, 0)},
				{Name: "descriptors", Used: 40, Max: 10000},
				{Name: "memory", Used: 1 << 20, Max: 1 << 30, Reached: 1, Last: at(3001, 0)},
			},
			Pair: &admin.Pair{
				State: "syncing", Since: at(1002, 0), Listen: "10.0.0.11:7420", Peer: "10.0.0.12:7420", Node: "lb2", RTT: admin.Seconds(200 * time.Microsecond),
				Digest: "00ff", Own: "00fe", Differs: []string{"services.redis"}, Unprotected: 7, Connects: 2, Strangers: map[string]uint64{"wrong key": 3, "no key": 1},
			},
			Elector: &admin.Elector{State: "up"},
			Sources: &admin.Sources{
				Ports: "32768-46883", Unbound: map[string]uint64{"ports": 1, "no_way": 2, "away": 3},
				Ways: []admin.SourceWay{
					{Address: "10.0.0.100", Backend: "10.0.0.21:6379", Used: 9, Max: 14116},
					{Address: "10.0.0.100", Backend: "10.0.0.22:6379", Used: 4000, Max: 14116, NoWay: at(1004, 0)},
				},
			},
			Addresses: []admin.AddressGroup{
				{
					Name: "front", Addresses: []string{"10.0.0.100/24", "2001:db8::100/64"}, Present: []string{"10.0.0.100"}, Role: "active", Since: at(1003, 0), Epoch: 7,
					Lease: admin.Seconds(268 * time.Millisecond), Interface: "eth0", VRRPID: 51, Priority: 200,
					Adverts: admin.Adverts{
						Sent: 100, Received: 50, Late: 1, Failed: 2, Invalid: 3, Alien: 4, Forged: 5, MaxGap: admin.Seconds(110 * time.Millisecond), MaxHeard: admin.Seconds(402 * time.Millisecond),
					},
					Takeovers: map[string]uint64{"silence": 1, "handover": 2, "a_new_one": 3}, Conflicts: 8, Restored: 9, Asked: 12, Answered: 10,
					Gate: admin.Gate{InForce: true, Dropped: 11}, Witness: &admin.Witness{Address: "10.0.0.1", Answers: true},
				},
				{Name: "lone", Addresses: []string{"192.0.2.7/24"}, Role: "fault", Interface: "eth1"},
			},
			Services: []admin.Service{{
				Name: "redis", Engine: "relay", State: "up", Active: 9, Inactive: 3, Total: 100, BytesIn: 1000, BytesOut: 2000,
				Listen: []admin.Listener{
					{Address: "10.0.0.100:6379", Queue: 2, QueueMax: 4096, Dropped: 6},
					{Address: "[2001:db8::100]:6379", QueueMax: 4096},
				},
				Backends: []admin.Backend{
					{
						Name: "r1", Address: "10.0.0.21:6379", State: "up", Weight: 100, Active: 8, Inactive: 1, Total: 90, BytesIn: 900, BytesOut: 1900,
						Since: at(1001, 0), Check: admin.Check{Kind: "tcp", Last: at(3002, 0), Checks: 50, Failures: 1, Reported: 2, Distrusted: 3},
					},
					{
						Name: "r2", Address: "10.0.0.22:6379", State: "drain", Weight: 0, MaxConnections: 64, ByHand: &admin.ByHand{What: "drain", FileWeight: 100},
						Check: admin.Check{Kind: "tcp"},
					},
				},
			}},
		},
		ends: []admin.Ends{
			{Service: "redis", Cause: "closed", By: "client", Count: 70},
			{Service: "redis", Cause: "backend_down", By: "backend", Count: 4, ToldClient: 4, ToldBackend: 3, Undelivered: 512},
			{Service: "redis", Cause: "no_backend", By: "holdfast", Count: 2, ToldClient: 2},
			{Service: "gone", Cause: "reset", By: "client", Count: 1, ToldBackend: 1, Undelivered: 8},
			{Service: "redis", Cause: "a_new_one", By: "holdfast", Count: 1, ToldClient: 1},
		},
	}
}

// scrape is what Prometheus gets.
func scrape(t *testing.T, s Source, accept string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	Handler(s).ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err := errors.Join(err, w.Result().Body.Close()); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, body)
	}
	return string(body)
}

// ours keeps the lines about this project's metrics.
func ours(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "holdfast_") || strings.Contains(line, " holdfast_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what is gathered (users' graphs and alerts depend on names, types and labels; go test -update writes it again):\n%s", file, diff)
	}
}

// The contract: name, type, labels and help of what a node gathers.
func TestGolden(t *testing.T) {
	families, err := fill(prometheus.NewPedanticRegistry(), full()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "holdfast_") {
			continue
		}
		var labels []string
		for _, m := range f.GetMetric() {
			var these []string
			for _, l := range m.GetLabel() {
				these = append(these, l.GetName())
			}
			if labels != nil && !slices.Equal(labels, these) {
				t.Errorf("%s has the labels %v and %v", f.GetName(), labels, these)
			}
			labels = these
		}
		got[f.GetName()] = fmt.Sprintf("%s %s {%s} %s\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ","), f.GetHelp())
	}
	var text strings.Builder
	for _, g := range All() {
		for _, m := range g.Metrics {
			line, ok := got[m.Name]
			if !ok {
				t.Errorf("%s is listed and not gathered", m.Name)
			}
			if want := fmt.Sprintf("%s %s {%s} ", m.Name, m.Type(), strings.Join(slices.Sorted(slices.Values(m.Labels)), ",")); !strings.HasPrefix(line, want) {
				t.Errorf("the list says %q, and gathered is %q", want, line)
			}
			text.WriteString(line)
			delete(got, m.Name)
		}
	}
	for name := range got {
		t.Errorf("%s is gathered and not listed", name)
	}
	golden(t, "testdata/metrics.txt", text.String())
}

// What a scrape of the full node looks like, value by value.
func TestScrape(t *testing.T) {
	text := ours(scrape(t, full(), "text/plain"))
	text = regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(text, `goversion="go"`)
	golden(t, "testdata/scrape.txt", text)
}

func TestLint(t *testing.T) {
	families, err := fill(prometheus.NewPedanticRegistry(), full()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// In OpenMetrics a counter is a family without its _total: no other metric may
// have that name.
func TestNames(t *testing.T) {
	seen := make(map[string]string)
	for _, g := range All() {
		if g.Title == "" {
			t.Error("a group has no title")
		}
		for _, m := range g.Metrics {
			if !strings.HasPrefix(m.Name, "holdfast_") {
				t.Errorf("%s does not begin with holdfast_", m.Name)
			}
			if m.Counter != strings.HasSuffix(m.Name, "_total") {
				t.Errorf("%s is a %s", m.Name, m.Type())
			}
			if !strings.HasSuffix(m.Help, ".") {
				t.Errorf("the help of %s is no sentence: %q", m.Name, m.Help)
			}
			family := strings.TrimSuffix(m.Name, "_total")
			if other := seen[family]; other != "" {
				t.Errorf("%s and %s are one family in OpenMetrics", m.Name, other)
			}
			seen[family] = m.Name
			for _, l := range m.Labels {
				if slices.Contains([]string{"connection", "client", "id", "port"}, l) {
					t.Errorf("%s has the label %s: metrics do not grow with connections", m.Name, l)
				}
			}
		}
	}
}

func TestOpenMetrics(t *testing.T) {
	text := scrape(t, full(), "application/openmetrics-text; version=1.0.0")
	if !strings.HasSuffix(text, "# EOF\n") {
		t.Errorf("no OpenMetrics: ends in %q", text[max(0, len(text)-40):])
	}
	types := make(map[string]bool)
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			if types[name] {
				t.Errorf("the family %s occurs twice", name)
			}
			types[name] = true
		}
	}
	if !types["holdfast_service_accepted"] {
		t.Error("holdfast_service_accepted is no family")
	}
}

// A node without a file, services or limits shows what there is, and no zeros in
// place of what is not known.
func TestEmpty(t *testing.T) {
	text := ours(scrape(t, &fake{status: admin.Status{State: "well", Limits: []admin.Limit{{Name: "memory", Used: 1}}}}, "text/plain"))
	for _, want := range []string{"holdfast_memory_bytes 1\n", `holdfast_node_state{state="well"} 1`, `holdfast_problems{code="backend_down"} 0`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
	for _, without := range []string{"holdfast_pair", "holdfast_elector", "holdfast_address", "holdfast_adverts", "holdfast_witness", "holdfast_config", "holdfast_memory_limit_bytes", "holdfast_start_time", "holdfast_limit_last"} {
		if strings.Contains(text, without) {
			t.Errorf("%s is known of a node that does not know it:\n%s", without, text)
		}
	}
}

// What was removed and what has taken its name since are one for the metrics:
// the connections of both count, the state is that of the one that takes clients.
func TestRemovedAndAddedAgain(t *testing.T) {
	old := admin.Service{
		Name: "web", State: "drain", Active: 5, Total: 50, BytesIn: 1,
		Listen: []admin.Listener{{Address: ":80", Dropped: 1}},
		Backends: []admin.Backend{
			{Name: "w1", Address: "10.0.0.1:80", State: "drain", Removed: true, Active: 5, Total: 50, BytesIn: 1, Check: admin.Check{Kind: "tcp"}},
			{Name: "w1", Address: "10.0.0.2:80", State: "up", Weight: 10, Active: 1, Total: 2, BytesIn: 4, Check: admin.Check{Kind: "http", Checks: 9}},
		},
	}
	now := admin.Service{
		Name: "web", State: "up", Active: 2, Total: 3, BytesIn: 8,
		Listen: []admin.Listener{{Address: ":80", Queue: 1, QueueMax: 128, Dropped: 2}},
	}
	for name, order := range map[string][]admin.Service{"old first": {old, now}, "new first": {now, old}} {
		t.Run(name, func(t *testing.T) {
			text := ours(scrape(t, &fake{status: admin.Status{Services: order}}, "text/plain"))
			for _, want := range []string{
				`holdfast_service_up{service="web"} 1`,
				`holdfast_service_connections{service="web",state="active"} 7`,
				`holdfast_service_accepted_total{service="web"} 53`,
				`holdfast_service_bytes_total{direction="in",service="web"} 9`,
				`holdfast_listener_queue_length{address=":80",service="web"} 1`,
				`holdfast_listener_dropped_total{address=":80",service="web"} 3`,
				`holdfast_backend_info{address="10.0.0.2:80",backend="w1",check="http",service="web"} 1`,
				`holdfast_backend_state{backend="w1",service="web",state="up"} 1`,
				`holdfast_backend_weight{backend="w1",service="web"} 10`,
				`holdfast_backend_connections{backend="w1",service="web",state="active"} 6`,
				`holdfast_backend_established_total{backend="w1",service="web"} 52`,
				`holdfast_backend_bytes_total{backend="w1",direction="in",service="web"} 5`,
				`holdfast_backend_checks_total{backend="w1",service="web"} 9`,
			} {
				if !strings.Contains(text, want+"\n") {
					t.Errorf("%s is missing in\n%s", want, text)
				}
			}
		})
	}
}

// A node that knows nothing of the other one does not say that they agree, and
// one that knows each part does.
func TestConfigurationsOfThePair(t *testing.T) {
	for want, p := range map[string]*admin.Pair{
		"":  {State: "down", Own: "00"},
		"1": {State: "synced", Own: "00", Digest: "00"},
		"0": {State: "synced", Own: "00", Digest: "01"},
	} {
		text := ours(scrape(t, &fake{status: admin.Status{Node: "lb1", Pair: p}}, "text/plain"))
		got := regexp.MustCompile(`(?m)^holdfast_pair_configuration_equal (\d)$`).FindStringSubmatch(text)
		if (got == nil) != (want == "") || got != nil && got[1] != want {
			t.Errorf("%+v: %v, want %q", p, got, want)
		}
	}
}

// A service that takes no clients on purpose is neither up nor down.
func TestDraining(t *testing.T) {
	text := ours(scrape(t, &fake{status: admin.Status{Services: []admin.Service{{Name: "web", State: "drain", Active: 3}}}}, "text/plain"))
	if strings.Contains(text, "holdfast_service_up{") || !strings.Contains(text, `holdfast_service_connections{service="web",state="active"} 3`) {
		t.Errorf("a draining service:\n%s", text)
	}
}

// Accepted, refused, ended and what is still there tell one story.
func TestSums(t *testing.T) {
	f := full()
	var ended uint64
	for _, e := range f.ends {
		if e.Service == "redis" {
			ended += e.Count
		}
	}
	var shown float64
	for _, m := range All()[3].Metrics {
		if m.Name == "holdfast_service_refused_total" || m.Name == "holdfast_service_ended_total" {
			m.read(look(f), func(v float64, labels ...string) {
				if labels[0] == "redis" {
					shown += v
				}
			})
		}
	}
	if shown != float64(ended) || shown == 0 {
		t.Errorf("refused and ended are %v, and %d connections have ended", shown, ended)
	}
}

// A name that is no UTF-8 (no configuration gives one) does not break a scrape.
func TestInvalidNames(t *testing.T) {
	text := ours(scrape(t, &fake{status: admin.Status{Services: []admin.Service{{Name: "a\xff"}}}}, "text/plain"))
	if !strings.Contains(text, "holdfast_service_up{service=\"a\uFFFD\"} 0\n") {
		t.Errorf("no service in\n%s", text)
	}
}

func TestScrapersAtOnce(t *testing.T) {
	h := Handler(full())
	var wg sync.WaitGroup
	for range maxScrapes {
		wg.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
			if w.Code != http.StatusOK {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		})
	}
	wg.Wait()
}

// The metrics of the process and of Go's runtime are few, and their names are in
// the documentation too.
func TestRuntimeMetrics(t *testing.T) {
	families, err := fill(prometheus.NewPedanticRegistry(), full()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "holdfast_") {
			got = append(got, f.GetName())
		}
	}
	if diff := cmp.Diff(Runtime(), got); diff != "" {
		t.Errorf("Runtime() is not what is gathered:\n%s", diff)
	}
}

// What a scrape costs, of 10 services with 100 backends each.
func BenchmarkScrape(b *testing.B) {
	f := full()
	one := f.status.Services[0]
	f.status.Services = nil
	for i := range 10 {
		s := one
		s.Name = fmt.Sprintf("service%d", i)
		s.Backends = nil
		for j := range 100 {
			backend := one.Backends[0]
			backend.Name = fmt.Sprintf("backend%d", j)
			s.Backends = append(s.Backends, backend)
		}
		f.status.Services = append(f.status.Services, s)
	}
	h := Handler(f)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
		b.ReportMetric(float64(strings.Count(w.Body.String(), "\n")), "lines")
	}
}
