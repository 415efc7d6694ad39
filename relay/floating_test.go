//go:build linux

package relay

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
)

const inNamespace = "HOLDFAST_TEST_NAMESPACE"

// TestFloatingAddress has a service listen on an address that comes to this
// machine later: nobody is refused once it is here. Telling its connections
// leaves alone who came to another address of the same listener.
func TestFloatingAddress(t *testing.T) {
	for _, fam := range []struct{ name, host, any, address string }{
		{"ipv4", "127.0.0.1", "0.0.0.0", "10.9.9.9/32"}, {"ipv6", "[::1]", "[::]", "2001:db8::9/128"},
	} {
		t.Run(fam.name, func(t *testing.T) {
			if os.Getenv(inNamespace) != "" {
				floatingAddress(t, fam.host, fam.any, netip.MustParsePrefix(fam.address))
				return
			}
			// A relay's loops work wherever their threads are: it takes a process in the
			// namespace.
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFloatingAddress$/^"+fam.name+"$", "-test.v")
			cmd.Env = append(os.Environ(), inNamespace+"=1")
			var out []byte
			err := netnstest.New(t).Do(func() (err error) {
				out, err = cmd.CombinedOutput()
				return err
			})
			if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFloatingAddress/"+fam.name)) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func floatingAddress(t *testing.T, host, every string, address netip.Prefix) {
	g := newRig(t)
	at := AddressFrom(netip.AddrPortFrom(address.Addr(), 0))
	if _, err := g.Listen(ServiceOptions{Listen: []Address{at}}); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("listening on an address that is not here and does not float: %v, want EADDRNOTAVAIL", err)
	}
	b := newBackend(t, host)
	floats := []netip.Addr{address.Addr()}
	one := g.service(t, host, ServiceOptions{Name: "one", Listen: []Address{at}, Floating: floats}, b.addr())
	all := g.service(t, host, ServiceOptions{Name: "all", Listen: []Address{MustParseAddress(every + ":0")}}, b.addr())
	if o := one.Options(); len(o.Floating) != 1 || o.Floating[0] != address.Addr() {
		t.Errorf("its options say Floating %v", o.Floating)
	}

	h, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	lo, err := h.Index("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.AddAddress(lo, rtnl.Address{Prefix: address, NoDAD: true, NoPrefixRoute: true}); err != nil {
		t.Fatal(err)
	}
	// The kernel puts an IPv6 address into its routes on a work queue of its own
	// (net/ipv6/addrconf.c, addrconf_dad_work); with a prefix route, which comes at
	// once, what is sent before that would be lost.
	for began := time.Now(); ; {
		c, err := net.Dial("udp", netip.AddrPortFrom(address.Addr(), 9).String())
		if err == nil {
			c.Close()
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal(err)
		}
	}
	port := all.Addrs()[0].AddrPort().Port()
	var clients, backends []net.Conn
	for _, to := range []Address{
		one.Addrs()[0],
		AddressFrom(netip.AddrPortFrom(address.Addr(), port)),
		AddressFrom(netip.AddrPortFrom(MustParseAddress(host+":1").AddrPort().Addr(), port)),
	} {
		c := dial(t, to)
		clients, backends = append(clients, c), append(backends, b.next(t))
		pass(t, c, backends[len(backends)-1], []byte("hello"))
	}
	if n := g.CountAddresses(floats); n != 2 {
		t.Errorf("%d connections came to %v, want 2", n, address.Addr())
	}
	if n := g.ResetAddresses(floats, "front moved"); n != 2 {
		t.Errorf("%d connections were told, want 2", n)
	}
	for i := range 2 {
		wantRST(t, clients[i])
		wantRST(t, backends[i])
		if e := g.end(t, i); e.Cause != CauseAddress || e.Detail != "front moved" || e.ToldClient != ToldRST || e.ToldBackend != ToldRST {
			t.Errorf("the record is %+v", e)
		}
	}
	pass(t, clients[2], backends[2], []byte("still here"))
	if n := g.CountAddresses(floats); n != 0 {
		t.Errorf("%d connections are left on %v", n, address.Addr())
	}
}

// TestDrainAddresses puts connections under the bounds of Drain by the address
// that they came to, and takes that back.
func TestDrainAddresses(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			g := newRig(t)
			b := newBackend(t, host)
			connect := func(name string, d Drain) (client, backend net.Conn) {
				s := g.service(t, host, ServiceOptions{Name: name, Drain: d}, b.addr())
				client = dial(t, s.Addrs()[0])
				backend = b.next(t)
				pass(t, client, backend, []byte("hello"))
				return client, backend
			}
			free, freeBackend := connect("free", Drain{})
			long, longBackend := connect("long", Drain{Timeout: time.Hour, Idle: time.Minute})
			idle, idleBackend := connect("idle", Drain{Idle: 100 * time.Millisecond})
			brief, briefBackend := connect("brief", Drain{Timeout: 100 * time.Millisecond})
			here := []netip.Addr{MustParseAddress(host + ":1").AddrPort().Addr()}
			elsewhere := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
			bounded := func() int32 {
				var n atomic.Int32
				g.ask(func(l *loop) {
					for _, p := range pairsOf(l) {
						if p.drainFrom != 0 || p.drainBy != 0 || p.drainIdle != 0 {
							n.Add(1)
						}
					}
				})
				return n.Load()
			}
			if n := g.DrainAddresses(elsewhere); n != 0 || bounded() != 0 {
				t.Errorf("%d connections, %d under bounds, of another address", n, bounded())
			}
			if n := g.DrainAddresses(here); n < 1 || n > 3 {
				t.Errorf("%d connections are waited for, want at most the 3 with bounds", n)
			}
			for _, c := range []net.Conn{idle, idleBackend, brief, briefBackend} {
				wantRST(t, c)
			}
			for i := range 2 {
				if e := g.end(t, i); e.Cause != CauseDrained {
					t.Errorf("the record is %+v", e)
				}
			}
			if n := g.DrainAddresses(here); n != 1 {
				t.Errorf("%d connections are waited for, want the one that may take an hour", n)
			}
			g.KeepAddresses(elsewhere)
			if n := bounded(); n == 0 {
				t.Error("the bounds were lifted from another address")
			}
			g.KeepAddresses(here)
			if n := bounded(); n != 0 {
				t.Errorf("%d connections are still under bounds", n)
			}
			pass(t, free, freeBackend, []byte("still here"))
			pass(t, long, longBackend, []byte("still here"))
		})
	}
}
