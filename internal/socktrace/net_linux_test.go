package socktrace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// floating is the address that is watched, in the family that is tested. The
// third one is spoken to by IPv6 sockets.
var floating = map[string]netip.Addr{
	"IPv4":        netip.MustParseAddr("10.0.0.100"),
	"IPv6":        netip.MustParseAddr("fd00::100"),
	"IPv4 mapped": netip.MustParseAddr("10.0.0.100"),
}

var families = []string{"IPv4", "IPv6", "IPv4 mapped"}

// A world is a namespace that has the addresses on its loopback interface.
type world struct {
	testing.TB
	ns   *netns.NS
	addr netip.Addr // that is watched
	six  bool       // whoever listens, listens by IPv6 for IPv4, too
}

func newWorld(t testing.TB, family string) *world {
	t.Helper()
	w := &world{TB: t, ns: netnstest.New(t), addr: floating[family], six: family == "IPv4 mapped"}
	w.in(func() error {
		rt, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		lo, err := rt.Index("lo")
		if err != nil {
			return err
		}
		if err := rt.AddAddress(lo, rtnl.Address{Prefix: netip.PrefixFrom(w.addr, w.addr.BitLen()), NoDAD: true}); err != nil {
			return err
		}
		// An IPv6 address speaks a little later: once it refuses, it does.
		d := net.Dialer{Timeout: 50 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: w.client().AsSlice()}}
		for end := time.Now().Add(patience); ; {
			c, err := d.Dial("tcp", netip.AddrPortFrom(w.addr, 9).String())
			if errors.Is(err, syscall.ECONNREFUSED) {
				return nil
			}
			if err == nil {
				c.Close()
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s does not refuse: %w", w.addr, err)
			}
		}
	})
	return w
}

func (w *world) in(f func() error) {
	w.Helper()
	if err := w.ns.Do(f); err != nil {
		w.Fatal(err)
	}
}

// trace opens a Tracer in the world.
func (w *world) trace(o Options) (t *Tracer) {
	w.Helper()
	w.in(func() (err error) { t, err = Open(o); return err })
	w.Cleanup(func() { w.must(t.Close()) })
	return t
}

// watch opens a Tracer for the world's address, and gives what it tells.
func (w *world) watch() (*Tracer, <-chan Event) {
	w.Helper()
	t := w.trace(Options{Addresses: []netip.Addr{w.addr}})
	return t, w.follow(t)
}

// follow reads changes until the Tracer is closed.
func (w *world) follow(t *Tracer) <-chan Event {
	all, ended := make(chan Event, 1<<16), make(chan struct{})
	w.Cleanup(func() { w.must(t.Close()); <-ended })
	go func() {
		defer close(ended)
		var events [64]Event
		for {
			n, err := t.Read(events[:])
			for _, e := range events[:n] {
				all <- e
			}
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					w.Error(err)
				}
				return
			}
		}
	}()
	return all
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Error(err)
	}
}

// next is the next change.
func (w *world) next(changes <-chan Event) Event {
	w.Helper()
	select {
	case e := <-changes:
		return e
	case <-time.After(patience):
		w.Fatal("nothing is told")
		return Event{}
	}
}

// listen makes a server at the address, or at all of them.
func (w *world) listen() *net.TCPListener {
	w.Helper()
	at := netip.AddrPortFrom(w.addr, 0).String()
	if w.six {
		at = "[::]:0"
	}
	var l net.Listener
	w.in(func() (err error) {
		var c net.ListenConfig
		c.SetMultipathTCP(false)
		l, err = c.Listen(w.Context(), "tcp", at)
		return err
	})
	w.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// port is where a server listens, at the address.
func (w *world) port(l net.Listener) netip.AddrPort {
	return netip.AddrPortFrom(w.addr, l.Addr().(*net.TCPAddr).AddrPort().Port())
}

// client is an address of the world that is not watched, in its family.
func (w *world) client() netip.Addr {
	if w.addr.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// dial connects.
func (w *world) dial(from netip.Addr, to netip.AddrPort) (c *net.TCPConn) {
	w.Helper()
	w.in(func() (err error) { c, err = dial(from, to); return err })
	w.Cleanup(func() { c.Close() })
	return c
}

func dial(from netip.Addr, to netip.AddrPort) (*net.TCPConn, error) {
	return net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.TCPAddrFromAddrPort(to))
}

// connect makes a connection and accepts it.
func (w *world) connect(l *net.TCPListener, from netip.Addr) (client, server *net.TCPConn) {
	w.Helper()
	client = w.dial(from, w.port(l))
	w.must(l.SetDeadline(time.Now().Add(patience)))
	server, err := l.AcceptTCP()
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { server.Close() })
	return client, server
}

// all lists the connected sockets.
func (w *world) all(t *Tracer) (list []Socket) {
	w.Helper()
	w.in(func() error {
		for s, err := range t.Sockets() {
			if err != nil {
				return err
			}
			list = append(list, s)
		}
		return nil
	})
	return list
}

func local(c net.Conn) netip.AddrPort { return unmapped(c.LocalAddr()) }

func unmapped(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// is says whether the socket has these ends.
func (s Socket) is(local, remote netip.AddrPort) bool { return s.Local == local && s.Remote == remote }

func (e Event) String() string {
	return fmt.Sprintf("kind %d: %s -> %s cookie %d, %d %d %d", e.Kind, e.Local, e.Remote, e.Cookie, e.Acknowledged, e.NextSend, e.NextReceive)
}
