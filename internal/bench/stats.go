package main

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// Spread is a median with the extremes it was taken from.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"` // rounds that count
}

// spreadOf returns the spread of values; N is 0 when there are none.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	median := sorted[mid]
	if len(sorted)%2 == 0 {
		median = (sorted[mid-1] + sorted[mid]) / 2
	}
	return Spread{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1], N: len(sorted)}
}

// ratioSpread divides a by b round by round. Only rounds both have count, and
// only those where the divisor is not zero.
func ratioSpread(a, b map[int]float64) Spread {
	var ratios []float64
	for round, value := range a {
		if reference, ok := b[round]; ok && reference != 0 {
			ratios = append(ratios, value/reference)
		}
	}
	return spreadOf(ratios)
}

// A histogram counts durations in buckets less than 1/64 of their value wide, so
// that recording costs an increment in memory that stays in the cache, and
// nothing is allocated while a load runs. The zero value is empty.
type histogram struct {
	counts [(64 - mantissaBits + 1) << mantissaBits]uint32
	total  uint64
}

const mantissaBits = 6

func bucketOf(ns uint64) int {
	if ns < 1<<mantissaBits {
		return int(ns)
	}
	shift := bits.Len64(ns) - 1 - mantissaBits
	return (shift+1)<<mantissaBits + int(ns>>shift)&(1<<mantissaBits-1)
}

// bucketMiddle is the value in the middle of bucket i.
func bucketMiddle(i int) float64 {
	if i < 1<<mantissaBits {
		return float64(i)
	}
	shift := i>>mantissaBits - 1
	low := uint64(1<<mantissaBits|i&(1<<mantissaBits-1)) << shift
	return float64(low) + (math.Ldexp(1, shift)-1)/2
}

func (h *histogram) record(d time.Duration) {
	h.counts[bucketOf(uint64(max(d, 0)))]++
	h.total++
}

func (h *histogram) add(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// quantile returns the duration that a share q (0..1) of the recorded ones do
// not exceed, to within 1/128; 0 when nothing was recorded.
func (h *histogram) quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := max(uint64(math.Ceil(q*float64(h.total))), 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += uint64(n); seen >= rank {
			return time.Duration(bucketMiddle(i))
		}
	}
	return 0 // not reached: the counts add up to total
}
