package connected

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/pair"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/socktrace"
)

// stateEnv makes the test binary run a Roster and print its first State.
const stateEnv = "HOLDFAST_TEST_ROSTER"

func TestMain(m *testing.M) {
	if os.Getenv(stateEnv) != "" {
		states := make(chan State, 100)
		r, err := New(Options{OnState: func(s State) { states <- s }})
		if err == nil {
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- r.Run(ctx) }()
			_ = json.NewEncoder(os.Stdout).Encode(<-states)
			cancel()
			err = <-ended
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

var kernelFamilies = []struct {
	name   string
	addr   netip.Addr
	client netip.Addr
	listen string // where a server listens
}{
	{"IPv4", netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("127.0.0.1"), "10.0.0.100:0"},
	{"IPv6", netip.MustParseAddr("fd00::100"), netip.IPv6Loopback(), "[fd00::100]:0"},
	{"IPv4 mapped", netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("127.0.0.1"), "[::]:0"},
}

// A node is a namespace with an address, a server at it, and a Roster that
// watches it and has its changes copied.
type node struct {
	testing.TB
	ns           *netns.NS
	rt           *rtnl.Handle
	lo           int
	addr, client netip.Addr
	server       *net.TCPListener
	port         netip.AddrPort // where the server is reached

	mu      sync.Mutex
	news    chan struct{} // closed at the next news
	copy    Copy
	changes int
}

func newNode(t testing.TB, family int) *node {
	t.Helper()
	f := kernelFamilies[family]
	n := &node{TB: t, ns: netnstest.New(t), addr: f.addr, client: f.client, news: make(chan struct{})}
	n.in(func() (err error) {
		if n.rt, err = rtnl.Open(); err != nil {
			return err
		}
		t.Cleanup(n.rt.Close)
		if n.lo, err = n.rt.Index("lo"); err != nil {
			return err
		}
		if err := n.rt.AddAddress(n.lo, rtnl.Address{Prefix: n.prefix(), NoDAD: true}); err != nil {
			return err
		}
		// An IPv6 address speaks a little later: once it refuses, it does.
		d := net.Dialer{Timeout: 50 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: n.client.AsSlice()}}
		for end := time.Now().Add(patience); ; {
			c, err := d.Dial("tcp", netip.AddrPortFrom(n.addr, 9).String())
			if errors.Is(err, syscall.ECONNREFUSED) {
				break
			}
			if err == nil {
				c.Close()
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s does not refuse: %w", n.addr, err)
			}
		}
		n.server, err = listen(t.Context(), f.listen)
		return err
	})
	t.Cleanup(func() { n.server.Close() })
	n.port = netip.AddrPortFrom(n.addr, ends(n.server.Addr()).Port())
	return n
}

func listen(ctx context.Context, at string) (*net.TCPListener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	l, err := c.Listen(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

func ends(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func (n *node) prefix() netip.Prefix { return netip.PrefixFrom(n.addr, n.addr.BitLen()) }

func (n *node) in(f func() error) {
	n.Helper()
	if err := n.ns.Do(f); err != nil {
		n.Fatal(err)
	}
}

func (n *node) must(err error) {
	n.Helper()
	if err != nil {
		n.Error(err)
	}
}

// options are those of a Roster whose changes become the node's copy, by the
// way of a pair.Set.
func (n *node) options() Options {
	return Options{
		Addresses: []netip.Addr{n.addr},
		OnChange: func(list []Change) {
			for _, c := range list {
				item := pair.Item{Kind: pair.ItemPut, Key: AppendKey(nil, c.Record.Tuple)}
				if c.Gone {
					item.Kind = pair.ItemDelete
				} else {
					item.Value = AppendValue(nil, c.Record)
				}
				n.must(n.copy.Apply(item))
			}
			n.mu.Lock()
			n.changes += len(list)
			n.mu.Unlock()
			n.tell()
		},
		OnState: func(State) { n.tell() },
	}
}

func (n *node) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.news)
	n.news = make(chan struct{})
}

// await waits until yes says so, which is asked at every news.
func (n *node) await(what string, yes func() bool) {
	n.Helper()
	for end := time.After(patience); ; {
		n.mu.Lock()
		news := n.news
		n.mu.Unlock()
		if yes() {
			return
		}
		select {
		case <-news:
		case <-end:
			n.Fatalf("it does not come: %s; known are %v", what, n.copy.Records(nil))
		}
	}
}

// run runs a Roster in the node until the test ends.
func (n *node) run(r *Roster) {
	n.Helper()
	ctx, cancel := context.WithCancel(n.Context())
	ended := make(chan error)
	go func() { ended <- n.ns.Do(func() error { return r.Run(ctx) }) }()
	n.Cleanup(func() { cancel(); n.must(<-ended) })
	n.await("a whole look", func() bool { return r.State().Whole })
}

func (n *node) roster(o Options) *Roster {
	n.Helper()
	r, err := New(o)
	if err != nil {
		n.Fatal(err)
	}
	n.run(r)
	return r
}

// dial connects from an address of the node.
func (n *node) dial(from netip.Addr, to netip.AddrPort) (c *net.TCPConn) {
	n.Helper()
	n.in(func() (err error) {
		c, err = net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.TCPAddrFromAddrPort(to))
		return err
	})
	n.Cleanup(func() { c.Close() })
	return c
}

// connect makes a connection to the node's server.
func (n *node) connect() (client, server *net.TCPConn) {
	n.Helper()
	client = n.dial(n.client, n.port)
	n.must(n.server.SetDeadline(time.Now().Add(patience)))
	server, err := n.server.AcceptTCP()
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { server.Close() })
	return client, server
}

