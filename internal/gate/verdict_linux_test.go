package gate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/holdfast-net/holdfast/announce"
)

// What the programs answer, and what they make of the frame.
const (
	next     = ^uint32(0) // TCX_NEXT
	drop     = 2          // TCX_DROP
	redirect = 7          // TCX_REDIRECT
)

// run gives one frame to a program as if it were the interface's.
func (h *host) run(prog *ebpf.Program, frame []byte) (verdict uint32, out []byte) {
	h.t.Helper()
	// struct __sk_buff of linux/bpf.h: ifindex is its eleventh word.
	var ctx [48]uint32
	ctx[10] = uint32(h.index)
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 512), Context: ctx}
	in(h.t, h.ns, func() (err error) {
		if verdict, err = prog.Run(&o); err != nil {
			err = fmt.Errorf("frame %x: %w", frame, err)
		}
		return err
	})
	return verdict, o.DataOut
}

var (
	everybody = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	linkLocal = netip.MustParseAddr("fe80::1")
)

// packet makes a frame with an IP packet.
func packet(to, from [6]byte, src, dst netip.Addr, protocol byte, payload []byte) []byte {
	f := slices.Concat(to[:], from[:])
	if src.Is4() {
		f = append(f, 0x08, 0x00, 0x45, 0, 0, byte(20+len(payload)), 0, 1, 0, 0, 64, protocol, 0, 0)
	} else {
		f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(payload)), protocol, 255)
	}
	return slices.Concat(f, src.AsSlice(), dst.AsSlice(), payload)
}

const (
	tcp    = 6
	udp    = 17
	icmpv6 = 58
)

func segment(flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], tcpPort)
	b[12], b[13] = 0x50, flags
	return b
}

func tagged(f []byte) []byte { return slices.Concat(f[:12], []byte{0x81, 0x00, 0, 5}, f[12:]) }

