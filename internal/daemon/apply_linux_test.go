package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/relay"
)

// hosts are the two families.
var hosts = []string{"127.0.0.1:0", "[::1]:0"}

// await asks until the answer is yes.
func await(t *testing.T, what string, yes func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for !yes() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// apply applies, and compares what is said of it.
func (r *running) apply(t *testing.T, want []string, services ...ServiceOptions) {
	t.Helper()
	got, err := r.Apply(services)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changes (-want +got)\n%s", d)
	}
}

// backendOf finds a backend in a listing.
func (r *running) backendOf(t *testing.T, name string) admin.Backend {
	t.Helper()
	list, err := r.Backends(admin.Filter{Service: "echo"})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if b.Name == name {
			return b
		}
	}
	return admin.Backend{}
}

// with returns the service with another list of backends.
func with(o ServiceOptions, backends ...relay.Backend) ServiceOptions {
	o.Relay.Backends = backends
	return o
}

// tryOnce makes a connection, exchanges a line on it, and ends it well.
func tryOnce(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello\n" {
		return fmt.Errorf("the echo is %q: %w", got, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// A reload changes what it names and leaves the rest alone: connections, checks
// and their counts.
func TestApply(t *testing.T) {
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			b1, b2 := startBackend(t, host), startBackend(t, host)
			o := echoService(b1, host)
			r := start(t, o)
			r.events.await(t, `"state":"up"`)
			client := r.connect(t)
			checks := r.backendOf(t, "b1").Check.Checks

			first, second := o.Relay.Backends[0], relay.Backend{Name: "b2", Address: b2.address(), Weight: 50}
			r.apply(t, []string{}, o)
			first.Weight = 0
			o = with(o, first, second)
			o.Relay.Drain.Timeout = time.Hour
			r.apply(t, []string{
				"service echo: drain.timeout 0s -> 1h0m0s",
				"service echo: weight of b1 100 -> 0",
				fmt.Sprintf("service echo: backend b2 added (%v, weight 50)", b2.address()),
			}, o)
			exchange(t, client)
			r.connect(t)
			got := r.backendOf(t, "b1")
			if got.State != "drain" || got.Active != 1 || got.Total != 1 || got.Check.Checks < checks {
				t.Errorf("the drained one: %+v; it had %d checks", got, checks)
			}
			if got := r.backendOf(t, "b2"); got.Active != 1 || got.Weight != 50 || got.Address != b2.address().String() {
				t.Errorf("the added one: %+v", got)
			}
			await(t, "the added backend is checked", func() bool { return !r.backendOf(t, "b2").Since.IsZero() })

			r.apply(t, []string{fmt.Sprintf("service echo: backend b1 removed (%v)", b1.address())}, with(o, second))
			exchange(t, client)
			if got := r.backendOf(t, "b1"); !got.Removed || got.State != "drain" || got.Active != 1 {
				t.Errorf("the removed one: %+v", got)
			}
			r.events.await(t, `"event":"backend"`)
			r.events.await(t, `"state":"removed","reason":"service echo: backend b1 removed`)
		})
	}
}

