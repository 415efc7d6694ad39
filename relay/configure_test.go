//go:build linux

package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/balance"
)

// echo serves what it is sent, until the test ends.
func echo(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				_, _ = io.Copy(c, c)
				c.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// ask sends a block through c and wants it back.
func ask(c net.Conn, block []byte) error {
	got := make([]byte, len(block))
	if _, err := c.Write(block); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if !bytes.Equal(got, block) {
		return errors.New("the bytes came back changed")
	}
	return nil
}

// errorsOf collects what goes wrong in many goroutines.
type errorsOf struct {
	mu   sync.Mutex
	n    int
	some []error
}

func (e *errorsOf) add(err error) {
	if err == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n++; len(e.some) < 5 {
		e.some = append(e.some, err)
	}
}

// load connects to the addresses that at returns, so many times a second, asks
// once on each connection and ends it, until ctx is done. It returns how many
// it made.
func load(ctx context.Context, perSecond int, at func() Address, errs *errorsOf) (made int) {
	var wg sync.WaitGroup
	var n atomic.Int64
	const workers = 8
	for w := range workers {
		wg.Go(func() {
			ticker := time.NewTicker(workers * time.Second / time.Duration(perSecond))
			defer ticker.Stop()
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				errs.add(once(at(), fmt.Appendf(nil, "worker %d, connection %d", w, i)))
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return int(n.Load())
}

// once makes a connection, asks and ends it.
func once(a Address, block []byte) error {
	c, err := net.DialTimeout("tcp", a.AddrPort().String(), 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := ask(c, block); err != nil {
		return err
	}
	c.(*net.TCPConn).CloseWrite()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("the end: %d bytes, %w", n, err)
	}
	return nil
}

// streams opens n connections that ask again and again until ctx is done.
func streams(ctx context.Context, t *testing.T, n int, a Address, errs *errorsOf) (wait func()) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		c := dial(t, a)
		wg.Go(func() {
			block := random(1000 + 100*i)
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for {
				c.SetDeadline(time.Now().Add(10 * time.Second))
				if err := ask(c, block); err != nil {
					errs.add(fmt.Errorf("stream %d: %w", i, err))
					return
				}
				select {
				case <-ctx.Done():
					c.Close()
					return
				case <-ticker.C:
				}
			}
		})
	}
	return wg.Wait
}

// freeAddress is an address that nobody listens on for now.
func freeAddress(t *testing.T, host string) Address {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return MustParseAddress(l.Addr().String())
}

// TestConfigureUnderLoad applies random configurations, all of which keep one
// address and one backend, while clients come and streams go on.
func TestConfigureUnderLoad(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		t.Parallel()
		g := newRig(t)
		fixed, second, third := freeAddress(t, host), freeAddress(t, host), freeAddress(t, host)
		backends := make([]Backend, 5)
		for i := range backends {
			backends[i] = Backend{Name: fmt.Sprintf("b%d", i+1), Address: MustParseAddress(echo(t, host)), Weight: 100}
		}
		random := rand.New(rand.NewPCG(1, 2))
		configuration := func() []ServiceOptions {
			main := ServiceOptions{
				Name: "main", Listen: []Address{fixed}, Backends: []Backend{backends[0]},
				Balance: balance.Policy(random.IntN(3)), OnBackendLost: LostPolicy(random.IntN(2)),
				IdleTimeout: time.Duration(random.IntN(2)) * time.Minute, DeadPeerTimeout: time.Duration(7+random.IntN(20)) * time.Second,
				ConnectTimeout: time.Duration(1+random.IntN(5)) * time.Second, Drain: Drain{Timeout: time.Duration(random.IntN(2)) * time.Minute},
				Backlog: 1024 << random.IntN(3),
			}
			main.Backends[0].Weight = 1 + random.IntN(100)
			for _, b := range backends[1:] {
				if b.Weight = random.IntN(3) * 50; random.IntN(3) > 0 {
					main.Backends = append(main.Backends, b)
				}
			}
			random.Shuffle(len(main.Backends), func(i, j int) {
				main.Backends[i], main.Backends[j] = main.Backends[j], main.Backends[i]
			})
			other := main
			other.Name, other.Listen = "other", []Address{third}
			want := []ServiceOptions{main}
			if random.IntN(2) > 0 {
				want = append(want, other)
			}
			if i := random.IntN(3); i < len(want) { // moves between the two, comes and goes
				want[i].Listen = append(slices.Clone(want[i].Listen), second)
			}
			random.Shuffle(len(want), func(i, j int) { want[i], want[j] = want[j], want[i] })
			return want
		}
		first := configuration()
		if _, err := g.Configure(first); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var errs errorsOf
		wait := streams(ctx, t, 50, fixed, &errs)
		made := make(chan int)
		go func() { made <- load(ctx, 500, func() Address { return fixed }, &errs) }()
		var drains sync.WaitGroup
		ticker := time.NewTicker(60 * time.Millisecond)
		defer ticker.Stop()
		for i := range 50 {
			<-ticker.C
			want := configuration()
			change, err := g.Configure(want)
			if err != nil {
				t.Fatalf("configuration %d: %v", i+1, err)
			}
			for j, s := range change.Services {
				if s.Name() != want[j].Name || !slices.Equal(s.Options().Listen, want[j].Listen) {
					t.Errorf("service %d of configuration %d is %s on %v", j, i+1, s.Name(), s.Options().Listen)
				}
			}
			for _, s := range change.Removed {
				drains.Go(func() { s.Drain(t.Context()) })
			}
			for _, o := range want {
				for _, a := range o.Listen {
					errs.add(once(a, []byte("every address is served")))
				}
			}
			if i%10 == 5 { // one that fails
				bad := configuration()
				bad[0].Listen = append(bad[0].Listen, backends[0].Address) // where somebody else listens
				if _, err := g.Configure(bad); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("an address in use: %v", err)
				}
			}
		}
		cancel()
		wait()
		n := <-made
		drains.Wait()
		if errs.n > 0 {
			t.Errorf("%d of %d connections met errors: %v", errs.n, n, errors.Join(errs.some...))
		}
		if n < 500 {
			t.Errorf("only %d connections were made", n)
		}
		if refused := g.Refusals(); refused != (Refusals{}) {
			t.Errorf("refused: %+v", refused)
		}
	})
}

