package sockdiag

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// listed says whether the kernel would tell s for f, and List pass it on: the
// dump of its family is asked for, its state is asked for, the program admits it,
// and so does what is left of the filter.
func listed(t interface{ Fatalf(string, ...any) }, f Filter, s Socket) bool {
	r, err := f.reduce()
	if err != nil {
		t.Fatalf("%+v: %v", f, err)
	}
	e := entryOf(s)
	program, left, none := r.program(e.family)
	if err := audit(program); err != nil {
		t.Fatalf("%+v: the kernel would refuse the program %x: %v", f, program, err)
	}
	if len(program) > maxProgram {
		t.Fatalf("%+v: a program of %d bytes", f, len(program))
	}
	return !none && r.states.Has(s.State) && admits(program, e) && (len(left) == 0 || r.match(s))
}

func TestFilter(t *testing.T) {
	four := socket("192.0.2.10:443", "198.51.100.7:5001")
	dual := mapped(four)
	six := socket("[2001:db8::10]:443", "[2001:db8:1::7]:5001")
	listen4 := socket("0.0.0.0:80", "0.0.0.0:0")
	listen6 := socket("[::]:80", "[::]:0")
	listenMapped := mapped(socket("192.0.2.10:80", "0.0.0.0:0"))
	onLink := six
	onLink.Interface = 3
	marked := four
	marked.Mark = 0x42
	waiting := four
	waiting.State = TimeWait

	for _, tt := range []struct {
		name  string
		f     Filter
		admit []Socket
		not   []Socket
	}{
		{"everything", Filter{}, []Socket{four, dual, six, listen4, listen6, listenMapped, waiting}, nil},
		{"IPv4, in both kinds of socket", Filter{Family: IPv4}, []Socket{four, dual, listen4, listenMapped}, []Socket{six, listen6}},
		{"IPv6, not what is mapped", Filter{Family: IPv6}, []Socket{six, listen6}, []Socket{four, dual, listen4, listenMapped}},
		{"a host", Filter{Local: prefixes("192.0.2.10/32")}, []Socket{four, dual, listenMapped}, []Socket{six, listen4, listen6}},
		{"a host, written as mapped", Filter{Local: prefixes("::ffff:192.0.2.10/128")}, []Socket{four, dual}, []Socket{six}},
		{"every IPv4 address, written as mapped", Filter{Local: prefixes("::ffff:0:0/96")}, []Socket{four, dual, listen4, listenMapped}, []Socket{six, listen6}},
		{"half of IPv6", Filter{Local: prefixes("8000::/1")}, nil, []Socket{four, dual, six, listen6}},
		{"hosts of both families", Filter{Local: prefixes("192.0.2.10/32", "2001:db8::10/128")}, []Socket{four, dual, six}, []Socket{listen4, listen6}},
		{"of which one is asked for", Filter{Family: IPv6, Local: prefixes("192.0.2.10/32", "2001:db8::10/128")}, []Socket{six}, []Socket{four, dual}},
		{"another host", Filter{Local: prefixes("192.0.2.11/32")}, nil, []Socket{four, dual, six}},
		{"every IPv4 address", Filter{Local: prefixes("0.0.0.0/0")}, []Socket{four, dual, listen4}, []Socket{six, listen6}},
		{"every IPv6 address", Filter{Local: prefixes("::/0")}, []Socket{six, listen6}, []Socket{four, dual, listen4}},
		{"a short IPv6 prefix holds nothing mapped", Filter{Local: prefixes("::/64")}, []Socket{listen6}, []Socket{dual, listenMapped, six}},
		{"every address", Filter{Local: prefixes("::/0", "0.0.0.0/0")}, []Socket{four, dual, six, listen4, listen6}, nil},
		{"networks of remote ends", Filter{Remote: prefixes("198.51.100.0/24", "2001:db8:1::/48")}, []Socket{four, dual, six}, []Socket{listen4, listen6, listenMapped}},
		{"remote IPv4: listeners have the unspecified one", Filter{Remote: prefixes("0.0.0.0/0")}, []Socket{four, dual, listen4, listenMapped}, []Socket{six, listen6}},
		{"remote IPv6: listeners have the unspecified one", Filter{Remote: prefixes("::/0")}, []Socket{six, listen6}, []Socket{four, dual, listen4, listenMapped}},
		{"who has no remote end", Filter{Remote: prefixes("::/128")}, []Socket{listen6}, []Socket{four, dual, six, listen4, listenMapped}},
		{"a port", Filter{LocalPorts: []PortRange{Port(443)}}, []Socket{four, dual, six}, []Socket{listen4, listen6}},
		{"ports", Filter{LocalPorts: []PortRange{Port(80), {440, 450}}}, []Socket{four, dual, six, listen4}, nil},
		{"all ports", Filter{LocalPorts: []PortRange{{0, 65535}}}, []Socket{four, listen4}, nil},
		{"ports to the last", Filter{RemotePorts: []PortRange{{5002, 65535}}}, nil, []Socket{four, listen4}},
		{"ports from the first", Filter{RemotePorts: []PortRange{{0, 5000}}}, []Socket{listen4}, []Socket{four, dual, six}},
		{"a link", Filter{Interface: 3}, []Socket{onLink}, []Socket{four, six}},
		{"a mark", Filter{Mark: &Mark{Value: 0x40, Mask: 0xf0}}, []Socket{marked}, []Socket{four}},
		{"live ones", Filter{States: Live}, []Socket{four, dual, six}, []Socket{waiting}},
		{"everything at once", Filter{
			Family: IPv4, States: Live, Local: prefixes("192.0.2.0/24"), Remote: prefixes("198.51.100.0/25", "203.0.113.0/24"),
			LocalPorts: []PortRange{Port(443), Port(8443)}, RemotePorts: []PortRange{{1024, 65535}},
		}, []Socket{four, dual}, []Socket{six, waiting, listen4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, want := range []bool{true, false} {
				list := tt.admit
				if !want {
					list = tt.not
				}
				for _, s := range list {
					if got := tt.f.Match(s); got != want {
						t.Errorf("Match(%s, mapped %t) = %t", s, s.Mapped, got)
					}
					if got := listed(t, tt.f, s); got != want {
						t.Errorf("the kernel lists %s, mapped %t: %t", s, s.Mapped, got)
					}
				}
			}
		})
	}
}

