package announce

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

var (
	macA, macB, macC = MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}, MAC{2, 0, 0, 0, 0, 3}
	fourA, fourB     = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	sixA, sixB       = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2:3456")
	linkB            = netip.MustParseAddr("fe80::2")
	equal            = cmpopts.EquateComparable(netip.Addr{})
	toAll            = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	toAllNodes       = MAC{0x33, 0x33, 0, 0, 0, 1}
	toSolicited      = MAC{0x33, 0x33, 0xff, 0x02, 0x34, 0x56}
	ff02             = netip.MustParseAddr("ff02::1")
)

// made is every frame that is made here, and what it says.
var made = []struct {
	name  string
	frame []byte
	want  Neighbour
}{
	{"gratuitous request", GratuitousARP(nil, macA, fourA, false),
		Neighbour{Kind: Asks, Sender: fourA, MAC: macA, Target: fourA, From: macA, To: toAll, Gratuitous: true}},
	{"gratuitous reply", GratuitousARP(nil, macA, fourA, true),
		Neighbour{Kind: Answers, Sender: fourA, MAC: macA, Target: fourA, From: macA, To: toAll, Gratuitous: true}},
	{"unsolicited advertisement", UnsolicitedNA(nil, macA, sixA.WithZone("eth0")),
		Neighbour{Kind: Answers, Sender: sixA, MAC: macA, Target: ff02, From: macA, To: toAllNodes, Gratuitous: true}},
	{"announce IPv4", Announce(nil, macA, fourA, true),
		Neighbour{Kind: Answers, Sender: fourA, MAC: macA, Target: fourA, From: macA, To: toAll, Gratuitous: true}},
	{"announce IPv6", Announce(nil, macA, sixA, true),
		Neighbour{Kind: Answers, Sender: sixA, MAC: macA, Target: ff02, From: macA, To: toAllNodes, Gratuitous: true}},
	{"ask IPv4", Ask(nil, macA, fourA, fourB),
		Neighbour{Kind: Asks, Sender: fourA, MAC: macA, Target: fourB, From: macA, To: toAll}},
	{"ask IPv6", Ask(nil, macA, sixA, sixB),
		Neighbour{Kind: Asks, Sender: sixA, MAC: macA, Target: sixB, From: macA, To: toSolicited}},
	{"ask a host, IPv4", AskHost(nil, macA, fourA, fourB, macB),
		Neighbour{Kind: Asks, Sender: fourA, MAC: macA, Target: fourB, From: macA, To: macB}},
	{"ask a host, IPv6", AskHost(nil, macA, sixA, linkB.WithZone("eth0"), macB),
		Neighbour{Kind: Asks, Sender: sixA, MAC: macA, Target: linkB, From: macA, To: macB}},
	{"ask for another, IPv4", AskFor(nil, macA, macC, fourA, fourB),
		Neighbour{Kind: Asks, Sender: fourA, MAC: macC, Target: fourB, From: macA, To: toAll}},
	{"ask for another, IPv6", AskFor(nil, macA, macC, sixA, sixB),
		Neighbour{Kind: Asks, Sender: sixA, MAC: macC, Target: sixB, From: macA, To: toSolicited}},
	{"probe IPv6", AskFor(nil, macA, macC, netip.IPv6Unspecified(), sixB),
		Neighbour{Kind: Asks, Sender: netip.IPv6Unspecified(), MAC: macA, Target: sixB, From: macA, To: toSolicited}},
	{"probe", Ask(nil, macA, netip.Addr{}, fourB),
		Neighbour{Kind: Asks, Sender: netip.IPv4Unspecified(), MAC: macA, Target: fourB, From: macA, To: toAll}},
}

func TestFrames(t *testing.T) {
	for _, c := range made {
		t.Run(c.name, func(t *testing.T) {
			got, ok := ParseNeighbour(c.frame)
			if d := cmp.Diff(c.want, got, equal); !ok || d != "" {
				t.Errorf("%v; want -, got +:\n%s", ok, d)
			}
			second, ok := decode(t, c.frame)
			if d := cmp.Diff(c.want, second, equal); !ok || d != "" {
				t.Errorf("gopacket %v; want -, got +:\n%s", ok, d)
			}
			if len(c.frame) > MaxFrame {
				t.Errorf("%d bytes, more than MaxFrame", len(c.frame))
			}
			for n := range c.frame {
				if got, ok := ParseNeighbour(c.frame[:n]); ok {
					t.Errorf("cut to %d bytes it is %+v", n, got)
				}
			}
			// Ethernet pads short frames.
			padded := append(bytes.Clone(c.frame), make([]byte, 60-min(60, len(c.frame)))...)
			if again, ok := ParseNeighbour(padded); !ok || again != got {
				t.Errorf("padded it is %+v, %v", again, ok)
			}
		})
	}
}

