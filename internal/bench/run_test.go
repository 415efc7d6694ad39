package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runBench runs the program as a user would and returns its report.
func runBench(t *testing.T, args ...string) (Report, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bench.json")
	var stdout, stderr strings.Builder
	code := command(t.Context(), append(args, "-json", file), &stdout, &stderr)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, stderr.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report Report
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	return report, stdout.String()
}

// checkSamples demands a figure for every row of every candidate that took
// part, and no error; again are the arguments to look again with.
func checkSamples(t *testing.T, report Report, table string, again []string) {
	t.Helper()
	for _, row := range report.Rows {
		for _, c := range report.Candidates {
			if c.Skipped != "" {
				t.Logf("%s left out: %s", c.Name, c.Skipped)
				continue
			}
			if !(candidate{name: c.Name}).measures(row) {
				continue
			}
			metric := row.Metrics[0].Name
			values, errors := report.values(row.Name, c.Name, metric)
			if errors > 0 || len(values) != report.Rounds {
				t.Errorf("%s on %s: %d errors, values %v", row.Name, c.Name, errors, values)
			}
			for _, v := range values {
				if v > 0 {
					continue
				}
				// A busy machine may have starved so short a cell: look longer.
				args := append(again, "-rows", row.Name, "-candidates", c.Name, "-seconds", "5")
				longer, _ := runBench(t, args...)
				values, _ := longer.values(row.Name, c.Name, metric)
				if values[1] <= 0 {
					t.Errorf("%s on %s: %s is %v, and %v for longer", row.Name, c.Name, metric, v, values)
				}
			}
		}
		if !strings.Contains(table, row.Title) {
			t.Errorf("%s is not in the table", row.Name)
		}
	}
}

// The whole program, in the laboratory, with every candidate that is there.
func TestQuick(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	binary, err := filepath.Abs("../../bin/holdfast")
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"4", "6"} {
		t.Run("IPv"+family, func(t *testing.T) {
			args := []string{"-quick", "-family", family, "-holdfast", binary}
			report, table := runBench(t, append(args, "-seconds", "0.1")...)
			checkSamples(t, report, table, args)
			for _, to := range report.Takeovers {
				if to.Claimed.N != 1 || to.Claimed.Median <= 0 || to.OnLink.Median <= 0 || to.Routed.Median <= 0 {
					t.Errorf("a takeover: %+v", to)
				}
			}
			if n := len(report.Takeovers); n == 0 || report.Takeovers[n-1].Candidate != holdfast || !strings.Contains(table, "(takeover)") {
				t.Errorf("takeovers: %+v", report.Takeovers)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"-rounds", "0"}, "-rounds: 0"},
		{[]string{"-seconds", "0.01"}, "-seconds: 0.01"},
		{[]string{"-family", "5"}, "-family: 5"},
		{[]string{"-takeovers", "-1"}, "-takeovers: -1"},
		{[]string{"-rows", "rr2"}, `no row is called "rr2"`},
		{[]string{"-candidates", "envoy"}, `no candidate is called "envoy"`},
		{[]string{"-profile", "idle"}, `-profile: "idle"`},
		{[]string{"-rows", "rr1", "-profile", "rr32"}, `-profile: "rr32"`},
		{[]string{"rr1"}, `unexpected argument "rr1"`},
	} {
		var stdout, stderr strings.Builder
		if code := command(t.Context(), tc.args, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), tc.want) {
			t.Errorf("%v: exit code %d, %q; want 2 and %q", tc.args, code, stderr.String(), tc.want)
		}
	}
}

// A load against nothing must say so, not report a fast zero.
func TestLoadReportsErrors(t *testing.T) {
	for _, kind := range []loadKind{loadRequests, loadConnects, loadBulk, loadIdle} {
		var out strings.Builder
		l := role{Load: kind, Connections: 3, Loops: 1, Window: time.Second, Backend: os.Getpid()}
		l.Target = closedPort(t)
		if err := generate(l, strings.NewReader(""), &out); err != nil {
			t.Fatal(err)
		}
		var got outcome
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
			t.Fatal(err)
		}
		if got.Errors == 0 || got.Count != 0 || !strings.Contains(got.FirstError, "refused") {
			t.Errorf("%s: %+v", kind, got)
		}
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}