// Whatever is asked for, the kernel and Match say the same of whatever socket.
func TestFilterProperty(t *testing.T) {
	// Few bits, so that prefixes overlap and sockets are hit.
	addr4 := rapid.Custom(func(t *rapid.T) netip.Addr {
		return netip.AddrFrom4([4]byte{rapid.SampledFrom([]byte{0, 192}).Draw(t, "a"), 0, 0, rapid.ByteRange(0, 3).Draw(t, "b")})
	})
	addr6 := rapid.Custom(func(t *rapid.T) netip.Addr {
		a := [16]byte{0: rapid.SampledFrom([]byte{0, 0x20, 0xfe}).Draw(t, "a"), 15: rapid.ByteRange(0, 3).Draw(t, "b")}
		if a[0] == 0 && rapid.Bool().Draw(t, "near the mapped ones") {
			a[10] = 0xff
			a[11] = 0xfe
		}
		return netip.AddrFrom16(a)
	})
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return netip.PrefixFrom(addr4.Draw(t, "addr"), rapid.IntRange(0, 32).Draw(t, "bits"))
		case 1:
			return netip.PrefixFrom(addr6.Draw(t, "addr"), rapid.IntRange(0, 128).Draw(t, "bits"))
		default:
			return netip.PrefixFrom(netip.AddrFrom16(addr4.Draw(t, "addr").As16()), rapid.IntRange(0, 128).Draw(t, "bits"))
		}
	})
	ports := rapid.Custom(func(t *rapid.T) PortRange {
		few := rapid.SampledFrom([]uint16{0, 1, 2, 3, 65534, 65535})
		a, b := few.Draw(t, "a"), few.Draw(t, "b")
		return PortRange{min(a, b), max(a, b)}
	})
	port := rapid.SampledFrom([]uint16{0, 1, 2, 3, 4, 65533, 65534, 65535})
	socket := rapid.Custom(func(t *rapid.T) Socket {
		addr := addr6
		if rapid.Bool().Draw(t, "IPv4") {
			addr = addr4
		}
		s := Socket{
			Local:     netip.AddrPortFrom(addr.Draw(t, "local"), port.Draw(t, "local port")),
			Remote:    netip.AddrPortFrom(addr.Draw(t, "remote"), port.Draw(t, "remote port")),
			State:     rapid.SampledFrom([]State{Established, TimeWait, Listen}).Draw(t, "state"),
			Interface: rapid.IntRange(0, 2).Draw(t, "interface"),
			Mark:      rapid.Uint32Range(0, 3).Draw(t, "mark"),
		}
		s.Mapped = s.Local.Addr().Is4() && rapid.Bool().Draw(t, "mapped")
		return s
	})
	few := func(g *rapid.Generator[netip.Prefix], name string, t *rapid.T) []netip.Prefix {
		return rapid.SliceOfN(g, 0, 4).Draw(t, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		f := Filter{
			Family:      rapid.SampledFrom([]Family{0, 0, IPv4, IPv6}).Draw(t, "family"),
			States:      rapid.SampledFrom([]States{0, Live, StatesOf(Listen, TimeWait)}).Draw(t, "states"),
			Local:       few(prefix, "local", t),
			Remote:      few(prefix, "remote", t),
			LocalPorts:  rapid.SliceOfN(ports, 0, 3).Draw(t, "local ports"),
			RemotePorts: rapid.SliceOfN(ports, 0, 3).Draw(t, "remote ports"),
			Interface:   rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "interface"),
		}
		if rapid.Bool().Draw(t, "by mark") {
			mask := rapid.Uint32Range(0, 3).Draw(t, "mask")
			f.Mark = &Mark{Mask: mask, Value: mask & rapid.Uint32Range(0, 3).Draw(t, "value")}
		}
		for range 20 {
			s := socket.Draw(t, "socket")
			want := f.Match(s)
			if naive := naiveMatch(f, s); naive != want {
				t.Fatalf("Match says %t, and one by one the fields say %t, of %s, mapped %t, by %+v", want, naive, s, s.Mapped, f)
			}
			if got := listed(t, f, s); got != want {
				t.Fatalf("the kernel lists it: %t, Match: %t: %s, mapped %t, by %+v", got, want, s, s.Mapped, f)
			}
		}
	})
}

