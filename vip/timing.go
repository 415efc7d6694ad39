package vip

import (
	"math/bits"
	"time"
)

// timing counts durations in buckets, four to an octave, so that what a
// quantile says is at most a quarter too large. The zero value is empty; adding
// allocates nothing.
type timing struct {
	buckets [4 * 64]uint64
	count   uint64
	max     int64
}

func bucket(d int64) int {
	if d < 4 {
		return int(max(d, 0))
	}
	octave := bits.Len64(uint64(d)) - 1
	return 4*(octave-1) + int(d>>(octave-2))&3
}

// edge is the largest duration of a bucket.
func edge(b int) int64 {
	if b < 4 {
		return int64(b)
	}
	octave := b/4 + 1
	return int64(4+b%4+1)<<(octave-2) - 1
}

func (t *timing) add(d int64) {
	t.buckets[bucket(d)]++
	t.count++
	t.max = max(t.max, d)
}

// quantile is the upper edge of the bucket below which n of 100 lie.
func (t *timing) quantile(n uint64) time.Duration {
	want := (t.count*n + 99) / 100
	for b, seen := 0, uint64(0); b < len(t.buckets); b++ {
		if seen += t.buckets[b]; seen >= want && seen > 0 {
			return time.Duration(min(edge(b), t.max))
		}
	}
	return 0
}

func (t *timing) show() Timing {
	return Timing{Count: t.count, Max: time.Duration(t.max), P50: t.quantile(50), P99: t.quantile(99)}
}
