package cli

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/admin"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of the renderings")

// now is when the renderings are made: the zone is no whole number of hours, so
// that a time in the wrong one is seen.
var now = time.Date(2026, 11, 20, 3, 12, 45, 0, time.FixedZone("test", 5*3600+1800))

func ago(d time.Duration) time.Time { return now.Add(-d).UTC() }

// golden compares text with a file under testdata/golden.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".txt")
	if *rewrite {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test ./internal/cli -run %s -rewrite writes it)", err, t.Name())
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s is another text (-want +got):\n%s", path, diff)
	}
	for line := range strings.Lines(text) {
		if trimmed := strings.TrimRight(line, " \n"); trimmed+"\n" != line {
			t.Errorf("%s: spaces at the end, or no end, of %q", path, line)
		}
	}
}

func wellStatus() admin.Status {
	return admin.Status{
		Node: "lb1", Version: "v0.2.0", PID: 4711, Started: ago(76*time.Hour + 3*time.Minute), State: "well",
		Config: admin.ConfigFile{File: "/etc/holdfast/holdfast.yaml", Digest: "1a2b3c4d5e6f", Loaded: ago(125 * time.Minute)},
		Limits: []admin.Limit{
			{Name: "connections", Used: 852, Max: 523776, Source: "half of the descriptors"},
			{Name: "descriptors", Used: 1731, Max: 1048576, Source: "RLIMIT_NOFILE 1048576"},
			{Name: "memory", Used: 48_300_000, Max: 2147483648, Source: "memory.max of the cgroup"},
		},
		Totals: admin.Totals{Connections: 91234, BytesIn: 1_234_567_890, BytesOut: 98_765_432_100, ByCause: map[string]uint64{"closed": 91230, "idle_timeout": 3, "reset": 1, "operator": 0}},
		Services: []admin.Service{
			{
				Name: "redis", Engine: "relay", State: "up", Balance: "least-connections", OnBackendLost: "reset", Active: 850, Inactive: 2, Total: 92086,
				BytesIn: 1_300_000_000, BytesOut: 99_000_000_000,
				Listen: []admin.Listener{{Address: "10.0.0.100:6379", QueueMax: 4096}, {Address: "[2001:db8::100]:6379", QueueMax: 4096}},
				Backends: []admin.Backend{
					{Service: "redis", Name: "r1", Address: "10.0.0.21:6379", State: "up", Weight: 100, Active: 425, Inactive: 1, Total: 46000, BytesIn: 650_000_000, BytesOut: 49_500_000_000, Since: ago(76 * time.Hour)},
					{Service: "redis", Name: "r2", Address: "[2001:db8:1:2:3:4:5:6]:6379", State: "up", Weight: 100, Active: 425, Inactive: 1, Total: 46086, BytesIn: 650_000_000, BytesOut: 49_500_000_000, Since: ago(76 * time.Hour)},
					{Service: "redis", Name: "spare", Address: "unix:/run/redis.sock", State: "up", Weight: 100, Backup: true, Since: ago(76 * time.Hour)},
				},
			},
		},
	}
}

func degradedStatus() admin.Status {
	s := wellStatus()
	s.State = "degraded"
	s.Config.Reloads, s.Config.Refused, s.Config.Changed, s.Config.Error = 3, 1, true, "holdfast.yaml:3:1: x"
	s.Problems = []admin.Problem{
		{Code: admin.ProblemServiceDown, Service: "db", Text: "service db has no backend that can take a client: new clients are refused", Since: ago(72 * time.Second)},
		{Code: admin.ProblemBackendDown, Service: "redis", Backend: "r2", Text: "backend redis/r2 is down: connect: connection refused.", Since: ago(192 * time.Second)},
		{Code: admin.ProblemReloadRefused, Text: "the last reload was refused, the file before it runs: `holdfast check` says what is wrong"},
	}
	s.Limits[0] = admin.Limit{Name: "connections", Used: 5000, Max: 5000, Source: "RLIMIT_NOFILE 10000", Reached: 1234, Last: ago(2 * time.Second), Remedy: "LimitNOFILE= in the unit"}
	s.Limits[2].Max = 0
	r := &s.Services[0]
	r.Refused, r.Listen[0].Queue, r.Listen[0].Dropped, r.Listen[1].Dropped = 17, 4000, 2, 1
	b := r.Backends
	b[0].Weight, b[0].ByHand = 20, &admin.ByHand{What: "weight", FileWeight: 100, Since: ago(10 * time.Minute), By: "uid 0 (pid 99)"}
	b[1].State, b[1].Reason, b[1].Since = "down", "connect: connection refused", ago(192*time.Second)
	b[2].State, b[2].Weight, b[2].ByHand = "drain", 0, &admin.ByHand{What: "drain", FileWeight: 100, Since: ago(5 * time.Second)}
	r.Backends = append(b,
		admin.Backend{Service: "redis", Name: "старый-сервер", Address: "10.0.0.9:6379", State: "drain", Active: 1, Removed: true},
		admin.Backend{Service: "redis", Name: "予備", Address: "10.0.0.10:6379", State: "up", Weight: 1, MaxConnections: 10, Active: 9, Inactive: 1},
		admin.Backend{Service: "redis", Name: "evil\x1b[2J", Address: "10.0.0.11:6379", State: "down", Weight: 1, Reason: "answered \"\x07\u202eno\"", Since: ago(time.Second)},
		admin.Backend{Service: "redis", Name: "gone", Address: "10.0.0.12:6379", State: "drain", ByHand: &admin.ByHand{What: "remove", FileWeight: 100, Since: ago(time.Hour)}},
	)
	s.Services = append(s.Services,
		admin.Service{Name: "db", Engine: "relay", State: "down", Balance: "round-robin", Listen: []admin.Listener{{Address: "unix:/run/db.sock"}}},
		admin.Service{Name: "old", Engine: "relay", State: "drain", Balance: "source-hash", Active: 3},
	)
	return s
}

