package gate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// floating is the address that is owned, in the family that is tested.
var floating = map[string]netip.Prefix{
	"IPv4": netip.MustParsePrefix("10.0.0.100/24"),
	"IPv6": netip.MustParsePrefix("fd00::100/64"),
}

// A host is a namespace with one interface on a switch that does not flood.
type host struct {
	t     testing.TB
	ns    *netns.NS
	rt    *rtnl.Handle
	index int
	mac   [6]byte
	port  int               // of the switch
	own   netip.Addr        // in the family that is tested
	tap   *sys.PacketSocket // every frame, before the gate sees it and after
	send  *sys.NeighbourSocket
	marks uint64 // sent so far
}

// hosts connects three hosts: whoever owns the address, its peer, a client.
func hosts(t testing.TB, family string) (owner, peer, client *host) {
	t.Helper()
	middle := netnstest.New(t)
	var rt *rtnl.Handle
	in(t, middle, func() (err error) { rt, err = rtnl.Open(); return err })
	t.Cleanup(rt.Close)
	bridge, err := rt.AddBridge("br", net.HardwareAddr{2, 0, 0, 0, 0, 0xff})
	if err != nil {
		t.Fatal(err)
	}
	var all [3]*host
	for i := range all {
		n := byte(i + 1)
		h := &host{t: t, ns: netnstest.New(t), mac: [6]byte{2, 0, 0, 0, 0, n}}
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 24)
		if family == "IPv6" {
			prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 15: n}), 64)
		}
		h.own = prefix.Addr()
		if err := h.ns.WithFD(func(fd int) (err error) {
			h.port, err = rt.AddVeth(rtnl.Veth{Name: fmt.Sprint("port", i), PeerNS: fd, PeerName: "eth0", PeerMAC: h.mac[:]})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{rt.AddPort(bridge, h.port), rt.AddForwarding(h.port, h.mac[:]), rt.SetState(h.port, true)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		in(t, h.ns, func() (err error) {
			// The kernel's own questions and reports would be answered and counted too.
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/addr_gen_mode", []byte("1"), 0); err != nil {
				return err
			}
			if h.rt, err = rtnl.Open(); err != nil {
				return err
			}
			t.Cleanup(h.rt.Close)
			if h.index, err = h.rt.Index("eth0"); err != nil {
				return err
			}
			if err := h.rt.SetUp("eth0"); err != nil {
				return err
			}
			return h.rt.AddAddress(h.index, rtnl.Address{Prefix: prefix, NoDAD: true})
		})
		all[i] = h
	}
	for _, h := range all {
		in(t, h.ns, func() (err error) {
			const everything = 0x06 // return a constant: how much of the frame
			if h.tap, err = sys.OpenPacketSocket(h.index, []sys.FilterInsn{{Op: everything, K: 0xffff}}); err != nil {
				return err
			}
			t.Cleanup(func() { h.tap.Close() })
			if h.send, err = sys.OpenNeighbourSocket(h.index); err != nil {
				return err
			}
			t.Cleanup(func() { h.send.Close() })
			return nil
		})
		h.await(func() bool { up, err := rt.Running(h.port); return err == nil && up })
	}
	return all[0], all[1], all[2]
}

func in(t testing.TB, ns *netns.NS, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

// await asks until the answer is yes.
func (h *host) await(yes func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); !yes(); {
		if time.Now().After(end) {
			h.t.Fatal("it does not come")
		}
	}
}

// gate opens the gate on the host's interface.
func (h *host) gate() *Gate {
	h.t.Helper()
	return h.gateOf(loadPrograms)
}

// withGrace opens the gate with another grace.
func (h *host) withGrace(grace time.Duration) *Gate {
	h.t.Helper()
	return h.gateOf(func() (*ebpf.CollectionSpec, error) {
		spec, err := loadPrograms()
		if err != nil {
			return nil, err
		}
		return spec, spec.Variables[programsVarGrace].Set(uint64(grace))
	})
}

