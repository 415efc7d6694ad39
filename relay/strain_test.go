//go:build linux

package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// TestAbsentLoopKillsNobody keeps a loop from running for longer than
// IdleTimeout while every client sends: what they sent meanwhile counts, also
// when there are more of them than fit one batch of events.
func TestAbsentLoopKillsNobody(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		const idle = 700 * time.Millisecond
		s := g.service(t, host, ServiceOptions{IdleTimeout: idle}, b.addr())
		clients := make([]net.Conn, 2*eventBatch+100)
		for i := range clients {
			clients[i] = dial(t, s.Addrs()[0])
			b.next(t)
		}
		away := make(chan struct{})
		for _, l := range g.loops {
			l.post(func() { <-away })
		}
		<-time.After(idle / 2)
		for _, c := range clients {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(idle)
		close(away)
		g.ask(func(*loop) {}) // behind the first look at the world
		g.ask(func(*loop) {})
		g.ask(func(*loop) {})
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.ends) > 0 {
			t.Errorf("%d of %d connections were ended, the first as %v", len(g.ends), len(clients), g.ends[0].Cause)
		}
	})
}

// TestStalledEndIsNotPolled has a backend end its stream and read nothing while
// its client goes on sending: the relay waits for events.
func TestStalledEndIsNotPolled(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		client, server := dial(t, s.Addrs()[0]), b.next(t)
		client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := client.Write(random(32 << 20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("writing until nobody takes any more: %v", err)
		}
		server.CloseWrite()
		looks := map[int64]bool{}
		for end := time.Now().Add(400 * time.Millisecond); time.Now().Before(end); <-time.After(time.Millisecond) {
			g.ask(func(l *loop) {
				for _, p := range pairsOf(l) {
					looks[p.answeredAt] = true // one loop has the only pair
				}
			})
		}
		if len(looks) > 10 {
			t.Errorf("the relay looked at a stalled connection %d times in 400 ms", len(looks))
		}
	})
}

// TestFullUnixQueueIsTriedGently counts the connects to a unix socket that
// nobody accepts from.
func TestFullUnixQueueIsTriedGently(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		path := filepath.Join(t.TempDir(), "full.sock")
		fd, errno := sys.Socket(netip.Addr{})
		if errno != 0 {
			t.Fatal(errno)
		}
		defer sys.Close(fd)
		if err := errors.Join(sys.Bind(fd, netip.AddrPort{}, path), sys.Listen(fd, 0)); err != nil {
			t.Fatal(err)
		}
		g := newRig(t)
		s := g.service(t, host, ServiceOptions{}, "unix:"+path)
		dial(t, s.Addrs()[0]) // takes the only place
		dial(t, s.Addrs()[0])
		tries := map[int64]bool{}
		for end := time.Now().Add(time.Second); time.Now().Before(end); <-time.After(time.Millisecond) {
			var retry atomic.Int64
			g.ask(func(l *loop) {
				for _, p := range pairsOf(l) {
					if p.retryAt != 0 {
						retry.Store(p.retryAt)
					}
				}
			})
			tries[retry.Load()] = true
		}
		if len(tries) < 10 || len(tries) > 80 {
			t.Errorf("a full queue was tried %d times in a second", len(tries))
		}
	})
}

// TestHandedOverClientIsLive has one loop accept for another that is busy: Drain
// must know of such a client.
func TestHandedOverClientIsLive(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		busy, started := make(chan struct{}), make(chan struct{})
		g.loops[1].post(func() { close(started); <-busy })
		<-started
		for range 3 {
			dial(t, s.Addrs()[0])
		}
		b.next(t) // the first loop's own
		b.next(t)
		deadline := time.Now().Add(5 * time.Second)
		for s.Live() != 3 && time.Now().Before(deadline) {
			<-time.After(time.Millisecond)
		}
		live := s.Live()
		close(busy)
		if live != 3 {
			t.Errorf("%d connections are live while one of three is handed over", live)
		}
		b.next(t)
	})
}

// TestListenAfterRun: a listener that no loop would ever serve is an error.
func TestListenAfterRun(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		r, err := New(Options{Loops: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Listen(ServiceOptions{Listen: []Address{MustParseAddress(host + ":0")}}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Listen after Run: %v", err)
		}
	})
}

