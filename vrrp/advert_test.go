package vrrp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

var (
	four1, four2 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	link1, link2 = netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
	addrs        = cmpopts.EquateComparable(netip.Addr{})
)

func addresses(text string) (all []netip.Addr) {
	for a := range strings.FieldsSeq(text) {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func mustAppend(t testing.TB, a Advert, src, dst netip.Addr) []byte {
	t.Helper()
	b, err := a.AppendTo(nil, src, dst)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// second decodes the message with gopacket, which knows version 2 only: the
// header's fields lie in the same places, the interval where that had the type of
// authentication and its own interval.
func second(t testing.TB, msg []byte) layers.VRRPv2 {
	t.Helper()
	var v layers.VRRPv2
	if err := v.DecodeFromBytes(msg, gopacket.NilDecodeFeedback); err != nil {
		t.Fatalf("gopacket: %v", err)
	}
	return v
}

func agree(t testing.TB, a Advert, msg []byte) {
	t.Helper()
	v := second(t, msg)
	interval := time.Duration(int(v.AuthType)<<8|int(v.AdverInt)) & 0xfff * MinInterval
	if v.Version != 3 || v.Type != layers.VRRPv2Advertisement || v.VirtualRtrID != a.ID || v.Priority != a.Priority || int(v.CountIPAddr) != len(a.Addresses) || interval != a.Interval {
		t.Errorf("gopacket reads %+v, we %+v", v, a)
	}
	if a.Family != IPv4 {
		return // it knows no longer addresses
	}
	for i, ip := range v.IPAddress {
		if got, _ := netip.AddrFromSlice(ip); got != a.Addresses[i] {
			t.Errorf("gopacket reads address %d as %v, we as %v", i, got, a.Addresses[i])
		}
	}
}

// What keepalived has sent is read, and sent again byte by byte.
func TestKeepalivedFrames(t *testing.T) {
	text, err := os.ReadFile("testdata/keepalived-2.2.7.txt")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		name, digits, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		found++
		t.Run(name, func(t *testing.T) {
			frame, err := hex.DecodeString(digits)
			if err != nil {
				t.Fatal(err)
			}
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			var msg []byte
			hops := 0
			want := Advert{ID: 51, Priority: 150, Interval: 250 * time.Millisecond}
			if ip, ok := p.NetworkLayer().(*layers.IPv4); ok {
				msg, hops, want.Family, want.Addresses = ip.Payload, int(ip.TTL), IPv4, addresses("192.0.2.100 192.0.2.101")
			} else if ip, ok := p.NetworkLayer().(*layers.IPv6); ok {
				msg, hops, want.Family, want.Addresses = ip.Payload, int(ip.HopLimit), IPv6, addresses("fe80::100 2001:db8::100")
			} else {
				t.Fatalf("no IP in %v", p)
			}
			if strings.HasSuffix(name, "-stop") {
				want.Priority = PriorityStop
			}
			src, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
			dst, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
			if strings.Contains(name, "multicast") && (hops != HopLimit || dst != GroupIPv4 && dst != GroupIPv6) {
				t.Errorf("sent to %v with hop limit %d", dst, hops)
			}
			got, err := Parse(msg, src, dst)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, addrs); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
			agree(t, got, msg)
			if again := mustAppend(t, got, src, dst); !bytes.Equal(again, msg) {
				t.Errorf("keepalived sends\n%x, we\n%x", msg, again)
			}
			if c := want.Contradicts(got); c != 0 {
				t.Errorf("it contradicts: %v", c)
			}
		})
	}
	if found != 8 {
		t.Errorf("%d frames, want 8", found)
	}
}

func TestChecksum(t *testing.T) {
	a := Advert{Family: IPv4, ID: 7, Priority: 100, Interval: time.Second, Addresses: addresses("192.0.2.100")}
	msg := mustAppend(t, a, four1, GroupIPv4)
	if _, err := Parse(msg, four1, four2); !refused(err, WrongChecksum) {
		t.Errorf("to another destination: %v", err)
	}
	// Without the pseudo-header, as RFC 9568 has it in IPv4.
	plain := bytes.Clone(msg)
	plain[6], plain[7] = 0, 0
	binary.BigEndian.PutUint16(plain[6:], ^fold(sum(0, plain)))
	if bytes.Equal(plain, msg) {
		t.Fatal("the pseudo-header makes no difference")
	}
	if got, err := Parse(plain, four1, GroupIPv4); err != nil || got.ID != 7 {
		t.Errorf("without the pseudo-header: %+v, %v", got, err)
	}
	// In IPv6 it belongs to it.
	six := Advert{Family: IPv6, ID: 7, Priority: 100, Interval: time.Second, Addresses: addresses("fe80::100")}
	msg = mustAppend(t, six, link1, GroupIPv6)
	if _, err := Parse(msg, link1, GroupIPv6); err != nil {
		t.Error(err)
	}
	msg[6], msg[7] = 0, 0
	binary.BigEndian.PutUint16(msg[6:], ^fold(sum(0, msg)))
	if _, err := Parse(msg, link1, GroupIPv6); !refused(err, WrongChecksum) {
		t.Errorf("in IPv6 without the pseudo-header: %v", err)
	}
	// A zone is no part of an address.
	msg = mustAppend(t, six, link1.WithZone("eth0"), GroupIPv6)
	if _, err := Parse(msg, link1, GroupIPv6); err != nil {
		t.Error(err)
	}
}

func refused(err error, r Reason) bool {
	var e *ParseError
	return errors.As(err, &e) && e.Reason == r && strings.Contains(err.Error(), r.String())
}

func TestParseRefuses(t *testing.T) {
	base := Advert{Family: IPv4, ID: 7, Priority: 100, Interval: time.Second, Addresses: addresses("192.0.2.100 192.0.2.101")}
	good := mustAppend(t, base, four1, GroupIPv4)
	sign := func(b []byte) []byte {
		if len(b) >= headerSize {
			b[6], b[7] = 0, 0
			binary.BigEndian.PutUint16(b[6:], ^fold(sum(pseudo(four1, GroupIPv4, len(b)), b)))
		}
		return b
	}
	for name, c := range map[string]struct {
		want   Reason
		change func([]byte) []byte
	}{
		"empty":          {TooShort, func([]byte) []byte { return nil }},
		"half a header":  {TooShort, func(b []byte) []byte { return b[:7] }},
		"an address cut": {TooShort, func(b []byte) []byte { return sign(b[:len(b)-1]) }},
		"one too many":   {TooShort, func(b []byte) []byte { b[3] = 3; return sign(b) }},
		"version 2":      {WrongVersion, func(b []byte) []byte { b[0] = 0x21; return sign(b) }},
		"type 2":         {WrongType, func(b []byte) []byte { b[0] = 0x32; return sign(b) }},
		"a bit flipped":  {WrongChecksum, func(b []byte) []byte { b[9] ^= 4; return b }},
		"id 0":           {NoID, func(b []byte) []byte { b[1] = 0; return sign(b) }},
		"no addresses":   {NoAddresses, func(b []byte) []byte { b[3] = 0; return sign(b[:8]) }},
		"interval 0":     {NoInterval, func(b []byte) []byte { b[4], b[5] = 0xf0, 0; return sign(b) }},
	} {
		if _, err := Parse(c.change(bytes.Clone(good)), four1, GroupIPv4); !refused(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, ends := range [][2]netip.Addr{{four1, GroupIPv6}, {link1, GroupIPv4}, {{}, GroupIPv4}, {four1, {}}} {
		if _, err := Parse(good, ends[0], ends[1]); !refused(err, MixedFamilies) {
			t.Errorf("from %v to %v: %v", ends[0], ends[1], err)
		}
	}
	// The reserved bits are ignored, and so is what is behind the message.
	odd := bytes.Clone(good)
	odd[4] |= 0xf0
	odd = append(sign(odd), 1, 2, 3)
	if got, err := Parse(odd, four1, GroupIPv4); err != nil || !cmp.Equal(got, base, addrs) {
		t.Errorf("with reserved bits and padding: %+v, %v", got, err)
	}
}

func TestAppendRefuses(t *testing.T) {
	good := Advert{Family: IPv6, ID: 7, Priority: 100, Interval: time.Second, Addresses: addresses("fe80::100 2001:db8::100")}
	mustAppend(t, good, link1, link2)
	many := make([]netip.Addr, 256)
	for i := range many {
		many[i] = link1
	}
	for want, change := range map[string]func(*Advert){
		"families are 4 and 6": func(a *Advert) { a.Family = 5 },
		"ids are 1 to 255":     func(a *Advert) { a.ID = 0 },
		"interval 9ms":         func(a *Advert) { a.Interval = 9 * time.Millisecond },
		"interval 41s":         func(a *Advert) { a.Interval = 41 * time.Second },
		"interval 1.005s":      func(a *Advert) { a.Interval = 1005 * time.Millisecond },
		"with 0 addresses":     func(a *Advert) { a.Addresses = nil },
		"with 256 addresses":   func(a *Advert) { a.Addresses = many },
		"192.0.2.1 is not of":  func(a *Advert) { a.Addresses = addresses("fe80::100 192.0.2.1") },
		"must be IPv4":         func(a *Advert) { a.Family = IPv4 },
	} {
		bad := good
		change(&bad)
		b, err := bad.AppendTo([]byte("before"), link1, GroupIPv6)
		if err == nil || !strings.Contains(err.Error(), want) || string(b) != "before" {
			t.Errorf("%+v: %v and %q, want %q", bad, err, b, want)
		}
	}
}

func TestLinkLocal(t *testing.T) {
	if got, want := LinkLocal(0x33), netip.MustParseAddr("fe80::200:5eff:fe00:233"); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	a := Advert{Family: IPv6, ID: 7, Priority: 100, Interval: time.Second, Addresses: addresses("fe80::100 2001:db8::100")}
	b := make([]byte, 0, MaxSize)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.AppendTo(b, link1, GroupIPv6); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestContradicts(t *testing.T) {
	four := Advert{Family: IPv4, ID: 7, Priority: 100, Interval: time.Second, Addresses: addresses("192.0.2.100 192.0.2.101")}
	six := Advert{Family: IPv6, ID: 7, Priority: 255, Interval: time.Second, Addresses: addresses("fe80::200:5eff:fe00:207 2001:db8::100")}
	for name, c := range map[string]struct {
		mine   Advert
		want   Contradiction
		text   string
		change func(*Advert)
	}{
		"equal":           {four, 0, "none", func(a *Advert) { a.Priority = 3 }},
		"interval":        {four, IntervalDiffers, "interval", func(a *Advert) { a.Interval = 10 * time.Millisecond }},
		"order":           {four, OrderDiffers, "order of addresses", func(a *Advert) { a.Addresses = addresses("192.0.2.101 192.0.2.100") }},
		"one less":        {four, AddressesDiffer, "addresses", func(a *Advert) { a.Addresses = a.Addresses[:1] }},
		"another":         {four, AddressesDiffer, "addresses", func(a *Advert) { a.Addresses = addresses("192.0.2.100 192.0.2.7") }},
		"two owners":      {six, TwoOwners, "two owners", func(*Advert) {}},
		"no link-local":   {six, TwoOwners | NotLinkLocal, "two owners, first address not link-local", func(a *Advert) { a.Addresses = addresses("2001:db8::100") }},
		"neither leads":   {Advert{Family: IPv6, ID: 7, Interval: time.Second, Addresses: addresses("2001:db8::100")}, 0, "none", func(*Advert) {}},
		"another leading": {six, AddressesDiffer, "addresses", func(a *Advert) { a.Priority = 1; a.Addresses = addresses("fe80::9 2001:db8::100") }},
	} {
		theirs := c.mine
		c.change(&theirs)
		if got := c.mine.Contradicts(theirs); got != c.want || got.String() != c.text {
			t.Errorf("%s: %v, want %v (%s)", name, got, c.want, c.text)
		}
	}
}

// drawAdvert draws an advert that can be sent, and where it goes from and to.
func drawAdvert(t *rapid.T) (a Advert, src, dst netip.Addr) {
	a = Advert{
		Family:   rapid.SampledFrom([]Family{IPv4, IPv6}).Draw(t, "family"),
		ID:       rapid.Uint8Range(1, 255).Draw(t, "id"),
		Priority: rapid.Uint8().Draw(t, "priority"),
		Interval: time.Duration(rapid.IntRange(1, 4095).Draw(t, "interval")) * MinInterval,
	}
	address := func(label string) netip.Addr {
		raw := rapid.SliceOfN(rapid.Byte(), a.Family.addressSize(), a.Family.addressSize()).Draw(t, label)
		addr, _ := netip.AddrFromSlice(raw)
		return addr
	}
	for range rapid.IntRange(1, MaxAddresses).Draw(t, "addresses") {
		a.Addresses = append(a.Addresses, address("address"))
	}
	if a.Family == IPv6 {
		a.Addresses[0] = LinkLocal(a.ID)
	}
	if a.Family == IPv6 {
		return a, address("src"), address("dst")
	}
	// Between arbitrary addresses the sums with and without the pseudo-header may
	// differ by just one bit.
	return a, four1, rapid.SampledFrom([]netip.Addr{four2, GroupIPv4}).Draw(t, "dst")
}

// What is sent is what is read, by both decoders, and one flipped bit is noticed.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, src, dst := drawAdvert(t)
		msg := rapidAppend(t, a, src, dst)
		got, err := Parse(msg, src, dst)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, got, addrs); d != "" {
			t.Fatalf("sent -, read +:\n%s", d)
		}
		var v layers.VRRPv2
		if err := v.DecodeFromBytes(msg, gopacket.NilDecodeFeedback); err != nil {
			t.Fatalf("gopacket: %v", err)
		}
		if v.VirtualRtrID != a.ID || v.Priority != a.Priority || int(v.CountIPAddr) != len(a.Addresses) {
			t.Fatalf("gopacket reads %+v of %+v", v, a)
		}
		bit := rapid.IntRange(0, len(msg)*8-1).Draw(t, "bit")
		msg[bit/8] ^= 1 << (bit % 8)
		if got, err := Parse(msg, src, dst); err == nil {
			t.Fatalf("bit %d flipped, and nobody notices: %+v", bit, got)
		}
	})
}