// decode reads a frame with gopacket, checksums included.
func decode(t testing.TB, frame []byte) (n Neighbour, ok bool) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	eth, ok := p.LinkLayer().(*layers.Ethernet)
	if !ok {
		return n, false
	}
	n.From, n.To = MAC(eth.SrcMAC), MAC(eth.DstMAC)
	if arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		n.Kind = map[uint16]Kind{layers.ARPRequest: Asks, layers.ARPReply: Answers}[arp.Operation]
		n.MAC = MAC(arp.SourceHwAddress)
		n.Sender, _ = netip.AddrFromSlice(arp.SourceProtAddress)
		n.Target, _ = netip.AddrFromSlice(arp.DstProtAddress)
		n.Gratuitous = n.Sender == n.Target
		return n, n.Kind != 0
	}
	ip, ok := p.NetworkLayer().(*layers.IPv6)
	if !ok {
		return n, false
	}
	if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Error(err)
		}
		if err, wrong := p.VerifyChecksums(); err != nil || len(wrong) > 0 {
			t.Errorf("gopacket finds wrong checksums: %v, %v", err, wrong)
		}
	}
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	option := func(opts layers.ICMPv6Options, kind layers.ICMPv6Opt) {
		n.MAC = n.From
		for _, o := range opts {
			if o.Type == kind {
				n.MAC = MAC(o.Data)
			}
		}
	}
	if ns, ok := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation); ok {
		n.Kind, n.Sender = Asks, src
		n.Target, _ = netip.AddrFromSlice(ns.TargetAddress)
		option(ns.Options, layers.ICMPv6OptSourceAddress)
		return n, ip.HopLimit == 255
	}
	if na, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement); ok {
		n.Kind, n.Target, n.Gratuitous = Answers, dst, !na.Solicited()
		n.Sender, _ = netip.AddrFromSlice(na.TargetAddress)
		option(na.Options, layers.ICMPv6OptTargetAddress)
		if n.Gratuitous && !na.Override() {
			t.Error("an unsolicited advertisement that does not override")
		}
		return n, ip.HopLimit == 255
	}
	return n, false
}

