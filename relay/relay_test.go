//go:build linux

package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// families are the loopback addresses that every test runs with.
var families = []struct{ name, host string }{{"ipv4", "127.0.0.1"}, {"ipv6", "[::1]"}}

// each runs f for both families.
func each(t *testing.T, f func(t *testing.T, host string)) {
	for _, fam := range families {
		t.Run(fam.name, func(t *testing.T) { f(t, fam.host) })
	}
}

// rig is a running relay with what it reported.
type rig struct {
	*Relay
	mu   sync.Mutex
	ends []End
	more chan struct{}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigWith(t, Options{})
}

func newRigWith(t *testing.T, o Options) *rig {
	t.Helper()
	g := &rig{more: make(chan struct{}, 1024)}
	o.Loops = 2
	o.OnEnd = func(e End) {
		g.mu.Lock()
		g.ends = append(g.ends, e)
		g.mu.Unlock()
		select {
		case g.more <- struct{}{}:
		default: // whoever waits has enough to look at
		}
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	g.Relay = r
	done := make(chan error, 1)
	go func() { done <- r.Run(context.Background()) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return g
}

// service adds a service with one backend at each address.
func (g *rig) service(t *testing.T, host string, opts ServiceOptions, backends ...string) *Service {
	t.Helper()
	if opts.Listen == nil {
		opts.Listen = []Address{MustParseAddress(host + ":0")}
	}
	for i, a := range backends {
		opts.Backends = append(opts.Backends, Backend{Name: fmt.Sprintf("b%d", i+1), Address: MustParseAddress(a), Weight: 100})
	}
	s, err := g.Listen(opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pairsOf returns what a loop carries; for the loop's own goroutine.
func pairsOf(l *loop) (list []*pair) {
	for p := l.pairs.first; p != nil; p = p.links[ofLoop].next {
		list = append(list, p)
	}
	return list
}

// end waits for the n-th report.
func (g *rig) end(t *testing.T, n int) End {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		g.mu.Lock()
		if len(g.ends) > n {
			e := g.ends[n]
			g.mu.Unlock()
			return e
		}
		g.mu.Unlock()
		select {
		case <-g.more:
		case <-deadline:
			t.Fatalf("no report number %d within 20 s", n)
		}
	}
}

// backend is a listener whose connections the test plays by hand.
type backend struct {
	net.Listener
	accepted chan *net.TCPConn
}

func newBackend(t *testing.T, host string) *backend {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	lc.KeepAlive = -1
	l, err := lc.Listen(t.Context(), "tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{Listener: l, accepted: make(chan *net.TCPConn, 256)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.accepted <- c.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		close(b.accepted)
		for c := range b.accepted {
			c.Close()
		}
	})
	return b
}

func (b *backend) addr() string { return b.Addr().String() }

func (b *backend) next(t *testing.T) *net.TCPConn {
	t.Helper()
	select {
	case c := <-b.accepted:
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("the backend was not connected to within 10 s")
		return nil
	}
}

func dial(t *testing.T, a Address) net.Conn {
	t.Helper()
	target := a.Path()
	if !a.IsUnix() {
		target = a.AddrPort().String()
	}
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(t.Context(), a.Network(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// pass sends data through from one end to the other.
func pass(t *testing.T, from, to net.Conn, data []byte) {
	t.Helper()
	errs := make(chan error, 1)
	go func() {
		_, err := from.Write(data)
		errs <- err
	}()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(to, got); err != nil {
		t.Fatalf("reading %d bytes: %v", len(data), err)
	}
	if err := <-errs; err != nil {
		t.Fatalf("writing: %v", err)
	}
	if !bytes.Equal(got, data) {
		t.Fatal("the bytes arrived changed")
	}
}

func wantEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read returned %d, %v; want an end of stream", n, err)
	}
}

func wantRST(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read returned %d, %v; want a reset", n, err)
	}
}

// wantRefused expects to be accepted by the kernel and reset by the relay,
// which can happen before connect returns.
func wantRefused(t *testing.T, a Address) {
	t.Helper()
	c, err := net.Dial("tcp", a.AddrPort().String())
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("connecting gave %v; want a reset", err)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestCarriesBothWays(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		for _, n := range []int{1, 100, slotSize, slotSize + 1, 5 << 20} {
			pass(t, client, server, random(n))
			pass(t, server, client, random(n))
		}
		client.(*net.TCPConn).CloseWrite()
		wantEOF(t, server)
		pass(t, server, client, random(1<<20)) // half-closed: the other way stays open
		server.CloseWrite()
		wantEOF(t, client)
		e := g.end(t, 0)
		if e.Cause != CauseClosed || e.By != ByClient || e.Undelivered != 0 || e.ToldClient != ToldFIN || e.ToldBackend != ToldFIN {
			t.Errorf("the end is %+v", e)
		}
		if e.BytesIn != 1+100+2*slotSize+1+5<<20 || e.BytesOut != e.BytesIn+1<<20 {
			t.Errorf("in %d, out %d", e.BytesIn, e.BytesOut)
		}
	})
}

func TestUnixSockets(t *testing.T) {
	dir := t.TempDir()
	g := newRig(t)
	l, err := net.Listen("unix", filepath.Join(dir, "backend"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	front := MustParseAddress("unix:" + filepath.Join(dir, "front"))
	g.service(t, "", ServiceOptions{Listen: []Address{front}}, "unix:"+filepath.Join(dir, "backend"))
	client := dial(t, front)
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	pass(t, client, server, random(3<<20))
	pass(t, server, client, random(3<<20))
	client.(*net.UnixConn).CloseWrite()
	wantEOF(t, server)
	server.Close()
	wantEOF(t, client)
	if e := g.end(t, 0); e.Cause != CauseClosed || e.Client != "unix" {
		t.Errorf("the end is %+v", e)
	}
}

func TestResetIsPassedOnAfterWhatCameBefore(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		for i, who := range []Side{ByBackend, ByClient} {
			client := dial(t, s.Addrs()[0])
			server := b.next(t)
			from, to := client, net.Conn(server)
			if who == ByBackend {
				from, to = to, from
			}
			pass(t, client, server, []byte("hello"))
			data := random(300 << 10)
			if _, err := from.Write(data); err != nil {
				t.Fatal(err)
			}
			from.(*net.TCPConn).SetLinger(0)
			got := make([]byte, len(data))
			// The sender's kernel drops at RST what it has not sent, so
			// have it all received first.
			if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("before the reset: %v", err)
			}
			from.Close()
			wantRST(t, to)
			if e := g.end(t, i); e.Cause != CauseReset || e.By != who {
				t.Errorf("the end is %+v", e)
			}
		}
	})
}

