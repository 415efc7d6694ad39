package elector

import (
	"slices"
	"testing"
	"time"
)

// An elector that is killed again and again is there again within a second, the
// first time at once; one that has lived is not held against the next.
func TestBackoff(t *testing.T) {
	var b backoff
	var got []time.Duration
	for range 8 { // each was there for a short time
		b.lived(300 * time.Millisecond)
		got = append(got, b.next())
	}
	const ms = time.Millisecond
	if want := []time.Duration{0, 50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1000 * ms, 1000 * ms}; !slices.Equal(got, want) {
		t.Errorf("kills in a row: %v, want %v", got, want)
	}
	b = 0
	got = got[:0]
	for range 7 { // none could be started
		got = append(got, b.next())
	}
	if got[0] != 0 || got[1] != 50*ms || got[6] != time.Second {
		t.Errorf("failed starts: %v", got)
	}
	if b.lived(settledAfter); b.next() != 0 {
		t.Error("an elector that has lived long is held against the next")
	}
}