// TestAddressMovesWithItsQueue has the address of a service taken over by
// another again and again, while clients come, and while they wait in its queue.
func TestAddressMovesWithItsQueue(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		address := freeAddress(t, host)
		want := func(name string) []ServiceOptions {
			return []ServiceOptions{{Name: name, Listen: []Address{address}, Backends: []Backend{{Name: "b", Address: MustParseAddress(echo(t, host)), Weight: 1}}}}
		}
		names := [2][]ServiceOptions{want("a"), want("b")}
		if _, err := g.Configure(names[0]); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var errs errorsOf
		made := make(chan int)
		go func() { made <- load(ctx, 500, func() Address { return address }, &errs) }()
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for i := range 50 {
			<-ticker.C
			change, err := g.Configure(names[(i+1)%2])
			if err != nil {
				t.Fatal(err)
			}
			if len(change.Removed) != 1 || len(change.Removed[0].Addrs()) != 0 || change.Services[0].Addrs()[0] != address {
				t.Fatalf("the change is %+v", change)
			}
			if n := change.Removed[0].Drain(t.Context()); n != 0 {
				t.Errorf("%d connections were reset", n)
			}
		}
		cancel()
		if n := <-made; errs.n > 0 || n < 100 {
			t.Errorf("%d of %d connections met errors: %v", errs.n, n, errors.Join(errs.some...))
		}

		away := make(chan struct{})
		for _, l := range g.loops {
			l.post(func() { <-away })
		}
		var waiting []net.Conn
		for range 50 {
			waiting = append(waiting, dial(t, address))
		}
		change, err := g.Configure(names[1])
		close(away)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range waiting {
			if err := ask(c, []byte("hello")); err != nil {
				t.Error(err)
			}
		}
		if n := change.Services[0].Counts().Accepted; n != 50 {
			t.Errorf("the new service has accepted %d clients of 50 that waited", n)
		}
	})
}