// refusing returns an address that refuses every connect and that no other
// process can come to listen on: its port is bound.
func refusing(t *testing.T, host string) string {
	t.Helper()
	var at syscall.Sockaddr = &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	family := syscall.AF_INET
	if host != "127.0.0.1" {
		at, family = &syscall.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}, syscall.AF_INET6
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err = syscall.Bind(fd, at); err == nil {
		at, err = syscall.Getsockname(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	if v6, ok := at.(*syscall.SockaddrInet6); ok {
		return fmt.Sprintf("%s:%d", host, v6.Port)
	}
	return fmt.Sprintf("%s:%d", host, at.(*syscall.SockaddrInet4).Port)
}

// newFullBackend listens where nobody is accepted any more, so that a connect is
// not answered.
func newFullBackend(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }), err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 16 {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 200*time.Millisecond)
		if err != nil {
			return l.Addr().String()
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("a queue of no length takes every client")
	return ""
}

// A client that has waited for one backend says nothing old about the next: when
// evidence began is what health and MarkDown judge by.
func TestEvidenceBeganWithItsConnect(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g := newRig(t)
		full, closed := newFullBackend(t, host), refusing(t, host)
		found := make(chan Evidence, 2)
		const patience = 300 * time.Millisecond
		s := g.service(t, host, ServiceOptions{ConnectTimeout: patience, OnEvidence: func(e Evidence) { found <- e }}, full, closed)
		began := time.Now()
		wantRefused(t, s.Addrs()[0])
		timeout, refused := <-found, <-found
		if timeout.Kind != EvidenceTimeout || refused.Kind != EvidenceRefused {
			t.Fatalf("%+v, then %+v", timeout, refused)
		}
		if waited := refused.Began.Sub(timeout.Began); timeout.Began.Before(began.Add(-time.Millisecond)) || waited < patience {
			t.Errorf("the connects began %v and %v after the client's", timeout.Began.Sub(began), refused.Began.Sub(began))
		}
	})
}

func TestRedispatch(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		var mu sync.Mutex
		evidence := map[EvidenceKind]int{}
		s := g.service(t, host, ServiceOptions{OnEvidence: func(e Evidence) {
			mu.Lock()
			evidence[e.Kind]++
			mu.Unlock()
		}}, refusing(t, host), b.addr())
		for range 20 {
			client := dial(t, s.Addrs()[0])
			server := b.next(t)
			pass(t, client, server, []byte("x"))
			client.Close()
			server.Close()
		}
		for i := range 20 {
			g.end(t, i)
		}
		mu.Lock()
		if evidence[EvidenceRefused] == 0 {
			t.Error("nobody was told that a backend refuses")
		}
		mu.Unlock()
		if err := s.MarkDown("b2", time.Now(), "test"); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, s.Addrs()[0])
		if e := g.end(t, 20); e.Cause != CauseUnreachable || e.ToldClient != ToldRST {
			t.Errorf("the end is %+v", e)
		}
	})
}
