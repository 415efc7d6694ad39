package sockdiag

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

// The kernel's half of the bytecode, made again from the rules of
// net/ipv4/inet_diag.c: a checker that says why it would refuse a program, and
// an interpreter. It shares nothing with the compiler.

// entry is what the kernel's interpreter sees of a socket.
type entry struct {
	family        byte
	local, remote []byte // 4 or 16 bytes
	sport, dport  uint16
	ifindex, mark uint32
}

// entryOf turns a Socket into what the kernel has of it.
func entryOf(s Socket) entry {
	e := entry{
		family: 2, local: s.Local.Addr().AsSlice(), remote: s.Remote.Addr().AsSlice(),
		sport: s.Local.Port(), dport: s.Remote.Port(), ifindex: uint32(s.Interface), mark: s.Mark,
	}
	if s.Mapped || !s.Local.Addr().Is4() {
		l, r := s.Local.Addr().As16(), s.Remote.Addr().As16()
		if s.Remote.Addr().IsUnspecified() {
			r = [16]byte{}
		}
		e.family, e.local, e.remote = 10, l[:], r[:]
	}
	return e
}

// code is one operation as it lies in a program.
type code []byte

func (c code) op() byte    { return c[0] }
func (c code) yes() int    { return int(c[1]) }
func (c code) no() int     { return int(binary.NativeEndian.Uint16(c[2:])) }
func (c code) port() int   { return int(binary.NativeEndian.Uint16(c[6:])) }
func (c code) host() hosts { return hosts(c[4:]) }

// hosts is a struct inet_diag_hostcond.
type hosts []byte

func (h hosts) family() byte { return h[0] }
func (h hosts) prefix() int  { return int(h[1]) }
func (h hosts) port() int32  { return int32(binary.NativeEndian.Uint32(h[4:])) }
func (h hosts) size() int    { return map[byte]int{0: 0, 2: 4, 10: 16}[h[0]] }

// minimum is how long the operation at the front is, at least.
func (c code) minimum() (int, error) {
	need := map[byte]int{0: 4, 1: 4, 2: 8, 3: 8, 4: 8, 5: 8, 6: 4, 7: 12, 8: 12, 9: 8, 10: 12}[c.op()]
	if need == 0 {
		return 0, fmt.Errorf("no operation %d", c.op())
	}
	if len(c) < need {
		return 0, fmt.Errorf("operation %d needs %d bytes, there are %d", c.op(), need, len(c))
	}
	if c.op() == 7 || c.op() == 8 {
		h := c.host()
		if f := h.family(); f != 0 && f != 2 && f != 10 {
			return 0, fmt.Errorf("address family %d", f)
		}
		if need += h.size(); len(c) < need {
			return 0, fmt.Errorf("the address of operation %d does not fit", c.op())
		}
		if h.prefix() > 8*h.size() {
			return 0, fmt.Errorf("a prefix of %d bits", h.prefix())
		}
	}
	return need, nil
}

// audit says why the kernel would refuse the program.
func audit(program []byte) error {
	starts := map[int]bool{len(program): true} // where the way by yes comes by
	for at := 0; at < len(program); {
		starts[at] = true
		if len(program)-at < 4 {
			return fmt.Errorf("%d bytes are left over", len(program)-at)
		}
		yes := code(program[at:]).yes()
		if yes < 4 || yes%4 != 0 || yes > len(program)-at {
			return fmt.Errorf("operation at %d of %d goes on by %d", at, len(program), yes)
		}
		at += yes
	}
	for at := 0; at < len(program); at += code(program[at:]).yes() {
		c, rest := code(program[at:]), len(program)-at
		need, err := c.minimum()
		if err != nil {
			return fmt.Errorf("at %d: %w", at, err)
		}
		if c.yes() < need {
			return fmt.Errorf("at %d: operation %d goes on inside itself", at, c.op())
		}
		if c.op() == 0 {
			continue
		}
		if no := c.no(); no < need || no > rest+4 || no%4 != 0 || no < rest && !starts[at+no] {
			return fmt.Errorf("at %d of %d: operation %d jumps by %d", at, len(program), c.op(), no)
		}
	}
	return nil
}

// admits runs a program that audit has passed.
func admits(program []byte, e entry) bool {
	rest := len(program)
	for rest > 0 {
		c := code(program[len(program)-rest:])
		if c.met(e) {
			rest -= c.yes()
		} else {
			rest -= c.no()
		}
	}
	return rest == 0
}

func (c code) met(e entry) bool {
	switch c.op() {
	case 0:
		return true
	case 1:
		return false
	case 2:
		return int(e.sport) >= c.port()
	case 3:
		return int(e.sport) <= c.port()
	case 4:
		return int(e.dport) >= c.port()
	case 5:
		return int(e.dport) <= c.port()
	case 7:
		return c.host().met(e.family, e.local, e.sport)
	case 8:
		return c.host().met(e.family, e.remote, e.dport)
	case 9:
		return e.ifindex == binary.NativeEndian.Uint32(c[4:])
	case 10:
		value, mask := binary.NativeEndian.Uint32(c[4:]), binary.NativeEndian.Uint32(c[8:])
		return e.mark&mask == value
	}
	return false
}

func (h hosts) met(family byte, a []byte, port uint16) bool {
	if h.port() != -1 && h.port() != int32(port) {
		return false
	}
	want := h[8 : 8+h.size()]
	if h.family() != 0 && h.family() != family {
		mapped := family == 10 && h.family() == 2 && bytes.HasPrefix(a, []byte{10: 0xff, 11: 0xff})
		return mapped && samePrefix(a[12:], want, h.prefix())
	}
	return h.prefix() == 0 || samePrefix(a, want, h.prefix())
}

func samePrefix(a, b []byte, n int) bool {
	for i := range a {
		if n <= 8*i {
			return true
		}
		if same := 8*i + bits.LeadingZeros8(a[i]^b[i]); same < min(n, 8*i+8) {
			return false
		}
	}
	return true
}

// prefixes and endpoints, for tables.
func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func socket(local, remote string) Socket {
	return Socket{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), State: Established}
}

func mapped(s Socket) Socket {
	s.Mapped = true
	return s
}
