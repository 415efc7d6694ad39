package sockdiag

import (
	"net/netip"
	"slices"
)

// The kernel runs a little program for each socket (INET_DIAG_REQ_BYTECODE):
// operations that compare one thing each and go on by `yes` or `no` bytes. A
// socket is admitted if the program is left exactly at its end, and refused if it
// is left 4 bytes behind it. Two rules of its checker (inet_diag_bc_audit) shape
// what is made here: whoever goes from `yes` to `yes` meets every operation, and
// every other jump lands on one of those. So `yes` is always the operation's own
// length, and what a condition that is met has to skip is skipped by a jump.
const (
	opJump         = 1  // INET_DIAG_BC_JMP
	opLocalFrom    = 2  // S_GE; the port is in the operation behind it, as the next three's
	opLocalTo      = 3  // S_LE
	opRemoteFrom   = 4  // D_GE
	opRemoteTo     = 5  // D_LE
	opLocal        = 7  // S_COND
	opRemote       = 8  // D_COND
	opInterface    = 9  // DEV_COND
	opMark         = 10 // MARK_COND
	opSize         = 4  // code, yes (8 bits each), no (16 bits)
	anyPort        = -1
	hostConditions = 8 // struct inet_diag_hostcond without its address

	// maxProgram bounds what the kernel has to check once, in a time that grows
	// with its square, and to run for each socket: about 800 IPv4 or 500 IPv6
	// prefixes.
	maxProgram = 16 << 10
)

// refuse is the target of who is refused: 4 bytes behind the end. Any other is
// the number of an operation, or how many there are: the end.
const refuse = -1

type operation struct {
	code byte
	arg  []byte
	no   int // where it goes on if its condition is not met
}

func (o operation) size() int { return opSize + len(o.arg) }

// An alternative is met if all its tests are; a clause if one of its
// alternatives is; a program if all its clauses are.
type (
	test struct {
		code byte
		arg  []byte
		not  bool
	}
	alternative []test
	clause      struct {
		field string // of Filter
		any   []alternative
	}
)

// assemble makes the program. It is empty if there is no clause.
func assemble(clauses []clause) []byte {
	var ops []operation
	for _, c := range clauses {
		var met []int // jumps behind this clause
		for i, alt := range c.any {
			last := i == len(c.any)-1
			var failed []int // operations that go on at the next alternative
			for _, t := range alt {
				ops = append(ops, operation{code: t.code, arg: t.arg})
				if t.not {
					// The jump that follows is the way of who meets it.
					ops[len(ops)-1].no = len(ops) + 1
					ops = append(ops, operation{code: opJump})
				}
				failed = append(failed, len(ops)-1)
			}
			if !last {
				ops = append(ops, operation{code: opJump})
				met = append(met, len(ops)-1)
			}
			for _, f := range failed {
				if ops[f].no = len(ops); last {
					ops[f].no = refuse
				}
			}
		}
		for _, m := range met {
			ops[m].no = len(ops)
		}
	}
	return link(ops)
}

// link turns the operations' numbers into distances.
func link(ops []operation) []byte {
	starts := make([]int, len(ops)+1)
	for i, o := range ops {
		starts[i+1] = starts[i] + o.size()
	}
	end := starts[len(ops)]
	b := make([]byte, 0, end)
	for i, o := range ops {
		to := end + opSize
		if o.no != refuse {
			to = starts[o.no]
		}
		b = append(b, o.code, byte(o.size()))
		b = order.AppendUint16(b, uint16(to-starts[i]))
		b = append(b, o.arg...)
	}
	return b
}

// size is how long the clause's part of a program is.
func (c clause) size() int {
	n := (len(c.any) - 1) * opSize
	for _, alt := range c.any {
		for _, t := range alt {
			n += opSize + len(t.arg)
			if t.not {
				n += opSize
			}
		}
	}
	return n
}

// portTest compares a port; the number lies in the second half of an operation.
func portTest(code byte, port uint16) test {
	arg := make([]byte, opSize)
	order.PutUint16(arg[2:], port)
	return test{code: code, arg: arg}
}

// hostTest compares an address with a prefix.
func hostTest(code byte, p netip.Prefix) test {
	family := byte(afInet6)
	if p.Addr().Is4() {
		family = afInet
	}
	arg := make([]byte, hostConditions, hostConditions+16)
	arg[0], arg[1] = family, byte(p.Bits())
	port := int32(anyPort)
	order.PutUint32(arg[4:], uint32(port))
	return test{code: code, arg: append(arg, p.Addr().AsSlice()...)}
}