// TestDroppedAddressServesItsQueue gives an address up while clients wait there.
func TestDroppedAddressServesItsQueue(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		stays, goes := freeAddress(t, host), freeAddress(t, host)
		want := []ServiceOptions{{
			Name: "s", Listen: []Address{stays, goes},
			Backends: []Backend{{Name: "b", Address: MustParseAddress(echo(t, host)), Weight: 1}},
		}}
		if _, err := g.Configure(want); err != nil {
			t.Fatal(err)
		}
		away := make(chan struct{})
		for _, l := range g.loops {
			l.post(func() { <-away })
		}
		var waiting []net.Conn
		for range 3 * acceptBatch {
			waiting = append(waiting, dial(t, goes))
		}
		want[0].Listen = want[0].Listen[:1]
		done := make(chan error, 1)
		go func() {
			_, err := g.Configure(want)
			done <- err
		}()
		// Before the loops may go on, the change must be under way.
		for g.changing.TryLock() {
			g.changing.Unlock()
		}
		close(away)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, c := range waiting {
			if err := ask(c, []byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
		if c, err := net.Dial("tcp", goes.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting to an address that was given up: %v, %v", c, err)
		}
		if err := once(stays, []byte("hello")); err != nil {
			t.Error(err)
		}
		want[0].Listen = append(want[0].Listen, goes) // the socket is closed: it can be had again
		if _, err := g.Configure(want); err != nil {
			t.Error(err)
		}
	})
}

// TestConfigureAllOrNothing tries changes that cannot be made, each together
// with much that could.
func TestConfigureAllOrNothing(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		here, fresh, taken := freeAddress(t, host), freeAddress(t, host), MustParseAddress(b.addr())
		unix := MustParseAddress("unix:" + filepath.Join(t.TempDir(), "s"))
		good := ServiceOptions{Name: "s", Listen: []Address{here}, Backends: []Backend{{Name: "b", Address: taken, Weight: 1}}, IdleTimeout: time.Hour}
		change, err := g.Configure([]ServiceOptions{good})
		if err != nil {
			t.Fatal(err)
		}
		s := change.Services[0]
		client := dial(t, here)
		server := b.next(t)
		before := s.Options()
		other := func(change func(*ServiceOptions)) []ServiceOptions {
			first, second := good, good
			first.Listen = []Address{fresh, unix}
			first.IdleTimeout, first.Backends, first.Balance = 0, nil, balance.RoundRobin
			second.Name, second.Listen = "second", []Address{MustParseAddress(host + ":0")}
			change(&second)
			return []ServiceOptions{first, second}
		}
		all := map[bool]string{true: "0.0.0.0", false: "[::]"}[here.AddrPort().Addr().Is4()]
		for name, tt := range map[string]struct {
			spoil func(*ServiceOptions)
			err   string
		}{
			"no name":           {func(o *ServiceOptions) { o.Name = "" }, "service number 2 has no name"},
			"the same name":     {func(o *ServiceOptions) { o.Name = "s" }, "two services are named s"},
			"the same address":  {func(o *ServiceOptions) { o.Listen = []Address{fresh} }, fresh.String() + " is listened on by service s"},
			"an address in use": {func(o *ServiceOptions) { o.Listen = append(o.Listen, taken) }, taken.String() + ": bind: address already in use"},
			"a wildcard over it": {func(o *ServiceOptions) {
				o.Listen = []Address{MustParseAddress(fmt.Sprintf("%s:%d", all, here.AddrPort().Port()))}
			}, "service s listens on " + here.String()},
			"no directory": {func(o *ServiceOptions) { o.Listen = []Address{MustParseAddress("unix:/nowhere/s")} }, "no such file"},
			"a bad option": {func(o *ServiceOptions) { o.IdleTimeout = -1 }, "service second: relay: ServiceOptions.IdleTimeout"},
			"a bad weight": {func(o *ServiceOptions) { o.Backends = twice("", -1)[:1] }, "Weight is -1"},
			"a bad policy": {func(o *ServiceOptions) { o.Balance = 9 }, "unknown policy 9"},
		} {
			if _, err := g.Configure(other(tt.spoil)); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: the error is %v", name, err)
			}
		}
		if after := s.Options(); fmt.Sprint(after) != fmt.Sprint(before) || s.Addrs()[0] != here {
			t.Errorf("the options were %+v, and are %+v", before, after)
		}
		if c, err := net.Dial("tcp", fresh.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting to an address of a change that failed: %v, %v", c, err)
		}
		if c, err := net.Dial("unix", unix.Path()); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("connecting to a unix socket of a change that failed: %v, %v", c, err)
		}
		pass(t, client, server, []byte("nothing happened"))
		if list, _, _ := g.Connections(Filter{Service: "s"}); len(list) != 1 {
			t.Errorf("the connections are %+v", list)
		}
		if _, err := g.Listen(good); err == nil || !strings.Contains(err.Error(), "there is a service named s") {
			t.Errorf("a second service of the same name: %v", err)
		}
	})
}