// Each kind of frame in each mode. The letters are the modes' verdicts: n next,
// d dropped, r sent on to the peer, u sent on its way without the address's
// name.
func TestVerdicts(t *testing.T) {
	modes := []string{"open", "own", "handing", "taking", "passing", "closed", "ended"}
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		ipIn := func(from [6]byte, protocol byte, payload []byte) []byte {
			return packet(owner.mac, from, client.own, addr, protocol, payload)
		}
		later := ipIn(client.mac, tcp, segment(0x02))
		if addr.Is4() {
			later[21] = 1 // of a fragment: what looks like a header is data
		} else {
			later = ipIn(client.mac, 44, slices.Concat([]byte{tcp, 0, 0, 8, 0, 0, 0, 1}, segment(0x02)))
		}
		toAll := ipIn(client.mac, tcp, segment(0x02))
		copy(toAll, everybody[:])
		// Somebody's answer to a question that was asked from the address.
		answer := func(mac [6]byte, sender, src, to netip.Addr) []byte {
			if addr.Is4() {
				f := announce.GratuitousARP(nil, mac, sender, true)
				copy(f[38:], to.AsSlice())
				return f
			}
			return packet(owner.mac, mac, src, to, icmpv6,
				slices.Concat([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, sender.AsSlice(), []byte{2, 1}, mac[:]))
		}
		source := addr
		if addr.Is6() {
			source = linkLocal
		}
		type kind struct {
			what  string
			out   bool
			frame []byte
			want  string // open, own, handing, taking, passing, closed, ended
		}
		cases := []kind{
			{"a datagram", false, ipIn(client.mac, udp, make([]byte, 8)), "nnndrdd"},
			{"the beginning of a connection", false, ipIn(client.mac, tcp, segment(0x02)), "nnrdrdd"},
			{"a segment of no connection", false, ipIn(client.mac, tcp, segment(0x10)), "nnrdrdd"},
			{"an answer to the beginning of one", false, ipIn(client.mac, tcp, segment(0x12)), "nnrdrdd"},
			{"a later fragment", false, later, "nnndrdd"},
			{"a cut segment", false, ipIn(client.mac, tcp, segment(0x02)[:13]), "nnndrdd"},
			{"a datagram that the peer sent on", false, ipIn(peer.mac, udp, make([]byte, 8)), "nnnnddd"},
			{"a beginning that the peer sent on", false, ipIn(peer.mac, tcp, segment(0x02)), "nnnnddd"},
			{"a beginning to everybody", false, toAll, "nnndddd"},
			{"a question", false, announce.Ask(nil, client.mac, client.own, addr), "nnndddd"},
			{"a question of the peer's", false, announce.Ask(nil, peer.mac, peer.own, addr), "nnndddd"},
			{"a question to this host", false, announce.AskHost(nil, client.mac, client.own, addr, owner.mac), "nnndddd"},
			{"an announcement", false, announce.Announce(nil, peer.mac, addr, false), "nnnnnnn"},
			{"an answer", false, answer(client.mac, client.own, client.own, addr), "nnnnnnn"},
			{"with a tag", false, tagged(ipIn(client.mac, tcp, segment(0x02))), "nnnnnnn"},
			{"to another address", false, packet(owner.mac, client.mac, client.own, owner.own, tcp, segment(0x02)), "nnnnnnn"},
			{"a question for another address", false, announce.Ask(nil, client.mac, client.own, owner.own), "nnnnnnn"},
			{"another protocol", false, slices.Concat(owner.mac[:], client.mac[:], []byte{0x88, 0xb5, 0, 0}), "nnnnnnn"},

			{"a datagram", true, packet(client.mac, owner.mac, addr, client.own, udp, make([]byte, 8)), "nnnnddd"},
			{"a segment", true, packet(client.mac, owner.mac, addr, client.own, tcp, segment(0x12)), "nnnnddd"},
			{"an announcement", true, announce.Announce(nil, owner.mac, addr, false), "nnndddd"},
			{"an answer", true, answer(owner.mac, addr, source, client.own), "nnndddd"},
			{"a question in its name", true, announce.Ask(nil, owner.mac, addr, client.own), "nnnuddd"},
			{"a question for it", true, announce.Ask(nil, owner.mac, owner.own, addr), "nnnnnnn"},
			{"from another address", true, packet(client.mac, owner.mac, owner.own, client.own, udp, make([]byte, 8)), "nnnnnnn"},
			{"an announcement of another address", true, announce.Announce(nil, owner.mac, owner.own, false), "nnnnnnn"},
			{"with a tag", true, tagged(packet(client.mac, owner.mac, addr, client.own, udp, make([]byte, 8))), "nnnnnnn"},
		}
		to1 := announce.AskHost(nil, owner.mac, addr, client.own, client.mac)
		if addr.Is4() {
			cases = append(cases, kind{"a question to one host in its name", true, to1, "nnnuddd"})
		} else {
			cases = append(cases, []kind{
				// It asks whether a neighbour is there still; the kernel sends to it meanwhile.
				{"a question to one host in its name", true, to1, "nnndddd"},
				{"a question for a router in its name", true, packet(everybody, owner.mac, addr, netip.MustParseAddr("ff02::2"), icmpv6,
					slices.Concat([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1}, owner.mac[:])), "nnndddd"},
				{"an echo", true, packet(client.mac, owner.mac, addr, client.own, icmpv6, []byte{128, 0, 0, 0, 0, 1, 0, 1}), "nnnnddd"},
				{"an echo", false, ipIn(client.mac, icmpv6, []byte{128, 0, 0, 0, 0, 1, 0, 1}), "nnndrdd"},
				{"a redirect by a router", false, ipIn(client.mac, icmpv6, slices.Concat([]byte{137, 0, 0, 0}, make([]byte, 36))), "nnnnnnn"},
			}...)
		}
		for i, mode := range modes {
			e := Entry{Until: soon(time.Hour), Peer: peer.mac}
			switch mode {
			case "open":
				must(t, g.Delete(addr))
			case "ended":
				e.Mode, e.Until = Own, soon(-time.Second)
			default:
				for e.Mode = Closed; e.Mode.String() != mode; e.Mode++ {
				}
			}
			if mode != "open" {
				must(t, g.Set(addr, e))
			}
			for _, c := range cases {
				prog := g.objects.HoldfastIn
				if c.out {
					prog = g.objects.HoldfastOut
				}
				before := total(counters(t, g))
				verdict, got := owner.run(prog, c.frame)
				counted := total(counters(t, g)) - before
				kind := c.want[i]
				want := map[byte]uint32{'n': next, 'd': drop, 'r': redirect, 'u': next}[kind]
				name := mode + ", in: " + c.what
				if c.out {
					name = strings.Replace(name, "in:", "out:", 1)
				}
				if verdict != want {
					t.Errorf("%s: verdict %d, want %d", name, int32(verdict), int32(want))
					continue
				}
				if (counted == 1) != (kind != 'n') || counted > 1 {
					t.Errorf("%s: counted %d times", name, counted)
				}
				switch kind {
				case 'n', 'd':
					if !bytes.Equal(got, c.frame) {
						t.Errorf("%s: the frame was changed to %x", name, got)
					}
				case 'r':
					if !bytes.Equal(got, slices.Concat(peer.mac[:], owner.mac[:], c.frame[12:])) {
						t.Errorf("%s: sent on as %x", name, got)
					}
				case 'u':
					n, ok := announce.ParseNeighbour(got)
					if !ok || n.Kind != announce.Asks || !n.Sender.IsUnspecified() || n.Target != client.own || n.From != owner.mac {
						t.Errorf("%s: %x, which says %+v (%v)", name, got, n, ok)
					}
				}
			}
		}
	})
}

// total is everything that was counted.
func total(c Counters) uint64 {
	return c.ClosedIn + c.ClosedOut + c.AsksIn + c.ClaimsOut + c.NotFromPeer + c.Unnamed + c.Handed + c.PassedOn
}
