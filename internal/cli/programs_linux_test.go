package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/usertest"
	"github.com/holdfast-net/holdfast/lab/programs"
)

// full is for a campaign: go test ./internal/cli -run RealPrograms -full -v
var full = flag.Bool("full", false, "the full load on real programs: 200,000 requests of redis-benchmark, 10 s of pgbench and wrk")

// TestRealPrograms puts the relay, as an unprivileged user, in front of real
// servers, and their own load generators in front of it.
func TestRealPrograms(t *testing.T) {
	requests, span := 4000, time.Second
	if *full {
		requests, span = 200_000, 10*time.Second
	}
	const connections = 50
	for _, tt := range []struct {
		name  string
		start func(context.Context, programs.Options) (*programs.Server, error)
		load  func(ctx context.Context, address string) (programs.Load, error)
		flags []string
	}{
		{"redis", programs.StartRedis, func(ctx context.Context, address string) (programs.Load, error) {
			return programs.RedisBenchmark(ctx, nil, address, requests, connections)
		}, []string{"--check", "exchange", "--check-send", `PING\r\n`, "--check-expect", "+PONG"}},
		{"PostgreSQL", programs.StartPostgres, func(ctx context.Context, address string) (programs.Load, error) {
			return programs.Pgbench(ctx, nil, address, span, 8)
		}, nil},
		{"nginx", programs.StartNginx, func(ctx context.Context, address string) (programs.Load, error) {
			return programs.Wrk(ctx, nil, address, span, connections)
		}, []string{"--check", "http"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			server, err := tt.start(ctx, programs.Options{Dir: usertest.Dir(t)})
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := server.Close(); err != nil {
					t.Error(err)
				}
			}()
			direct, err := tt.load(ctx, server.Address)
			if err != nil {
				t.Fatalf("without a relay: %v", err)
			}
			args := append([]string{"127.0.0.1:0", server.Address, "--drain-timeout", "5s"}, tt.flags...)
			if ipv6, _ := condition("ipv6"); ipv6 {
				args = append(args, "--listen", "[::1]:0")
			}
			relay := startRelay(t, args...)
			for _, address := range relay.addresses {
				l, err := tt.load(ctx, address)
				if errors.Is(err, exec.ErrNotFound) {
					t.Skip(err)
				}
				if err != nil {
					t.Errorf("through %s: %v", address, err)
				} else if l.Failed != 0 {
					t.Errorf("through %s: %d failures: %s", address, l.Failed, l.Output)
				}
				t.Logf("through %s: %.0f/s, directly %.0f/s", address, l.Rate, direct.Rate)
			}
			relay.stop(t)
			for cause, n := range relay.causes() {
				t.Logf("%s: %d", cause, n)
				// A client that is done may reset what it has not read; nobody else may.
				if cause != "closed by client" && cause != "closed by backend" && cause != "reset by client" {
					t.Errorf("%d connections ended as %s", n, cause)
				}
			}
		})
	}
}

// A relayProcess is holdfast relay as a process of the user nobody.
type relayProcess struct {
	cmd       *exec.Cmd
	addresses []string
	log       chan struct{} // closed when its log has ended

	mu     sync.Mutex
	text   []string
	events strings.Builder
}

// Write takes in events.
func (r *relayProcess) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events.Write(p)
}

// startRelay starts the relay and waits until it is ready.
func startRelay(t *testing.T, args ...string) *relayProcess {
	t.Helper()
	r := &relayProcess{log: make(chan struct{})}
	r.cmd = exec.Command(usertest.Program(t, "holdfast"), append([]string{"relay", "--events", "-", "--log-format", "json"}, args...)...)
	r.cmd.Stdout = r
	if os.Geteuid() == 0 {
		usertest.Nobody(r.cmd)
	}
	stderr, err := r.cmd.StderrPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.cmd.Process.Kill() }) // only if stop was not reached
	ready := make(chan struct{})
	go func() {
		defer close(r.log)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line struct {
				Msg       string `json:"msg"`
				Addresses string `json:"addresses"`
			}
			_ = json.Unmarshal(lines.Bytes(), &line)
			r.mu.Lock()
			r.text = append(r.text, lines.Text())
			if line.Msg == "listening" {
				r.addresses = strings.Fields(line.Addresses)
			}
			r.mu.Unlock()
			if line.Msg == "ready" {
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
	case <-r.log:
		t.Fatalf("the relay ended: %s", strings.Join(r.text, "\n"))
	case <-time.After(10 * time.Second):
		t.Fatal("the relay is not ready within 10s")
	}
	return r
}

// stop asks the relay to stop, waits until it has, and fails the test where it
// did not end well.
func (r *relayProcess) stop(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.log:
	case <-time.After(10 * time.Second):
		t.Fatal("the relay has not stopped within 10s")
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the relay: %v", err)
	}
	t.Log(r.text[len(r.text)-1])
}

// causes counts the ends.
func (r *relayProcess) causes() map[string]int {
	n := make(map[string]int)
	for line := range strings.Lines(r.events.String()) {
		var e struct {
			Event, Cause, By string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			n[fmt.Sprintf("no JSON: %q", line)]++
		} else if e.Event == "connection" {
			n[e.Cause+" by "+e.By]++
		}
	}
	return n
}