// TestConfigureKeeps changes everything about a service but what it has.
func TestConfigureKeeps(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b1, b2, b3 := newRig(t), newBackend(t, host), newBackend(t, host), newBackend(t, host)
		back := func(name string, b *backend, weight int) Backend {
			return Backend{Name: name, Address: MustParseAddress(b.addr()), Weight: weight}
		}
		opts := ServiceOptions{Name: "s", Listen: []Address{MustParseAddress(host + ":0")}, Backends: []Backend{back("one", b1, 1)}}
		change, err := g.Configure([]ServiceOptions{opts})
		if err != nil {
			t.Fatal(err)
		}
		s := change.Services[0]
		at := s.Addrs()[0]
		client := dial(t, at)
		server := b1.next(t)
		pass(t, client, server, []byte("hello"))

		// A port that the kernel chose stays; a backend that is down stays down.
		opts.Backends = []Backend{back("one", b1, 7), back("two", b2, 1)}
		opts.OnBackendLost = LostDrain
		configure := func() {
			t.Helper()
			change, err := g.Configure([]ServiceOptions{opts})
			if err != nil {
				t.Fatal(err)
			}
			if len(change.Removed) != 0 || change.Services[0] != s || s.Addrs()[0] != at {
				t.Fatalf("the change is %+v, at %v", change, s.Addrs())
			}
		}
		configure()
		if err := s.MarkDown("two", time.Now(), "test"); err != nil {
			t.Fatal(err)
		}
		opts.Backends = []Backend{back("two", b2, 5), back("one", b1, 0)}
		configure()
		status := func() map[string]BackendStatus {
			all := map[string]BackendStatus{}
			for _, st := range s.Backends() {
				all[st.Name] = st
			}
			return all
		}
		if st := status(); st["two"].State != balance.Down || st["two"].Why != "test" || st["one"].State != balance.Drain ||
			st["one"].Active != 1 || st["one"].Total != 1 || st["one"].BytesIn != 5 {
			t.Errorf("the backends are %+v", st)
		}
		wantRefused(t, at)

		// Another address is for new connections.
		opts.Backends = []Backend{back("one", b3, 1)}
		configure()
		pass(t, server, client, []byte("still here"))
		client2 := dial(t, at)
		server3 := b3.next(t)
		pass(t, client2, server3, []byte("new"))
		if err := s.MarkDown("one", time.Now(), "the new address"); err != nil {
			t.Fatal(err)
		}
		opts.OnBackendLost = LostReset
		configure() // the policy holds for a backend that is down already
		wantRST(t, client2)
		pass(t, server, client, []byte("the old address is not known to be down"))

		// One that was removed is listed while it has connections; one that is
		// added starts up.
		opts.Backends = []Backend{back("two", b2, 5)}
		configure()
		if st := status(); st["two"].State != balance.Up || !st["one"].Removed || st["one"].Active != 1 || st["one"].Total != 2 || st["one"].BytesIn != 8 {
			t.Errorf("the backends are %+v", st)
		}
		opts.Backends = []Backend{back("one", b1, 5)}
		configure() // it takes up its counts
		if st := status(); len(st) != 1 || st["one"].Removed || st["one"].State != balance.Up || st["one"].Active != 1 || st["one"].Total != 2 {
			t.Errorf("the backends are %+v", st)
		}
		if n, err := s.ResetBackend("one"); n != 1 || err != nil {
			t.Errorf("ResetBackend: %d, %v", n, err)
		}
		wantRST(t, client)
		opts.Backends = nil
		configure()
		if st := status(); len(st) != 0 {
			t.Errorf("the backends are %+v", st)
		}
		if c := s.Counts(); c.Accepted != 3 || c.Refused != 1 || c.BytesIn != 8 || c.Active+c.Inactive != 0 {
			t.Errorf("the counts are %+v", c)
		}
	})
}

