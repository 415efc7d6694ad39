//go:build linux

package programs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// openDir is a directory that the user postgres can reach.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "holdfast-programs-") //nolint:usetesting // the parent of t.TempDir is closed to the user postgres
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPrograms runs each real server with its real client, directly.
func TestPrograms(t *testing.T) {
	cases := []struct {
		name  string
		start func(context.Context, Options) (*Server, error)
		load  func(ctx context.Context, address string) (Load, error)
	}{
		{"redis", StartRedis, func(ctx context.Context, a string) (Load, error) { return RedisBenchmark(ctx, nil, a, 2000, 5) }},
		{"nginx", StartNginx, func(ctx context.Context, a string) (Load, error) { return Wrk(ctx, nil, a, time.Second, 5) }},
		{"postgres", StartPostgres, func(ctx context.Context, a string) (Load, error) { return Pgbench(ctx, nil, a, time.Second, 2) }},
	}
	for _, tc := range cases {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(fmt.Sprintf("%s/%s", tc.name, host), func(t *testing.T) {
				ctx := bounded(t)
				p, err := tc.start(ctx, Options{Dir: openDir(t), Host: host})
				if errors.Is(err, exec.ErrNotFound) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := p.Close(); err != nil {
						t.Error(err)
					}
					if err := p.Close(); err != nil {
						t.Errorf("second Close: %v", err)
					}
				}()
				l, err := tc.load(ctx, p.Address)
				if err != nil || l.Rate <= 0 || l.Failed != 0 {
					t.Errorf("%+v, %v", l, err)
				}
			})
		}
	}
}

// TestOnHosts runs a server on one host of a laboratory and its load on another.
func TestOnHosts(t *testing.T) {
	top, err := lab.OneArm(lab.Size{Clients: 1, Backends: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Supported(top); err != nil {
		t.Skip(err)
	}
	ctx := bounded(t)
	l, err := lab.Start(ctx, top, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	on := func(h *lab.Host) func(Command) (Process, error) {
		return func(c Command) (Process, error) {
			return h.Start(lab.Command{Argv: c.Argv, Dir: c.Dir, User: c.User})
		}
	}
	client, backend := l.Host("client1"), l.Host("backend1")
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(family.String(), func(t *testing.T) {
			p, err := StartRedis(ctx, Options{
				Dir: t.TempDir(), Host: backend.Addr(family).String(),
				Start: on(backend), Dial: client.Dial, Listen: backend.Listen,
			})
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			load, err := RedisBenchmark(ctx, on(client), p.Address, 1000, 5)
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			if err != nil || load.Rate <= 0 || load.Failed != 0 {
				t.Errorf("%+v, %v", load, err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestProgramErrors: what does not start says why.
func TestProgramErrors(t *testing.T) {
	ctx := bounded(t)
	if _, err := StartRedis(ctx, Options{Dir: "/nonexistent"}); err == nil || !strings.Contains(err.Error(), "Dir") {
		t.Error(err)
	}
	if _, err := StartRedis(ctx, Options{Dir: t.TempDir(), Host: "localhost"}); err == nil || !strings.Contains(err.Error(), "Host") {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if _, err := StartRedis(ctx, Options{Dir: t.TempDir(), Port: port}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("port in use: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := RedisBenchmark(ctx, nil, l.Addr().String(), 1, 1); !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "redis-tools") {
		t.Errorf("not installed: %v", err)
	}
}
