//go:build linux

package lab

import "github.com/holdfast-net/holdfast/internal/sys"

// The registers of a gate. The kernel's own way to read a frame wants the frame
// in r6 and takes r0 to r5.
const (
	regFrame = 6
	regLoss  = 7 // what is lost from the link that the frame came from
	regKinds = 8 // what kinds the frame is of
	regWords = 9 // the address of the gate's words
)

// The opcodes of a gate.
const (
	opLoad      = 0x79 // 64 bits
	opLoad32    = 0x61
	opStore     = 0x7b
	opStore32   = 0x63
	opMov       = 0xb7
	opMovReg    = 0xbf
	opAdd       = 0x07
	opAddReg    = 0x0f
	opMulReg    = 0x2f
	opAnd       = 0x57
	opAndReg    = 0x5f
	opOr        = 0x47
	opShiftL    = 0x67
	opShiftR    = 0x77
	opImm64     = 0x18
	opJump      = 0x05
	opJumpEq    = 0x15
	opJumpEqReg = 0x1d
	opJumpNe    = 0x55
	opJumpGeReg = 0x3d
	opJumpGt    = 0x25
	opJumpSet   = 0x45
	opExit      = 0x95
	opFrame32   = 0x20 // r0 = frame[imm], and out of the program if the frame is shorter
	opFrame16   = 0x28
	opFrame8    = 0x30
	opFrame16X  = 0x48 // r0 = frame[register+imm]

	gateDrop, gateNext = 2, -1 // TCX_DROP, TCX_NEXT
	markOffset         = 8     // of the frame's mark in struct __sk_buff
)

// gate is a program in the making; its jumps are to labels.
type gate struct {
	insns  []sys.BPFInsn
	labels map[string]int
	jumps  map[int]string
}

func (p *gate) op(op, dst, src uint8, off int16, imm int32) {
	p.insns = append(p.insns, sys.BPFInsn{Op: op, Regs: src<<4 | dst, Off: off, Imm: imm})
}

func (p *gate) imm64(dst uint8, v uint64) {
	p.op(opImm64, dst, 0, 0, int32(uint32(v)))
	p.op(0, 0, 0, 0, int32(uint32(v>>32)))
}

// jump goes to a label that stands further down.
func (p *gate) jump(op, dst, src uint8, imm int32, label string) {
	p.jumps[len(p.insns)] = label
	p.op(op, dst, src, 0, imm)
}

func (p *gate) label(name string) { p.labels[name] = len(p.insns) }

// newGate begins a program: if limit != 0 { state = state*factor + increment; if
// state>>32 < limit { drop } }.
func newGate(loadWords []sys.BPFInsn) *gate {
	p := &gate{labels: map[string]int{}, jumps: map[int]string{}}
	p.op(opMovReg, regFrame, 1, 0, 0)
	p.insns = append(p.insns, loadWords...)
	p.op(opLoad, 1, regWords, 8*wordLimit, 0)
	p.jump(opJumpEq, 1, 0, 0, "kept")
	p.op(opLoad, 2, regWords, 8*wordState, 0)
	p.imm64(3, lcgFactor)
	p.op(opMulReg, 2, 3, 0, 0)
	p.imm64(3, lcgIncrement)
	p.op(opAddReg, 2, 3, 0, 0)
	p.op(opStore, regWords, 2, 8*wordState, 0)
	p.op(opShiftR, 2, 0, 0, 32)
	p.jump(opJumpGeReg, 2, 1, 0, "kept")
	p.jump(opJump, 0, 0, 0, "drop")
	p.label("kept")
	return p
}

// mark writes on the frame where it came into the switch. The mark stays behind
// when the frame leaves the switch's namespace.
func (p *gate) mark(link uint32) {
	p.op(opMov, 2, 0, 0, int32(link))
	p.op(opStore32, regFrame, 2, markOffset, 0)
}

// lose drops the kinds of frames that are lost from the link that the mark names.
func (p *gate) lose(loadLoss []sys.BPFInsn, links int) {
	p.op(opLoad32, 2, regFrame, markOffset, 0)
	p.jump(opJumpEq, 2, 0, 0, "next")
	p.jump(opJumpGt, 2, 0, int32(links), "next")
	p.op(opAdd, 2, 0, 0, -1)
	p.op(opShiftL, 2, 0, 0, 3)
	p.insns = append(p.insns, loadLoss...)
	p.op(opAddReg, regLoss, 2, 0, 0)
	p.op(opLoad, regLoss, regLoss, 0, 0)
	p.jump(opJumpEq, regLoss, 0, 0, "next")
	p.classify()
	p.label("classified")
	p.op(opAndReg, regKinds, regLoss, 0, 0)
	p.op(opAnd, regKinds, 0, 0, 1<<16-1) // the upper half of the loss is a port
	p.jump(opJumpEq, regKinds, 0, 0, "next")
	p.jump(opJump, 0, 0, 0, "drop")
}

