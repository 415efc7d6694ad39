package gate

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// attached lists the programs on a host's interface, by name.
func (h *host) attached(d direction) (names []string) {
	h.t.Helper()
	in(h.t, h.ns, func() error {
		list, err := link.QueryPrograms(link.QueryOptions{Target: h.index, Attach: d.place})
		if err != nil {
			return err
		}
		for _, a := range list.Programs {
			p, err := openProgram(a.ID)
			if err != nil {
				return err
			}
			names = append(names, p)
		}
		return nil
	})
	return names
}

// pass puts a program that lets everything pass on both directions.
func (h *host) pass(name string) {
	h.t.Helper()
	in(h.t, h.ns, func() error {
		prog, err := sys.LoadClassifier(name, []sys.BPFInsn{{Op: 0xb7, Imm: -1}, {Op: 0x95}})
		if err != nil {
			return err
		}
		defer prog.Close()
		return errors.Join(sys.AttachTCX(prog, h.index, false), sys.AttachTCX(prog, h.index, true))
	})
}

// Programs of others stay where they are, before us or after; an older version
// of our own is replaced in its place.
func TestOtherPrograms(t *testing.T) {
	owner, _, client := hosts(t, "IPv4")
	addr := floating["IPv4"].Addr()
	owner.give(floating["IPv4"])
	owner.pass("one")
	in(t, owner.ns, func() error {
		prog, err := sys.LoadClassifier(directions[0].program, []sys.BPFInsn{{Op: 0xb7, Imm: -1}, {Op: 0x95}})
		if err != nil {
			return err
		}
		defer prog.Close()
		return sys.AttachTCX(prog, owner.index, false)
	})
	owner.pass("two")
	g := owner.gate()
	want := [2][]string{{"one", "holdfast_in", "two"}, {"holdfast_out", "one", "two"}}
	check := func(when string) {
		t.Helper()
		for i, d := range directions {
			if got := owner.attached(d); !slices.Equal(got, want[i]) {
				t.Errorf("%s: %v, want %v", when, got, want[i])
			}
		}
	}
	check("opened")
	must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
	second := owner.gate()
	check("opened again")
	if by := client.answered(addr, owner); by != nil {
		t.Error("the second process has opened the address")
	}
	// Two processes, one gate: the first still counts as attached, and what one
	// guards the other leaves guarded.
	for _, g := range []*Gate{g, second} {
		in(t, owner.ns, func() error {
			ok, err := g.Attached()
			if !ok {
				t.Error("a process's gate is not attached any more because another one shares it")
			}
			return err
		})
	}
	in(t, owner.ns, second.Detach)
	check("left by the one that guards nothing")
	if by := client.answered(addr, owner); by != nil {
		t.Error("whoever left has opened the other's address")
	}
	in(t, owner.ns, g.Detach)
	want = [2][]string{{"one", "two"}, {"one", "two"}}
	check("left by both")
	if by := client.answered(addr, owner); by == nil {
		t.Error("the address is closed although the gate has gone")
	}
	in(t, owner.ns, g.Detach) // again: nothing to do
}