// snapshot is what a reload that is refused must not change.
func (r *running) snapshot(t *testing.T) string {
	t.Helper()
	services, err := r.Services(admin.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, s := range services {
		fmt.Fprintln(&b, s.Name, s.State, s.Active, s.Balance)
		for _, l := range s.Listen {
			fmt.Fprintln(&b, l.Address)
		}
		for _, x := range s.Backends {
			fmt.Fprintln(&b, x.Name, x.Address, x.Weight, x.State, x.Active)
		}
	}
	return b.String()
}

// All or nothing.
func TestApplyRefused(t *testing.T) {
	b := startBackend(t, "127.0.0.1:0")
	o := echoService(b, "127.0.0.1:0")
	r := start(t, o)
	r.events.await(t, `"state":"up"`)
	client := r.connect(t)
	before := r.snapshot(t)

	free := filepath.Join(t.TempDir(), "free.sock")
	other := o
	other.Relay.Name = "other"
	other.Relay.Listen = []relay.Address{relay.MustParseAddress("unix:" + free)}
	changed := with(o, relay.Backend{Name: "b9", Address: b.address(), Weight: 1})
	for name, tt := range map[string]struct {
		bad  ServiceOptions
		want string
	}{
		"an address in use": {func() ServiceOptions { s := other; s.Relay.Listen = append(s.Relay.Listen, b.address()); return s }(), "in use by this program itself"},
		"every address, beside one": {func() ServiceOptions {
			s := other
			_, port, _ := net.SplitHostPort(r.address())
			s.Relay.Listen = append(s.Relay.Listen, relay.MustParseAddress("0.0.0.0:"+port))
			return s
		}(), "cannot listen on 0.0.0.0:" + r.address()[len("127.0.0.1:"):] + ": service echo listens on " + r.address()},
		"a program that is none":  {func() ServiceOptions { s := other; s.Check = commandCheck("no-such-program"); return s }(), "no-such-program"},
		"two of one name":         {changed, "two services are named echo"},
		"a weight out of bounds":  {with(other, relay.Backend{Name: "b", Address: b.address(), Weight: 70000}), "70000"},
		"no address to listen on": {func() ServiceOptions { s := other; s.Relay.Listen = nil; return s }(), "Listen"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := r.Apply([]ServiceOptions{changed, tt.bad}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Apply: %q, %v, want an error about %q", got, err, tt.want)
			}
			if d := cmp.Diff(before, r.snapshot(t)); d != "" {
				t.Errorf("what ran has changed (-before +after)\n%s", d)
			}
			if _, err := os.Lstat(free); err == nil {
				t.Error("a new address is left")
			}
			exchange(t, client)
			if err := tryOnce(r.address()); err != nil {
				t.Error(err)
			}
		})
	}
	if strings.Contains(r.log.String(), "b9") {
		t.Errorf("a check was begun for a backend that was refused:\n%s", r.log)
	}
}

func commandCheck(program string) health.Check {
	return health.Check{Kind: health.Command, Command: health.CommandCheck{Argv: []string{program}}}
}

// A removed service takes nobody, keeps whom it has, and is gone with the last.
func TestApplyRemovesService(t *testing.T) {
	for _, host := range hosts {
		for _, bounds := range []relay.Drain{{}, {Timeout: 20 * time.Millisecond}} {
			t.Run(fmt.Sprintf("%s %v", host, bounds), func(t *testing.T) {
				b := startBackend(t, host)
				o := echoService(b, host)
				o.Relay.Drain = bounds
				r := start(t, o)
				at := r.address()
				c, err := net.Dial("tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				client := bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriterSize(c, 1))
				exchange(t, client)
				r.apply(t, []string{"service echo removed"})
				if bounds.Timeout > 0 {
					isReset(t, client)
				} else {
					exchange(t, client)
					list, err := r.Services(admin.Filter{})
					if err != nil || len(list) != 1 || list[0].State != "drain" || list[0].Active != 1 || len(list[0].Listen) != 0 ||
						len(list[0].Backends) != 1 || !list[0].Backends[0].Removed {
						t.Errorf("while it drains: %+v, %v", list, err)
					}
					if p := r.Problems(); len(p) != 0 {
						t.Errorf("a removed service is a problem: %+v", p)
					}
					c.Close()
				}
				if err := tryOnce(at); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a new client got %v, want refused", err)
				}
				await(t, "the removed service is gone", func() bool {
					list, err := r.Services(admin.Filter{})
					return err == nil && len(list) == 0
				})
				r.log.await(t, "a removed service is gone")
			})
		}
	}
}

// A removed service and one that has taken its name are two, until the first is
// gone; a stop ends both.
func TestApplyTakesNameAgain(t *testing.T) {
	b := startBackend(t, "127.0.0.1:0")
	o := echoService(b, "127.0.0.1:0")
	r := start(t, o)
	old := r.connect(t)
	r.apply(t, []string{"service echo removed"})
	r.apply(t, []string{"service echo added (listens on 127.0.0.1:0, 1 backend)"}, o)
	client := r.connect(t)
	exchange(t, old)
	if list, err := r.Services(admin.Filter{Service: "echo"}); err != nil || len(list) != 2 || list[0].State != "up" || list[1].State != "drain" {
		t.Errorf("two services of one name: %+v, %v", list, err)
	}
	r.signals <- syscall.SIGTERM
	isReset(t, old)
	isReset(t, client)
	r.log.await(t, "msg=stopped")
	if _, err := r.Apply(nil); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("Apply after the end: %v", err)
	}
}

