package announce_test

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// host is one end of a cable in a namespace of its own, with an address of each
// family.
type host struct {
	ns        *netns.NS
	index     int
	mac       announce.MAC
	four, six netip.Addr
	rtnl      *rtnl.Handle
	socket    *sys.NeighbourSocket
	// frames are all that come by, also those to another host, which the socket
	// passes over.
	frames chan passed
}

type passed struct {
	frame    []byte
	outgoing bool
}

func cable(t *testing.T) (a, b host) {
	t.Helper()
	hosts := [2]host{{ns: netnstest.New(t)}, {ns: netnstest.New(t)}}
	for i := range hosts {
		h := &hosts[i]
		n := byte(i + 1)
		h.mac = announce.MAC{2, 0, 0, 0, 0, n}
		h.four = netip.AddrFrom4([4]byte{192, 0, 2, n})
		h.six = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: n})
		if err := h.ns.Do(func() (err error) { h.rtnl, err = rtnl.Open(); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.rtnl.Close)
	}
	if err := hosts[1].ns.WithFD(func(fd int) error {
		_, err := hosts[0].rtnl.AddVeth(rtnl.Veth{Name: "eth0", MAC: hosts[0].mac[:], PeerNS: fd, PeerName: "eth0", PeerMAC: hosts[1].mac[:]})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i := range hosts {
		h := &hosts[i]
		if err := h.ns.Do(func() (err error) {
			if h.index, err = h.rtnl.Index("eth0"); err != nil {
				return err
			}
			if err := errors.Join(
				h.rtnl.SetState(h.index, true),
				h.rtnl.AddAddress(h.index, rtnl.Address{Prefix: netip.PrefixFrom(h.four, 24)}),
				h.rtnl.AddAddress(h.index, rtnl.Address{Prefix: netip.PrefixFrom(h.six, 64), NoDAD: true})); err != nil {
				return err
			}
			if h.socket, err = sys.OpenNeighbourSocket(h.index); err != nil {
				return err
			}
			const everything = 0x06 // BPF_RET | BPF_K
			tap, err := sys.OpenPacketSocket(h.index, []sys.FilterInsn{{Op: everything, K: 0xffff}})
			if err == nil {
				h.frames = listen(t, tap)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.socket.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return hosts[0], hosts[1]
}

// listen gives what comes by until the test ends.
func listen(t *testing.T, tap *sys.PacketSocket) chan passed {
	frames := make(chan passed, 1024)
	t.Cleanup(func() {
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
		for range frames { // until its reader has ended
		}
	})
	go func() {
		defer close(frames)
		for buf := make([]byte, 256); ; {
			n, _, outgoing, err := tap.Receive(buf)
			if err != nil {
				return
			}
			select {
			case frames <- passed{slices.Clone(buf[:n]), outgoing}:
			default: // nobody listens
			}
		}
	}()
	return frames
}

func (h host) addr(six bool) netip.Addr {
	if six {
		return h.six
	}
	return h.four
}

// await waits for a frame that matches, and sends what asks for it again and
// again: the kernel joins a new address's solicited-node group when it likes.
func (h host) await(t *testing.T, match func(n announce.Neighbour, outgoing bool) bool, again ...[]byte) announce.Neighbour {
	t.Helper()
	late, tick := time.After(10*time.Second), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		for _, frame := range again {
			if errno := h.socket.Send(frame); errno != 0 {
				t.Fatal(errno)
			}
		}
		for waiting := true; waiting; {
			select {
			case f := <-h.frames:
				if n, ok := announce.ParseNeighbour(f.frame); ok && match(n, f.outgoing) {
					return n
				}
			case <-tick.C:
				waiting = false
			case <-late:
				t.Fatal("nothing has come in 10 s")
			}
		}
	}
}

func families(t *testing.T, f func(t *testing.T, six bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, false) })
	t.Run("IPv6", func(t *testing.T) { f(t, true) })
}

// A kernel answers every kind of ask, and the answer goes where the ask says.
func TestKernelAnswers(t *testing.T) {
	families(t, func(t *testing.T, six bool) {
		a, b := cable(t)
		from, target := a.addr(six), b.addr(six)
		other := announce.MAC{2, 0, 0, 0, 0, 3}
		everybody := announce.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		as := netip.AddrFrom4([4]byte{192, 0, 2, 3})
		nobody, toNobody, probed, probedFor := netip.IPv4Unspecified(), netip.IPv4Unspecified(), a.mac, other
		if six {
			nobody, toNobody = netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1")
			everybody = announce.MAC{0x33, 0x33, 0, 0, 0, 1}
			probed, probedFor = everybody, everybody
			as = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 3})
		}
		for name, c := range map[string]struct {
			frame []byte
			to    netip.Addr
			mac   announce.MAC
		}{
			"everybody":           {announce.Ask(nil, a.mac, from, target), from, a.mac},
			"one host":            {announce.AskHost(nil, a.mac, from, target, b.mac), from, a.mac},
			"for another":         {announce.AskFor(nil, a.mac, other, as, target), as, other},
			"probe":               {announce.AskFor(nil, a.mac, a.mac, nobody, target), toNobody, probed},
			"probe for another":   {announce.AskFor(nil, a.mac, other, nobody, target), toNobody, probedFor},
			"probe for everybody": {announce.AskFor(nil, a.mac, announce.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, nobody, target), toNobody, everybody},
		} {
			n := a.await(t, func(n announce.Neighbour, outgoing bool) bool {
				return n.Kind == announce.Answers && n.Sender == target && n.Target == c.to && !outgoing
			}, c.frame)
			if n.MAC != b.mac || n.From != b.mac || n.To != c.mac || n.Gratuitous != c.to.IsMulticast() {
				t.Errorf("%s: %+v", name, n)
			}
		}
	})
}

