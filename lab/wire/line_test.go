//go:build linux

package wire

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = int64(time.Millisecond)

// TestAdmit gives one direction frames at known times.
func TestAdmit(t *testing.T) {
	type frame struct {
		now  int64
		size int
		fate fate
		at   int64
	}
	cases := []struct {
		name     string
		settings Settings
		frames   []frame
	}{
		{"a good cable", Settings{}, []frame{{0, 1500, passes, 0}, {5, 60, passes, 5}}},
		{"delay", Settings{Delay: 20 * time.Millisecond}, []frame{{0, 1500, passes, 20 * ms}, {5, 60, passes, 20*ms + 5}}},
		{"partition", Settings{Partition: true}, []frame{{0, 60, partitioned, 0}, {1, 60, partitioned, 0}}},
		{"all lost", Settings{Loss: 1}, []frame{{0, 60, lost, 0}, {1, 60, lost, 0}}},
		// 1000 bytes at 8 Mbit/s take 1 ms; 2500 bytes may wait
		{"bandwidth", Settings{Bandwidth: 8e6, Queue: 2500}, []frame{
			{0, 1000, passes, 1 * ms}, {0, 1000, passes, 2 * ms}, {0, 1000, queueFull, 0}, {0, 500, passes, 2*ms + ms/2},
			{2 * ms, 2000, passes, 4*ms + ms/2}, {100 * ms, 1000, passes, 101 * ms},
		}},
		{"a frame above the queue passes a free line", Settings{Bandwidth: 8e6, Queue: 100}, []frame{{0, 1000, passes, 1 * ms}, {0, 60, queueFull, 0}}},
		{"bandwidth and delay", Settings{Bandwidth: 8e6, Delay: 10 * time.Millisecond}, []frame{{0, 1000, passes, 11 * ms}, {0, 1000, passes, 12 * ms}}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var l line
			for i, f := range tc.frames {
				if p := l.admit(f.now, f.size, tc.settings); p.fate != f.fate || p.at != f.at {
					t.Errorf("frame %d: fate %d at %v, want %d at %v", i, p.fate, time.Duration(p.at), f.fate, time.Duration(f.at))
				}
			}
		})
	}
}

func draw(t *rapid.T) Settings {
	p := rapid.Float64Range(0, 1)
	s := Settings{
		Delay: time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "delay")),
		Loss:  p.Draw(t, "loss"), Duplicate: p.Draw(t, "duplicate"), Reorder: p.Draw(t, "reorder"),
		ReorderDelay: time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "reorder delay")),
		Bandwidth:    rapid.Int64Range(0, 1e10).Draw(t, "bandwidth"), Queue: rapid.IntRange(0, 1<<20).Draw(t, "queue"),
	}
	s.Jitter = time.Duration(rapid.Int64Range(0, int64(s.Delay)).Draw(t, "jitter"))
	return s
}

// TestLine: whatever the settings and the arrivals, frames that keep their
// place keep it, none is early or above the bandwidth, and all of it is the
// same a second time.
func TestLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		a, b := line{seed: seed, from: FromB}, line{seed: seed, from: FromB}
		now, last, sent, begin := int64(0), int64(0), int64(0), int64(-1)
		for n := range rapid.IntRange(1, 200).Draw(t, "frames") {
			now += rapid.Int64Range(0, 2*ms).Draw(t, "gap")
			size := rapid.IntRange(14, 9000).Draw(t, "size")
			p := a.admit(now, size, s)
			if q := b.admit(now, size, s); p != q {
				t.Fatalf("frame %d: %+v, then %+v", n, p, q)
			}
			if d := decide(seed, FromB, uint64(n), s); (p.fate == lost) != d.lose || p.fate == passes && (p.late != d.late || (p.copies == 2) != d.duplicate) {
				t.Fatalf("frame %d: %+v, but chance says %+v", n, p, d)
			}
			if p.fate != passes {
				continue
			}
			if begin < 0 {
				begin = now
			}
			sent += int64(size)
			early := p.at - now - int64(s.Delay-s.Jitter)
			if s.Bandwidth > 0 {
				early = p.at - begin - int64(s.Delay-s.Jitter) - int64(float64(size)*8e9/float64(s.Bandwidth))
			}
			if early < -2 {
				t.Fatalf("frame %d is %v too early", n, time.Duration(-early))
			}
			if !p.late {
				if p.at < last {
					t.Fatalf("frame %d overtakes by %v", n, time.Duration(last-p.at))
				}
				last = p.at
			} else if p.at <= last {
				t.Fatalf("frame %d is not held back", n)
			}
		}
		if s.Bandwidth > 0 && begin >= 0 {
			if need := float64(sent) * 8e9 / float64(s.Bandwidth); float64(a.free-begin) < need-float64(a.n) {
				t.Fatalf("%d bytes in %v at %d bit/s", sent, time.Duration(a.free-begin), s.Bandwidth)
			}
		}
	})
}