var (
	everyIPv4  = netip.MustParsePrefix("0.0.0.0/0")
	everyIPv6  = netip.MustParsePrefix("::/0")
	mappedIPv4 = netip.MustParsePrefix("::ffff:0:0/96")
	everyPort  = PortRange{0, 1<<16 - 1}
)

// families are the prefixes of every address.
var families = []netip.Prefix{everyIPv4, everyIPv6}

// hostClause admits the addresses of one kind of socket that lie in prefixes. In
// IPv6 sockets the kernel finds v4-mapped addresses by IPv4 prefixes, but by IPv6
// ones as well; and a v4-mapped socket without a connection has the remote
// address ::, which is 0.0.0.0 here. whole says that every socket is admitted; no
// alternative, that none is.
func hostClause(field string, code, socket byte, family Family, prefixes []netip.Prefix) (c clause, whole bool) {
	c.field = field
	if len(prefixes) == 0 {
		prefixes = families
	}
	if family == 0 && slices.Equal(prefixes, families) {
		return c, true
	}
	isIPv4 := hostTest(opLocal, everyIPv4)
	isIPv6 := isIPv4
	isIPv6.not = true
	for _, p := range prefixes {
		unspecified := code == opRemote && p.Contains(unspecifiedOf(p))
		switch {
		case p.Addr().Is4() && family != IPv6:
			if socket == afInet && p.Bits() == 0 {
				return c, true
			}
			c.any = append(c.any, alternative{hostTest(code, p)})
			if socket == afInet6 && unspecified {
				c.any = append(c.any, alternative{isIPv4, hostTest(code, Host(netip.IPv6Unspecified()))})
			}
		case p.Addr().Is6() && family != IPv4 && socket == afInet6:
			var alt alternative
			if unspecified || p.Overlaps(mappedIPv4) {
				alt = append(alt, isIPv6)
			}
			if p.Bits() > 0 {
				alt = append(alt, hostTest(code, p))
			}
			c.any = append(c.any, alt)
		}
	}
	return c, false
}

// unspecifiedOf is the unspecified address of p's family.
func unspecifiedOf(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func portClause(field string, from, to byte, ranges []PortRange) (c clause, whole bool) {
	c.field = field
	if len(ranges) == 0 || ranges[0] == everyPort {
		return c, true
	}
	for _, r := range ranges {
		var alt alternative
		if r.First > 0 {
			alt = append(alt, portTest(from, r.First))
		}
		if r.Last < everyPort.Last {
			alt = append(alt, portTest(to, r.Last))
		}
		c.any = append(c.any, alt)
	}
	return c, false
}

// program compiles r for the sockets of one address family. none says that no
// such socket can fit. left names the fields that do not fit into a program.
func (r reduced) program(socket byte) (code []byte, left []string, none bool) {
	var clauses []clause
	add := func(c clause, whole bool) {
		if whole {
			return
		}
		none = none || len(c.any) == 0
		clauses = append(clauses, c)
	}
	// What is compared fastest comes first.
	add(portClause("LocalPorts", opLocalFrom, opLocalTo, r.localPorts))
	add(portClause("RemotePorts", opRemoteFrom, opRemoteTo, r.remotePorts))
	if r.filter.Interface != 0 {
		arg := order.AppendUint32(nil, uint32(r.filter.Interface))
		clauses = append(clauses, clause{"Interface", []alternative{{{code: opInterface, arg: arg}}}})
	}
	if m := r.filter.Mark; m != nil {
		arg := order.AppendUint32(order.AppendUint32(nil, m.Value), m.Mask)
		clauses = append(clauses, clause{"Mark", []alternative{{{code: opMark, arg: arg}}}})
	}
	add(hostClause("Local", opLocal, socket, r.filter.Family, r.local))
	// The family of the remote end is that of the local one: without prefixes of
	// its own there is nothing more to ask.
	if len(r.remote) > 0 {
		add(hostClause("Remote", opRemote, socket, r.filter.Family, r.remote))
	}
	if none {
		return nil, nil, true
	}
	size := 0
	for _, c := range clauses {
		size += c.size()
	}
	for size > maxProgram {
		longest := 0
		for i, c := range clauses {
			if c.size() > clauses[longest].size() {
				longest = i
			}
		}
		size -= clauses[longest].size()
		left = append(left, clauses[longest].field)
		clauses = slices.Delete(clauses, longest, longest+1)
	}
	return assemble(clauses), left, false
}
