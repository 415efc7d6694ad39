//go:build linux

package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if how := os.Getenv(childVariable); how != "" {
		os.Exit(child(how))
	}
	Main()
	goleak.VerifyTestMain(m)
}

var families = []Family{IPv4, IPv6}

func start(t *testing.T, top Topology) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a laboratory needs root")
	}
	began := time.Now()
	l, err := Start(t.Context(), top, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(began))
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func oneArm(t *testing.T, s Size) Topology { t.Helper(); return must(OneArm(s))(t) }

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// echo serves an echo in the host until the test ends.
func echo(t *testing.T, h *Host, f Family) string {
	t.Helper()
	ln := must(h.Listen(t.Context(), "tcp", net.JoinHostPort(h.Addr(f).String(), "0")))(t)
	done := make(chan struct{})
	var conns []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
			go io.Copy(c, c)
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	return ln.Addr().String()
}

// say sends a line and waits for its echo.
func say(c net.Conn, within time.Duration) error {
	const line = "how do you do\n"
	c.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	buf := make([]byte, len(line))
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	if string(buf) != line {
		return errors.New("the echo is another line: " + string(buf))
	}
	return nil
}

func dial(t *testing.T, h *Host, addr string) net.Conn {
	t.Helper()
	c := must(h.Dial(bounded(t), "tcp", addr))(t)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestEverybodyReachesEverybody(t *testing.T) {
	for name, layout := range map[string]func(Size) (Topology, error){"one arm": OneArm, "two arms": TwoArm} {
		t.Run(name, func(t *testing.T) {
			top := must(layout(Size{Clients: 2, FarClients: 1, Nodes: 1, Backends: 2}))(t)
			l := start(t, top)
			for _, f := range families {
				node := echo(t, l.Host("node1"), f)
				for _, h := range []string{"client1", "client2", "far1", "router"} {
					if err := say(dial(t, l.Host(h), node), 5*time.Second); err != nil {
						t.Errorf("%v: %s to node1: %v", f, h, err)
					}
				}
				if name == "one arm" {
					for _, h := range []string{"node1", "client1", "far1"} {
						if err := say(dial(t, l.Host(h), echo(t, l.Host("backend2"), f)), 5*time.Second); err != nil {
							t.Errorf("%v: %s to backend2: %v", f, h, err)
						}
					}
				}
			}
		})
	}
}

func TestDie(t *testing.T) {
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			l := start(t, oneArm(t, Size{Clients: 1, Backends: 1}))
			backend := l.Host("backend1")
			p := must(backend.Start(Command{Argv: []string{"sh", "-c", "setsid sleep 1000 & echo ready; sleep 1000"}}))(t)
			if err := p.Await(bounded(t), "ready"); err != nil {
				t.Fatal(err)
			}
			c := dial(t, l.Host("client1"), echo(t, backend, f))
			if err := say(c, 5*time.Second); err != nil {
				t.Fatal(err)
			}
			if _, err := backend.Die(); err != nil {
				t.Fatal(err)
			}
			if err := say(c, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after the host's death: %v, want silence", err)
			}
			if pids, err := backend.pids(); err != nil || len(pids) != 0 {
				t.Errorf("processes left: %v, %v", pids, err)
			}
			if err := p.Wait(bounded(t)); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("process ended with %v, want killed", err)
			}
			if _, err := backend.Start(Command{Argv: []string{"true"}}); err == nil {
				t.Error("a dead host started a program")
			}
		})
	}
}

func TestMute(t *testing.T) {
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) {
			l := start(t, oneArm(t, Size{Clients: 1, Backends: 1}))
			client, backend := l.Host("client1"), l.Host("backend1")
			c := dial(t, client, echo(t, backend, f))
			if err := say(c, 5*time.Second); err != nil {
				t.Fatal(err)
			}
			at := must(backend.Mute())(t)
			if took := time.Since(at); took > 5*time.Millisecond {
				t.Logf("mute took %v", took)
			}
			if err := say(c, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("muted: %v, want silence", err)
			}
			if n := backend.Links()[0].Dropped(FromHost); n == 0 {
				t.Error("nothing was dropped: the host did not hear the question")
			}
			must(backend.Unmute())(t)
			// The answer that was lost comes again with the kernel's timer.
			c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(c, make([]byte, len("how do you do\n"))); err != nil {
				t.Errorf("unmuted: %v", err)
			}
		})
	}
}
