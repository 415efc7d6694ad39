package notice

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	local4  = netip.MustParseAddrPort("192.0.2.100:80")
	remote4 = netip.MustParseAddrPort("198.51.100.7:40000")
	local6  = netip.MustParseAddrPort("[2001:db8::100]:80")
	remote6 = netip.MustParseAddrPort("[2001:db8:1::7]:40000")
)

var segments = []Segment{
	{From: local4, To: remote4, Seq: 0xfffffffe, Ack: 7, Flags: ACK, Window: 0xffff, Length: 1},
	{From: local6, To: remote6, Seq: 0xfffffffe, Ack: 7, Flags: ACK, Window: 0xffff, Length: 1},
	{From: local4, To: remote4, Seq: 1 << 31, Flags: RST},
	{From: local6, To: remote6, Seq: 1 << 31, Flags: RST},
	{From: local4, To: remote4, Seq: 1, Ack: 2, Flags: ACK, HasStamp: true, Stamp: 0x01020304, Echo: 0xffffffff},
	{From: local6, To: remote6, Seq: 1, Ack: 2, Flags: ACK | PSH | FIN, HasStamp: true, Stamp: 0x01020304, Length: 1023},
	{From: remote4, To: local4, Flags: SYN | URG, Window: 1, Length: MaxData},
}

// What is written is read by another decoder, which checks the checksums, and
// read here.
func TestSegment(t *testing.T) {
	for _, want := range segments {
		packet, err := want.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := oracle(t, packet); got != want {
			t.Errorf("another decoder reads another segment:\n%s", cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })))
		}
		if got, ok := ParseSegment(packet); !ok || got != want {
			t.Errorf("%v is read as %v, %v", want, got, ok)
		}
		// Cut behind the header, as a capture is.
		if got, ok := ParseSegment(packet[:len(packet)-want.Length]); !ok || got != want {
			t.Errorf("%v without its data is read as %v, %v", want, got, ok)
		}
		if _, ok := ParseSegment(packet[:len(packet)-want.Length-1]); ok {
			t.Errorf("%v is read without the end of its header", want)
		}
	}
}

