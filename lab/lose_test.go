//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// hub is three hosts whose cables are in the test's hands: it writes what they
// send, and reads what reaches them.
type hub struct {
	lab   *Lab
	ports map[string]*os.File
	n     byte // of the sentinel
}

func newHub(t *testing.T) *hub {
	t.Helper()
	top := Topology{Switches: []string{"front"}}
	for _, name := range []string{"a", "b", "c"} {
		top.Hosts = append(top.Hosts, HostSpec{Name: name})
		top.Links = append(top.Links, LinkSpec{Host: name, Switch: "front", Taps: true})
	}
	if err := Supported(top); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	h := &hub{lab: start(t, top), ports: map[string]*os.File{}}
	for _, spec := range top.Hosts {
		_, sw, err := h.lab.Host(spec.Name).Links()[0].Taps()
		if err != nil {
			t.Fatal(err)
		}
		h.ports[spec.Name] = sw
	}
	return h
}

// passes sends a frame from one host, and says whether it reaches the other.
func (h *hub) passes(t *testing.T, from, to string, frame []byte) bool {
	t.Helper()
	// A frame that is lost with nothing but everything, and from nobody else.
	h.n++
	sentinel := append(ether(0x88b5), make([]byte, 50)...)
	sentinel[ipAt] = h.n
	for _, b := range [][]byte{frame, sentinel} {
		if _, err := h.ports[from].Write(b); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 2000)
	for came := false; ; {
		h.ports[to].SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := h.ports[to].Read(buf)
		if err != nil {
			t.Fatalf("from %s to %s: %v", from, to, err)
		}
		switch {
		case bytes.Equal(buf[:n], sentinel):
			return came
		case bytes.Equal(buf[:n], frame):
			came = true
		}
	}
}

func ether(kind uint16) []byte {
	b := append(bytes.Repeat([]byte{0xff}, 6), 2, 0x77, 9, 9, 9, 9)
	return binary.BigEndian.AppendUint16(b, kind)
}

func arpFrame(operation uint16, sender, target string) []byte {
	b := binary.BigEndian.AppendUint16(append(ether(etherARP), 0, 1, 8, 0, 6, 4), operation)
	b = append(append(b, 2, 0x77, 9, 9, 9, 9), netip.MustParseAddr(sender).AsSlice()...)
	return append(append(b, make([]byte, 6)...), netip.MustParseAddr(target).AsSlice()...)
}

// packet is an IP packet in a frame; it has no checksums, which nobody looks at.
func packet(source, destination string, protocol byte, options int, payload ...byte) []byte {
	src, dst := netip.MustParseAddr(source), netip.MustParseAddr(destination)
	if src.Is4() {
		b := append(ether(etherIPv4), byte(0x45+options/4), 0, 0, 0, 0, 0, 0, 0, 255, protocol, 0, 0)
		binary.BigEndian.PutUint16(b[ipAt+2:], uint16(20+options+len(payload)))
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
		return append(append(b, make([]byte, options)...), payload...)
	}
	b := append(ether(etherIPv6), 0x60, 0, 0, 0, 0, byte(len(payload)), protocol, 255)
	return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), payload...)
}

func tcp(from, to uint16) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	b[12], b[13] = 5<<4, byte(SYN)
	return b
}

func neighbour(kind, flags byte, target string) []byte {
	b := append([]byte{kind, 0, 0, 0, flags, 0, 0, 0}, netip.MustParseAddr(target).AsSlice()...)
	return append(b, 2, 1, 2, 0x77, 9, 9, 9, 9)
}

// frames is one of each kind that somebody may want to lose, and what it is.
var frames = []struct {
	name  string
	frame []byte
	is    Frames
}{
	{"ARP request", arpFrame(1, "10.77.0.1", "10.77.0.100"), ARP},
	{"ARP answer", arpFrame(2, "10.77.0.100", "10.77.0.1"), ARP},
	{"gratuitous ARP request", arpFrame(1, "10.77.0.100", "10.77.0.100"), ARP | Announcements},
	{"gratuitous ARP answer", arpFrame(2, "10.77.0.100", "10.77.0.100"), ARP | Announcements},
	{"solicitation", packet("fd77::1", "ff02::1:ff00:100", protocolICMPv6, 0, neighbour(135, 0, "fd77::100")...), NeighbourDiscovery},
	{"solicited advertisement", packet("fd77::100", "fd77::1", protocolICMPv6, 0, neighbour(136, 0x60, "fd77::100")...), NeighbourDiscovery},
	{"unsolicited advertisement", packet("fd77::100", "ff02::1", protocolICMPv6, 0, neighbour(136, 0x20, "fd77::100")...), NeighbourDiscovery | Announcements},
	{"echo", packet("fd77::1", "fd77::2", protocolICMPv6, 0, make([]byte, 40)...), 0},
	{"advert", packet("10.77.0.11", "224.0.0.18", protocolVRRP, 0, make([]byte, 12)...), Adverts},
	{"IPv6 advert", packet("fe80::1", "ff02::12", protocolVRRP, 0, make([]byte, 24)...), Adverts},
	{"segment to the port", packet("10.77.0.11", "10.77.0.12", protocolTCP, 0, tcp(40000, 7420)...), TCPPort(7420)},
	{"segment from the port, with IP options", packet("10.77.0.11", "10.77.0.12", protocolTCP, 8, tcp(7420, 40000)...), TCPPort(7420)},
	{"IPv6 segment to the port", packet("fd77::11", "fd77::12", protocolTCP, 0, tcp(40000, 7420)...), TCPPort(7420)},
	{"segment of another port", packet("10.77.0.11", "10.77.0.12", protocolTCP, 0, tcp(40000, 80)...), 0},
	{"IPv6 segment of another port", packet("fd77::11", "fd77::12", protocolTCP, 0, tcp(40000, 80)...), 0},
	{"datagram", packet("10.77.0.11", "10.77.0.12", 17, 0, tcp(7420, 7420)...), 0},
}

