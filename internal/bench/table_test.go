package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata again")

// sampleReport is a small run in which every kind of line occurs: a candidate
// that was left out, errors, a target met and one missed.
func sampleReport(t *testing.T) *Report {
	t.Helper()
	rows, err := selectNamed("row", allRows(), func(r Row) string { return r.Name }, []string{"bulk1", "rr1", "idle"})
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{
		Started: time.Date(2026, 3, 4, 5, 6, 0, 0, time.UTC), Commit: "0123456789ab+", Kernel: "6.18.0", CPUs: 2, CPU: "Example 9000", Go: "go1.26.0",
		Network: "three hosts", Family: 6, Rounds: 3, Seconds: 1, Rows: rows, Background: []float64{0.01, 0.02, 0.15},
		Candidates: []CandidateState{
			{Name: direct}, {Name: haproxy, Version: "HAProxy 2.6"}, {Name: haproxyAuto, Version: "HAProxy 2.6"},
			{Name: nginx, Skipped: "nginx is not installed (Debian package nginx)"}, {Name: holdfast, Version: "holdfast devel"},
		},
	}
	// In round 2 the machine was half as fast: ratios must not show it.
	for round, speed := range map[int]float64{1: 1, 2: 0.5, 3: 1.1} {
		for name, x := range map[string]float64{direct: 5, haproxy: 1, haproxyAuto: 1.25, holdfast: 1.5} {
			bulk := map[string]float64{gbitPerSecond: 20 * x * speed}
			rr := map[string]float64{perSecond: 10000 * x * speed, p50: 100 / x / speed, p99: 200 / speed}
			if name != direct {
				bulk[cpuPerGB], rr[cpuEach] = 0.4/x, 50/x
				r.Samples = append(r.Samples, Sample{Row: "idle", Candidate: name, Round: round, Values: map[string]float64{bytesEach: 3000 / x}})
			}
			r.Samples = append(r.Samples,
				Sample{Row: "bulk1", Candidate: name, Round: round, Values: bulk},
				Sample{Row: "rr1", Candidate: name, Round: round, Values: rr})
		}
	}
	r.Samples = append(r.Samples, Sample{Row: "rr1", Candidate: haproxyAuto, Round: 4, Values: map[string]float64{}, Errors: 7, Error: "after 3ms: connect: refused"})
	r.Takeovers = []Takeover{
		{"keepalived", spreadOf([]float64{28.4, 34.6, 38.8}), spreadOf([]float64{29.4, 37.7, 40.1}), spreadOf([]float64{28.5, 37.9, 40})},
		{holdfast, spreadOf([]float64{27, 32.5, 33}), spreadOf([]float64{28, 33.1, 35}), spreadOf([]float64{28, 33.2, 36})},
	}
	r.summarize(allTargets())
	return r
}

func TestTable(t *testing.T) {
	r := sampleReport(t)
	r.Profile = &Profile{
		Row: "rr1", Samples: 100, User: 0.06,
		Syscalls: []Share{{"sendto", 0.6}}, Self: []Share{{"tcp_sendmsg", 0.1}}, Within: []Share{{"relay.(*loop).run", 0.99}},
		Calls: []Share{{"sendto", 2}}, Notes: []string{"a note"},
	}
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "table.txt")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("the table changed (-update writes it again):\n%s", diff)
	}
}

func TestVerdicts(t *testing.T) {
	r := sampleReport(t)
	met := map[string]bool{}
	for _, v := range r.Verdicts {
		met[v.Row+" "+v.Metric+" "+v.Reference] = v.Met
	}
	want := map[string]bool{
		"rr1 per_s haproxy":                    true,  // 1.5
		"rr1 p99_us haproxy":                   true,  // 1.0 is within
		"bulk1 gbit_per_s haproxy-splice-auto": false, // 1.2 of 1.3
		"idle bytes ":                          true,  // 2000 of 2048
	}
	// Rows and references that were not measured have no verdict.
	if diff := cmp.Diff(want, met); diff != "" {
		t.Error(diff)
	}
}

func TestSelectNamed(t *testing.T) {
	all := []string{"a", "b", "c"}
	self := func(s string) string { return s }
	got, err := selectNamed("letter", all, self, []string{"c", "a"})
	if err != nil || !cmp.Equal(got, []string{"a", "c"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := selectNamed("letter", all, self, []string{"d"}); err == nil || !strings.Contains(err.Error(), `"d"; there are a, b, c`) {
		t.Errorf("an unknown name: %v", err)
	}
}
