package sockdiag

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// message builds an answer: a struct inet_diag_msg, whose numbers all differ, and
// attributes.
func message(family byte, local, remote netip.AddrPort, attributes ...[]byte) []byte {
	b := []byte{family, byte(CloseWait), byte(KeepaliveTimer), 3}
	b = binary.BigEndian.AppendUint16(b, local.Port())
	b = binary.BigEndian.AppendUint16(b, remote.Port())
	for _, a := range []netip.Addr{local.Addr(), remote.Addr()} {
		var field [16]byte
		copy(field[:], a.AsSlice())
		b = append(b, field[:]...)
	}
	for _, n := range []uint32{7, 0x55667788, 0x11223344, 1500, 21, 22, 23, 24} {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	for _, a := range attributes {
		b = append(b, a...)
	}
	return b
}

func attribute(kind uint16, value ...byte) []byte { return appendAttribute(nil, kind, value) }

func TestDecode(t *testing.T) {
	base := Socket{
		State: CloseWait, Cookie: 0x1122334455667788, Interface: 7, Inode: 24, UID: 23, ReceiveQueue: 21, SendQueue: 22,
		Timer: KeepaliveTimer, TimerLeft: 1500 * time.Millisecond, Retransmits: 3,
	}
	with := func(local, remote string, change func(*Socket)) Socket {
		s := base
		s.Local, s.Remote = netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)
		if change != nil {
			change(&s)
		}
		return s
	}
	ap := netip.MustParseAddrPort
	for _, tt := range []struct {
		name string
		b    []byte
		want Socket
	}{
		{"IPv4", message(2, ap("192.0.2.1:80"), ap("192.0.2.2:5000")), with("192.0.2.1:80", "192.0.2.2:5000", nil)},
		{"IPv6", message(10, ap("[2001:db8::1]:80"), ap("[2001:db8::2]:5000")), with("[2001:db8::1]:80", "[2001:db8::2]:5000", nil)},
		{"mapped", message(10, ap("[::ffff:192.0.2.1]:80"), ap("[::ffff:192.0.2.2]:5000")),
			with("192.0.2.1:80", "192.0.2.2:5000", func(s *Socket) { s.Mapped = true })},
		{"mapped, listens", message(10, ap("[::ffff:192.0.2.1]:80"), ap("[::]:0")),
			with("192.0.2.1:80", "0.0.0.0:0", func(s *Socket) { s.Mapped = true })},
		{"attributes", message(2, ap("192.0.2.1:80"), ap("192.0.2.2:5000"),
			attribute(attributeShutdown, 2), attribute(attributeMark, binary.NativeEndian.AppendUint32(nil, 0xabcd)...),
			attribute(99, 1, 2, 3), attribute(attributeV6Only, 1), attribute(attributeInfo|0x8000, byte(CloseWait)),
			attribute(attributeCgroup, binary.NativeEndian.AppendUint64(nil, 1<<40)...)),
			with("192.0.2.1:80", "192.0.2.2:5000", func(s *Socket) {
				s.Shutdown, s.Mark, s.V6Only, s.Cgroup = SendEnded, 0xabcd, true, 1<<40
				s.Info = &TCPInfo{State: CloseWait, Size: 1}
			})},
		{"attributes that are too short are none", message(2, ap("192.0.2.1:80"), ap("192.0.2.2:5000"),
			attribute(attributeShutdown), attribute(attributeMark, 1), attribute(attributeCgroup, 1, 2, 3, 4), attribute(attributeInfo), attribute(attributeV6Only)),
			with("192.0.2.1:80", "192.0.2.2:5000", nil)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decode(tt.b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"cut off":               message(2, ap("192.0.2.1:80"), ap("192.0.2.2:5000"))[:71],
		"a unix socket":         message(1, ap("192.0.2.1:80"), ap("192.0.2.2:5000")),
		"a rest of 3 bytes":     append(message(2, ap("192.0.2.1:80"), ap("192.0.2.2:5000")), 1, 2, 3),
		"an attribute of 3":     append(message(2, ap("192.0.2.1:80"), ap("192.0.2.2:5000")), 3, 0, 2, 0),
		"an attribute too long": append(message(2, ap("192.0.2.1:80"), ap("192.0.2.2:5000")), 9, 0, 2, 0, 1, 2, 3, 4),
	} {
		if s, err := decode(b); err == nil {
			t.Errorf("%s: decoded as %+v", name, s)
		}
	}
}

// A socket as Linux 6.18 on a little-endian machine told it: an accepted
// connection of a dual-stack listener, with its mark.
func TestDecodeRecorded(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("recorded on a little-endian machine")
	}
	b, err := hex.DecodeString(strings.ReplaceAll(recorded, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	s, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if s.String() != "127.0.0.2:1003 -> 127.0.0.1:33344 established" || !s.Mapped || s.Mark != 0x2a || s.ReceiveQueue != 5 {
		t.Errorf("%+v", s)
	}
	if s.Info == nil || s.Info.BytesReceived != 5 || s.Info.ReceiveScale == 0 {
		t.Errorf("%+v", s.Info)
	}
}

// Requests are what the kernel's headers say.
func TestRequests(t *testing.T) {
	got := appendRequest(nil, afInet6, Live, true)
	want := make([]byte, 56)
	want[0], want[1], want[2] = 10, 6, 1<<1
	binary.NativeEndian.PutUint32(want[4:], 1<<1|1<<2|1<<3|1<<4|1<<5|1<<8|1<<9|1<<11)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n%x\n%x", got, want)
	}
	ap := netip.MustParseAddrPort
	for _, tt := range []struct {
		family        byte
		local, remote netip.AddrPort
		want          string // ports and addresses
	}{
		{afInet, ap("192.0.2.1:258"), ap("192.0.2.2:772"), "01020304" + "c0000201" + strings.Repeat("00", 12) + "c0000202" + strings.Repeat("00", 12)},
		{afInet6, ap("192.0.2.1:258"), ap("192.0.2.2:772"), "01020304" + "00000000000000000000ffffc0000201" + "00000000000000000000ffffc0000202"},
		{afInet6, ap("[2001:db8::1]:258"), ap("[2001:db8::2]:772"), "01020304" + "20010db8000000000000000000000001" + "20010db8000000000000000000000002"},
	} {
		b := appendExact(nil, tt.family, tt.local, tt.remote, 9, 0x1122334455667788)
		if len(b) != 56 || b[0] != tt.family || hex.EncodeToString(b[8:44]) != tt.want {
			t.Errorf("%x, want %s behind the first 8", b, tt.want)
		}
		for i, n := range []uint32{9, 0x55667788, 0x11223344} {
			if got := binary.NativeEndian.Uint32(b[44+4*i:]); got != n {
				t.Errorf("word %d behind the addresses is %#x, want %#x", i, got, n)
			}
		}
	}
}

// Whatever comes, decode does not panic, and what it takes it takes whole.
func FuzzDecode(f *testing.F) {
	ap := netip.MustParseAddrPort
	f.Add(message(2, ap("192.0.2.1:80"), ap("192.0.2.2:5000"), attribute(attributeMark, 1, 2, 3, 4), attribute(attributeInfo, make([]byte, 248)...)))
	f.Add(message(10, ap("[::ffff:192.0.2.1]:80"), ap("[::]:0"), attribute(attributeV6Only, 1), attribute(attributeCgroup, 1, 2, 3, 4, 5, 6, 7, 8)))
	f.Add(append(message(10, ap("[2001:db8::1]:80"), ap("[2001:db8::2]:0")), 3, 0, 2, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decode(b)
		if err != nil {
			return
		}
		if !s.Local.IsValid() || !s.Remote.IsValid() || s.Local.Addr().Is4In6() || s.Mapped && !s.Local.Addr().Is4() {
			t.Errorf("%+v", s)
		}
		// What is decoded can be asked for again, by the same bytes.
		family := b[0]
		again := appendExact(nil, family, s.Local, s.Remote, s.Interface, s.Cookie)
		id, asked := b[messageID:messageID+idSize], again[requestID:]
		n := 16
		if family == afInet {
			n = 4
		}
		for name, at := range map[string][2]int{"ports and local address": {0, idLocal + n}, "link and cookie": {idInterface, idSize}} {
			if !reflect.DeepEqual(id[at[0]:at[1]], asked[at[0]:at[1]]) {
				t.Errorf("%s of %+v:\n%x\n%x", name, s, id, asked)
			}
		}
		if s.Info != nil && (s.Info.RTT < 0 || s.Info.Busy < 0 || s.Info.Size <= 0) {
			t.Errorf("%+v", s.Info)
		}
		_ = s.String()
	})
}

func TestParseTCPInfo(t *testing.T) {
	// Every field with a number of its own, by its place in linux/tcp.h.
	whole := make([]byte, tcpInfoSize)
	put32 := func(at int, v uint32) { binary.NativeEndian.PutUint32(whole[at:], v) }
	put64 := func(at int, v uint64) { binary.NativeEndian.PutUint64(whole[at:], v) }
	for at := 8; at < 104; at += 4 {
		put32(at, uint32(at))
	}
	for _, at := range []int{104, 112, 120, 128, 160, 168, 176, 184, 200, 208} {
		put64(at, uint64(at))
	}
	for _, at := range []int{136, 140, 144, 148, 152, 156, 192, 196, 216, 220, 224, 228, 232, 236, 244} {
		put32(at, uint32(at))
	}
	copy(whole, []byte{byte(Established), byte(CongestionLoss), 2, 3, 4, byte(OptionSACK | OptionFastOpened)})
	binary.NativeEndian.PutUint16(whole[240:], 240)
	binary.NativeEndian.PutUint16(whole[242:], 242)
	us, ms := time.Microsecond, time.Millisecond
	want := TCPInfo{
		State: Established, CongestionState: CongestionLoss, Retransmits: 2, Probes: 3, Backoff: 4, Options: OptionSACK | OptionFastOpened,
		RTO: 8 * us, ACKTimeout: 12 * us, SendMSS: 16, ReceiveMSS: 20, Unacked: 24, Sacked: 28, Lost: 32, Retransmitting: 36,
		LastSent: 44 * ms, LastReceived: 52 * ms, LastACK: 56 * ms, PathMTU: 60, ReceiveThreshold: 64, RTT: 68 * us, RTTVar: 72 * us,
		SlowStartThreshold: 76, CongestionWindow: 80, AdvertisedMSS: 84, Reordering: 88, ReceiveRTT: 92 * us, ReceiveSpace: 96,
		SegmentsRetransmitted: 100, PacingRate: 104, MaxPacingRate: 112, BytesAcked: 120, BytesReceived: 128, SegmentsSent: 136,
		SegmentsReceived: 140, BytesUnsent: 144, MinRTT: 148 * us, DataSegmentsReceived: 152, DataSegmentsSent: 156, DeliveryRate: 160,
		Busy: 168 * us, WindowLimited: 176 * us, BufferLimited: 184 * us, SegmentsDelivered: 192, SegmentsDeliveredCE: 196,
		BytesSent: 200, BytesRetransmitted: 208, DuplicatesReported: 216, ReorderingsSeen: 220, SegmentsOutOfOrder: 224,
		SendWindow: 228, ReceiveWindow: 232, Rehashes: 236, RTOs: 240, RTORecoveries: 242, RTOTime: 244 * ms, Size: 248,
	}
	if diff := cmp.Diff(want, ParseTCPInfo(whole)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// Linux 4.9 told 168 bytes, 3.10 104; a later one will tell more.
	old := ParseTCPInfo(whole[:168])
	if old.DeliveryRate != 160 || old.Busy != 0 || old.SendWindow != 0 || old.Size != 168 {
		t.Errorf("of 168 bytes: %+v", old)
	}
	if later := ParseTCPInfo(append(append([]byte{}, whole...), 1, 2, 3, 4)); later.RTOTime != 244*ms || later.Size != 252 {
		t.Errorf("of 252 bytes: %+v", later)
	}
	if none := ParseTCPInfo(nil); none != (TCPInfo{}) {
		t.Errorf("of nothing: %+v", none)
	}

	// What stands for no limit, and for nothing measured.
	put64(104, math.MaxUint64)
	put64(112, math.MaxUint64)
	put32(76, 0x7fffffff)
	put32(148, math.MaxUint32)
	put64(168, math.MaxUint64)
	whole[0] = byte(Listen)
	odd := ParseTCPInfo(whole)
	if odd.PacingRate != 0 || odd.MaxPacingRate != 0 || odd.SlowStartThreshold != 0 || odd.MinRTT != 0 || odd.Busy < 0 || odd.Unacked != 0 || odd.Sacked != 0 {
		t.Errorf("%+v", odd)
	}
}

func TestStates(t *testing.T) {
	for s := range State(16) {
		known := !strings.HasPrefix(s.String(), "state ")
		if known != AllStates.Has(s) {
			t.Errorf("%d is %q, among all states: %t", s, s, AllStates.Has(s))
		}
	}
	if got := (StatesOf(Listen, Established)).String(); got != "established|listen" {
		t.Error(got)
	}
	if Live.Has(TimeWait) || !Live.Has(LastAck) || Live.Has(Listen) {
		t.Errorf("live: %s", Live)
	}
}