// Of several that open the gate at the same time all have the same one.
func TestOpenAtOnce(t *testing.T) {
	owner, _, _ := hosts(t, "IPv4")
	const n = 8
	gates := make(chan *Gate, n)
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := owner.ns.Do(func() error {
				g, err := Open(owner.index)
				if err == nil {
					gates <- g
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(gates)
	for _, d := range directions {
		if got := owner.attached(d); !slices.Equal(got, []string{d.program}) {
			t.Errorf("attached: %v", got)
		}
	}
	addr, e := floating["IPv4"].Addr(), Entry{Mode: Own, Until: soon(time.Hour) &^ 7}
	first := true
	for g := range gates {
		if first {
			must(t, g.Set(addr, e))
			first = false
		}
		if got, ok, err := g.Entry(addr); err != nil || !ok || got != e {
			t.Errorf("one of them finds %+v, %v, %v", got, ok, err)
		}
		must(t, g.Close())
	}
}

// An interface that is removed and made again has no gate.
func TestInterfaceGone(t *testing.T) {
	owner, _, client := hosts(t, "IPv4")
	addr := floating["IPv4"].Addr()
	g := owner.gate()
	must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
	attached := func(g *Gate) (ok bool) {
		t.Helper()
		in(t, owner.ns, func() (err error) { ok, err = g.Attached(); return err })
		return ok
	}
	if !attached(g) {
		t.Error("a gate that was just opened is not attached")
	}
	index := strconv.Itoa(owner.index)
	owner.ip("link", "delete", "eth0")
	if attached(g) {
		t.Error("attached to an interface that is gone")
	}
	must(t, g.Renew(addr, soon(time.Hour))) // has no effect, and does no harm
	in(t, owner.ns, func() error {
		if _, err := Open(owner.index); !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), index) {
			t.Errorf("opened on an interface that is gone: %v", err)
		}
		return nil
	})
	owner.ip("link", "add", "eth0", "index", index, "type", "veth", "peer", "name", "other")
	if attached(g) {
		t.Error("attached to an interface that was made anew")
	}
	again := owner.gate()
	if _, ok, err := again.Entry(addr); ok || err != nil {
		t.Errorf("a new interface's gate knows the address already (%v)", err)
	}
	if !attached(again) {
		t.Error("a gate that was opened again is not attached")
	}
	in(t, owner.ns, g.Detach) // has nothing left to take off
	if !attached(again) {
		t.Error("whoever left the old interface has taken the new one's programs")
	}
	_ = client
}

func TestRefusals(t *testing.T) {
	owner, peer, _ := hosts(t, "IPv4")
	g := owner.gate()
	a := netip.MustParseAddr("fe80::1%eth0")
	for name, err := range map[string]error{
		"there is no Mode(7)":      g.Set(a, Entry{Mode: 7}),
		"needs the Ethernet":       g.Set(a, Entry{Mode: Handing, Until: 1}),
		"ffffffffffff is none":     g.Set(a, Entry{Mode: Passing, Until: 1, Peer: [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}),
		"lies before the start":    g.Set(a, Entry{Mode: Own, Until: -1}),
		"it is no address":         g.Set(netip.Addr{}, Entry{Mode: Own, Until: 1}),
		"it has not been set":      g.Renew(a, 1),
		"renew 10.0.0.1: it has":   g.Renew(netip.MustParseAddr("10.0.0.1"), 1),
		"delete invalid IP: it is": g.Delete(netip.Addr{}),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
	must(t, g.Delete(a)) // is not there: no error
	e := Entry{Mode: Handing, Until: soon(time.Hour) &^ 7, Peer: peer.mac}
	must(t, g.Set(a, e))
	if err := g.Renew(a, -1); err == nil {
		t.Error("a lease was renewed until before the start of the machine")
	}
	if got, ok, err := g.Entry(netip.MustParseAddr("fe80::1")); err != nil || !ok || got != e {
		t.Errorf("%+v, %v, %v, want %+v", got, ok, err, e)
	}
	mapped := netip.MustParseAddr("::ffff:10.0.0.7")
	must(t, g.Set(mapped, e))
	if _, ok, err := g.Entry(mapped.Unmap()); !ok || err != nil {
		t.Errorf("an IPv4 address is not found that was set as an IPv6 socket writes it (%v)", err)
	}
	// Until it is full, and when one has left there is room again.
	must(t, g.Delete(a), g.Delete(mapped))
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }
	for i := range Addresses {
		must(t, g.Set(at(i), e))
	}
	if err := g.Set(a, e); err == nil || !strings.Contains(err.Error(), "4096 addresses") {
		t.Errorf("one more than there is room for: %v", err)
	}
	must(t, g.Delete(at(77)), g.Set(a, e))
	must(t, g.Close(), g.Close())
	for _, err := range []error{g.Set(a, e), g.Renew(a, 1), g.Delete(a)} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	if _, err := g.Counters(); err == nil {
		t.Error("after Close counters are read")
	}
	// What it knew is there still.
	if got, ok, err := owner.gate().Entry(a); err != nil || !ok || got != e {
		t.Errorf("the next process finds %+v, %v, %v", got, ok, err)
	}
}

func TestNoEthernet(t *testing.T) {
	owner, _, _ := hosts(t, "IPv4")
	in(t, owner.ns, func() error {
		if g, err := Open(loopback); err == nil || !strings.Contains(err.Error(), "lo has no Ethernet") {
			t.Errorf("opened on the loopback interface: %v, %v", g, err)
		}
		return nil
	})
}
