//go:build linux

package wire

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Settings is what one direction does to its frames. The zero value passes
// them as they come.
type Settings struct {
	// Delay is added to every frame. 0 to 1 minute.
	Delay time.Duration

	// Jitter changes each frame's Delay by up to so much in either direction, evenly
	// distributed. At most Delay. It does not reorder: a frame waits for
	// those before it.
	Jitter time.Duration

	// Loss, Duplicate and Reorder are probabilities, 0 to 1: that a frame is
	// lost; that it arrives twice; that it is held back by ReorderDelay while
	// those behind it pass.
	Loss      float64
	Duplicate float64
	Reorder   float64

	// ReorderDelay is for how long a reordered frame is held back. 0: 1 ms. At most 1 minute.
	ReorderDelay time.Duration

	// Bandwidth in bits per second. A frame occupies the line for its length
	// divided by this, without preamble or gap. 0: unlimited.
	Bandwidth int64

	// Queue is how many bytes may wait for the line before frames are dropped.
	// 0: 256 KiB. It means nothing without a Bandwidth.
	Queue int

	// Partition stops every frame, also those under way.
	Partition bool
}

const (
	delayMax            = time.Minute
	defaultReorderDelay = time.Millisecond
	defaultQueue        = 256 << 10
	bandwidthMax        = 1e12
)

// Validate returns an error that names every field out of its bounds.
func (s Settings) Validate() error {
	var errs []error
	for _, d := range []struct {
		name  string
		value time.Duration
		max   time.Duration
	}{{"Delay", s.Delay, delayMax}, {"Jitter", s.Jitter, s.Delay}, {"ReorderDelay", s.ReorderDelay, delayMax}} {
		if d.value < 0 || d.value > d.max {
			errs = append(errs, fmt.Errorf("wire: %s %v is not in 0..%v", d.name, d.value, d.max))
		}
	}
	for _, p := range []struct {
		name  string
		value float64
	}{{"Loss", s.Loss}, {"Duplicate", s.Duplicate}, {"Reorder", s.Reorder}} {
		if math.IsNaN(p.value) || p.value < 0 || p.value > 1 {
			errs = append(errs, fmt.Errorf("wire: %s %v is not in 0..1", p.name, p.value))
		}
	}
	if s.Bandwidth < 0 || s.Bandwidth > bandwidthMax {
		errs = append(errs, fmt.Errorf("wire: Bandwidth %d is not in 0..%d", s.Bandwidth, int64(bandwidthMax)))
	}
	if s.Queue < 0 {
		errs = append(errs, fmt.Errorf("wire: Queue %d is negative", s.Queue))
	}
	return errors.Join(errs...)
}

// decision is what chance says about one frame.
type decision struct {
	lose      bool
	duplicate bool
	late      bool
	jitter    time.Duration
}

// decide is a pure function: the n-th frame of a direction, under the same
// seed and settings, always has the same fate.
func decide(seed uint64, from Direction, n uint64, s Settings) decision {
	key := mix(mix(seed+uint64(from)) + n)
	return decision{
		lose:      chance(key, 1) < s.Loss,
		duplicate: chance(key, 2) < s.Duplicate,
		late:      chance(key, 3) < s.Reorder,
		jitter:    time.Duration((2*chance(key, 4) - 1) * float64(s.Jitter)),
	}
}

// chance is a number in [0, 1) for one question about a frame: with several
// questions each has its own, so that asking one does not change another.
func chance(key, question uint64) float64 {
	return float64(mix(key+question*0x9e3779b97f4a7c15)>>11) / (1 << 53)
}

// mix spreads a number over 64 bits (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fate says why a frame does not pass; passes is 0.
type fate uint8

const (
	passes fate = iota
	lost
	partitioned
	queueFull
)

// plan is when a frame arrives and how often, or why not.
type plan struct {
	fate   fate
	at     int64 // ns
	copies int
	late   bool
}

// line is the state of one direction, in nanoseconds of any clock: pure.
type line struct {
	seed uint64
	from Direction
	n    uint64 // frames seen
	free int64  // when the bandwidth is free again
	last int64  // when the latest frame that keeps its place arrives
}

// admit takes the next frame and says what becomes of it.
func (l *line) admit(now int64, size int, s Settings) plan {
	d := decide(l.seed, l.from, l.n, s)
	l.n++
	switch {
	case s.Partition:
		return plan{fate: partitioned}
	case d.lose:
		return plan{fate: lost}
	}
	at := now
	if s.Bandwidth > 0 {
		begin := max(now, l.free)
		waiting := float64(begin-now) * float64(s.Bandwidth) / 8e9 // bytes
		queue := s.Queue
		if queue == 0 {
			queue = defaultQueue
		}
		if begin > now && waiting+float64(size) > float64(queue) {
			return plan{fate: queueFull}
		}
		at = begin + int64(float64(size)*8e9/float64(s.Bandwidth))
		l.free = at
	}
	at += int64(s.Delay + d.jitter)
	p := plan{copies: 1, late: d.late}
	if d.duplicate {
		p.copies = 2
	}
	if d.late {
		hold := s.ReorderDelay
		if hold == 0 {
			hold = defaultReorderDelay
		}
		p.at = max(at, l.last) + int64(hold) // behind its place, which it leaves to the others
		return p
	}
	l.last = max(at, l.last)
	p.at = l.last
	return p
}
