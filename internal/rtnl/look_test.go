//go:build linux

package rtnl_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// pair is a namespace with a link eth0 whose other end is in another one.
type pair struct {
	ns    *netns.NS
	rt    *rtnl.Handle
	index int
	far   *rtnl.Handle
	watch *rtnl.Watch
	seen  []rtnl.Change // not looked for yet
}

var nearMAC, farMAC = [6]byte{2, 0, 0, 0, 0, 1}, [6]byte{2, 0, 0, 0, 0, 2}

func open(t *testing.T) *pair {
	t.Helper()
	p := &pair{ns: netnstest.New(t)}
	far := netnstest.New(t)
	in(t, far, func() (err error) { p.far, err = rtnl.Open(); return err })
	t.Cleanup(p.far.Close)
	in(t, p.ns, func() (err error) {
		if p.rt, err = rtnl.Open(); err != nil {
			return err
		}
		t.Cleanup(p.rt.Close)
		return far.WithFD(func(fd int) error {
			p.index, err = p.rt.AddVeth(rtnl.Veth{Name: "eth0", MAC: nearMAC[:], PeerNS: fd, PeerName: "eth0", PeerMAC: farMAC[:]})
			return err
		})
	})
	in(t, p.ns, func() (err error) { p.watch, err = rtnl.OpenWatch(); return err })
	t.Cleanup(func() { must(t, p.watch.Close(), p.watch.Close()) })
	return p
}

func in(t *testing.T, ns *netns.NS, f func() error) {
	t.Helper()
	must(t, ns.Do(f))
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// await waits for a change.
func (p *pair) await(t *testing.T, what string, is func(rtnl.Change) bool) rtnl.Change {
	t.Helper()
	e, err := sys.NewEpoll(1)
	must(t, err)
	defer e.Close()
	if errno := e.Add(p.watch.FD(), sys.EventIn, 0); errno != 0 {
		t.Fatal(errno)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		for len(p.seen) > 0 {
			c := p.seen[0]
			p.seen = p.seen[1:]
			if is(c) {
				return c
			}
		}
		if _, err := e.Wait(nil, 100); err != nil {
			t.Fatal(err)
		}
		var resync bool
		p.seen, _, resync, err = p.watch.Read(p.seen)
		if err != nil || resync {
			t.Fatalf("the watch: resync %v, %v", resync, err)
		}
	}
	t.Fatalf("no change of the kind: %s", what)
	return rtnl.Change{}
}

// An address leaves by itself when its lifetime ends, and not while it is
// renewed.
func TestLifetime(t *testing.T) {
	for _, prefix := range []string{"10.0.0.100/24", "fd00::100/64"} {
		t.Run(prefix, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			must(t, p.rt.SetUp("eth0"), p.far.SetUp("eth0"))
			a := rtnl.Address{Prefix: netip.MustParsePrefix(prefix), NoDAD: true, NoPrefixRoute: true, Valid: 2 * time.Second}
			about := func(kind rtnl.Kind) func(rtnl.Change) bool {
				return func(c rtnl.Change) bool {
					return c.Kind == kind && c.Index == p.index && c.Address.Prefix == a.Prefix
				}
			}
			must(t, p.rt.ReplaceAddress(p.index, a)) // adds
			got := p.await(t, "the address is there", about(rtnl.AddressSet)).Address
			want := a
			want.Deprecated = true
			if a.Prefix.Addr().Is4() {
				want.NoDAD = false // there is none
			}
			if got != want {
				t.Errorf("the watch tells of %+v, want %+v", got, want)
			}
			list, err := p.rt.Addresses(p.index)
			must(t, err)
			if i := slices.IndexFunc(list, func(l rtnl.Address) bool { return l.Prefix == a.Prefix }); i < 0 ||
				list[i].Valid > a.Valid || list[i].Valid < time.Second || !list[i].Deprecated || !list[i].NoPrefixRoute {
				t.Errorf("listed: %+v", list)
			}
			if err := p.rt.AddAddress(p.index, a); !errors.Is(err, os.ErrExist) {
				t.Errorf("added although it is there: %v", err)
			}
			// Renewed as its owner does, for longer than it would live.
			var last time.Time
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for range 6 {
				<-tick.C
				last = time.Now()
				must(t, p.rt.ReplaceAddress(p.index, a))
			}
			for _, c := range p.all(t) {
				if about(rtnl.AddressGone)(c) {
					t.Fatal("the address has gone although it was renewed")
				}
			}
			p.await(t, "the address leaves by itself", about(rtnl.AddressGone))
			after := time.Since(last)
			t.Logf("left by itself %v after it was last renewed, with a lifetime of %v", after, a.Valid)
			if after < a.Valid-100*time.Millisecond {
				t.Errorf("left %v after it was renewed, sooner than %v", after, a.Valid)
			}
			list, err = p.rt.Addresses(p.index)
			must(t, err)
			if slices.ContainsFunc(list, func(l rtnl.Address) bool { return l.Prefix == a.Prefix }) {
				t.Error("it is still listed")
			}
			// For ever, from now on.
			must(t, p.rt.AddAddress(p.index, rtnl.Address{Prefix: a.Prefix, NoDAD: true}))
			got = p.await(t, "the address is there again", about(rtnl.AddressSet)).Address
			if got.Valid != 0 || got.Preferred != 0 || got.Deprecated || got.NoPrefixRoute {
				t.Errorf("for ever: %+v", got)
			}
		})
	}
}