// known gives what the copy says of a connection.
func (n *node) known(t Tuple) (r Record, ok bool) {
	for _, r := range n.copy.Records(nil) {
		if r.Tuple == t {
			return r, true
		}
	}
	return r, false
}

func (n *node) awaitKnown(t Tuple) (r Record) {
	n.Helper()
	n.await(t.String(), func() (ok bool) { r, ok = n.known(t); return ok })
	return r
}

func (n *node) awaitGone(t Tuple) {
	n.Helper()
	n.await("the end of "+t.String(), func() bool { _, ok := n.known(t); return !ok })
}

func eachKernel(t *testing.T, f func(t *testing.T, n *node, polled bool)) {
	for i, family := range kernelFamilies {
		for _, polled := range []bool{false, true} {
			name := family.name + "/trace"
			if polled {
				name = family.name + "/poll"
			}
			t.Run(name, func(t *testing.T) { f(t, newNode(t, i), polled) })
		}
	}
}

// Whoever is connected to the address, or from it, is known: who was there
// before, who comes, who is half-closed; and nobody else, and for no longer.
func TestKernel(t *testing.T) {
	eachKernel(t, func(t *testing.T, n *node, polled bool) {
		early, _ := n.connect()
		began := time.Now()
		o := n.options()
		o.NoTrace = polled
		r := n.roster(o)
		if s := r.State(); (s.Source == Polled) != polled || s.Source == Starting {
			t.Fatalf("%+v", s)
		}
		first := n.awaitKnown(Tuple{n.port, ends(early.LocalAddr())})
		if first.Kind != Socket || first.HasISN == polled || first.Since.Before(began.Add(-time.Second)) || first.Since.After(time.Now().Add(time.Second)) {
			t.Errorf("known is %s", first)
		}

		// Strangers: another address here, the same one elsewhere.
		var beside *net.TCPListener
		n.in(func() (err error) {
			beside, err = listen(t.Context(), netip.AddrPortFrom(n.client, 0).String())
			return err
		})
		defer beside.Close()
		n.dial(n.client, ends(beside.Addr()))
		elsewhere := newNode(t, 0)
		elsewhere.connect()

		client, server := n.connect()
		in := Tuple{n.port, ends(client.LocalAddr())}
		rec := n.awaitKnown(in)
		if !polled {
			list, err := r.Numbers(t.Context(), func(a netip.Addr) bool { return a == n.addr })
			if err != nil || len(list) != 2 {
				t.Errorf("%+v, %v; want 2 sockets", list, err)
			}
			for _, s := range list {
				if s.Remote == in.Remote && (s.Acknowledged-1 != rec.ISN || s.NextReceive-1 != rec.RemoteISN) {
					t.Errorf("%+v, and known is %s", s, rec)
				}
			}
		}
		leg := n.dial(n.addr, ends(beside.Addr()))
		out := Tuple{ends(leg.LocalAddr()), ends(beside.Addr())}
		n.awaitKnown(out)

		// Half-closed by either side: it is connected, for as long as one looks.
		n.must(client.CloseWrite())
		if _, err := server.Read(make([]byte, 1)); err == nil {
			t.Error("read what nobody sent")
		}
		n.must(leg.CloseWrite())
		looked := r.State().Looked
		n.lookedAgain(r, looked, 3)
		if got := r.Records(); len(got) != 3 || n.copy.Len() != 3 {
			t.Errorf("known are %v, and in the copy %d", got, n.copy.Len())
		}

		// The ends of all three: by a reset, in order, with their address.
		n.must(leg.SetLinger(0))
		n.must(leg.Close())
		n.awaitGone(out)
		n.must(server.Close())
		n.must(client.Close())
		n.awaitGone(in)
		n.must(r.SetAddresses(nil))
		n.awaitGone(first.Tuple)
		n.must(r.SetAddresses([]netip.Addr{n.addr}))
		n.awaitKnown(first.Tuple)
	})
}

