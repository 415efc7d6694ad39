//go:build linux

package lab

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Direction is one of a link's two directions.
type Direction uint8

const (
	FromHost Direction = iota // what the host sends
	ToHost                    // what the host receives
)

func (d Direction) String() string {
	switch d {
	case FromHost:
		return "from host"
	case ToHost:
		return "to host"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}

// A gate is an eBPF program on a switch port, one for each direction, and
// three words that it shares with this process.
const (
	wordLimit   = iota // a frame is dropped if its random number is below this: 0 none, 1<<32 every one
	wordState          // of the random numbers: a linear congruential generator
	wordDropped        // how many frames were dropped
	wordsPerGate
	wordsPerLink = 2 * wordsPerGate

	dropAll = 1 << 32
)

// The generator is Knuth's MMIX; its high half is used.
const (
	lcgFactor    = 6364136223846793005
	lcgIncrement = 1442695040888963407
)

func (k *Link) word(d Direction, word int) int {
	return k.id*wordsPerLink + int(d)*wordsPerGate + word
}

// attachGates puts a gate on both directions of the switch port.
func (k *Link) attachGates(seed uint64) error {
	for _, d := range []Direction{FromHost, ToHost} {
		base := k.word(d, 0)
		k.lab.words.Words[base+wordState] = seed ^ uint64(base+1)*0x9E3779B97F4A7C15
		prog, err := sys.LoadClassifier("lab_gate", gateProgram(k.lab.words.LoadWord(6, base)))
		if err != nil {
			return err
		}
		// What the host sends comes into the switch.
		err = k.sw.ns.Do(func() error { return sys.AttachTCX(prog, k.port, d == ToHost) })
		if err := errors.Join(err, prog.Close()); err != nil {
			return err
		}
	}
	return nil
}

// gateProgram is: if limit != 0 { state = state*factor + increment; if
// state>>32 < limit { dropped++; return drop } }; return next. r6 holds the
// address of the gate's words.
func gateProgram(loadWords []sys.BPFInsn) []sys.BPFInsn {
	const (
		load, store      = 0x79, 0x7b // *(u64 *)
		loadImm64        = 0x18
		addReg, mulReg   = 0x0f, 0x2f
		addImm, shiftImm = 0x07, 0x77 // shift right
		movImm           = 0xb7
		jumpEq, jumpGe   = 0x15, 0x3d
		exit             = 0x95
		drop, next       = 2, -1 // TCX_DROP, TCX_NEXT
	)
	imm64 := func(dst uint8, v uint64) []sys.BPFInsn {
		return []sys.BPFInsn{{Op: loadImm64, Regs: dst, Imm: int32(uint32(v))}, {Imm: int32(uint32(v >> 32))}}
	}
	p := append([]sys.BPFInsn{}, loadWords...)
	p = append(p, sys.BPFInsn{Op: load, Regs: 6<<4 | 1, Off: 8 * wordLimit})
	body := []sys.BPFInsn{{Op: load, Regs: 6<<4 | 2, Off: 8 * wordState}}
	body = append(body, imm64(3, lcgFactor)...)
	body = append(body, sys.BPFInsn{Op: mulReg, Regs: 3<<4 | 2})
	body = append(body, imm64(3, lcgIncrement)...)
	body = append(body,
		sys.BPFInsn{Op: addReg, Regs: 3<<4 | 2},
		sys.BPFInsn{Op: store, Regs: 2<<4 | 6, Off: 8 * wordState},
		sys.BPFInsn{Op: shiftImm, Regs: 2, Imm: 32},
		sys.BPFInsn{Op: jumpGe, Regs: 1<<4 | 2, Off: 5}, // to next
		sys.BPFInsn{Op: load, Regs: 6<<4 | 4, Off: 8 * wordDropped},
		sys.BPFInsn{Op: addImm, Regs: 4, Imm: 1},
		sys.BPFInsn{Op: store, Regs: 4<<4 | 6, Off: 8 * wordDropped},
		sys.BPFInsn{Op: movImm, Regs: 0, Imm: drop},
		sys.BPFInsn{Op: exit},
	)
	p = append(p, sys.BPFInsn{Op: jumpEq, Regs: 1, Off: int16(len(body))})
	p = append(p, body...)
	return append(p, sys.BPFInsn{Op: movImm, Regs: 0, Imm: next}, sys.BPFInsn{Op: exit})
}

// setLimit makes a gate drop the given share of frames, from the next frame on.
func (k *Link) setLimit(d Direction, rate float64) error {
	k.lab.mu.RLock()
	defer k.lab.mu.RUnlock()
	if k.lab.closed {
		return ErrClosed
	}
	atomic.StoreUint64(&k.lab.words.Words[k.word(d, wordLimit)], uint64(math.Round(rate*dropAll)))
	return nil
}

// Dropped counts the frames that Block, SetLoss, Mute and Die have dropped on
// this link so far. A frame may hold several TCP segments, see
// [LinkSpec.NoOffload].
func (k *Link) Dropped(d Direction) uint64 {
	k.lab.mu.RLock()
	defer k.lab.mu.RUnlock()
	if k.lab.closed || d > ToHost {
		return 0
	}
	return atomic.LoadUint64(&k.lab.words.Words[k.word(d, wordDropped)])
}