// oracle decodes a packet with gopacket.
func oracle(t *testing.T, packet []byte) (s Segment) {
	t.Helper()
	first := layers.LayerTypeIPv4
	if packet[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(packet, first, gopacket.DecodeOptions{})
	if p.ErrorLayer() != nil {
		t.Fatalf("another decoder refuses it: %v", p.ErrorLayer().Error())
	}
	if err := p.TransportLayer().(*layers.TCP).SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	if err, mismatches := p.VerifyChecksums(); err != nil || len(mismatches) > 0 {
		t.Fatalf("checksums: %v, %v", err, mismatches)
	}
	var from, to netip.Addr
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		from, _ = netip.AddrFromSlice(ip.SrcIP)
		to, _ = netip.AddrFromSlice(ip.DstIP)
		if ip.Flags != layers.IPv4DontFragment || ip.TTL != 64 || int(ip.Length) != len(packet) {
			t.Errorf("IPv4: %+v", ip)
		}
	case *layers.IPv6:
		from, _ = netip.AddrFromSlice(ip.SrcIP)
		to, _ = netip.AddrFromSlice(ip.DstIP)
		if ip.HopLimit != 64 || int(ip.Length) != len(packet)-40 {
			t.Errorf("IPv6: %+v", ip)
		}
	}
	tcp := p.TransportLayer().(*layers.TCP)
	s = Segment{
		From: netip.AddrPortFrom(from, uint16(tcp.SrcPort)), To: netip.AddrPortFrom(to, uint16(tcp.DstPort)),
		Seq: tcp.Seq, Ack: tcp.Ack, Window: tcp.Window, Length: len(tcp.Payload),
	}
	for i, set := range []bool{tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK, tcp.URG} {
		if set {
			s.Flags |= 1 << i
		}
	}
	for _, o := range tcp.Options {
		switch o.OptionType {
		case layers.TCPOptionKindTimestamps:
			s.HasStamp = true
			s.Stamp, s.Echo = be32(o.OptionData), be32(o.OptionData[4:])
		case layers.TCPOptionKindSACK:
			s.HasBlock = true
			s.Block = [2]uint32{be32(o.OptionData), be32(o.OptionData[4:])}
		}
	}
	return s
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// Answers as kernels send them, made by another encoder.
func TestParseAnswers(t *testing.T) {
	sack := func(blocks ...uint32) layers.TCPOption {
		var b []byte
		for _, n := range blocks {
			b = append(b, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		}
		return layers.TCPOption{OptionType: layers.TCPOptionKindSACK, OptionLength: uint8(2 + len(b)), OptionData: b}
	}
	stamp := layers.TCPOption{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{0, 0, 0, 5, 0, 0, 0, 6}}
	nop := layers.TCPOption{OptionType: layers.TCPOptionKindNop}
	for _, x := range []struct {
		name    string
		options []layers.TCPOption
		want    Segment
	}{
		{"plain", nil, Segment{}},
		{"D-SACK", []layers.TCPOption{nop, nop, sack(4, 5)}, Segment{HasBlock: true, Block: [2]uint32{4, 5}}},
		{"D-SACK, blocks and stamp", []layers.TCPOption{nop, nop, stamp, nop, nop, sack(4, 5, 8, 9, 12, 13)}, Segment{HasBlock: true, Block: [2]uint32{4, 5}, HasStamp: true, Stamp: 5, Echo: 6}},
		{"unknown option first", []layers.TCPOption{{OptionType: 30, OptionLength: 4, OptionData: []byte{1, 2}}, stamp}, Segment{HasStamp: true, Stamp: 5, Echo: 6}},
		{"behind the end", []layers.TCPOption{{OptionType: layers.TCPOptionKindEndList}, stamp}, Segment{}},
	} {
		t.Run(x.name, func(t *testing.T) {
			want := x.want
			want.From, want.To, want.Seq, want.Ack, want.Flags, want.Window = remote4, local4, 1, 2, ACK, 3
			ip := &layers.IPv4{Version: 4, TTL: 3, Protocol: layers.IPProtocolTCP, SrcIP: remote4.Addr().AsSlice(), DstIP: local4.Addr().AsSlice(),
				Options: []layers.IPv4Option{{OptionType: 1}}}
			tcp := &layers.TCP{SrcPort: layers.TCPPort(remote4.Port()), DstPort: layers.TCPPort(local4.Port()), Seq: 1, Ack: 2, ACK: true, Window: 3, Options: x.options}
			if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
				t.Fatal(err)
			}
			b := gopacket.NewSerializeBuffer()
			if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp); err != nil {
				t.Fatal(err)
			}
			if got, ok := ParseSegment(b.Bytes()); !ok || got != want {
				t.Errorf("read as %+v, %v; want %+v", got, ok, want)
			}
		})
	}
}

func TestAppendToRefuses(t *testing.T) {
	for _, s := range []Segment{
		{From: local4, To: remote6},
		{To: remote4},
		{From: local4, To: remote4, Length: -1},
		{From: local4, To: remote4, Length: MaxData + 1},
	} {
		if b, err := s.AppendTo([]byte("x")); err == nil || string(b) != "x" {
			t.Errorf("%+v gives %q, %v", s, b, err)
		}
	}
}

func TestAppendToDoesNotAllocate(t *testing.T) {
	b := make([]byte, 0, MaxPacket+1)
	for _, s := range segments {
		if s.Length > 1 {
			continue
		}
		if n := testing.AllocsPerRun(100, func() {
			p, _ := s.AppendTo(b)
			_, _ = ParseSegment(p)
		}); n != 0 {
			t.Errorf("%v: %v allocations", s, n)
		}
	}
}

// What is read can be written, and is the same again.
func FuzzParseSegment(f *testing.F) {
	for _, s := range segments {
		p, err := s.AppendTo(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		s, ok := ParseSegment(packet)
		if !ok {
			if s != (Segment{}) {
				t.Fatalf("not read, and yet %+v", s)
			}
			return
		}
		if s.Length < 0 || s.Length > 65535 || !s.From.IsValid() || s.From.Addr().Is4() != s.To.Addr().Is4() {
			t.Fatalf("read as %+v", s)
		}
		s.HasBlock, s.Block = false, [2]uint32{}
		if !s.HasStamp && (s.Stamp != 0 || s.Echo != 0) {
			t.Fatalf("read as %+v", s)
		}
		if s.Length > MaxData {
			return
		}
		again, err := s.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := ParseSegment(again); !ok || got != s {
			t.Fatalf("%+v is written and read as %+v", s, got)
		}
	})
}