// TestChances: over many frames each probability is met within five standard
// deviations, the directions differ, and the questions do not depend on each other.
func TestChances(t *testing.T) {
	const n = 200_000
	s := Settings{Loss: 0.05, Duplicate: 0.3, Reorder: 0.01, Delay: time.Second, Jitter: 100 * time.Millisecond}
	for _, from := range []Direction{FromA, FromB} {
		var lose, duplicate, late, both int
		var sum, least, most time.Duration
		for i := range uint64(n) {
			d := decide(7, from, i, s)
			lose, duplicate, late, both = lose+btoi(d.lose), duplicate+btoi(d.duplicate), late+btoi(d.late), both+btoi(d.lose && d.duplicate)
			sum, least, most = sum+d.jitter, min(least, d.jitter), max(most, d.jitter)
		}
		for _, c := range []struct {
			name string
			got  int
			p    float64
		}{{"lost", lose, 0.05}, {"duplicated", duplicate, 0.3}, {"late", late, 0.01}, {"both", both, 0.015}} {
			if off := math.Abs(float64(c.got) - n*c.p); off > 5*math.Sqrt(n*c.p*(1-c.p)) {
				t.Errorf("%v: %d %s, want %v", from, c.got, c.name, n*c.p)
			}
		}
		if least < -s.Jitter || most > s.Jitter || least > -s.Jitter*9/10 || most < s.Jitter*9/10 || (sum/n).Abs() > time.Millisecond {
			t.Errorf("%v: jitter from %v to %v, mean %v", from, least, most, sum/n)
		}
	}
	differ := 0
	for i := range uint64(1000) {
		differ += btoi(decide(7, FromA, i, Settings{Loss: 0.5}).lose != decide(7, FromB, i, Settings{Loss: 0.5}).lose)
	}
	if differ < 400 || differ > 600 {
		t.Errorf("the directions differ in %d of 1000 frames", differ)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestFrames: what is pushed comes out sorted by time, and by order of arrival where that is the same.
func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		times := rapid.SliceOf(rapid.Int64Range(0, 20)).Draw(t, "times")
		var h frames
		least := int64(math.MaxInt64)
		for i, at := range times {
			if first := h.push(waiting{at: at, n: uint64(i)}); first != (at < least) {
				t.Fatalf("push of %d after least %d says first = %v", at, least, first)
			}
			least = min(least, at)
		}
		var got []waiting
		for range times {
			got = append(got, h.pop())
		}
		if len(h) != 0 || !slices.IsSortedFunc(got, func(a, b waiting) int {
			if a.at != b.at {
				return int(a.at - b.at)
			}
			return int(a.n) - int(b.n)
		}) {
			t.Fatalf("%v", got)
		}
	})
}

func TestSettingsBounds(t *testing.T) {
	for field, s := range map[string]Settings{
		"Delay":        {Delay: -1},
		"Delay 1m":     {Delay: time.Minute + 1},
		"Jitter":       {Delay: 1, Jitter: 2},
		"Loss":         {Loss: 1.01},
		"Loss NaN":     {Loss: math.NaN()},
		"Duplicate":    {Duplicate: -0.1},
		"Reorder 2":    {Reorder: 2},
		"ReorderDelay": {ReorderDelay: -1},
		"Bandwidth":    {Bandwidth: -1},
		"Queue":        {Queue: -1},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "wire: "+strings.Fields(field)[0]+" ") {
			t.Errorf("%s: %v", field, err)
		}
		if _, err := New(nil, nil, Options{FromA: s}); err == nil {
			t.Errorf("%s: New takes it", field)
		}
	}
	if err := (Settings{}).Validate(); err != nil {
		t.Error(err)
	}
}