func (h *host) gateOf(load func() (*ebpf.CollectionSpec, error)) (g *Gate) {
	h.t.Helper()
	in(h.t, h.ns, func() error {
		spec, err := load()
		if err != nil {
			return err
		}
		g, err = open(h.index, spec)
		return err
	})
	h.t.Cleanup(func() {
		if err := g.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return g
}

// give gives the host an address.
func (h *host) give(p netip.Prefix) {
	h.t.Helper()
	if err := h.rt.AddAddress(h.index, rtnl.Address{Prefix: p, NoDAD: true}); err != nil {
		h.t.Fatal(err)
	}
	if p.Addr().Is6() {
		// It answers once it has joined its group.
		group := p.Addr().As16()
		want := fmt.Sprintf("ff0200000000000000000001ff%02x%02x%02x", group[13], group[14], group[15])
		h.await(func() (there bool) {
			in(h.t, h.ns, func() error {
				text, err := os.ReadFile("/proc/thread-self/net/igmp6")
				there = strings.Contains(string(text), want)
				return err
			})
			return there
		})
	}
}

// ip runs ip(8) on the host.
func (h *host) ip(args ...string) {
	h.t.Helper()
	in(h.t, h.ns, func() error {
		if out, err := exec.CommandContext(h.t.Context(), "ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	})
}

// frames gives the next frame that the host has received or sent, until one is
// the last.
func (h *host) frames(last func(frame []byte, outgoing bool) bool) {
	h.t.Helper()
	stop := time.AfterFunc(patience, func() { h.tap.Close() })
	defer stop.Stop()
	buf := make([]byte, 1<<16)
	for {
		n, _, outgoing, err := h.tap.Receive(buf)
		if err != nil {
			h.t.Fatalf("the frame does not come: %v", err)
		}
		if last(buf[:n], outgoing) {
			return
		}
	}
}

// upToNow gives every frame that the host has received or sent so far and that
// nobody has looked at.
func (h *host) upToNow(each func(frame []byte, outgoing bool)) {
	h.t.Helper()
	h.marks++
	// A frame of a type for experiments (IEEE 802), to itself.
	mark := binary.BigEndian.AppendUint64(slices.Concat(h.mac[:], h.mac[:], []byte{0x88, 0xb5}), h.marks)
	if errno := h.send.Send(mark); errno != 0 {
		h.t.Fatal(errno)
	}
	h.frames(func(frame []byte, outgoing bool) bool {
		if bytes.HasPrefix(frame, mark) {
			return true
		}
		if each != nil {
			each(frame, outgoing)
		}
		return false
	})
}

// answered asks whom the floating address belongs to, then for an address that
// is always answered for: what is answered comes in this order.
func (h *host) answered(addr netip.Addr, of *host) (by [][6]byte) {
	h.t.Helper()
	h.upToNow(nil)
	for _, target := range []netip.Addr{addr, of.own} {
		if errno := h.send.Send(announce.Ask(nil, h.mac, h.own, target)); errno != 0 {
			h.t.Fatal(errno)
		}
	}
	h.frames(func(frame []byte, outgoing bool) bool {
		n, ok := announce.ParseNeighbour(frame)
		if outgoing || !ok || n.Kind != announce.Answers {
			return false
		}
		if n.Sender == addr {
			by = append(by, n.MAC)
		}
		return n.Sender == of.own
	})
	return by
}

// hears says which of the words that from sends to each of the addresses the
// host receives; the last one it must.
func (h *host) hears(from *host, to ...netip.Addr) (heard []string) {
	h.t.Helper()
	port := h.listen()
	defer port.Close()
	for _, a := range to {
		from.say(netip.Addr{}, netip.AddrPortFrom(a, portOf(port)), a.String())
	}
	return h.words(port, to[len(to)-1].String())
}

// hearsFrom says which of the words that from sends from each of the addresses
// the host receives; the last one it must.
func (h *host) hearsFrom(from *host, sources ...netip.Addr) (heard []string) {
	h.t.Helper()
	port := h.listen()
	defer port.Close()
	for _, a := range sources {
		from.say(a, netip.AddrPortFrom(h.own, portOf(port)), a.String())
	}
	return h.words(port, sources[len(sources)-1].String())
}

func (h *host) words(port net.PacketConn, last string) (heard []string) {
	h.t.Helper()
	buf := make([]byte, 2048)
	for {
		port.SetReadDeadline(time.Now().Add(patience))
		n, _, err := port.ReadFrom(buf)
		if err != nil {
			h.t.Fatalf("heard %v, and then: %v", heard, err)
		}
		if heard = append(heard, string(buf[:n])); heard[len(heard)-1] == last {
			return heard
		}
	}
}

func (h *host) network(base string) string {
	if h.own.Is4() {
		return base + "4"
	}
	return base + "6"
}

func portOf(p net.PacketConn) uint16 { return p.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// listen receives on every address of the host.
func (h *host) listen() (p net.PacketConn) {
	h.t.Helper()
	in(h.t, h.ns, func() (err error) {
		p, err = net.ListenPacket(h.network("udp"), ":0")
		return err
	})
	return p
}

// say sends a datagram, from an address if it is valid.
func (h *host) say(from netip.Addr, to netip.AddrPort, word string) {
	h.t.Helper()
	in(h.t, h.ns, func() error {
		var d net.Dialer
		if from.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		c, err := d.DialContext(context.Background(), h.network("udp"), to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(word))
		return err
	})
}

// serve answers TCP clients of an address with its name and what they say.
func (h *host) serve(addr netip.Addr, name string) {
	h.t.Helper()
	var ln net.Listener
	in(h.t, h.ns, func() (err error) {
		ln, err = net.Listen(h.network("tcp"), netip.AddrPortFrom(addr, tcpPort).String())
		return err
	})
	var all sync.WaitGroup
	all.Go(func() { accept(ln, name, &all) })
	h.t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
}

const tcpPort = 7000

// accept serves until the listener is closed, and then closes what it serves.
func accept(ln net.Listener, name string, all *sync.WaitGroup) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		all.Go(func() {
			echo(c, name)
			c.Close()
		})
	}
}

func echo(c net.Conn, name string) {
	buf := make([]byte, 64)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write([]byte(name + ":" + string(buf[:n]))); err != nil || string(buf[:n]) == "bye" {
			return
		}
	}
}

// dial connects to the floating address.
func (h *host) dial(addr netip.Addr) net.Conn {
	h.t.Helper()
	return h.dialFrom(netip.AddrPort{}, addr)
}

// dialFrom connects from a port.
func (h *host) dialFrom(from netip.AddrPort, addr netip.Addr) (c net.Conn) {
	h.t.Helper()
	in(h.t, h.ns, func() (err error) {
		d := net.Dialer{Timeout: patience}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		}
		c, err = d.DialContext(context.Background(), h.network("tcp"), netip.AddrPortFrom(addr, tcpPort).String())
		return err
	})
	h.t.Cleanup(func() { c.Close() })
	return c
}

// ask says a word on a connection and gives the answer.
func ask(t *testing.T, c net.Conn, word string) string {
	t.Helper()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte(word)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 128)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// eachFamily runs f with three hosts for IPv4, and with three for IPv6.
func eachFamily(t *testing.T, f func(t *testing.T, owner, peer, client *host, addr netip.Addr)) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			owner, peer, client := hosts(t, family)
			f(t, owner, peer, client, floating[family].Addr())
		})
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func counters(t *testing.T, g *Gate) Counters {
	t.Helper()
	c, err := g.Counters()
	must(t, err)
	return c
}

// past waits for a moment of the boot clock.
func past(t *testing.T, at int64) {
	t.Helper()
	alarm, err := sys.NewBootAlarm()
	must(t, err)
	defer alarm.Close()
	must(t, alarm.Set(at))
	e, err := sys.NewEpoll(1)
	must(t, err)
	defer e.Close()
	if errno := e.Add(alarm.FD(), sys.EventIn, 0); errno != 0 {
		t.Fatal(errno)
	}
	for sys.BootTime() < at {
		if _, err := e.Wait(nil, int(patience.Milliseconds())); err != nil {
			t.Fatal(err)
		}
	}
}

func soon(d time.Duration) int64 { return sys.BootTime() + int64(d) }

// openProgram gives a program's name.
func openProgram(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}
