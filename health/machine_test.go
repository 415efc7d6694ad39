//go:build linux

package health

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	frozenChild() // does not return in the process that TestStoppedProcess stops
	goleak.VerifyTestMain(m)
}

var errDead = errors.New("dead")

// at is a moment of a test: milliseconds since some start.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestMachine(t *testing.T) {
	// Each result takes 10 ms, one begins every 100 ms: + success, - failure.
	for _, tt := range []struct {
		name, results, want string
	}{
		{"first success decides", "+", "up@10"},
		{"first failure decides", "-", "down@10"},
		{"fall", "+--+---", "up@10 down@610"},
		{"fall only in a row", "+--+--+--", "up@10"},
		{"rise", "--+-++", "down@10 up@510"},
		{"rise only in a row", "-+-+-+", "down@10"},
		{"and down again", "-++---", "down@10 up@210 down@510"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := machine{name: "b", fall: 3, rise: 2}
			var got string
			for i, c := range tt.results {
				r := result{started: at(i * 100), at: at(i*100 + 10)}
				if c == '-' {
					r.cause = errDead
				}
				change, changed := m.check(r)
				if !changed {
					continue
				}
				if got != "" {
					got += " "
				}
				got += change.State.String() + "@" + change.At.Sub(at(0)).String()
				if (change.State == Down) != errors.Is(change.Cause, errDead) {
					t.Errorf("change %+v has the cause %v", change, change.Cause)
				}
			}
			want := ""
			for i, f := range strings.Fields(tt.want) {
				if i > 0 {
					want += " "
				}
				want += f + "ms"
			}
			if got != want {
				t.Errorf("%s: %s, want %s", tt.results, got, want)
			}
		})
	}
}

func TestMachineEvidence(t *testing.T) {
	newUp := func() *machine {
		m := &machine{name: "b", fall: 3, rise: 2}
		m.check(result{started: at(0), at: at(1)})
		return m
	}
	fail := func(started, known int) result {
		return result{cause: errDead, started: at(started), at: at(known)}
	}
	t.Run("counts in the row", func(t *testing.T) {
		m := newUp()
		m.evidence(fail(10, 11))
		m.check(fail(12, 30))
		change, changed := m.evidence(fail(31, 32))
		if !changed || change.State != Down {
			t.Fatalf("%+v, want down after three", change)
		}
		if !change.FirstFailedStart.Equal(at(10)) || !change.LastFailedStart.Equal(at(31)) || !change.At.Equal(at(32)) {
			t.Errorf("first %v, last %v, at %v", change.FirstFailedStart, change.LastFailedStart, change.At)
		}
	})
	t.Run("overlapping attempts are one", func(t *testing.T) {
		m := newUp()
		for i := range 100 {
			if _, changed := m.evidence(fail(10+i%5, 20+i)); changed {
				t.Fatal("down by a burst of simultaneous attempts")
			}
		}
		if m.failures != 1 {
			t.Errorf("%d failures in a row, want 1", m.failures)
		}
	})
	t.Run("ignored while down", func(t *testing.T) {
		m := newUp()
		for i := range 3 {
			m.check(fail(10*i+10, 10*i+11))
		}
		m.check(result{started: at(50), at: at(51)})
		m.evidence(fail(60, 61))
		if _, changed := m.check(result{started: at(70), at: at(71)}); !changed || m.state != Up {
			t.Errorf("evidence while down broke the row of successes: %v", m.state)
		}
	})
	t.Run("what a client may have provoked does not decide", func(t *testing.T) {
		provoked := func(started int) result {
			r := fail(started, started+1)
			r.provoked = true
			return r
		}
		if _, changed := (&machine{fall: 3, rise: 2}).evidence(provoked(1)); changed {
			t.Error("down as the first result")
		}
		m := newUp()
		for i := range 10 {
			if _, changed := m.evidence(provoked(10 + 2*i)); changed {
				t.Fatalf("down by %d resets", i+1)
			}
		}
		if change, changed := m.check(fail(50, 51)); !changed || change.State != Down {
			t.Errorf("%+v: a failed check after %d resets must complete the row", change, m.failures)
		}
	})
	t.Run("an attempt from before it came up", func(t *testing.T) {
		m := &machine{name: "b", fall: 1, rise: 1}
		m.check(result{started: at(100), at: at(101)})
		if _, changed := m.evidence(fail(50, 3000)); changed {
			t.Error("down by an attempt that began when it was not up")
		}
	})
	t.Run("the check that was under way began earlier", func(t *testing.T) {
		m := newUp()
		m.evidence(fail(20, 21))
		m.evidence(fail(22, 23))
		change, _ := m.check(fail(10, 110))
		if !change.FirstFailedStart.Equal(at(10)) || !change.LastFailedStart.Equal(at(22)) {
			t.Errorf("first %v, last %v, want the earliest and the latest start", change.FirstFailedStart, change.LastFailedStart)
		}
	})
}

// The machine against its definition: the state is decided by the tail of the
// history.
func TestMachineAgainstHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fall, rise := rapid.IntRange(1, 5).Draw(t, "fall"), rapid.IntRange(1, 5).Draw(t, "rise")
		checkHistory(t, fall, rise, rapid.SliceOf(rapid.Bool()).Draw(t, "history"))
	})
}

func FuzzMachine(f *testing.F) {
	f.Add(uint8(3), uint8(2), []byte{1, 0, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, fall, rise uint8, bits []byte) {
		history := make([]bool, len(bits))
		for i, b := range bits {
			history[i] = b&1 == 1
		}
		checkHistory(t, int(fall%8)+1, int(rise%8)+1, history)
	})
}

func checkHistory(t interface{ Fatalf(string, ...any) }, fall, rise int, history []bool) {
	m := machine{fall: fall, rise: rise}
	state := Unknown
	for i, ok := range history {
		r := result{started: at(2 * i), at: at(2*i + 1)}
		if !ok {
			r.cause = errDead
		}
		want := state
		lastAre := func(n int, value bool) bool {
			return i+1 >= n && !slices.Contains(history[i+1-n:i+1], !value)
		}
		switch {
		case state == Unknown && ok, state == Down && lastAre(rise, true):
			want = Up
		case state == Unknown, state == Up && lastAre(fall, false):
			want = Down
		}
		change, changed := m.check(r)
		if changed != (want != state) || m.state != want || changed && (change.State != want || change.From != state) {
			t.Fatalf("fall %d, rise %d, %v: %v after result %d (changed: %v), want %v", fall, rise, history, m.state, i, changed, want)
		}
		if changed && want == Down && change.LastFailedStart != r.started {
			t.Fatalf("LastFailedStart is %v, want %v", change.LastFailedStart, r.started)
		}
		state = want
	}
}
