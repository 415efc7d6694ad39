package gate

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/announce"
)

// A planned takeover: what has begun stays, what begins goes to the peer, whom
// nobody sees until it owns the address; at the end everything goes there.
func TestHanding(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		p := netip.PrefixFrom(addr, owner.own.BitLen())
		owner.give(p)
		g, h := owner.gate(), peer.gate()
		until := soon(time.Hour)
		must(t, g.Set(addr, Entry{Mode: Own, Until: until}),
			h.Set(addr, Entry{Mode: Closed, Until: until}))
		owner.serve(addr, "owner")
		old := client.dial(addr)
		if got := ask(t, old, "one"); got != "owner:one" {
			t.Fatalf("before: %q", got)
		}

		must(t, h.Set(addr, Entry{Mode: Taking, Until: until, Peer: owner.mac}))
		peer.give(p)
		peer.serve(addr, "peer")
		must(t, g.Set(addr, Entry{Mode: Handing, Until: until, Peer: peer.mac}))

		// The peer must ask where the client is, and the client must not learn
		// from it where the address might be.
		peer.ip("neigh", "flush", "dev", "eth0")
		fresh := client.dial(addr)
		if got := ask(t, fresh, "two"); got != "peer:two" {
			t.Errorf("a new connection while the address is handed over: %q", got)
		}
		if got := ask(t, old, "three"); got != "owner:three" {
			t.Errorf("an old connection while the address is handed over: %q", got)
		}
		asked := false
		client.upToNow(func(frame []byte, outgoing bool) {
			n, ok := announce.ParseNeighbour(frame)
			if !ok || outgoing || n.From != peer.mac || n.Kind != announce.Asks {
				return
			}
			asked = asked || n.Sender.IsUnspecified() && n.Target == client.own
			if n.Sender == addr {
				t.Errorf("the peer asks in the address's name: %+v", n)
			}
		})
		if !asked {
			t.Error("the peer has asked in nobody's name where the client is, or this host does not understand it")
		}
		mac, ok, err := client.rt.Neighbour(client.index, addr)
		if err != nil || !ok || mac != owner.mac {
			t.Errorf("the client believes the address at %x (%v, %v), want %x", mac, ok, err, owner.mac)
		}
		if by := client.answered(addr, peer); !slices.Equal(by, [][6]byte{owner.mac}) {
			t.Errorf("while the address is handed over it is answered for by %x", by)
		}
		c, d := counters(t, g), counters(t, h)
		if c.Handed < 3 || c.PassedOn != 0 {
			t.Errorf("the owner has counted %+v", c)
		}
		if d.Unnamed == 0 || d.NotFromPeer != 0 {
			t.Errorf("the peer has counted %+v, want a neighbour asked for without naming the address", d)
		}
		// What the peer hears by itself it does not take.
		client.ip("neigh", "replace", addr.String(), "lladdr", hex(peer.mac), "dev", "eth0")
		if heard := peer.hears(client, addr, peer.own); slices.Contains(heard, addr.String()) {
			t.Errorf("the peer takes frames that the owner has not sent on: %v", heard)
		}
		if d := counters(t, h); d.NotFromPeer != 1 {
			t.Errorf("the peer has counted %+v", d)
		}
		client.ip("neigh", "replace", addr.String(), "lladdr", hex(owner.mac), "dev", "eth0")

		// The peer has it now, and no announcement has reached the client.
		must(t, h.Set(addr, Entry{Mode: Own, Until: until}),
			g.Set(addr, Entry{Mode: Passing, Until: until, Peer: peer.mac}))
		if got := ask(t, fresh, "four"); got != "peer:four" {
			t.Errorf("a connection of the peer's, passed on: %q", got)
		}
		if got := ask(t, client.dial(addr), "five"); got != "peer:five" {
			t.Errorf("a new connection, passed on: %q", got)
		}
		if heard := peer.hears(client, addr); !slices.Equal(heard, []string{addr.String()}) {
			t.Errorf("the peer hears %v of what is passed on", heard)
		}
		if heard := client.hearsFrom(owner, addr, owner.own); slices.Contains(heard, addr.String()) {
			t.Error("whoever passes frames on still sends from the address")
		}
		if by := client.answered(addr, owner); !slices.Equal(by, [][6]byte{peer.mac}) {
			t.Errorf("an address that is passed on is answered for by %x, want %x", by, peer.mac)
		}
		if c := counters(t, g); c.PassedOn == 0 || c.ClosedOut == 0 {
			t.Errorf("the former owner has counted %+v", c)
		}
		// Two that pass to each other do not play ball.
		must(t, h.Set(addr, Entry{Mode: Passing, Until: until, Peer: owner.mac}))
		before := counters(t, h).ClosedIn
		client.say(netip.Addr{}, netip.AddrPortFrom(addr, 9), "nobody")
		peer.await(func() bool { return counters(t, h).ClosedIn == before+1 })
	})
}