func rapidAppend(t *rapid.T, a Advert, src, dst netip.Addr) []byte {
	b, err := a.AppendTo(nil, src, dst)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzParse: no input panics; what is accepted is inside its bounds, is sent again
// with the same meaning, and differs from what came only in what is ignored.
func FuzzParse(f *testing.F) {
	for _, a := range []Advert{
		{Family: IPv4, ID: 7, Priority: 100, Interval: time.Second, Addresses: addresses("192.0.2.100 192.0.2.101")},
		{Family: IPv6, ID: 255, Priority: 0, Interval: MaxInterval, Addresses: addresses("fe80::100")},
	} {
		src, dst := four1, GroupIPv4
		if a.Family == IPv6 {
			src, dst = link1, GroupIPv6
		}
		msg, err := a.AppendTo(nil, src, dst)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg, a.Family == IPv6, true)
		f.Add(append(msg, 0, 0), a.Family == IPv6, false)
	}
	f.Fuzz(func(t *testing.T, msg []byte, six, sign bool) {
		src, dst := four1, GroupIPv4
		if six {
			src, dst = link1, GroupIPv6
		}
		if sign && len(msg) >= headerSize { // or most inputs fail at the checksum
			size := 4
			if six {
				size = 16
			}
			if end := headerSize + int(msg[3])*size; end <= len(msg) {
				msg[6], msg[7] = 0, 0
				binary.BigEndian.PutUint16(msg[6:], ^fold(sum(pseudo(src, dst, end), msg[:end])))
			}
		}
		a, err := Parse(msg, src, dst)
		if err != nil {
			if e := (*ParseError)(nil); !errors.As(err, &e) || e.Reason == 0 || strings.HasPrefix(e.Reason.String(), "Reason(") {
				t.Errorf("refused without a reason: %v", err)
			}
			return
		}
		agree(t, a, msg)
		if c := a.Contradicts(a); c&^TwoOwners != 0 {
			t.Errorf("it contradicts itself: %v", c)
		}
		again := mustAppend(t, a, src, dst)
		b, err := Parse(again, src, dst)
		if err != nil || !cmp.Equal(a, b, addrs) {
			t.Errorf("read %+v, sent again it is %+v, %v", a, b, err)
		}
	})
}