// speak makes the kernel look for a neighbour.
func speak(to netip.Addr) error {
	c, err := net.Dial("udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("hello"))
	return err
}

// all gives the changes that have arrived.
func (p *pair) all(t *testing.T) []rtnl.Change {
	t.Helper()
	for more := true; more; {
		var resync bool
		var err error
		p.seen, more, resync, err = p.watch.Read(p.seen)
		if err != nil || resync {
			t.Fatalf("the watch: resync %v, %v", resync, err)
		}
	}
	return slices.Clone(p.seen)
}

func TestLifetimeRefusals(t *testing.T) {
	p := open(t)
	prefix := netip.MustParsePrefix("10.0.0.100/24")
	for want, a := range map[string]rtnl.Address{
		"valid lifetime 1.5s: it must be whole seconds":                    {Prefix: prefix, Valid: 1500 * time.Millisecond},
		"valid lifetime -1s":                                               {Prefix: prefix, Valid: -time.Second},
		"less than 4294967295":                                             {Prefix: prefix, Valid: 1 << 32 * time.Second},
		"preferred lifetime 3s: it is longer than the valid one, 2s":       {Prefix: prefix, Valid: 2 * time.Second, Preferred: 3 * time.Second},
		"10.0.0.100/24: preferred lifetime 10ms: it must be whole seconds": {Prefix: prefix, Valid: 2 * time.Second, Preferred: 10 * time.Millisecond},
	} {
		for _, do := range []func(int, rtnl.Address) error{p.rt.AddAddress, p.rt.ReplaceAddress} {
			if err := do(p.index, a); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", a, err, want)
			}
		}
	}
}

