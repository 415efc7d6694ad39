package vip

import (
	"math"
	"testing"
	"time"
)

// Every duration lies within its bucket, whose width is at most a quarter of it.
func TestBuckets(t *testing.T) {
	for _, d := range []int64{0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 1000, 1 << 20, 1<<20 + 1, 3 << 40, math.MaxInt64} {
		b := bucket(d)
		if b > 0 && edge(b-1) >= d || edge(b) < d && d != math.MaxInt64 {
			t.Errorf("%d is in bucket %d, which ends at %d after %d", d, b, edge(b), edge(b-1))
		}
		if d >= 4 && d < 1<<60 && edge(b) > d+d/4 {
			t.Errorf("bucket %d of %d ends at %d", b, d, edge(b))
		}
	}
	if bucket(-5) != 0 {
		t.Error("a negative duration has no bucket")
	}
}

func TestTiming(t *testing.T) {
	var tm timing
	if got := tm.show(); got != (Timing{}) {
		t.Errorf("empty: %+v", got)
	}
	for range 98 {
		tm.add(int64(10 * time.Millisecond))
	}
	tm.add(int64(50 * time.Millisecond))
	tm.add(int64(70 * time.Millisecond))
	got := tm.show()
	if got.Count != 100 || got.Max != 70*time.Millisecond {
		t.Errorf("%+v", got)
	}
	if got.P50 < 10*time.Millisecond || got.P50 > 12500*time.Microsecond || got.P99 < 50*time.Millisecond || got.P99 > 63*time.Millisecond {
		t.Errorf("quantiles %v %v", got.P50, got.P99)
	}
	if n := testing.AllocsPerRun(100, func() { tm.add(1000) }); n != 0 {
		t.Errorf("adding allocates %v times", n)
	}
}