// Ranges and prefixes that overlap, touch or do not say the same in order.
func TestReduceProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f Filter
		for range rapid.IntRange(1, 5).Draw(t, "n") {
			first := rapid.Uint16Range(0, 30).Draw(t, "first")
			f.LocalPorts = append(f.LocalPorts, PortRange{first, first + rapid.Uint16Range(0, 4).Draw(t, "more")})
			a := netip.AddrFrom4([4]byte{10, 0, 0, rapid.ByteRange(0, 31).Draw(t, "addr")})
			f.Local = append(f.Local, netip.PrefixFrom(a, rapid.IntRange(28, 32).Draw(t, "bits")))
		}
		for n := range uint16(36) {
			s := Socket{Local: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), n), Remote: netip.MustParseAddrPort("192.0.2.1:1"), State: Established}
			for _, f := range []Filter{{LocalPorts: f.LocalPorts}, {Local: f.Local}} {
				if got, want := f.Match(s), naiveMatch(f, s); got != want {
					t.Fatalf("%s by %+v: %t, want %t", s, f, got, want)
				}
				if got := listed(t, f, s); got != f.Match(s) {
					t.Fatalf("the kernel lists %s by %+v: %t", s, f, got)
				}
			}
		}
	})
}

// naiveMatch is what the documentation of Filter says, without order or search.
func naiveMatch(f Filter, s Socket) bool {
	host := func(list []netip.Prefix, a netip.Addr) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool {
			if p.Addr().Is4In6() && p.Bits() >= 96 {
				p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
			}
			return p.Contains(a)
		})
	}
	port := func(list []PortRange, p uint16) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(r PortRange) bool { return r.First <= p && p <= r.Last })
	}
	return (f.Family == 0 || (f.Family == IPv4) == s.Local.Addr().Is4()) &&
		(f.States == 0 || f.States.Has(s.State)) &&
		host(f.Local, s.Local.Addr()) && host(f.Remote, s.Remote.Addr()) &&
		port(f.LocalPorts, s.Local.Port()) && port(f.RemotePorts, s.Remote.Port()) &&
		(f.Interface == 0 || f.Interface == s.Interface) &&
		(f.Mark == nil || s.Mark&f.Mark.Mask == f.Mark.Value)
}

// hosts4 are n addresses that no prefix joins.
func hosts4(n int) (all []netip.Prefix) {
	for i := range n {
		all = append(all, Host(netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 1})))
	}
	return all
}

