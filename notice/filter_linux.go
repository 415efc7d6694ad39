package notice

import (
	"encoding/binary"
	"net/netip"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// snap is how many bytes of a packet are kept: the largest headers of IP and TCP.
const snap = 60 + 60

// maxFiltered is how many addresses the kernel's filter names; with more, it
// admits all.
const maxFiltered = 256

// Instructions of classic BPF (linux/filter.h), and where it finds what is not
// in the packet.
const (
	loadWord     = 0x20
	loadHalf     = 0x28
	loadByte     = 0x30
	loadByteX    = 0x50 // at X +
	loadHeaderX  = 0xb1 // X = 4 * (byte & 15)
	addX         = 0x0c
	subX         = 0x1c
	and          = 0x54
	shiftRight   = 0x74
	toX          = 0x07
	jumpEqual    = 0x15
	jumpSet      = 0x45
	give         = 0x06
	packetType   = 0xfffff000 + 4
	forThisHost  = 0
	tcpOffset    = 12 // of the byte that holds the header's length
	ip4Protocol  = 9
	ip4Fragment  = 6
	ip4Length    = 2
	ip4To        = 16
	ip6Protocol  = 6
	ip6Length    = 4
	ip6To        = 24
	dataOffset   = 0xf0
	dataOffset4  = 2 // the field counts words, in the upper half of the byte
	nothingAtAll = 0
)

// answers makes the program that admits what may be an answer: a whole TCP
// segment without data, sent to this host and to one of the addresses. None
// given, it admits nothing.
func answers(v6 bool, to []netip.Addr) []sys.FilterInsn {
	if len(to) == 0 {
		return []sys.FilterInsn{{Op: give, K: nothingAtAll}}
	}
	type insn = sys.FilterInsn
	refuse := insn{Op: give, K: nothingAtAll}
	// unless skips the refusal that follows it if the accumulator is k.
	unless := func(k uint32) []insn { return []insn{{Op: jumpEqual, True: 1, K: k}, refuse} }

	p := []insn{{Op: loadWord, K: packetType}}
	p = append(p, unless(forThisHost)...)
	if v6 {
		p = append(p, insn{Op: loadByte, K: ip6Protocol})
		p = append(p, unless(protocolTCP)...)
		p = append(p,
			insn{Op: loadByte, K: ip6Size + tcpOffset}, insn{Op: and, K: dataOffset}, insn{Op: shiftRight, K: dataOffset4},
			insn{Op: toX},
			insn{Op: loadHalf, K: ip6Length}, insn{Op: subX})
	} else {
		p = append(p, insn{Op: loadByte, K: ip4Protocol})
		p = append(p, unless(protocolTCP)...)
		p = append(p,
			insn{Op: loadHalf, K: ip4Fragment}, insn{Op: jumpSet, False: 1, K: fragmentField}, refuse,
			insn{Op: loadHeaderX},
			insn{Op: loadByteX, K: tcpOffset}, insn{Op: and, K: dataOffset}, insn{Op: shiftRight, K: dataOffset4},
			insn{Op: addX}, insn{Op: toX}, // both headers
			insn{Op: loadHalf, K: ip4Length}, insn{Op: subX})
	}
	p = append(p, unless(0)...)
	if len(to) > maxFiltered {
		return append(p, insn{Op: give, K: snap})
	}
	if !v6 {
		p = append(p, insn{Op: loadWord, K: ip4To})
	}
	for _, a := range to {
		if !v6 {
			raw := a.As4()
			p = append(p, insn{Op: jumpEqual, False: 1, K: binary.BigEndian.Uint32(raw[:])}, insn{Op: give, K: snap})
			continue
		}
		raw := a.As16()
		for i := range 4 {
			// To the next address: what is left of this one, and the word that admits.
			p = append(p, insn{Op: loadWord, K: uint32(ip6To + 4*i)},
				insn{Op: jumpEqual, False: uint8(2*(3-i) + 1), K: binary.BigEndian.Uint32(raw[4*i:])})
		}
		p = append(p, insn{Op: give, K: snap})
	}
	return append(p, refuse)
}