// A backend that is down stays so through a change of its check, until the new
// one finds it well.
func TestApplyRemembersDown(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := relay.MustParseAddress(dead.Addr().String())
	dead.Close()
	o := echoService(startBackend(t, "127.0.0.1:0"), "127.0.0.1:0")
	o = with(o, relay.Backend{Name: "b1", Address: address, Weight: 100})
	r := start(t, o)
	r.log.await(t, "every backend is down")
	before := r.backendOf(t, "b1")

	o.Check.Interval = time.Hour // the first check of the new one is at once, and the last
	o.Check.Rise = 2
	r.apply(t, []string{"service echo: health.interval 5ms -> 1h0m0s", "service echo: health.rise 1 -> 2"}, o)
	now := r.backendOf(t, "b1")
	if now.State != "down" || !now.Since.Equal(before.Since) || now.Reason == "" {
		t.Errorf("before %+v\nnow %+v", before, now)
	}
	startBackend(t, address.String())
	o.Check.Interval = 5 * time.Millisecond
	r.apply(t, []string{"service echo: health.interval 1h0m0s -> 5ms"}, o)
	r.log.await(t, "clients are served again")
	if got := r.backendOf(t, "b1"); got.Check.Checks < 2 {
		t.Errorf("it came up after %d checks, and rise is 2", got.Check.Checks)
	}
	if n := strings.Count(r.log.String(), `msg="backend is down"`); n != 1 {
		t.Errorf("it was said %d times that the backend is down:\n%s", n, r.log)
	}
}

// Without checks nothing could bring a backend back that was down: it counts as
// up, as the documentation of none says.
func TestApplyEndsChecks(t *testing.T) {
	b := startBackend(t, "127.0.0.1:0")
	o := echoService(b, "127.0.0.1:0")
	o.Check.Port = 1
	r := start(t, o)
	r.log.await(t, "every backend is down")
	o.Check = health.Check{Kind: health.None}
	r.apply(t, []string{
		"service echo: health tcp -> none", "service echo: health.interval 5ms -> 1s", "service echo: health.timeout 500ms -> 1s",
		"service echo: health.fall 2 -> 3", "service echo: health.rise 1 -> 2",
	}, o)
	r.connect(t)
	if got := r.backendOf(t, "b1"); got.State != "up" || got.Reason != "" {
		t.Errorf("%+v", got)
	}
	r.log.await(t, "clients are served again")
}

// An address that passes from one service to another, a unix socket that stays,
// and one that a dead process has left.
func TestApplyMovesAddresses(t *testing.T) {
	dir := t.TempDir()
	stays, stale := filepath.Join(dir, "stays"), filepath.Join(dir, "stale")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	b := startBackend(t, "127.0.0.1:0")
	o := echoService(b, "127.0.0.1:0")
	o.Relay.Listen = append(o.Relay.Listen, relay.MustParseAddress("unix:"+stays))
	r := start(t, o)
	at := relay.MustParseAddress(r.address())

	o.Relay.Listen = []relay.Address{relay.MustParseAddress("unix:" + stays), relay.MustParseAddress("unix:" + stale)}
	second := echoService(b, "127.0.0.1:0")
	second.Relay.Name, second.Relay.Listen = "second", []relay.Address{at}
	if _, err := r.Apply([]ServiceOptions{o, second}); err != nil {
		t.Fatal(err)
	}
	if err := tryOnce(at.String()); err != nil {
		t.Error(err)
	}
	for _, path := range []string{stays, stale} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
			continue
		}
		c.Close()
	}
}