func TestFilterTooLong(t *testing.T) {
	fits := Filter{Local: hosts4(700), LocalPorts: []PortRange{Port(443)}}
	if left := fits.Remainder(); left != nil {
		t.Errorf("700 hosts: %v are left for us", left)
	}
	long := Filter{Local: hosts4(5000), LocalPorts: []PortRange{Port(443)}}
	if left := long.Remainder(); !slices.Equal(left, []string{"Local"}) {
		t.Errorf("5000 hosts: %v are left for us, want Local", left)
	}
	if (Filter{Interface: -1}).Remainder() != nil {
		t.Error("a wrong filter has a remainder")
	}
	// The rest of the filter is still the kernel's.
	r, err := long.reduce()
	if err != nil {
		t.Fatal(err)
	}
	program, _, none := r.program(afInet)
	if none || audit(program) != nil {
		t.Fatalf("program %x, none %t, %v", program, none, audit(program))
	}
	for s, want := range map[Socket]bool{
		socket("10.0.0.1:443", "192.0.2.1:1"):  true,
		socket("10.0.1.1:443", "192.0.2.1:1"):  true, // not ours: by Match
		socket("10.0.0.1:8443", "192.0.2.1:1"): false,
	} {
		if got := admits(program, entryOf(s)); got != want {
			t.Errorf("the kernel tells %s: %t", s, got)
		}
	}
	for s, want := range map[Socket]bool{
		socket("10.0.0.1:443", "192.0.2.1:1"):         true,
		socket("10.39.14.1:443", "192.0.2.1:1"):       true,
		mapped(socket("10.2.2.1:443", "192.0.2.1:1")): true,
		socket("10.0.1.1:443", "192.0.2.1:1"):         false,
		socket("10.0.0.1:8443", "192.0.2.1:1"):        false,
	} {
		if got := listed(t, long, s); got != want {
			t.Errorf("%s is listed: %t", s, got)
		}
	}
}

func TestFilterCheck(t *testing.T) {
	for _, tt := range []struct {
		f    Filter
		want string
	}{
		{Filter{Family: 5}, "sockdiag: Filter.Family is 5: want 0, IPv4 or IPv6"},
		{Filter{States: 1 << 20}, "sockdiag: Filter.States has bits of no state: 0x100000"},
		{Filter{Local: []netip.Prefix{{}}}, "sockdiag: Filter.Local[0] is no valid prefix"},
		{Filter{Remote: append(prefixes("10.0.0.0/8"), netip.Prefix{})}, "sockdiag: Filter.Remote[1] is no valid prefix"},
		{Filter{LocalPorts: []PortRange{{2, 1}}}, "sockdiag: Filter.LocalPorts[0] ends before it begins: 2 to 1"},
		{Filter{RemotePorts: []PortRange{{1, 2}, {4, 3}}}, "sockdiag: Filter.RemotePorts[1] ends before it begins: 4 to 3"},
		{Filter{Interface: -1}, "sockdiag: Filter.Interface is -1: want the index of a link, or 0"},
		{Filter{Mark: &Mark{Value: 3, Mask: 1}}, "sockdiag: Filter.Mark admits nothing: value 0x3 has bits outside the mask 0x1"},
		{Filter{Local: prefixes("10.0.0.1/8"), LocalPorts: []PortRange{{1, 1}}, Mark: &Mark{}}, ""},
	} {
		if got := fmt.Sprint(tt.f.Check()); got != tt.want && (tt.want != "" || got != "<nil>") {
			t.Errorf("%+v: %q, want %q", tt.f, got, tt.want)
		}
		if tt.want != "" && tt.f.Match(socket("10.0.0.1:1", "10.0.0.2:2")) {
			t.Errorf("%+v is wrong, and admits", tt.f)
		}
	}
}

// The caller's filter is the caller's.
func TestFilterIsNotChanged(t *testing.T) {
	f := Filter{Local: prefixes("10.2.0.0/16", "10.0.0.0/8"), LocalPorts: []PortRange{{5, 9}, {1, 6}}}
	if !f.Match(socket("10.1.1.1:1", "10.0.0.1:1")) {
		t.Error("10.1.1.1:1 is not admitted")
	}
	if f.Local[0].Bits() != 16 || f.LocalPorts[0].First != 5 {
		t.Errorf("the filter has become %+v", f)
	}
}
