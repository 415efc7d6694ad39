//go:build linux

package relay

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
)

func TestPortRange(t *testing.T) {
	if a, b := DefaultPorts.Half(true), DefaultPorts.Half(false); a.String() != "32768-46883" || b.String() != "46884-60999" || a.Len() != b.Len() {
		t.Errorf("halves %v and %v", a, b)
	}
	for _, p := range []PortRange{{1, 9}, {0, 40000}, {40001, 40000}} {
		if _, err := New(Options{Ports: p}); err == nil || !strings.Contains(err.Error(), "Options.Ports") {
			t.Errorf("ports %v: %v", p, err)
		}
	}
}

func TestGroupsAreChecked(t *testing.T) {
	o := ServiceOptions{Listen: []Address{MustParseAddress("127.0.0.1:0")}, Groups: [][]netip.Addr{{netip.MustParseAddr("fe80::1")}}}
	if _, err := o.check(); err == nil || !strings.Contains(err.Error(), "relay: ServiceOptions.Groups[0][0] is fe80::1;") {
		t.Errorf("%v", err)
	}
}

// TestLegs has a relay bind backend legs to the address that the client has
// connected to, in a namespace in which two addresses come and go.
func TestLegs(t *testing.T) {
	for _, fam := range []struct{ name, host, address, other, backend string }{
		{"ipv4", "127.0.0.1", "10.9.9.9", "2001:db8::9", "10.8.8.8"}, {"ipv6", "[::1]", "2001:db8::9", "10.9.9.9", "2001:db8::8"},
	} {
		t.Run(fam.name, func(t *testing.T) {
			if os.Getenv(inNamespace) != "" {
				a := netip.MustParseAddr
				legs(t, fam.host, a(fam.address), a(fam.other), a(fam.backend))
				return
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLegs$/^"+fam.name+"$", "-test.v")
			cmd.Env = append(os.Environ(), inNamespace+"=1")
			var out []byte
			err := netnstest.New(t).Do(func() (err error) {
				out, err = cmd.CombinedOutput()
				return err
			})
			if err != nil || !bytes.Contains(out, []byte("--- PASS: TestLegs/"+fam.name)) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// A legRoster is what is kept of what a relay tells.
type legRoster struct {
	mu    sync.Mutex
	there map[[2]netip.AddrPort]Leg
	wrong []LegChange // came twice, or went without having come
	again bool        // TellLegs runs: what is there may come again
}

func (r *legRoster) take(list []LegChange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range list {
		key := [2]netip.AddrPort{c.Local, c.Remote}
		if _, known := r.there[key]; known != c.Gone && !r.again {
			r.wrong = append(r.wrong, c)
		}
		if c.Gone {
			delete(r.there, key)
		} else {
			r.there[key] = c.Leg
		}
	}
}

func (r *legRoster) list() (clients, backends []Leg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.there {
		if l.Side == ByClient {
			clients = append(clients, l)
		} else {
			backends = append(backends, l)
		}
	}
	return clients, backends
}

// legs is the test in the namespace. Its relay has four ports.
func legs(t *testing.T, host string, address, other, backendAddr netip.Addr) {
	h, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	lo, err := h.Index("lo")
	if err != nil {
		t.Fatal(err)
	}
	add := func(a netip.Addr) rtnl.Address {
		at := rtnl.Address{Prefix: netip.PrefixFrom(a, a.BitLen()), NoDAD: true}
		if err := h.AddAddress(lo, at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	here := add(address)
	add(other)
	add(backendAddr)
	for _, a := range []netip.Addr{address, other, backendAddr} {
		reached(t, a)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_reserved_ports", []byte("40001,40006\n"), 0); err != nil {
		t.Fatal(err)
	}

	roster := &legRoster{there: make(map[[2]netip.AddrPort]Leg)}
	ports := PortRange{40000, 40005}
	g := newRigWith(t, Options{Ports: ports, OnLegs: roster.take})
	b := newBackend(t, hostOf(backendAddr))
	local := newBackend(t, host)
	groups := [][]netip.Addr{{address, other}}
	s := g.service(t, host, ServiceOptions{
		Name: "on", Listen: []Address{AddressFrom(netip.AddrPortFrom(address, 0)), AddressFrom(netip.AddrPortFrom(other, 0)), MustParseAddress(host + ":0")}, Groups: groups,
	}, b.addr())
	onLoopback := g.service(t, host, ServiceOptions{Name: "loop", Listen: []Address{AddressFrom(netip.AddrPortFrom(address, 0))}, Groups: groups}, local.addr())
	from := func(c net.Conn) netip.AddrPort { return c.RemoteAddr().(*net.TCPAddr).AddrPort() }

	t.Run("from the address", func(t *testing.T) {
		c := dial(t, s.Addrs()[0])
		leg := b.next(t)
		pass(t, c, leg, []byte("hello"))
		if f := from(leg); f.Addr() != address || f.Port() < ports.First || f.Port() > ports.Last || f.Port() == 40001 {
			t.Errorf("the backend sees %v, want %v and one of the ports %v that are not reserved", f, address, ports)
		}
		eventually(t, "both legs are known", func() bool {
			clients, backends := roster.list()
			return len(clients) == 1 && len(backends) == 1 &&
				clients[0].Local == s.Addrs()[0].AddrPort() && clients[0].Remote == netip.MustParseAddrPort(c.LocalAddr().String()) &&
				backends[0].Local == from(leg) && backends[0].Remote == netip.MustParseAddrPort(b.addr()) && backends[0].Owner == "on" &&
				backends[0].ID == clients[0].ID && time.Since(backends[0].Since) < time.Minute && !backends[0].Since.Before(clients[0].Since)
		})
		c.Close()
		leg.Close()
		eventually(t, "nobody is known", func() bool { clients, backends := roster.list(); return len(clients)+len(backends) == 0 })
	})

	t.Run("of the backend's family", func(t *testing.T) {
		c := dial(t, s.Addrs()[1])
		leg := b.next(t)
		if f := from(leg); f.Addr() != address {
			t.Errorf("the backend sees %v, want %v", f, address)
		}
		c.Close()
	})

	t.Run("from elsewhere", func(t *testing.T) {
		c := dial(t, s.Addrs()[2])
		if f := from(b.next(t)); f.Addr() == address {
			t.Errorf("who has not come to the address is seen as %v", f)
		}
		c.Close()
		c = dial(t, onLoopback.Addrs()[0])
		if f := from(local.next(t)); !f.Addr().IsLoopback() {
			t.Errorf("a backend on loopback sees %v", f)
		}
		c.Close()
		if u := g.Unbound(); u != (Unbound{}) {
			t.Errorf("%+v are counted, and nothing is amiss", u)
		}
	})
	idle := func() bool { return g.Count() == 0 }
	eventually(t, "all have ended", idle)

	// The relay ends each first, and its kernel holds the port for a minute; it is
	// used again all the same, as the backend's kernel speaks of time.
	t.Run("ports are used again", func(t *testing.T) {
		for range 30 {
			c := dial(t, s.Addrs()[0])
			leg := b.next(t)
			pass(t, c, leg, []byte("x"))
			c.Close()
			if f := from(leg); f.Addr() != address {
				t.Fatalf("the backend sees %v", f)
			}
			leg.Close()
			eventually(t, "it has ended", idle)
		}
	})

	t.Run("all ports in use", func(t *testing.T) {
		var ends []net.Conn
		seen := make(map[netip.AddrPort]bool)
		for range 5 {
			c := dial(t, s.Addrs()[0])
			leg := b.next(t)
			pass(t, c, leg, []byte("hello"))
			ends = append(ends, c, leg)
			f := from(leg)
			if seen[f] || f.Addr() != address {
				t.Errorf("the backend sees %v, and saw %v before", f, seen)
			}
			seen[f] = true
		}
		st := g.Sources()
		if len(st) != 1 || st[0].Used != 5 || st[0].Max != 5 || st[0].Address != address || !st[0].NoWay.IsZero() {
			t.Errorf("source ports: %+v", st)
		}
		c := dial(t, s.Addrs()[0])
		leg := b.next(t)
		pass(t, c, leg, []byte("hello"))
		if f := from(leg); f.Addr() == address {
			t.Errorf("a leg too many comes from %v", f)
		}
		if u := g.Unbound(); u != (Unbound{Ports: 1}) {
			t.Errorf("%+v, want one without a port", u)
		}
		// Whoever begins to listen now is told of all that can be told.
		roster.mu.Lock()
		clear(roster.there)
		roster.again = true
		roster.mu.Unlock()
		g.TellLegs()
		cs, bs := roster.list()
		if len(cs) != 6 || len(bs) != 5 {
			t.Errorf("%d clients and %d backends are told of, want 6 and 5", len(cs), len(bs))
		}
		roster.mu.Lock()
		roster.again = false
		roster.mu.Unlock()
		for _, c := range append(ends, c, leg) {
			c.Close()
		}
		eventually(t, "all have ended", idle)
		if st := g.Sources(); st[0].Used != 0 {
			t.Errorf("ports are not given back: %+v", st)
		}
	})

	t.Run("a port that somebody else has", func(t *testing.T) {
		for p := ports.First; p <= ports.Last; p++ {
			if p == 40003 || p == 40001 {
				continue
			}
			every := netip.IPv4Unspecified()
			if address.Is6() {
				every = netip.IPv6Unspecified()
			}
			l, err := net.Listen("tcp", netip.AddrPortFrom(every, p).String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
		}
		c := dial(t, s.Addrs()[0])
		leg := b.next(t)
		if f := from(leg); f != netip.AddrPortFrom(address, 40003) {
			t.Errorf("the backend sees %v, want the one port that nobody listens on", f)
		}
		c.Close()
		leg.Close()
		eventually(t, "it has ended", idle)
	})

	t.Run("the address has left", func(t *testing.T) {
		c := dial(t, s.Addrs()[0])
		leg := b.next(t)
		if err := h.DeleteAddress(lo, here.Prefix); err != nil {
			t.Fatal(err)
		}
		before := g.Unbound()
		g.ask(func(l *loop) {
			for _, p := range pairsOf(l) {
				fd, errno := p.dialFrom(p.lane)
				if fd >= 0 || errno != syscall.EADDRNOTAVAIL {
					t.Errorf("a leg from an address that is not here: %d, %v", fd, errno)
				}
			}
		})
		if u := g.Unbound(); u.Away != before.Away+1 || u.Ports != before.Ports {
			t.Errorf("%+v, before %+v", u, before)
		}
		if st := g.Sources(); st[0].Used != 1 {
			t.Errorf("source ports: %+v", st)
		}
		c.Close()
		leg.Close()
	})
	if len(roster.wrong) > 0 {
		t.Errorf("told of what was known, or of what was not: %+v", roster.wrong)
	}
}

// eventually waits for a state that no report announces.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-tick.C
	}
}

// reached waits until an address that was added to this machine can be connected to:
// the kernel adds the route of an IPv6 address a moment later.
func reached(t *testing.T, a netip.Addr) {
	t.Helper()
	eventually(t, a.String()+" is reached", func() bool {
		d := net.Dialer{Timeout: 100 * time.Millisecond}
		_, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(a, 1).String())
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// hostOf is an address as it stands before a port.
func hostOf(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