// Whose unix socket was removed by somebody, or replaced, gets it back.
func TestApplyRestoresUnixSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	o := echoService(startBackend(t, "127.0.0.1:0"), "127.0.0.1:0")
	o.Relay.Listen = append(o.Relay.Listen, relay.MustParseAddress("unix:"+path))
	r := start(t, o)
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if changes, err := r.Apply([]ServiceOptions{o}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the place of the socket: %q, %v", changes, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	changes, err := r.Apply([]ServiceOptions{o})
	if err != nil || len(changes) != 1 || !strings.Contains(changes[0], "listens on unix:"+path+" again") {
		t.Fatalf("the socket was taken away: %q, %v", changes, err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("a")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if changes, err := r.Apply([]ServiceOptions{o}); err != nil || len(changes) > 0 {
		t.Errorf("it is there: %q, %v", changes, err)
	}
}

// Reloads under load: nobody notices.
func TestApplyUnderLoad(t *testing.T) {
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			var backends []*echo
			for range 4 {
				backends = append(backends, startBackend(t, host))
			}
			o := echoService(backends[0], host)
			o.Check = health.Check{Interval: 50 * time.Millisecond, Timeout: 5 * time.Second}
			r := start(t, o)
			at := r.address()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			var made atomic.Int64
			long := r.connect(t)
			for range 4 {
				wg.Go(func() {
					for ctx.Err() == nil {
						if err := tryOnce(at); err != nil {
							t.Error(err)
							return
						}
						made.Add(1)
					}
				})
			}
			bad := echoService(backends[0], host)
			bad.Relay.Name, bad.Relay.Listen = "bad", []relay.Address{backends[1].address()}
			for i := range 30 {
				var list []relay.Backend
				for j, b := range backends {
					if i%4 != j {
						list = append(list, relay.Backend{Name: fmt.Sprintf("b%d", j), Address: b.address(), Weight: (i + j) % 3 * 50})
					}
				}
				list[0].Weight = 100
				next := with(o, list...)
				next.Relay.Drain.Timeout = time.Duration(i%2) * time.Hour
				if _, err := r.Apply([]ServiceOptions{next}); err != nil {
					t.Fatal(err)
				}
				if i%10 == 5 {
					if _, err := r.Apply([]ServiceOptions{o, bad}); err == nil {
						t.Error("an address in use was taken")
					}
				}
				exchange(t, long)
			}
			before := made.Load()
			await(t, "connections after the last reload", func() bool { return made.Load() > before+4 })
			stop()
			wg.Wait()
			await(t, "every connection is recorded", func() bool { return r.Totals().ByCause["closed"] >= uint64(made.Load()) })
			if got := r.Totals().ByCause; len(got) != 1 {
				t.Errorf("%d connections, and the relay's causes are %v", made.Load(), got)
			}
			t.Logf("%d connections", made.Load())
		})
	}
}

// Loops and checks answer; when they do not run, that is no answer.
func TestPingDaemon(t *testing.T) {
	r := start(t, echoService(startBackend(t, "127.0.0.1:0"), "127.0.0.1:0"))
	r.connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Ping(ctx); err != nil {
		t.Error(err)
	}
	r.changing.Lock() // a check that has a result waits for it
	for _, b := range r.services[0].backends {
		go b.changed(health.Change{Name: "b1", State: health.Up})
	}
	r.changing.Unlock()
	r.signals <- syscall.SIGTERM
	r.log.await(t, "msg=stopped")
	if err := r.Ping(ctx); err == nil {
		t.Error("a daemon that has ended answered")
	}
}

// The zone of a link-local client, which the relay's own filter does not know.
func TestRelayFilter(t *testing.T) {
	m, err := admin.Filter{Service: "s", Backend: "b", Client: "[fe80::1%eth0]:80"}.Matcher()
	if err != nil {
		t.Fatal(err)
	}
	want := relay.Filter{Service: "s", Backend: "b", Client: netip.MustParsePrefix("fe80::1/128"), Port: 80}
	if got := relayFilter(m); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := idsOf([]relay.Connection{{ID: 3}, {ID: 4}}); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("ids %v", got)
	}
}