// What a Linux kernel and keepalived 2.2.7 send, as tcpdump saw it between two
// network namespaces (see vrrp/testdata/keepalived-2.2.7.txt).
func TestRecordedFrames(t *testing.T) {
	four := netip.MustParseAddr("192.0.2.100")
	link1, link2 := netip.MustParseAddr("fe80::ff:fe00:1"), netip.MustParseAddr("fe80::ff:fe00:2")
	for name, c := range map[string]struct {
		frame string
		want  Neighbour
	}{
		"keepalived, gratuitous ARP": {"ffffffffffff02000000000108060001080006040001020000000001c0000264ffffffffffffc0000264",
			Neighbour{Kind: Asks, Sender: four, MAC: macA, Target: four, From: macA, To: toAll, Gratuitous: true}},
		"keepalived, unsolicited advertisement": {"33330000000102000000000186dd6000000000203aff20010db8000000000000000000000100ff0200000000000000000000000000018800f72c2000000020010db80000000000000000000001000201020000000001",
			Neighbour{Kind: Answers, Sender: netip.MustParseAddr("2001:db8::100"), MAC: macA, Target: ff02, From: macA, To: toAllNodes, Gratuitous: true}},
		"Linux, request": {"ffffffffffff02000000000108060001080006040001020000000001c0000201000000000000c0000202",
			Neighbour{Kind: Asks, Sender: fourA, MAC: macA, Target: fourB, From: macA, To: toAll}},
		"Linux, reply": {"02000000000102000000000208060001080006040002020000000002c0000202020000000001c0000201",
			Neighbour{Kind: Answers, Sender: fourB, MAC: macB, Target: fourA, From: macB, To: macA}},
		"Linux, request to one host": {"02000000000102000000000208060001080006040001020000000002c0000202000000000000c0000201",
			Neighbour{Kind: Asks, Sender: fourB, MAC: macB, Target: fourA, From: macB, To: macA}},
		"Linux, solicitation": {"3333ff00000202000000000186dd6000000000203afffe80000000000000000000fffe000001ff0200000000000000000001ff00000287007c9700000000fe80000000000000000000fffe0000020101020000000001",
			Neighbour{Kind: Asks, Sender: link1, MAC: macA, Target: link2, From: macA, To: MAC{0x33, 0x33, 0xff, 0, 0, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			frame, err := hex.DecodeString(c.frame)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := ParseNeighbour(frame)
			if d := cmp.Diff(c.want, got, equal); !ok || d != "" {
				t.Errorf("%v; want -, got +:\n%s", ok, d)
			}
			second, ok := decode(t, frame)
			if d := cmp.Diff(c.want, second, equal); !ok || d != "" {
				t.Errorf("gopacket %v; want -, got +:\n%s", ok, d)
			}
		})
	}
}

// nd makes a neighbour discovery frame with gopacket, with whatever is wrong.
func nd(t testing.TB, change func(eth *layers.Ethernet, ip *layers.IPv6, icmp *layers.ICMPv6), body gopacket.SerializableLayer) []byte {
	t.Helper()
	kind := layers.ICMPv6TypeNeighborAdvertisement
	if _, ok := body.(*layers.ICMPv6NeighborSolicitation); ok {
		kind = layers.ICMPv6TypeNeighborSolicitation
	}
	eth := &layers.Ethernet{SrcMAC: macB[:], DstMAC: macA[:], EthernetType: layers.EthernetTypeIPv6}
	ip := &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolICMPv6, HopLimit: 255, SrcIP: sixB.AsSlice(), DstIP: sixA.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(uint8(kind), 0)}
	if change != nil {
		change(eth, ip, icmp)
	}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, icmp, body); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestNeighbourDiscovery(t *testing.T) {
	unspecified := netip.IPv6Unspecified().AsSlice()
	group := netip.MustParseAddr("ff02::1:ff02:3456")
	source := layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: macC[:]}}
	target := layers.ICMPv6Options{{Type: layers.ICMPv6OptMTU, Data: make([]byte, 6)}, {Type: layers.ICMPv6OptTargetAddress, Data: macC[:]}}
	const solicited = 0x40
	type change = func(eth *layers.Ethernet, ip *layers.IPv6, icmp *layers.ICMPv6)
	for name, c := range map[string]struct {
		change change
		body   gopacket.SerializableLayer
		want   Neighbour // zero: refused
	}{
		"an answer": {nil, &layers.ICMPv6NeighborAdvertisement{TargetAddress: sixB.AsSlice(), Flags: solicited, Options: target},
			Neighbour{Kind: Answers, Sender: sixB, MAC: macC, Target: sixA, From: macB, To: macA}},
		"an answer without the option": {nil, &layers.ICMPv6NeighborAdvertisement{TargetAddress: sixB.AsSlice(), Flags: solicited},
			Neighbour{Kind: Answers, Sender: sixB, MAC: macB, Target: sixA, From: macB, To: macA}},
		"a question without the option": {nil, &layers.ICMPv6NeighborSolicitation{TargetAddress: sixA.AsSlice()},
			Neighbour{Kind: Asks, Sender: sixB, MAC: macB, Target: sixA, From: macB, To: macA}},
		"whether an address is free": {func(_ *layers.Ethernet, ip *layers.IPv6, _ *layers.ICMPv6) {
			ip.SrcIP, ip.DstIP = unspecified, group.AsSlice()
		},
			&layers.ICMPv6NeighborSolicitation{TargetAddress: sixB.AsSlice()},
			Neighbour{Kind: Asks, Sender: netip.IPv6Unspecified(), MAC: macB, Target: sixB, From: macB, To: macA}},
		"the same with an option": {func(_ *layers.Ethernet, ip *layers.IPv6, _ *layers.ICMPv6) {
			ip.SrcIP, ip.DstIP = unspecified, group.AsSlice()
		},
			&layers.ICMPv6NeighborSolicitation{TargetAddress: sixB.AsSlice(), Options: source}, Neighbour{}},
		"the same to a host": {func(_ *layers.Ethernet, ip *layers.IPv6, _ *layers.ICMPv6) { ip.SrcIP = unspecified },
			&layers.ICMPv6NeighborSolicitation{TargetAddress: sixB.AsSlice()}, Neighbour{}},
		"from another link": {func(_ *layers.Ethernet, ip *layers.IPv6, _ *layers.ICMPv6) { ip.HopLimit = 254 },
			&layers.ICMPv6NeighborSolicitation{TargetAddress: sixA.AsSlice(), Options: source}, Neighbour{}},
		"another code": {func(_ *layers.Ethernet, _ *layers.IPv6, icmp *layers.ICMPv6) { icmp.TypeCode |= 1 },
			&layers.ICMPv6NeighborSolicitation{TargetAddress: sixA.AsSlice(), Options: source}, Neighbour{}},
		"another type": {func(_ *layers.Ethernet, _ *layers.IPv6, icmp *layers.ICMPv6) {
			icmp.TypeCode = layers.CreateICMPv6TypeCode(137, 0)
		},
			&layers.ICMPv6NeighborSolicitation{TargetAddress: sixA.AsSlice(), Options: source}, Neighbour{}},
		"a group asked for": {nil, &layers.ICMPv6NeighborSolicitation{TargetAddress: ff02.AsSlice(), Options: source}, Neighbour{}},
		"nothing asked for": {nil, &layers.ICMPv6NeighborSolicitation{TargetAddress: unspecified, Options: source}, Neighbour{}},
		"a group asks": {func(_ *layers.Ethernet, ip *layers.IPv6, _ *layers.ICMPv6) { ip.SrcIP = ff02.AsSlice() },
			&layers.ICMPv6NeighborSolicitation{TargetAddress: sixA.AsSlice(), Options: source}, Neighbour{}},
		"solicited by all": {func(_ *layers.Ethernet, ip *layers.IPv6, _ *layers.ICMPv6) { ip.DstIP = ff02.AsSlice() },
			&layers.ICMPv6NeighborAdvertisement{TargetAddress: sixB.AsSlice(), Flags: solicited, Options: target}, Neighbour{}},
		"an answer from nobody": {func(_ *layers.Ethernet, ip *layers.IPv6, _ *layers.ICMPv6) { ip.SrcIP = unspecified },
			&layers.ICMPv6NeighborAdvertisement{TargetAddress: sixB.AsSlice(), Flags: solicited, Options: target}, Neighbour{}},
		"an option of two units": {nil, &layers.ICMPv6NeighborSolicitation{TargetAddress: sixA.AsSlice(),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: make([]byte, 14)}}}, Neighbour{}},
		"at a group's MAC": {nil, &layers.ICMPv6NeighborSolicitation{TargetAddress: sixA.AsSlice(),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: toAllNodes[:]}}}, Neighbour{}},
		"from a group's MAC": {func(eth *layers.Ethernet, _ *layers.IPv6, _ *layers.ICMPv6) { eth.SrcMAC = toAllNodes[:] },
			&layers.ICMPv6NeighborSolicitation{TargetAddress: sixA.AsSlice(), Options: source}, Neighbour{}},
	} {
		frame := nd(t, c.change, c.body)
		got, ok := ParseNeighbour(frame)
		if d := cmp.Diff(c.want, got, equal); d != "" || ok != (c.want.Kind != 0) {
			t.Errorf("%s: %v; want -, got +:\n%s", name, ok, d)
		}
	}

	// Damage that gopacket does not make.
	good := Ask(nil, macA, sixA, sixB)
	for name, damage := range map[string]func([]byte){
		"checksum":             func(b []byte) { b[60] ^= 1 },
		"version":              func(b []byte) { b[14] = 0x45 },
		"next header":          func(b []byte) { b[20] = 0 },
		"option of length 0":   func(b []byte) { b[79] = 0; seal(b) },
		"option longer than b": func(b []byte) { b[79] = 2; seal(b) },
		"payload longer":       func(b []byte) { b[19]++ },
		"payload shorter":      func(b []byte) { b[19] -= 4; seal(b[:len(b)-4]) },
		"EtherType":            func(b []byte) { b[13]++ },
	} {
		bad := bytes.Clone(good)
		damage(bad)
		if got, ok := ParseNeighbour(bad); ok {
			t.Errorf("%s: taken as %+v", name, got)
		}
	}
}