const fewEnv = "HOLDFAST_TEST_DESCRIPTORS"

// TestFewDescriptors sends a relay that has few descriptors more clients than
// fit, at once: each is served or refused, none is left waiting, and whoever
// comes when there is room again is served.
func TestFewDescriptors(t *testing.T) {
	if backend := os.Getenv(fewEnv); backend != "" {
		fewChild(t, backend)
		return
	}
	each(t, func(t *testing.T, host string) {
		b := newBackend(t, host)
		cmd, stdin, lines := startChild(t, fewEnv+"="+b.addr(), "-test.run=^TestFewDescriptors$")
		defer func() {
			_ = cmd.Process.Signal(syscall.SIGCONT) // or a failure below would wait for ever
			stdin.Close()
			_ = cmd.Wait()
		}()
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		a := MustParseAddress(strings.TrimSpace(line))

		const n = 250
		ended := make(chan error, n)
		_ = cmd.Process.Signal(syscall.SIGSTOP) // until they all queue
		for {                                   // the last of its threads may still run for a moment
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err == nil && status.Stopped() {
				break
			} else if err != nil && !errors.Is(err, syscall.EINTR) {
				t.Fatal(err)
			}
		}
		for range n {
			c := dial(t, a)
			go func() {
				_, err := c.Read(make([]byte, 1))
				ended <- err
			}()
		}
		_ = cmd.Process.Signal(syscall.SIGCONT)
		served, refused := 0, 0
		deadline := time.After(10 * time.Second)
		var conns []*net.TCPConn
		for served+refused < n {
			select {
			case c := <-b.accepted:
				served++
				conns = append(conns, c)
			case err := <-ended:
				refused++
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Fatalf("a client was told %v, want a reset", err)
				}
			case <-deadline:
				t.Fatalf("%d clients were served and %d refused of %d; the rest hang", served, refused, n)
			}
		}
		if served < 10 {
			t.Errorf("only %d clients were served", served)
		}
		for _, c := range conns {
			c.SetLinger(0)
			c.Close()
		}
		for range served {
			<-ended
		}
		client := dial(t, a)
		pass(t, client, b.next(t), []byte("there is room again"))
	})
}

// fewChild runs a relay with few descriptors until its standard input ends.
func fewChild(t *testing.T, backend string) {
	// An odd number: the last one free takes a client and has none for its
	// backend, which is when loops can lose their spare to each other.
	limit := syscall.Rlimit{Cur: 61, Max: 61}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Loops: 2, MaxConnections: 1000}) // the descriptors are to run out
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	listen := "127.0.0.1:0"
	if strings.HasPrefix(backend, "[") {
		listen = "[::1]:0"
	}
	s, err := r.Listen(ServiceOptions{
		Listen:   []Address{MustParseAddress(listen)},
		Backends: []Backend{{Name: "b", Address: MustParseAddress(backend), Weight: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println(s.Addrs()[0])
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
}

// TestCommandsComeBetweenEvents: what is posted to a loop in the middle of a
// batch of events is done before the batch goes on.
func TestCommandsComeBetweenEvents(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		r, err := New(Options{Loops: 1})
		if err != nil {
			t.Fatal(err)
		}
		g := &rig{Relay: r}
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context()) }()
		defer func() {
			r.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		b := newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		var clients, servers [2]net.Conn
		for i := range clients {
			clients[i] = dial(t, s.Addrs()[0])
			servers[i] = b.next(t)
			pass(t, clients[i], servers[i], []byte("x"))
		}
		obeyed := false
		var seen []bool // whether the command had run at each read
		g.ask(func(l *loop) {
			l.kernel.recv = func(fd int, p []byte) (int, syscall.Errno) {
				n, errno := sys.Recv(fd, p)
				if n > 0 {
					if seen = append(seen, obeyed); len(seen) == 1 {
						l.post(func() { obeyed = true })
					}
				}
				return n, errno
			}
			for _, c := range clients { // while the loop is here: one batch
				if _, err := c.Write([]byte("y")); err != nil {
					t.Error(err)
				}
			}
		})
		for _, c := range servers {
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		g.ask(func(*loop) {
			if len(seen) != 2 || seen[0] || !seen[1] {
				t.Errorf("the command had run before the reads: %v; want false, true", seen)
			}
		})
	})
}
