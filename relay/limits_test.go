//go:build linux

package relay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// TestMaxConnectionsIsExact sends many more clients than may come to two loops
// at once: as many are served as the limit says, no more and no fewer.
func TestMaxConnectionsIsExact(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		const most, clients = 50, 300
		g.SetMaxConnections(most)
		s := g.service(t, host, ServiceOptions{}, echo(t, host))
		var served, refused atomic.Int64
		wave := func(clients int) (conns []net.Conn) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			for range clients {
				wg.Go(func() {
					c, err := net.Dial("tcp", s.Addrs()[0].String())
					if err == nil {
						c.SetDeadline(time.Now().Add(20 * time.Second))
						err = ask(c, []byte("hello"))
					}
					if err == nil {
						served.Add(1)
						mu.Lock()
						conns = append(conns, c)
						mu.Unlock()
						return
					}
					if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
						refused.Add(1)
					} else {
						t.Error(err)
					}
					if c != nil {
						c.Close()
					}
				})
			}
			wg.Wait()
			t.Cleanup(func() {
				for _, c := range conns {
					c.Close()
				}
			})
			return conns
		}
		conns := wave(clients)
		if served.Load() != most || refused.Load() != clients-most {
			t.Errorf("%d were served and %d refused, want %d and %d", served.Load(), refused.Load(), most, clients-most)
		}
		if n := g.Refusals(); n != (Refusals{MaxConnections: clients - most}) || g.Count() != most {
			t.Errorf("refused: %+v; %d are there", n, g.Count())
		}
		if c := s.Counts(); c.Accepted != clients || c.Refused != clients-most || c.Active != most {
			t.Errorf("the counts are %+v", c)
		}
		if e := g.end(t, 0); e.Cause != CauseResources || e.ToldClient != ToldRST || e.Detail != "50 connections are there, as many as there may be at one time" {
			t.Errorf("the end is %+v", e)
		}
		for i := range 10 {
			conns[i].Close()
		}
		for i := range 10 {
			g.end(t, clients-most+i)
		}
		wave(20)
		if served.Load() != most+10 || g.Count() != most {
			t.Errorf("%d were served after ten had gone, %d are there", served.Load()-most, g.Count())
		}
		g.SetMaxConnections(most - 20) // ends nothing
		wave(1)
		g.SetMaxConnections(most + 3)
		wave(5)
		if served.Load() != most+13 || g.Count() != most+3 || g.MaxConnections() != most+3 {
			t.Errorf("%d were served, %d are there of %d", served.Load(), g.Count(), g.MaxConnections())
		}
		for _, c := range conns[10:] {
			if err := ask(c, []byte("still here")); err != nil {
				t.Error(err)
			}
		}
		g.SetMaxConnections(0)
		if n := g.MaxConnections(); n < 100 {
			t.Errorf("by default there may be %d connections", n)
		}
	})
}

// TestRefuse closes the door, and opens it again.
func TestRefuse(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		s := g.service(t, host, ServiceOptions{}, echo(t, host))
		inside := dial(t, s.Addrs()[0])
		if err := ask(inside, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		g.Refuse("memory is short")
		wantRefused(t, s.Addrs()[0])
		if e := g.end(t, 0); e.Cause != CauseResources || e.Detail != "memory is short" {
			t.Errorf("the end is %+v", e)
		}
		if err := ask(inside, []byte("hello")); err != nil {
			t.Error(err)
		}
		g.Refuse("")
		if err := once(s.Addrs()[0], []byte("hello")); err != nil {
			t.Error(err)
		}
		if n := g.Refusals(); n != (Refusals{Refuse: 1}) {
			t.Errorf("refused: %+v", n)
		}
	})
}

// TestWhyNobody tells clients that no backend can take apart, in words for
// whoever runs the service.
func TestWhyNobody(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		s := g.service(t, host, ServiceOptions{}, echo(t, host), echo(t, host), echo(t, host))
		n := 0
		expect := func(want string) {
			t.Helper()
			wantRefused(t, s.Addrs()[0])
			if e := g.end(t, n); e.Cause != CauseNoBackend || e.Detail != want {
				t.Errorf("the end is %+v\nwant %q", e, want)
			}
			n++
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		now := time.Now()
		must(s.MarkDown("b1", now, "no route"))
		must(s.MarkDown("b3", now.Add(time.Second), "it says 503"))
		must(s.MarkDown("b2", now, ""))
		expect("every backend is down; the last, b3: it says 503")
		for i, b := range s.Options().Backends {
			b.Weight = 0
			must(s.SetBackend(b))
			expect([]string{
				"every backend is down or drained; the last, b3: it says 503",
				"every backend is down or drained; the last, b3: it says 503",
				"every backend is drained",
			}[i])
		}
		for _, b := range s.Options().Backends {
			must(s.RemoveBackend(b.Name))
		}
		expect("the service has no backend")
		must(s.SetBackend(Backend{Name: "small", Address: MustParseAddress(echo(t, host)), Weight: 1, MaxConnections: 1}))
		c := dial(t, s.Addrs()[0])
		must(ask(c, []byte("hello")))
		expect("every backend that is up is at its connection limit")
	})
}

