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
// three words that it shares with this process. Behind those of all links there
// is a word for each pair of links: what is lost between the two.
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

// gateWords is how many words the gates of n links need.
func gateWords(n int) int { return n*wordsPerLink + n*n }

func (k *Link) word(d Direction, word int) int {
	return k.id*wordsPerLink + int(d)*wordsPerGate + word
}

// lossWord is the word of what is lost on its way from one link to this one.
func (k *Link) lossWord(from *Link, links int) int {
	return links*wordsPerLink + k.id*links + from.id
}

// attachGates puts a gate on both directions of the switch port.
func (k *Link) attachGates(seed uint64, links int) error {
	for _, d := range []Direction{FromHost, ToHost} {
		base := k.word(d, 0)
		k.lab.words.Words[base+wordState] = seed ^ uint64(base+1)*0x9E3779B97F4A7C15
		p := newGate(k.lab.words.LoadWord(regWords, base))
		// What the host sends comes into the switch.
		if d == FromHost {
			p.mark(uint32(k.id) + 1)
		} else {
			p.lose(k.lab.words.LoadWord(regLoss, links*wordsPerLink+k.id*links), links)
		}
		prog, err := sys.LoadClassifier("lab_gate", p.finish())
		if err != nil {
			return err
		}
		err = k.sw.ns.Do(func() error { return sys.AttachTCX(prog, k.port, d == ToHost) })
		if err := errors.Join(err, prog.Close()); err != nil {
			return err
		}
	}
	return nil
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

// Dropped counts the frames that Block, SetLoss, Mute, Die and Lab.Lose have
// dropped on this link so far. A frame may hold several TCP segments, see
// [LinkSpec.NoOffload].
func (k *Link) Dropped(d Direction) uint64 {
	k.lab.mu.RLock()
	defer k.lab.mu.RUnlock()
	if k.lab.closed || d > ToHost {
		return 0
	}
	return atomic.LoadUint64(&k.lab.words.Words[k.word(d, wordDropped)])
}