// classify finds the kinds that the frame is of, and goes on at "classified".
func (p *gate) classify() {
	kind := func(k Frames) { p.op(opOr, regKinds, 0, 0, int32(k)) }
	done := func() { p.jump(opJump, 0, 0, 0, "classified") }
	frame := func(op uint8, at int32) { p.op(op, 0, 0, 0, at) } // into r0
	// What has to outlive a reading of the frame is kept on the stack.
	const stack, kept = 10, -8

	p.op(opMov, regKinds, 0, 0, int32(Everything))
	frame(opFrame16, 12)
	p.jump(opJumpEq, 0, 0, etherARP, "arp")
	p.jump(opJumpEq, 0, 0, etherIPv4, "ipv4")
	p.jump(opJumpEq, 0, 0, etherIPv6, "ipv6")
	done()

	p.label("arp")
	kind(ARP)
	frame(opFrame32, arpSender)
	p.op(opStore, stack, 0, kept, 0)
	frame(opFrame32, arpTarget)
	p.op(opLoad, 1, stack, kept, 0)
	p.jump(opJumpEqReg, 1, 0, 0, "announcement")
	done()

	p.label("ipv4")
	frame(opFrame8, ipAt+9)
	p.jump(opJumpEq, 0, 0, protocolVRRP, "advert")
	p.jump(opJumpNe, 0, 0, protocolTCP, "classified")
	frame(opFrame16, ipAt+6)
	p.jump(opJumpSet, 0, 0, 0x1fff, "classified") // a later fragment has no ports
	frame(opFrame8, ipAt)
	p.op(opAnd, 0, 0, 0, 0xf)
	p.op(opShiftL, 0, 0, 0, 2)
	p.jump(opJump, 0, 0, 0, "tcp")

	p.label("ipv6")
	frame(opFrame8, ipAt+6)
	p.jump(opJumpEq, 0, 0, protocolVRRP, "advert")
	p.jump(opJumpEq, 0, 0, protocolICMPv6, "icmpv6")
	p.jump(opJumpNe, 0, 0, protocolTCP, "classified")
	p.op(opMov, 0, 0, 0, 40)

	p.label("tcp") // r0: the length of the IP header
	p.op(opStore, stack, 0, kept, 0)
	for at := range int32(2) {
		p.op(opLoad, 1, stack, kept, 0)
		p.op(opFrame16X, 0, 1, 0, ipAt+2*at)
		p.op(opMovReg, 1, regLoss, 0, 0)
		p.op(opShiftR, 1, 0, 0, portShift)
		p.jump(opJumpEqReg, 0, 1, 0, "port")
	}
	done()
	p.label("port")
	kind(onPort)
	done()

	p.label("icmpv6")
	frame(opFrame8, ndType)
	p.jump(opJumpEq, 0, 0, typeSolicitation, "discovery")
	p.jump(opJumpNe, 0, 0, typeAdvertisement, "classified")
	kind(NeighbourDiscovery)
	frame(opFrame8, ndFlags)
	p.jump(opJumpSet, 0, 0, solicitedFlag, "classified")
	p.label("announcement")
	kind(Announcements)
	done()
	p.label("discovery")
	kind(NeighbourDiscovery)
	done()

	p.label("advert")
	kind(Adverts)
}

// finish ends a program: the frame goes on, or is dropped and counted.
func (p *gate) finish() []sys.BPFInsn {
	p.label("next")
	p.op(opMov, 0, 0, 0, gateNext)
	p.op(opExit, 0, 0, 0, 0)
	p.label("drop")
	p.op(opLoad, 4, regWords, 8*wordDropped, 0)
	p.op(opAdd, 4, 0, 0, 1)
	p.op(opStore, regWords, 4, 8*wordDropped, 0)
	p.op(opMov, 0, 0, 0, gateDrop)
	p.op(opExit, 0, 0, 0, 0)
	for at, label := range p.jumps {
		p.insns[at].Off = int16(p.labels[label] - at - 1)
	}
	return p.insns
}