// seal sets the checksum anew.
func seal(frame []byte) {
	msg := frame[ethernetSize+ipv6Size:]
	msg[2], msg[3] = 0, 0
	sum := ^checksum(frame[22:38], frame[38:54], msg)
	msg[2], msg[3] = byte(sum>>8), byte(sum)
}

func TestARPRefused(t *testing.T) {
	good := Ask(nil, macA, fourA, fourB)
	reply := GratuitousARP(nil, macA, fourA, true)
	for name, c := range map[string]struct {
		frame  []byte
		damage func([]byte)
	}{
		"hardware":               {good, func(b []byte) { b[15] = 6 }},
		"protocol":               {good, func(b []byte) { b[16] = 0x86 }},
		"hardware length":        {good, func(b []byte) { b[18] = 8 }},
		"protocol length":        {good, func(b []byte) { b[19] = 16 }},
		"operation 0":            {good, func(b []byte) { b[21] = 0 }},
		"operation 3":            {good, func(b []byte) { b[21] = 3 }},
		"a sender's group MAC":   {good, func(b []byte) { b[22] |= 1 }},
		"no sender's MAC":        {good, func(b []byte) { clear(b[22:28]) }},
		"a sender in a group":    {good, func(b []byte) { b[28] = 224 }},
		"a sender for all":       {good, func(b []byte) { copy(b[28:], []byte{255, 255, 255, 255}) }},
		"a target in a group":    {good, func(b []byte) { b[38] = 224 }},
		"a reply from 0.0.0.0":   {reply, func(b []byte) { clear(b[28:32]) }},
		"from a group's MAC":     {good, func(b []byte) { b[6] |= 1 }},
		"with a VLAN tag inside": {good, func(b []byte) { b[12], b[13] = 0x81, 0 }},
	} {
		bad := bytes.Clone(c.frame)
		c.damage(bad)
		if got, ok := ParseNeighbour(bad); ok {
			t.Errorf("%s: taken as %+v", name, got)
		}
	}
}

