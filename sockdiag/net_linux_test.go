package sockdiag

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/netnstest"
)

// patience bounds what has to come.
const patience = 20 * time.Second

// site is a namespace with a Conn in it.
type site struct {
	t    testing.TB
	ns   *netns.NS
	conn *Conn
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, ns: netnstest.New(t)}
	s.do(func() (err error) {
		s.conn, err = Open()
		return err
	})
	t.Cleanup(func() {
		if err := s.conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) do(f func() error) {
	s.t.Helper()
	if err := s.ns.Do(f); err != nil {
		s.t.Fatal(err)
	}
}

// listen listens without MPTCP, whose sockets are others'.
func (s *site) listen(network, address string) *net.TCPListener {
	s.t.Helper()
	var l net.Listener
	s.do(func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), network, address)
		return err
	})
	s.t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// pair is a connection with both its ends.
type pair struct{ client, server *net.TCPConn }

// connect makes a connection to the listener, by that network.
func (s *site) connect(l *net.TCPListener, network, address string) pair {
	s.t.Helper()
	var p pair
	s.do(func() error {
		c, err := net.DialTimeout(network, address, patience)
		if err != nil {
			return err
		}
		p.client = c.(*net.TCPConn)
		return nil
	})
	s.t.Cleanup(func() { _ = p.client.Close() })
	var err error
	if p.server, err = l.AcceptTCP(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = p.server.Close() })
	return p
}

// local and remote are the ends as the client has them.
func (p pair) local() netip.AddrPort  { return plain(p.client.LocalAddr().(*net.TCPAddr).AddrPort()) }
func (p pair) remote() netip.AddrPort { return plain(p.client.RemoteAddr().(*net.TCPAddr).AddrPort()) }

// list is List into a slice, by the Conn of the site.
func (s *site) list(f Filter, o ListOptions) []Socket {
	s.t.Helper()
	var all []Socket
	for sock, err := range s.conn.List(s.t.Context(), f, o) {
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, sock)
	}
	return all
}

// texts are the sockets as texts, in order.
func texts(all []Socket) []string {
	list := make([]string, 0, len(all))
	for _, s := range all {
		text := s.String()
		if s.Mapped {
			text += " mapped"
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

func wantSockets(t testing.TB, got []Socket, want ...string) {
	t.Helper()
	slices.Sort(want)
	if have := texts(got); !slices.Equal(have, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(have, "\n  "), strings.Join(want, "\n  "))
	}
}

// until repeats f until it says true.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s", what, patience)
		}
		<-time.After(time.Millisecond)
	}
}

// reads says how a read of c ends.
func reads(t testing.TB, c *net.TCPConn) error {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	if err == nil {
		return errors.New("a byte came")
	}
	return err
}
