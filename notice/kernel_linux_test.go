package notice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/lab"
)

// limit is how long a test waits for what must come.
const limit = 30 * time.Second

// The address that moves, and the port that is served at it.
const (
	vipNumber = 100
	port      = 80
)

func startLab(t testing.TB, top lab.Topology) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a laboratory needs root")
	}
	if err := lab.Supported(top); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	l, err := lab.Start(t.Context(), top, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// pairOfNodes is two nodes, a client on their link and one behind a router.
func pairOfNodes(t testing.TB) *lab.Lab {
	t.Helper()
	top, err := lab.OneArm(lab.Size{Clients: 1, FarClients: 1, Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	return startLab(t, top)
}

// startTeller runs a Teller in a host until the test ends.
func startTeller(t testing.TB, h *lab.Host, o Options) *Teller {
	t.Helper()
	var teller *Teller
	if err := h.Do(func() (err error) { teller, err = New(o); return err }); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- teller.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := teller.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return teller
}

// own gives a host the address, and tells everybody.
func own(t testing.TB, h *lab.Host, f lab.Family) netip.Addr {
	t.Helper()
	a := lab.Address(f, vipNumber)
	k := h.Links()[0]
	s, err := k.Sender()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.AddAddress("eth0", a); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(announce.Announce(nil, k.MAC(), a.Addr(), false)); err != nil {
		t.Fatal(err)
	}
	return a.Addr()
}

// reach waits until a host finds the address at its new owner: an announcement
// can be lost, or come before the owner's kernel is ready.
func reach(t testing.TB, h *lab.Host, vip netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := h.Dial(ctx, "tcp", netip.AddrPortFrom(vip, 9).String())
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("%s, to a port where nobody listens: %v", h.Name(), err)
	}
}

// server listens at the address and hands out what it accepts.
type server struct {
	net.Listener
	accepted chan net.Conn
}

func serve(t testing.TB, h *lab.Host, vip netip.Addr) *server {
	t.Helper()
	ln, err := h.Listen(t.Context(), "tcp", netip.AddrPortFrom(vip, port).String())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{ln, make(chan net.Conn)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case s.accepted <- c:
			case <-t.Context().Done():
				c.Close()
				return
			}
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return s
}

// join connects a host to the address; both ends are closed with the test.
func (s *server) join(t testing.TB, h *lab.Host) (client, served *net.TCPConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := h.Dial(ctx, "tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	select {
	case a := <-s.accepted:
		t.Cleanup(func() { a.Close() })
		return c.(*net.TCPConn), a.(*net.TCPConn)
	case <-ctx.Done():
		t.Fatal("not accepted")
	}
	return nil, nil
}

// connection names what the server has, as its owner would.
func connection(served net.Conn) Connection {
	return Connection{
		Local:  served.LocalAddr().(*net.TCPAddr).AddrPort(),
		Remote: served.RemoteAddr().(*net.TCPAddr).AddrPort(),
	}
}

// stuff writes until nothing more is taken.
func stuff(t testing.TB, c net.Conn) {
	t.Helper()
	for {
		if err := c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(make([]byte, 64<<10)); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// A way is what a connection does when its other end goes.
type way struct {
	name string
	// begin brings the connection there and gives what the client then does until its end, which
	// gives the error that it ends with.
	begin func(t testing.TB, client, served *net.TCPConn) (end func() error)
}

func readAll(c net.Conn) func() error {
	return func() error { _, err := io.Copy(io.Discard, c); return err }
}

var ways = []way{
	{"idle", func(_ testing.TB, client, _ *net.TCPConn) func() error { return readAll(client) }},
	{"after an exchange", func(t testing.TB, client, served *net.TCPConn) func() error {
		for _, c := range []net.Conn{client, served} {
			if _, err := c.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []net.Conn{client, served} {
			if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		return readAll(client)
	}},
	{"uploading", func(t testing.TB, client, served *net.TCPConn) func() error {
		go io.Copy(io.Discard, served)
		first, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := client.Write(make([]byte, 1<<20))
			close(first)
			for err == nil {
				_, err = client.Write(make([]byte, 64<<10))
			}
			ended <- err
		}()
		<-first
		return func() error { return <-ended }
	}},
	{"uploading to a full server", func(t testing.TB, client, _ *net.TCPConn) func() error {
		stuff(t, client)
		return func() error { _, err := client.Write(make([]byte, 64<<10)); return err }
	}},
	{"downloading", func(t testing.TB, client, served *net.TCPConn) func() error {
		go func() {
			for {
				if _, err := served.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}()
		if _, err := io.ReadFull(client, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		return readAll(client)
	}},
	{"client's window is zero", func(t testing.TB, client, served *net.TCPConn) func() error {
		stuff(t, served)
		return readAll(client)
	}},
	{"client has ended its half", func(t testing.TB, client, served *net.TCPConn) func() error {
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, served); err != nil {
			t.Fatal(err)
		}
		return readAll(client)
	}},
	{"server has ended its half", func(t testing.TB, client, served *net.TCPConn) func() error {
		if err := served.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, client); err != nil {
			t.Fatal(err)
		}
		stuff(t, client)
		return func() error { _, err := client.Write(make([]byte, 64<<10)); return err }
	}},
}

// A host dies with its connections, another one has the address now, and tells.
func TestTold(t *testing.T) {
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			l := pairOfNodes(t)
			vip := own(t, l.Host("node1"), f)
			s := serve(t, l.Host("node1"), vip)
			type told struct {
				name string
				end  func() error
			}
			var gone []Connection
			var clients []told
			for _, host := range []string{"client1", "far1"} {
				for _, w := range ways {
					client, served := s.join(t, l.Host(host))
					gone = append(gone, connection(served))
					clients = append(clients, told{fmt.Sprintf("%s, %s", host, w.name), w.begin(t, client, served)})
				}
			}
			teller := startTeller(t, l.Host("node2"), Options{})
			if _, err := l.Host("node1").Die(); err != nil {
				t.Fatal(err)
			}
			var ended sync.WaitGroup
			errs := make([]error, len(clients))
			for i, c := range clients {
				ended.Go(func() { errs[i] = c.end() })
			}
			own(t, l.Host("node2"), f)
			for _, host := range []string{"client1", "far1"} {
				reach(t, l.Host(host), vip)
			}
			results := make(map[netip.AddrPort]Result)
			sum := teller.Tell(t.Context(), gone, func(r Result) { results[r.Connection.Remote] = r })
			ended.Wait()
			t.Logf("%+v", sum)
			for i, c := range clients {
				r := results[gone[i].Remote]
				t.Logf("%s: %v confirmed %v after %v and %d tickles; client: %v", c.name, r.Verdict, r.Confirmed, r.Took, r.Tries, errs[i])
				// Who has read the end of stream is told of a reset by EPIPE.
				if !errors.Is(errs[i], syscall.ECONNRESET) && !errors.Is(errs[i], syscall.EPIPE) {
					t.Errorf("%s: it ends with %v, want a reset", c.name, errs[i])
				}
				// A client with data to send may have heard of it by its own retransmission.
				if r.Verdict != Told && r.Verdict != Gone || r.Verdict == Told && !r.Confirmed {
					t.Errorf("%s: %+v", c.name, r)
				}
			}
		})
	}
}