func TestRenderStatus(t *testing.T) {
	v := view{now: now}
	golden(t, "status-well", v.status(wellStatus()))
	golden(t, "status-degraded", v.status(degradedStatus()))
	golden(t, "status-empty", v.status(admin.Status{Node: "lb1", Version: "devel", PID: 1, Started: now, State: "stopping"}))
	golden(t, "status-80", view{now: now, columns: 80}.status(degradedStatus()))
	golden(t, "check-well", v.check(wellStatus()))
	golden(t, "check-degraded", v.check(degradedStatus()))
	golden(t, "check-stopping", v.check(admin.Status{Node: "lb1", State: "stopping"}))
}

// TestRenderColours says that styles are for terminals, and change no letter.
func TestRenderColours(t *testing.T) {
	painted, bare := view{now: now, paint: true}.status(degradedStatus()), view{now: now}.status(degradedStatus())
	if !strings.Contains(painted, string(red)) || strings.Contains(bare, "\x1b") {
		t.Error("styles are where they should not be, or missing")
	}
	strip := func(s string) string {
		for _, st := range []style{bold, faint, red, green, yellow, reset} {
			s = strings.ReplaceAll(s, string(st), "")
		}
		return s
	}
	if diff := cmp.Diff(bare, strip(painted)); diff != "" {
		t.Errorf("the styled text is another one (-bare +painted):\n%s", diff)
	}
}

func TestRenderLists(t *testing.T) {
	v := view{now: now}
	s := degradedStatus()
	golden(t, "services", v.services(s.Services))
	golden(t, "services-none", v.services(nil))
	golden(t, "backends-none", v.backends(nil))
	golden(t, "backends", v.backends(s.Services[0].Backends))
	golden(t, "backends-well", v.backends(wellStatus().Services[0].Backends[:2]))
	list := testConnections()
	golden(t, "connections", v.connections(admin.Connections{Connections: list, Matched: 3, Total: 3}))
	golden(t, "connections-limited", v.connections(admin.Connections{Connections: list[:1], Matched: 8999, Total: 9000}))
	golden(t, "connections-none", v.connections(admin.Connections{Total: 9000}))
	golden(t, "reload", v.reload(admin.Reload{File: "h.yaml", Changes: []string{"redis: backend r3 added", "redis: backend r1: weight 100 -> 50"}}))
	golden(t, "reload-nothing", v.reload(admin.Reload{File: "h.yaml"}))
}

func testConnections() []admin.Connection {
	return []admin.Connection{
		{ID: 1, Service: "redis", Client: "10.0.0.5:51234", Backend: "r1", State: "established", Age: admin.Seconds(76 * time.Hour), Idle: admin.Seconds(13 * time.Second), BytesIn: 1234, BytesOut: 5_600_000},
		{ID: 8123, Service: "redis", Client: "[2001:db8:aaaa:bbbb::17]:51234", State: "connecting", Age: admin.Seconds(1500 * time.Millisecond), Idle: admin.Seconds(1500 * time.Millisecond), Held: 65536},
		{ID: 123456789, Service: "db", Client: "unix", Backend: "予備", State: "closing", Age: admin.Seconds(90 * time.Second)},
	}
}