// lookedAgain waits for some more looks.
func (n *node) lookedAgain(r *Roster, after time.Time, times int) {
	n.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); times > 0; {
		if s := r.State(); s.Looked.After(after) {
			after = s.Looked
			times--
		}
		select {
		case <-tick.C:
		case <-end:
			n.Fatal("it does not look again")
		}
	}
}

// An address that somebody removes takes nobody with it: its sockets are known
// still, and their exact numbers, with which their other ends can be told.
func TestAddressRemovedByHand(t *testing.T) {
	for i, family := range kernelFamilies {
		t.Run(family.name, func(t *testing.T) {
			n := newNode(t, i)
			client, server := n.connect()
			r := n.roster(n.options())
			tuple := Tuple{n.port, ends(client.LocalAddr())}
			rec := n.awaitKnown(tuple)
			if _, err := server.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			for b, got := make([]byte, 1000), 0; got < 1000; {
				k, err := client.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				got += k
			}
			n.must(n.rt.DeleteAddress(n.lo, n.prefix()))
			n.lookedAgain(r, r.State().Looked, 3)
			if _, ok := n.known(tuple); !ok {
				t.Error("it is known no longer")
			}
			list, err := r.Numbers(t.Context(), nil)
			if err != nil || len(list) != 1 || list[0].NextSend != rec.ISN+1001 || list[0].NextReceive != rec.RemoteISN+1 {
				t.Errorf("%+v, %v; known is %s", list, err, rec)
			}
			n.must(client.SetLinger(0))
			n.must(server.SetLinger(0))
		})
	}
}

// slow is a Tracer whose changes are read only while it is let.
type slow struct {
	*socktrace.Tracer
	gate chan struct{} // closed: go on
}

func (s slow) Read(events []socktrace.Event) (int, error) {
	<-s.gate
	return s.Tracer.Read(events)
}

// More comes and goes than the kernel can tell of, while others stay: it is
// said, and then everybody who is there is known, and nobody who is not.
func TestKernelOverflow(t *testing.T) {
	for i, family := range kernelFamilies {
		t.Run(family.name, func(t *testing.T) {
			n := newNode(t, i)
			k := system()
			gate := make(chan struct{})
			k.trace = func(addrs []netip.Addr) (tracer, error) {
				tr, err := socktrace.Open(socktrace.Options{Addresses: addrs, Buffer: 4096})
				return slow{tr, gate}, err
			}
			r, err := newRoster(n.options(), k)
			if err != nil {
				t.Fatal(err)
			}
			n.run(r)
			release := sync.OnceFunc(func() { close(gate) })
			t.Cleanup(release)

			const many = 400
			var open []net.Conn
			defer func() {
				for _, c := range open {
					c.Close()
				}
			}()
			want := make(map[Tuple]bool)
			for i := range many {
				client, server := n.connect()
				n.must(client.SetLinger(0))
				if i%4 == 0 {
					want[Tuple{n.port, ends(client.LocalAddr())}] = true
					open = append(open, client, server)
					continue
				}
				n.must(client.Close())
				n.must(server.Close())
			}
			release()
			n.await("all who stay, and no others", func() bool {
				list := n.copy.Records(nil)
				for _, rec := range list {
					if !want[rec.Tuple] {
						return false
					}
				}
				return len(list) == len(want)
			})
			n.await("the loss", func() bool { s := r.State(); return s.Lost > 0 && s.Resyncs > 0 && s.Whole })
		})
	}
}