func hex(mac [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}

// A client's port that is used again is a new connection, also where the old one
// has not been forgotten yet.
func TestHandingOfAUsedPort(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		p := netip.PrefixFrom(addr, owner.own.BitLen())
		owner.give(p)
		g, h := owner.gate(), peer.gate()
		until := soon(time.Hour)
		must(t, g.Set(addr, Entry{Mode: Own, Until: until}),
			h.Set(addr, Entry{Mode: Taking, Until: until, Peer: owner.mac}))
		peer.give(p)
		peer.serve(addr, "peer")
		owner.serve(addr, "owner")
		c := client.dial(addr)
		port := c.LocalAddr().(*net.TCPAddr).AddrPort()
		ask(t, c, "bye") // the owner ends it first
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("after the end: %d, %v", n, err)
		}
		must(t, c.Close())
		owner.await(func() (waits bool) {
			in(t, owner.ns, func() error {
				out, err := exec.CommandContext(t.Context(), "ss", "-Htn", "state", "time-wait").Output()
				waits = strings.Contains(string(out), fmt.Sprint(":", port.Port()))
				return err
			})
			return waits
		})
		must(t, g.Set(addr, Entry{Mode: Handing, Until: until, Peer: peer.mac}))
		again := client.dialFrom(port, addr)
		for range 3 {
			if got := ask(t, again, "two"); got != "peer:two" {
				t.Errorf("the port is used again, and the answer is %q", got)
			}
		}
	})
}

// A frame for somebody else that a switch floods is not sent on.
func TestOnlyOwnFramesAreSentOn(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		must(t, g.Set(addr, Entry{Mode: Passing, Until: soon(time.Hour), Peer: peer.mac}))
		// The switch sends frames for nobody to the owner.
		owner.hears(client, owner.own) // the client knows it
		client.ip("neigh", "replace", addr.String(), "lladdr", hex(owner.mac), "dev", "eth0")
		client.say(netip.Addr{}, netip.AddrPortFrom(addr, 9), "passed on")
		owner.await(func() bool { return counters(t, g).PassedOn == 1 })
		client.ip("neigh", "replace", addr.String(), "lladdr", "ff:ff:ff:ff:ff:ff", "dev", "eth0")
		client.say(netip.Addr{}, netip.AddrPortFrom(addr, 9), "to everybody")
		owner.await(func() bool { return counters(t, g).ClosedIn == 1 })
		if c := counters(t, g); c.PassedOn != 1 {
			t.Errorf("counted %+v", c)
		}
	})
}

// Fragments are judged by their address, as everything else, and so is what has
// extension headers.
func TestFragments(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
		client.ip("neigh", "replace", addr.String(), "lladdr", hex(owner.mac), "dev", "eth0")
		client.say(netip.Addr{}, netip.AddrPortFrom(addr, 9), strings.Repeat("long ", 800))
		owner.await(func() bool { return counters(t, g).ClosedIn == 3 })
	})
}

// A frame with a VLAN tag belongs to another interface: this one's gate leaves
// it alone, in and out.
func TestVLAN(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
		// An announcement of the address, its source and target.
		plain := announce.Announce(nil, owner.mac, addr, false)
		tagged := slices.Concat(plain[:12], []byte{0x81, 0x00, 0, 5}, plain[12:])
		claims := func() (seen int) {
			client.upToNow(nil)
			for _, frame := range [][]byte{tagged, plain} {
				owner.send.Send(frame)
			}
			if errno := owner.send.Send(announce.Ask(nil, owner.mac, owner.own, client.own)); errno != 0 {
				t.Fatal(errno)
			}
			client.frames(func(frame []byte, outgoing bool) bool {
				if !outgoing && bytes.HasSuffix(frame, plain[14:]) {
					seen++
				}
				n, ok := announce.ParseNeighbour(frame)
				return ok && !outgoing && n.Kind == announce.Asks && n.Target == client.own
			})
			return seen
		}
		if n := claims(); n != 1 {
			t.Errorf("%d claims have left, want the one with a tag", n)
		}
		if c := counters(t, g); c.ClaimsOut != 1 {
			t.Errorf("counted %+v", c)
		}
		// A question with a tag, and one without.
		question := announce.Ask(nil, client.mac, client.own, addr)
		for _, frame := range [][]byte{slices.Concat(question[:12], []byte{0x81, 0x00, 0, 5}, question[12:]), question} {
			if errno := client.send.Send(frame); errno != 0 {
				t.Fatal(errno)
			}
		}
		client.answered(owner.own, owner) // both have arrived
		if c := counters(t, g); c.AsksIn != 1 {
			t.Errorf("counted %+v", c)
		}
	})
}