// TestSameNameAgain adds a service whose namesake is still draining.
func TestSameNameAgain(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		want := []ServiceOptions{{Name: "s", Listen: []Address{freeAddress(t, host)}, Backends: []Backend{{Name: "b", Address: MustParseAddress(b.addr()), Weight: 1}}}}
		if _, err := g.Configure(want); err != nil {
			t.Fatal(err)
		}
		client := dial(t, want[0].Listen[0])
		server := b.next(t)
		gone, err := g.Configure(nil)
		if err != nil || len(gone.Removed) != 1 {
			t.Fatalf("%+v, %v", gone, err)
		}
		drained := make(chan int, 1)
		go func() { drained <- gone.Removed[0].Drain(t.Context()) }()
		again, err := g.Configure(want)
		if err != nil {
			t.Fatal(err)
		}
		client2 := dial(t, want[0].Listen[0])
		server2 := b.next(t)
		pass(t, client, server, []byte("old"))
		pass(t, client2, server2, []byte("new"))
		if list, matched, total := g.Connections(Filter{Service: "s"}); len(list) != 2 || matched != 2 || total != 2 {
			t.Errorf("the connections are %+v", list)
		}
		client.Close()
		server.Close()
		if n := <-drained; n != 0 || again.Services[0].Live() != 1 {
			t.Errorf("%d were reset, %d are live in the new service", n, again.Services[0].Live())
		}
		pass(t, server2, client2, []byte("carries on"))
	})
}

// TestConfigureBeforeRun: services can be changed while nothing runs yet.
func TestConfigureBeforeRun(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		r, err := New(Options{Loops: 2})
		if err != nil {
			t.Fatal(err)
		}
		a, b := freeAddress(t, host), freeAddress(t, host)
		want := func(names string, addresses ...Address) (want []ServiceOptions) {
			for i, name := range strings.Fields(names) {
				want = append(want, ServiceOptions{Name: name, Listen: addresses[i : i+1], Backends: []Backend{{Name: "b", Address: MustParseAddress(echo(t, host)), Weight: 1}}})
			}
			return want
		}
		for _, w := range [][]ServiceOptions{want("one two", a, b), want("two", a), want("three one", a, b), want("one", b), want("one", a)} {
			if _, err := r.Configure(w); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context()) }()
		if err := once(a, []byte("hello")); err != nil {
			t.Error(err)
		}
		if c, err := net.Dial("tcp", b.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting to an address that was given up: %v, %v", c, err)
		}
		r.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := r.Configure(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Configure after Close: %v", err)
		}
	})
}

// TestPoliciesChangeLive gives established connections other bounds.
func TestPoliciesChangeLive(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		opts := ServiceOptions{Name: "s", Listen: []Address{freeAddress(t, host)}, Backends: []Backend{{Name: "b", Address: MustParseAddress(b.addr()), Weight: 1}}}
		ends := 0
		configure := func(change func()) {
			t.Helper()
			change()
			if _, err := g.Configure([]ServiceOptions{opts}); err != nil {
				t.Fatal(err)
			}
		}
		configure(func() {})
		open := func() (client, server net.Conn) {
			t.Helper()
			client = dial(t, opts.Listen[0])
			server = b.next(t)
			pass(t, client, server, []byte("x"))
			return client, server
		}
		wantEnd := func(cause Cause, within time.Duration, since time.Time) {
			t.Helper()
			e := g.end(t, ends)
			ends++
			if took := time.Since(since); e.Cause != cause || took > within {
				t.Errorf("the end came after %v: %+v", took, e)
			}
		}
		client, server := open()
		began := time.Now()
		configure(func() { opts.IdleTimeout = 300 * time.Millisecond })
		wantRST(t, client)
		wantRST(t, server)
		wantEnd(CauseIdle, 2*time.Second, began)

		configure(func() { opts.IdleTimeout = 400 * time.Millisecond })
		client, server = open()
		configure(func() { opts.IdleTimeout = 0 })
		<-time.After(800 * time.Millisecond)
		pass(t, client, server, []byte("no longer bounded"))
		configure(func() {
			opts.IdleTimeout = 300 * time.Millisecond
			opts.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		})
		wantRefused(t, opts.Listen[0]) // a new client is not allowed, the old one stays for its time
		wantEnd(CauseNotAllowed, 10*time.Second, began)
		wantRST(t, client)
		wantEnd(CauseIdle, 10*time.Second, began)
		configure(func() { opts.IdleTimeout, opts.Allow = 0, nil })

		// A drain that began without a bound gets one that has passed.
		client, server = open()
		configure(func() { opts.Backends[0].Weight = 0 })
		<-time.After(1200 * time.Millisecond)
		pass(t, client, server, []byte("drains for ever"))
		began = time.Now()
		configure(func() { opts.Drain.Timeout = 1100 * time.Millisecond })
		wantRST(t, client)
		wantEnd(CauseDrained, time.Second, began) // and not only after another 1.1 s
		configure(func() { opts.Backends[0].Weight, opts.Drain = 1, Drain{Timeout: 500 * time.Millisecond} })

		// A bound that is lifted by the weight, and one by the policy.
		client, server = open()
		configure(func() { opts.Backends[0].Weight = 0 })
		configure(func() { opts.Backends[0].Weight = 1 })
		<-time.After(700 * time.Millisecond)
		pass(t, client, server, []byte("drains no longer"))

		// MarkDown under one policy, told under the other.
		configure(func() { opts.OnBackendLost = LostDrain })
		if err := g.services[0].MarkDown("b", time.Now(), "test"); err != nil {
			t.Fatal(err)
		}
		pass(t, client, server, []byte("left alone"))
		<-time.After(150 * time.Millisecond)
		began = time.Now()
		configure(func() { opts.OnBackendLost = LostReset })
		wantRST(t, client)
		wantEnd(CauseBackendDown, time.Second, began)
	})
}