func TestSummary(t *testing.T) {
	for want, c := range map[string]admin.Connections{
		"0 connections":                                     {},
		"1 connection":                                      {Connections: make([]admin.Connection, 1), Matched: 1, Total: 1},
		"9,000 connections, 50 shown":                       {Connections: make([]admin.Connection, 50), Matched: 9000, Total: 9000},
		"1 of 9,000 connections matches":                    {Connections: make([]admin.Connection, 1), Matched: 1, Total: 9000},
		"120 of 9,000 connections match, 50 shown":          {Connections: make([]admin.Connection, 50), Matched: 120, Total: 9000},
		"0 of 1,234,567 connections match":                  {Total: 1_234_567},
		"1,000 of 1,234,567 connections match, 1 shown":     {Connections: make([]admin.Connection, 1), Matched: 1000, Total: 1_234_567},
		"1,000,000 of 1,234,567 connections match, 0 shown": {Matched: 1_000_000, Total: 1_234_567},
	} {
		if got := summary(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func testEvents() []admin.Event {
	weight := 20
	return []admin.Event{
		{Seq: 1, Event: admin.EventNode, Time: ago(time.Hour), Change: &admin.Change{State: "started"}},
		{Seq: 2, Event: admin.EventBackend, Time: ago(59 * time.Minute), Service: "redis", Backend: "r1", Change: &admin.Change{Address: "10.0.0.21:6379", State: "up"}},
		{Seq: 3, Event: admin.EventConnection, Time: ago(58 * time.Minute), Service: "redis", Backend: "r1", ConnectionEnd: &admin.ConnectionEnd{
			ID: 4711, Client: "10.0.0.5:51234", Engine: "relay", Cause: "closed", By: "client", Age: admin.Seconds(3200 * time.Millisecond), BytesIn: 1234, BytesOut: 5_600_000, ToldClient: "fin", ToldBackend: "fin", Attempts: 1}},
		{Seq: 4, Event: admin.EventBackend, Time: ago(57 * time.Minute), Service: "redis", Backend: "r1", Change: &admin.Change{Address: "10.0.0.21:6379", State: "down", Reason: "connect: connection refused"}},
		{Seq: 5, Event: admin.EventConnection, Time: ago(57 * time.Minute), Service: "redis", Backend: "r1", ConnectionEnd: &admin.ConnectionEnd{
			ID: 4712, Client: "[2001:db8::5]:51234", Engine: "relay", Cause: "backend_down", By: "holdfast", Age: admin.Seconds(92 * time.Second), BytesIn: 99, BytesOut: 1000, Undelivered: 4096, ToldClient: "rst", ToldBackend: "rst", Attempts: 2, Detail: "connect: connection refused"}},
		{Seq: 6, Event: admin.EventConnection, Time: ago(56 * time.Minute), Service: "a-service-with-a-long-name", ConnectionEnd: &admin.ConnectionEnd{
			ID: 4713, Client: "unix", Engine: "relay", Cause: "no_backend", By: "holdfast", ToldClient: "rst"}},
		{Seq: 7, Event: admin.EventBackend, Time: ago(55 * time.Minute), Service: "redis", Backend: "r2", Change: &admin.Change{State: "changed", Weight: &weight, ByHand: "uid 0 (pid 12)"}},
		{Seq: 8, Event: admin.EventLost, Time: ago(54 * time.Minute), Count: 12345},
		{Seq: 9, Event: admin.EventLimit, Time: ago(53 * time.Minute), Count: 17, Change: &admin.Change{State: "connections", Reason: "5000 of 5000"}},
		{Seq: 10, Event: admin.EventReload, Time: ago(52 * time.Minute), Change: &admin.Change{State: "refused", Reason: "holdfast.yaml:3:1: bad\x1b]0;x\x07"}},
		{Seq: 11, Event: admin.EventService, Time: ago(51 * time.Minute), Service: "redis", Change: &admin.Change{State: "removed"}},
		{Seq: 12, Event: "something_new", Time: ago(50 * time.Minute)},
		{Seq: 13, Event: admin.EventLimit, Time: ago(49 * time.Minute), Service: "redis", Count: 3, Change: &admin.Change{State: "accept_queue", Reason: "reached"}},
		{Seq: 14, Event: admin.EventLimit, Time: ago(48 * time.Minute), Count: 2, Change: &admin.Change{State: "events", Reason: "reached"}},
		{Seq: 15, Event: admin.EventReset, Time: ago(47 * time.Minute), Count: 2, Change: &admin.Change{State: "reset", Reason: "2 connections were told by command", ByHand: "uid 0 (pid 12)"}},
	}
}

func TestRenderEvents(t *testing.T) {
	p := eventPrinter{view: view{now: now}}
	var b strings.Builder
	for _, e := range testEvents() {
		b.WriteString(p.line(e) + "\n")
	}
	golden(t, "events", b.String())
}

// TestEventsKeepTheirFields says that what the renderings are made of survives
// the way through the API: an event's parts are embedded.
func TestEventsKeepTheirFields(t *testing.T) {
	for _, e := range testEvents() {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back admin.Event
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Errorf("%s (-sent +received):\n%s", text, diff)
		}
	}
}