// TestPing has one loop, then none, answer.
func TestPing(t *testing.T) {
	r, err := New(Options{Loops: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Ping(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("before Run: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	for !r.isRunning() {
		<-time.After(time.Millisecond)
	}
	if err := r.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	away := make(chan struct{})
	r.loops[1].post(func() { <-away })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer from loop 2 of 3") {
		t.Errorf("with a stuck loop: %v", err)
	}
	close(away)
	if err := r.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := r.Ping(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

const floodEnv = "HOLDFAST_TEST_FLOOD"

// floodReport is what the child of TestFloodAtTheLimit says of itself.
type floodReport struct {
	Addresses   []Address
	Max, Count  int
	Descriptors int
	Refusals    Refusals
	CPU         time.Duration // user and system, so far
}

// TestFloodAtTheLimit floods a relay that has few descriptors, from both
// families and by a unix socket: whoever is connected notices nothing, nobody
// takes the last descriptor, and nothing spins or is left behind.
func TestFloodAtTheLimit(t *testing.T) {
	if backends := os.Getenv(floodEnv); backends != "" {
		floodChild(t, strings.Fields(backends))
		return
	}
	env := fmt.Sprintf("%s=%s %s %s", floodEnv, echo(t, "127.0.0.1"), echo(t, "[::1]"), filepath.Join(t.TempDir(), "s"))
	cmd, stdin, lines := startChild(t, env, "-test.run=^TestFloodAtTheLimit$")
	defer func() {
		stdin.Close()
		_ = cmd.Wait()
	}()
	report := func() (r floodReport) {
		t.Helper()
		if _, err := io.WriteString(stdin, "report\n"); err != nil {
			t.Fatal(err)
		}
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	idle := report()
	addresses := idle.Addresses
	if idle.Max < 50 || idle.Max > 100 {
		t.Fatalf("200 descriptors are thought to do for %d connections", idle.Max)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var errs errorsOf
	var waits []func()
	const established = 10 // at each address
	for _, a := range addresses {
		waits = append(waits, streams(ctx, t, established, a, &errs))
	}
	for report().Count < established*len(addresses) {
		<-time.After(time.Millisecond)
	}
	flood, stop := context.WithCancel(ctx)
	defer time.AfterFunc(2*time.Second, stop).Stop()
	var wg sync.WaitGroup
	var served, refused atomic.Int64
	var other errorsOf
	var slow sync.WaitGroup // clients that were let in, and say nothing: they keep the relay full
	for _, a := range addresses {
		for range 8 {
			wg.Go(func() {
				for flood.Err() == nil {
					c, err := (&net.Dialer{KeepAlive: -1}).DialContext(flood, a.Network(), strings.TrimPrefix(a.String(), "unix:"))
					if err != nil {
						if !errors.Is(err, syscall.ECONNRESET) && flood.Err() == nil {
							other.add(err)
						}
						continue
					}
					c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
						served.Add(1)
						slow.Go(func() {
							<-ctx.Done()
							c.Close()
						})
						continue
					}
					refused.Add(1)
					c.Close()
				}
			})
		}
	}
	most := 0
	for flood.Err() == nil {
		r := report()
		if most = max(most, r.Count); r.Count > r.Max {
			t.Errorf("%d connections where %d may be", r.Count, r.Max)
		}
		<-time.After(10 * time.Millisecond)
	}
	wg.Wait()
	full := report()
	if full.Count != full.Max || most != full.Max {
		t.Errorf("%d connections, %d at most, where %d may be", full.Count, most, full.Max)
	}
	if full.Refusals.MaxConnections < 100 || full.Refusals.Descriptors > 0 || other.n > 0 {
		t.Errorf("refused: %+v; %d were served, %d refused, %d met something else: %v", full.Refusals, served.Load(), refused.Load(), other.n, errors.Join(other.some...))
	}
	// Full, and left in peace but for the streams: 30 x 50 requests a second.
	const quiet = time.Second
	<-time.After(quiet)
	if spent := report().CPU - full.CPU; spent > quiet/2 {
		t.Errorf("a full relay has spent %v of %v", spent, quiet)
	}
	cancel()
	for _, wait := range waits {
		wait()
	}
	slow.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for report().Count > 0 && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond)
	}
	left := report()
	if left.Count != 0 || left.Descriptors > idle.Descriptors {
		t.Errorf("%d connections are left, and %d descriptors of %d before", left.Count, left.Descriptors, idle.Descriptors)
	}
	<-time.After(quiet)
	if spent := report().CPU - left.CPU; spent > quiet/10 {
		t.Errorf("an idle relay has spent %v of %v", spent, quiet)
	}
	if errs.n > 0 {
		t.Errorf("%d streams met errors: %v", errs.n, errors.Join(errs.some...))
	}
}

// floodChild runs a relay with few descriptors, and reports for each line of
// its standard input.
func floodChild(t *testing.T, args []string) {
	limit := syscall.Rlimit{Cur: 200, Max: 200}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	var want []ServiceOptions
	for i, listen := range []string{"127.0.0.1:0", "[::1]:0", "unix:" + args[2]} {
		want = append(want, ServiceOptions{
			Name: fmt.Sprint(i), Listen: []Address{MustParseAddress(listen)},
			Backends: []Backend{{Name: "b", Address: MustParseAddress(args[i%2]), Weight: 1}},
		})
	}
	change, err := r.Configure(want)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		report := floodReport{Max: r.MaxConnections(), Count: r.Count(), Refusals: r.Refusals()}
		for _, s := range change.Services {
			report.Addresses = append(report.Addresses, s.Addrs()...)
		}
		if report.Descriptors, err = sys.OpenFiles(); err != nil {
			t.Fatal(err)
		}
		var use syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
			t.Fatal(err)
		}
		report.CPU = time.Duration(use.Utime.Nano() + use.Stime.Nano())
		text, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(string(text))
	}
	r.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