// A crowd of short connections leaves nothing behind, and is mostly not told of.
func TestKernelCrowd(t *testing.T) {
	n := newNode(t, 1)
	r := n.roster(n.options())
	go func() {
		for {
			c, err := n.server.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	const workers, each = 8, 250
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				c := n.dial(n.client, n.port)
				c.Read(make([]byte, 1))
				c.Close()
			}
		})
	}
	wg.Wait()
	n.await("the end of all", func() bool { return n.copy.Len() == 0 && len(r.Records()) == 0 })
	n.mu.Lock()
	t.Logf("%d connections, %d changes told", workers*each, n.changes)
	n.mu.Unlock()
	if s := r.State(); s.Connections != 0 || !s.Whole {
		t.Errorf("%+v", s)
	}
}

// Without the rights it polls, and says what would help.
func TestKernelWithoutRights(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("it takes root, and setpriv, to run a program with fewer capabilities")
	}
	for keep, want := range map[string]Source{"-all": Polled, "-all,+net_admin": Polled, "-all,+bpf,+perfmon": Traced} {
		cmd := exec.CommandContext(t.Context(), setpriv, "--bounding-set", keep, "--inh-caps", "-all", os.Args[0])
		cmd.Env = append(os.Environ(), stateEnv+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var s State
		if err := json.Unmarshal(out, &s); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if s.Source != want || !s.Whole || s.Error != "" || (want == Polled) != strings.Contains(s.Reason, "CAP_BPF and CAP_PERFMON") {
			t.Errorf("with %s: %+v, want %s", keep, s, want)
		}
	}
}

// What a connection costs that is made, accepted and reset, without a Roster
// and with one.
func BenchmarkConnect(b *testing.B) {
	for _, c := range []string{"without", "trace", "poll"} {
		b.Run(c, func(b *testing.B) {
			n := newNode(b, 0)
			if c != "without" {
				o := n.options()
				o.NoTrace = c == "poll"
				n.roster(o)
			}
			began := cpu()
			n.in(func() error {
				from, to := &net.TCPAddr{IP: n.client.AsSlice()}, net.TCPAddrFromAddrPort(n.port)
				for b.Loop() {
					client, err := net.DialTCP("tcp", from, to)
					if err != nil {
						return err
					}
					server, err := n.server.AcceptTCP()
					if err != nil {
						return err
					}
					n.must(client.SetLinger(0)) // no TIME_WAIT, which would use the ports up
					n.must(client.Close())
					n.must(server.Close())
				}
				return nil
			})
			b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
			n.mu.Lock()
			b.ReportMetric(float64(n.changes)/float64(b.N), "changes/op")
			n.mu.Unlock()
		})
	}
}

// cpu is the time that this process has had a processor, in ns: it bears other
// work on the machine, which the time that passes does not.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// Once it is open it needs no rights: not for other addresses, not for looks,
// and not for numbers.
func TestKernelRightsDropped(t *testing.T) {
	n := newNode(t, 0)
	program := filepath.Join(t.TempDir(), "drop")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/drop")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // with it capabilities are of threads, and stay
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out []byte
	n.in(func() (err error) {
		out, err = exec.CommandContext(t.Context(), program).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	if got, want := strings.TrimSpace(string(out)), `{"has_isn":true,"numbers":2,"reason":"","source":"trace"}`; got != want {
		t.Errorf("it says %s, want %s", got, want)
	}
}