// A link is told as it stands, and each of its changes.
func TestLinkChanges(t *testing.T) {
	p := open(t)
	link := func() rtnl.Link {
		t.Helper()
		l, err := p.rt.Link(p.index)
		must(t, err)
		return l
	}
	want := rtnl.Link{Index: p.index, Name: "eth0", MAC: nearMAC, MTU: 1500}
	if got := link(); got != want {
		t.Errorf("made: %+v, want %+v", got, want)
	}
	becomes := func(what string) {
		t.Helper()
		p.await(t, what, func(c rtnl.Change) bool { return c.Kind == rtnl.LinkSet && c.Link == want })
		if got := link(); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	must(t, p.rt.SetUp("eth0"))
	want.Up = true
	becomes("up, without a carrier")
	must(t, p.far.SetUp("eth0"))
	want.Carrier = true
	becomes("up, with a carrier")
	must(t, p.rt.SetMTU(p.index, 1400))
	want.MTU = 1400
	becomes("another MTU")
	far, err := p.far.Index("eth0")
	must(t, err, p.far.SetState(far, false))
	want.Carrier = false
	becomes("the cable is out")
	links, err := p.rt.Links()
	must(t, err)
	if !slices.Contains(links, want) || !slices.ContainsFunc(links, func(l rtnl.Link) bool { return l.Name == "lo" && l.MAC == [6]byte{} }) {
		t.Errorf("links: %+v", links)
	}
	must(t, p.rt.Delete(p.index))
	p.await(t, "removed", func(c rtnl.Change) bool {
		return c.Kind == rtnl.LinkGone && c.Index == p.index && c.Link.Name == "eth0"
	})
	if _, err := p.rt.Link(p.index); err == nil || !strings.Contains(err.Error(), fmt.Sprint(p.index)) {
		t.Errorf("a removed link is read: %v", err)
	}
}

// Whoever does not read is told that something was lost, and hears of what
// comes later.
func TestOverrun(t *testing.T) {
	p := open(t)
	if list, more, resync, err := p.watch.Read(nil); len(list) > 0 && more || resync || err != nil {
		t.Fatalf("at the start: %v, %v, %v", list, resync, err)
	}
	a := rtnl.Address{Prefix: netip.MustParsePrefix("10.0.0.100/24"), Valid: time.Hour}
	lost := false
	for range 200 {
		for range 1000 {
			must(t, p.rt.ReplaceAddress(p.index, a))
		}
		var list []rtnl.Change
		for range 3 { // at most a part of it
			var resync bool
			var err error
			list, _, resync, err = p.watch.Read(list)
			must(t, err)
			lost = lost || resync
		}
		if lost {
			break
		}
	}
	if !lost {
		t.Fatal("the kernel keeps it all")
	}
	for more := true; more; {
		var err error
		_, more, _, err = p.watch.Read(nil)
		must(t, err)
	}
	must(t, p.rt.DeleteAddress(p.index, a.Prefix))
	p.await(t, "what comes after it", func(c rtnl.Change) bool {
		return c.Kind == rtnl.AddressGone && c.Address.Prefix == a.Prefix
	})
}

func TestNeighboursAndPaths(t *testing.T) {
	p := open(t)
	must(t, p.rt.SetUp("eth0"), p.far.SetUp("eth0"))
	far, err := p.far.Index("eth0")
	must(t, err)
	for _, addr := range []struct{ near, far, gateway, beyond, nowhere string }{
		{"10.0.0.1/24", "10.0.0.2/24", "10.0.0.2", "10.9.0.0/16", "203.0.113.1"},
		{"fd00::1/64", "fd00::2/64", "fd00::2", "fd09::/16", "2001:db8::1"},
	} {
		near, other := netip.MustParsePrefix(addr.near), netip.MustParsePrefix(addr.far)
		must(t, p.rt.AddAddress(p.index, rtnl.Address{Prefix: near, NoDAD: true}),
			p.far.AddAddress(far, rtnl.Address{Prefix: other, NoDAD: true}),
			p.rt.AddRoute(rtnl.Route{To: netip.MustParsePrefix(addr.beyond), Via: netip.MustParseAddr(addr.gateway)}))
		if _, ok, err := p.rt.Neighbour(p.index, other.Addr()); ok || err != nil {
			t.Errorf("a neighbour is known that nobody has asked for (%v)", err)
		}
		in(t, p.ns, func() error { return speak(other.Addr()) })
		end := time.Now().Add(patience)
		for {
			mac, ok, err := p.rt.Neighbour(p.index, other.Addr())
			must(t, err)
			if ok {
				if mac != farMAC {
					t.Errorf("%s is at %x, want %x", other.Addr(), mac, farMAC)
				}
				all, err := p.rt.Neighbours(p.index, other.Addr().Is6())
				must(t, err)
				if !slices.Contains(all, rtnl.Neighbour{Addr: other.Addr(), MAC: mac}) {
					t.Errorf("%s is not among the neighbours %v", other.Addr(), all)
				}
				break
			}
			if time.Now().After(end) {
				t.Fatal("the neighbour does not become known")
			}
		}
		for to, want := range map[string]rtnl.Path{
			addr.gateway: {Index: p.index, Source: near.Addr()},
			netip.MustParsePrefix(addr.beyond).Addr().Next().String(): {Index: p.index, Via: other.Addr(), Source: near.Addr()},
		} {
			if got, err := p.rt.PathTo(netip.MustParseAddr(to)); err != nil || got != want {
				t.Errorf("the way to %s: %+v, %v, want %+v", to, got, err, want)
			}
		}
		if got, err := p.rt.PathTo(netip.MustParseAddr(addr.nowhere)); !errors.Is(err, rtnl.ErrNoPath) || !strings.Contains(err.Error(), addr.nowhere) {
			t.Errorf("the way to nowhere: %+v, %v", got, err)
		}
		if _, err := p.rt.PathTo(netip.Addr{}); err == nil {
			t.Error("a way leads to no address at all")
		}
	}
	if _, ok, err := p.rt.Neighbour(p.index, netip.Addr{}); ok || err != nil {
		t.Errorf("no address is a neighbour: %v, %v", ok, err)
	}
}