// What is lost between two hosts is what was said, in that direction, and
// nothing else; it is lost from one frame to the next.
func TestLose(t *testing.T) {
	h := newHub(t)
	a, b := h.lab.Host("a"), h.lab.Host("b")
	for _, what := range []Frames{0, ARP, NeighbourDiscovery, Announcements, Adverts, TCPPort(7420), Adverts | TCPPort(7420)} {
		must(h.lab.Lose(a, b, what))(t)
		for _, f := range frames {
			lost := f.is&what&(1<<16-1) != 0
			if passes := h.passes(t, "a", "b", f.frame); passes == lost {
				t.Errorf("%v is lost: %s passes: %v", what, f.name, passes)
			}
			for _, other := range [][2]string{{"b", "a"}, {"a", "c"}, {"c", "b"}} {
				if !h.passes(t, other[0], other[1], f.frame) {
					t.Errorf("%v is lost from a to b: %s does not pass from %s to %s", what, f.name, other[0], other[1])
				}
			}
		}
	}
	must(h.lab.Part(a, b, Everything))(t)
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		to := h.lab.Host(way[1]).Links()[0]
		before := to.Dropped(ToHost)
		for _, f := range frames {
			if _, err := h.ports[way[0]].Write(f.frame); err != nil {
				t.Fatal(err)
			}
		}
		// c hears all of it: then it has been lost on its way to the other one.
		if !h.passes(t, way[0], "c", frames[0].frame) {
			t.Error("nobody hears a host that is parted from one other")
		}
		if n := to.Dropped(ToHost) - before; n != uint64(len(frames))+2 {
			t.Errorf("everything is lost from %s to %s: %d of %d frames", way[0], way[1], n, len(frames)+2)
		}
	}
	must(h.lab.Part(a, b, 0))(t)
	must(h.lab.Lose(nil, nil, Announcements))(t)
	for _, f := range frames {
		for _, way := range [][2]string{{"a", "b"}, {"c", "a"}} {
			if passes := h.passes(t, way[0], way[1], f.frame); passes == (f.is&Announcements != 0) {
				t.Errorf("announcements are lost everywhere: %s passes from %s to %s: %v", f.name, way[0], way[1], passes)
			}
		}
	}
}

func TestFramesAreNamed(t *testing.T) {
	for f, want := range map[Frames]string{
		0: "nothing", Adverts | TCPPort(7420): "adverts, TCP port 7420", ARP | Announcements: "ARP, announcements",
	} {
		if got := f.String(); got != want {
			t.Errorf("%d is %q, want %q", f, got, want)
		}
	}
}

