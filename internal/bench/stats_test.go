package main

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSpread(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []float64
		want   Spread
	}{
		{"none", nil, Spread{}},
		{"one", []float64{3}, Spread{3, 3, 3, 1}},
		{"odd", []float64{9, 1, 5}, Spread{5, 1, 9, 3}},
		{"even", []float64{4, 1, 2, 9}, Spread{3, 1, 9, 4}},
	} {
		if got := spreadOf(tc.values); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

// The ratio is taken within a round: a machine that was three times slower in
// round 2 must not show.
func TestRatioIsTakenWithinARound(t *testing.T) {
	a := map[int]float64{1: 300, 2: 100, 3: 330, 4: 7}
	b := map[int]float64{1: 200, 2: 66, 3: 220, 5: 1, 6: 0}
	got := ratioSpread(a, b)
	if got.N != 3 || math.Abs(got.Median-1.5) > 1e-9 || math.Abs(got.Max-100.0/66) > 1e-9 {
		t.Errorf("got %+v, want 1.5 over the 3 common rounds", got)
	}
	if got := ratioSpread(map[int]float64{1: 5}, map[int]float64{1: 0}); got.N != 0 {
		t.Errorf("a ratio to zero counts: %+v", got)
	}
}

func TestHistogramQuantileIsExactToOnePart128(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 300).Draw(t, "durations")
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		var h, first, second histogram
		for i, v := range values {
			h.record(time.Duration(v))
			if i%2 == 0 {
				first.record(time.Duration(v))
			} else {
				second.record(time.Duration(v))
			}
		}
		slices.Sort(values)
		rank := max(int(math.Ceil(q*float64(len(values)))), 1)
		exact := float64(values[rank-1])
		got := float64(h.quantile(q))
		if math.Abs(got-exact) > exact/128+1 {
			t.Fatalf("quantile %v of %d values: got %v, exact %v", q, len(values), got, exact)
		}
		if first.add(&second); first != h {
			t.Fatal("two halves added are not the whole")
		}
	})
}

func TestHistogramTakesAnyDuration(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	h.record(-1)
	h.record(math.MaxInt64)
	if got := h.quantile(0); got != 0 {
		t.Errorf("a clock that went back: got %v, want 0", got)
	}
	if got := h.quantile(1); float64(got) < 0.99*math.MaxInt64 {
		t.Errorf("the longest duration: got %v", got)
	}
}