// A kernel that knows an address elsewhere sends to where the announcement says,
// by every kind of announcement.
func TestKernelBelieves(t *testing.T) {
	for name, c := range map[string]struct{ six, reply bool }{
		"gratuitous request": {}, "gratuitous reply": {reply: true}, "unsolicited advertisement": {six: true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := cable(t)
			moved := netip.AddrFrom4([4]byte{192, 0, 2, 100})
			if c.six {
				moved = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 100})
			}
			// b asks for the address when it has something to send.
			before := announce.MAC{2, 0, 0, 0, 0, 9}
			send := func() {
				t.Helper()
				if err := b.ns.Do(func() error {
					domain, to := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: 9, Addr: as4(moved)})
					if c.six {
						domain, to = syscall.AF_INET6, &syscall.SockaddrInet6{Port: 9, Addr: moved.As16()}
					}
					fd, err := syscall.Socket(domain, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
					if err != nil {
						return err
					}
					defer syscall.Close(fd)
					return syscall.Sendto(fd, []byte("data"), 0, to)
				}); err != nil {
					t.Fatal(err)
				}
			}
			send()
			a.await(t, func(n announce.Neighbour, outgoing bool) bool {
				return n.Kind == announce.Asks && n.Target == moved && !outgoing
			})
			// It learns from an ask too, like from any host that speaks to it.
			a.await(t, func(n announce.Neighbour, outgoing bool) bool {
				return n.Kind == announce.Answers && n.Target == moved && n.To == before && !outgoing
			}, announce.AskFor(nil, a.mac, before, moved, b.addr(c.six)))
			if mac := known(t, b, moved); mac != before {
				t.Fatalf("%v is known at %x, want %x", moved, mac, before)
			}
			if errno := a.socket.Send(announce.Announce(nil, a.mac, moved, c.reply)); errno != 0 {
				t.Fatal(errno)
			}
			// What is asked afterwards is answered afterwards.
			a.await(t, func(n announce.Neighbour, outgoing bool) bool {
				return n.Kind == announce.Answers && n.Sender == b.addr(c.six) && n.Target == a.addr(c.six) && !outgoing
			}, announce.Ask(nil, a.mac, a.addr(c.six), b.addr(c.six)))
			if mac := known(t, b, moved); mac != a.mac {
				t.Errorf("after the announcement %v is known at %x, want %x", moved, mac, a.mac)
			}
		})
	}
}

func as4(a netip.Addr) [4]byte {
	if a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}

// known is where a host's kernel thinks that an address is.
func known(t *testing.T, h host, addr netip.Addr) announce.MAC {
	t.Helper()
	mac, ok, err := h.rtnl.Neighbour(h.index, addr)
	if err != nil || !ok {
		t.Fatalf("%v is not known: %v", addr, err)
	}
	return mac
}