// A watch sees each frame once, with the cable it came from, whatever its source
// says; what a fault has lost on its way into the switch was never there.
func TestWatch(t *testing.T) {
	h := newHub(t)
	vips := []netip.Addr{netip.MustParseAddr("10.77.0.100"), netip.MustParseAddr("fd77::100")}
	w := must(h.lab.Watch("front", WatchOptions{Addresses: vips, Traffic: true}))(t)
	quiet := must(h.lab.Watch("front", WatchOptions{Addresses: vips}))(t)
	speech := packet("10.77.0.100", "10.77.0.101", protocolTCP, 0, tcp(80, 40000)...)
	send := func(from string, frame []byte) {
		t.Helper()
		h.passes(t, from, "b", frame)
	}
	before := time.Now()
	send("a", frames[0].frame) // who has 10.77.0.100?
	send("a", arpFrame(2, "10.77.0.100", "10.77.0.1"))
	send("c", arpFrame(1, "10.77.0.100", "10.77.0.100"))
	send("a", arpFrame(2, "10.77.0.7", "10.77.0.1"))                                                                          // another address
	send("a", packet("10.77.0.11", "224.0.0.18", protocolVRRP, 0, 0x31, 51, 200, 1, 0, 1, 0, 0, 10, 77, 0, 100))              // 10 ms
	send("c", packet("fe80::c", "ff02::12", protocolVRRP, 0, append([]byte{0x31, 52, 0, 1, 0, 100}, make([]byte, 18)...)...)) // 1 s
	send("a", packet("fd77::100", "ff02::1", protocolICMPv6, 0, neighbour(136, 0x20, "fd77::100")...))
	send("a", speech)
	send("a", packet("10.77.0.7", "10.77.0.101", protocolTCP, 0, tcp(80, 40000)...))
	must(h.lab.Host("c").Mute())(t)
	if _, err := h.ports["c"].Write(speech); err != nil { // lost where it comes in
		t.Fatal(err)
	}
	must(h.lab.Host("c").Unmute())(t)
	send("c", packet("10.77.0.100", "10.77.0.101", protocolTCP, 0, tcp(80, 40001)...))

	if _, err := w.Await(bounded(t), func(s Seen) bool { return s.To == 40001 }); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	var got []string
	for _, s := range w.Seen() {
		if s.Time.Before(before) || s.Time.After(after) {
			t.Errorf("%v: not within %v and %v", s, before, after)
		}
		_, text, _ := strings.Cut(s.String(), " ")
		got = append(got, text)
	}
	const mac = "02:77:09:09:09:09"
	want := []string{
		"a: ask for 10.77.0.100 by 10.77.0.1",
		"a: answer: 10.77.0.100 is at " + mac,
		"c: answer that nobody asked for: 10.77.0.100 is at " + mac,
		"a: advert of router 51, priority 200, every 10ms, 10.77.0.11 to 224.0.0.18",
		"c: advert of router 52, priority 0, every 1s, fe80::c to ff02::12",
		"a: answer that nobody asked for: fd77::100 is at " + mac,
		"a: speech: 10.77.0.100:80 to 10.77.0.101:40000 SYN",
		"c: speech: 10.77.0.100:80 to 10.77.0.101:40001 SYN",
	}
	if !slices.Equal(got, want) {
		t.Errorf("seen:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := len(quiet.Seen()); n != len(want)-2 {
		t.Errorf("without traffic %d frames were kept, want %d", n, len(want)-2)
	}
	spans := Speakers(w.Seen(), func(s Seen) bool { return s.Speaks(vips[0]) })
	if len(spans) != 4 || spans[0].Host != "a" || spans[1].Host != "c" || spans[2].Host != "a" || spans[3].Host != "c" {
		t.Errorf("who spoke for %v: %s", vips[0], DescribeSpans(spans))
	}
	claims := Speakers(w.Seen(), func(s Seen) bool { return s.Claims(vips[0]) })
	if len(claims) != 2 || claims[0].Frames != 1 {
		t.Errorf("who claimed %v: %s", vips[0], DescribeSpans(claims))
	}
	for _, watch := range []*Watch{w, quiet} {
		if n := watch.Lost(); n != 0 {
			t.Errorf("%d frames were lost", n)
		}
		if err := watch.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.Await(bounded(t), func(Seen) bool { return false }); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed watch went on: %v", err)
	}
}

// A watch sees what real hosts say, and not what a dead one does.
func TestWatchRealHosts(t *testing.T) {
	eachFamily(t, oneArm(t, Size{Clients: 1, Nodes: 1}), func(t *testing.T, l *Lab, f Family) {
		client, node := l.Host("client1"), l.Host("node1")
		vip := Address(f, 100)
		must(node.AddAddress("eth0", vip))(t)
		w := must(l.Watch("front", WatchOptions{Addresses: []netip.Addr{vip.Addr()}, Traffic: true}))(t)
		ln := must(node.Listen(t.Context(), "tcp", net.JoinHostPort(vip.Addr().String(), "80")))(t)
		defer ln.Close()
		dial(t, client, ln.Addr().String())
		// The client has asked, was answered, and the address has said SYN|ACK.
		for _, match := range []func(Seen) bool{
			func(s Seen) bool { return s.Sort == Asked && s.Host == "client1" && s.Address == vip.Addr() },
			func(s Seen) bool { return s.Sort == Answered && s.Host == "node1" && !s.Unasked },
			func(s Seen) bool { return s.Sort == Spoke && s.Host == "node1" && s.Flags == SYN|ACK && s.From == 80 },
		} {
			if _, err := w.Await(bounded(t), match); err != nil {
				t.Fatal(err)
			}
		}
		must(node.Die())(t)
		died := time.Now()
		if err := say(dial(t, client, echo(t, client, f)), 5*time.Second); err != nil { // some time passes
			t.Fatal(err)
		}
		for _, s := range w.Seen() {
			if s.Host == "node1" && s.Time.After(died) {
				t.Errorf("the dead host is seen: %v", s)
			}
		}
	})
}

// Whatever a frame holds, decoding ends.
func FuzzDecodeSeen(f *testing.F) {
	for _, frame := range frames {
		f.Add(frame.frame)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := decodeSeen(b)
		if !ok && s != (Seen{}) {
			t.Errorf("%v and false", s)
		}
		if ok && s.Sort != Advertised && !s.Address.IsValid() {
			t.Errorf("%v of %x is about nothing", s, b)
		}
	})
}