// Whatever is asked and told, both decoders read it so.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		mac := func(label string) (m MAC) {
			copy(m[:], rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(r, label))
			m[0] = m[0]&^1 | 2
			return m
		}
		address := func(six bool, label string) netip.Addr {
			if six {
				raw := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(r, label))
				raw[0] = 0x20 // no group, not mapped
				return netip.AddrFrom16(raw)
			}
			raw := [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(r, label))
			raw[0] = raw[0]%223 + 1
			return netip.AddrFrom4(raw)
		}
		six := rapid.Bool().Draw(r, "six")
		own, as, from, target := mac("own"), mac("as"), address(six, "from"), address(six, "target")
		frame := AskFor([]byte("before"), own, as, from, target)[6:]
		got, ok := ParseNeighbour(frame)
		want := Neighbour{Kind: Asks, Sender: from, MAC: as, Target: target, From: own, To: got.To, Gratuitous: !six && from == target}
		if !ok || got != want {
			r.Fatalf("%v, %+v, want %+v", ok, got, want)
		}
		if second, ok := decode(t, frame); !ok || second != want {
			r.Fatalf("gopacket %v, %+v, want %+v", ok, second, want)
		}
		reply := !six && rapid.Bool().Draw(r, "reply")
		frame = Announce(nil, own, target, reply)
		got, ok = ParseNeighbour(frame)
		if second, also := decode(t, frame); !ok || !also || second != got || got.Sender != target || got.MAC != own || !got.Gratuitous {
			r.Fatalf("%v, %+v, gopacket %v, %+v", ok, got, also, second)
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	b := make([]byte, 0, MaxFrame)
	if n := testing.AllocsPerRun(100, func() {
		for _, frame := range [][]byte{
			GratuitousARP(b, macA, fourA, true), UnsolicitedNA(b, macA, sixA), Ask(b, macA, sixA, sixB),
			AskFor(b, macA, macB, fourA, fourB), AskHost(b, macA, sixA, sixB, macB),
		} {
			if len(frame) == 0 {
				t.Error("empty")
			}
		}
		if _, ok := ParseNeighbour(Ask(b, macA, sixA, sixB)); !ok {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzParseNeighbour: no input panics; what is taken says who and what, and
// gopacket, which is less strict, reads the same.
func FuzzParseNeighbour(f *testing.F) {
	for _, c := range made {
		f.Add(c.frame, false)
	}
	f.Add(nd(f, nil, &layers.ICMPv6NeighborAdvertisement{TargetAddress: sixB.AsSlice(), Flags: 0x60}), true)
	f.Fuzz(func(t *testing.T, frame []byte, sealed bool) {
		if sealed && len(frame) >= ethernetSize+ipv6Size+ndSize { // or most inputs fail at the checksum
			const before = ethernetSize + ipv6Size
			seal(frame[:min(len(frame), before+max(ndSize, int(frame[18])<<8+int(frame[19])))])
		}
		n, ok := ParseNeighbour(frame)
		if !ok {
			if n != (Neighbour{}) {
				t.Errorf("refused, and yet %+v", n)
			}
			return
		}
		if n.Kind != Asks && n.Kind != Answers || !n.Sender.IsValid() || !n.Target.IsValid() || n.MAC == (MAC{}) || n.Sender.Is4() != n.Target.Is4() {
			t.Errorf("%+v", n)
		}
		if n.Kind == Answers && n.Sender.IsUnspecified() {
			t.Errorf("an answer about nothing: %+v", n)
		}
	})
}