// TestConnectTimeoutChangesLive bounds a connect that is under way.
func TestConnectTimeoutChangesLive(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		opts := ServiceOptions{
			Name: "s", Listen: []Address{freeAddress(t, host)}, ConnectTimeout: time.Minute,
			Backends: []Backend{{Name: "b", Address: MustParseAddress(newFullBackend(t, host)), Weight: 1}},
		}
		if _, err := g.Configure([]ServiceOptions{opts}); err != nil {
			t.Fatal(err)
		}
		client := dial(t, opts.Listen[0])
		for g.services[0].Counts().Inactive != 1 {
			<-time.After(time.Millisecond)
		}
		opts.ConnectTimeout = 100 * time.Millisecond
		if _, err := g.Configure([]ServiceOptions{opts}); err != nil {
			t.Fatal(err)
		}
		wantRST(t, client)
		if e := g.end(t, 0); e.Cause != CauseUnreachable || e.Age > 10*time.Second {
			t.Errorf("the end is %+v", e)
		}
	})
}

// silence has a socket's kernel drop everything that comes for it: to its peer,
// the host is dead.
func silence(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var attach error
	if err := raw.Control(func(fd uintptr) {
		const ret, none = 6, 0
		//nolint:staticcheck // x/net/bpf, which it names, only assembles: it cannot attach
		attach = syscall.AttachLsf(int(fd), []syscall.SockFilter{{Code: ret, K: none}})
	}); err != nil || attach != nil {
		t.Fatal(err, attach)
	}
}

// TestDeadPeerTimeoutChangesLive: a shortened bound finds a silent host within
// the new one, a lifted one leaves it alone, and whoever answers lives.
func TestDeadPeerTimeoutChangesLive(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		t.Parallel()
		g, b := newRig(t), newBackend(t, host)
		var want []ServiceOptions
		var dead, well [3]net.Conn
		for i, bound := range []time.Duration{-1, 30 * time.Second, MinDeadPeerTimeout} {
			want = append(want, ServiceOptions{
				Name: fmt.Sprint(i), Listen: []Address{freeAddress(t, host)}, DeadPeerTimeout: bound,
				Backends: []Backend{{Name: "b", Address: MustParseAddress(b.addr()), Weight: 1}},
			})
		}
		if _, err := g.Configure(want); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			for _, c := range []*net.Conn{&dead[i], &well[i]} {
				*c = dial(t, want[i].Listen[0])
				(*c).SetDeadline(time.Time{})
				pass(t, *c, b.next(t), []byte("x"))
			}
			silence(t, dead[i])
		}
		<-time.After(1500 * time.Millisecond) // the kernel's probing is under way
		for i, bound := range []time.Duration{MinDeadPeerTimeout, MinDeadPeerTimeout, -1} {
			want[i].DeadPeerTimeout = bound
		}
		if _, err := g.Configure(want); err != nil {
			t.Fatal(err)
		}
		changed := time.Now()
		for i := range 2 {
			if e := g.end(t, i); e.Cause != CauseDeadPeer || e.By != ByClient || e.Service == "2" {
				t.Errorf("the end is %+v", e)
			}
		}
		if took := time.Since(changed); took > MinDeadPeerTimeout+time.Second {
			t.Errorf("both were told after %v", took)
		}
		<-time.After(time.Until(changed.Add(MinDeadPeerTimeout + 2*time.Second)))
		if list, _, _ := g.Connections(Filter{}); len(list) != 4 {
			t.Errorf("%d connections are left, want the three that answer and one whose bound was lifted: %+v", len(list), list)
		}
	})
}
