package election

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// The inequality holds for everything that can be configured.
func TestInequality(t *testing.T) {
	for interval := vrrp.MinInterval; interval <= vrrp.MaxInterval; interval += vrrp.MinInterval {
		for _, priority := range []uint8{1, 2, 99, 100, 101, 200, 253, 254, 255} {
			if err := NewTimes(priority, interval).Check(driftPart); err != nil {
				t.Fatalf("priority %d: %v", priority, err)
			}
		}
	}
}

// Check sees every part of it that does not hold.
func TestInequalityCanFail(t *testing.T) {
	for name, c := range map[string]struct {
		break_ func(*Times)
		want   string
	}{
		"short lease": {func(t *Times) { t.Lease = 2 * t.Interval }, "before two adverts are missed"},
		"long lease":  {func(t *Times) { t.Lease = t.Down }, "before the lease has ended"},
		"slack":       {func(t *Times) { t.Slack = 2 * t.Interval }, "before the lease has ended"},
		"bound":       {func(t *Times) { t.Bound = t.Lease }, "while the old lease runs"},
		"grace":       {func(t *Times) { t.Grace = 2 * t.Lease }, "while a lease runs"},
		"suspect":     {func(t *Times) { t.Suspect = t.Down }, "no time to ask"},
	} {
		t.Run(name, func(t *testing.T) {
			times := NewTimes(100, 100*time.Millisecond)
			c.break_(&times)
			if err := times.Check(driftPart); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// takeoverAfter plays a fault of the owner and gives when the backup took over,
// counted from the last advert that it heard.
func takeoverAfter(t *testing.T, s setup, kind string) time.Duration {
	t.Helper()
	w := newWorld(s)
	I := int64(s.interval)
	w.run(20 * I)
	if w.owners() != "a" {
		t.Fatalf("owner is %q, want a", w.owners())
	}
	b := w.node[1]
	w.schedule(fault{kind: kind, node: 0, at: w.t, last: 1000 * I})
	for len(w.takeovers) == 1 && w.t < 100*I {
		w.run(w.q[0].at)
		if b.m.role == Active {
			break
		}
	}
	if len(w.takeovers) != 2 {
		t.Fatalf("no takeover within %v", time.Duration(80*I))
	}
	return time.Duration(w.takeovers[1].at - b.when(b.m.advertAt))
}

// A takeover comes when RFC 9568 says, to the microsecond, whether the owner has
// died or is frozen, with and without questions that are answered.
func TestTakeoverIsNotDelayed(t *testing.T) {
	for _, interval := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second} {
		for _, kind := range []string{"host", "crash", "freeze"} {
			for _, witness := range []bool{false, true} {
				s := usual(interval)
				s.witness = witness
				got, want := takeoverAfter(t, s, kind), vrrp.DownInterval(s.priority[1], interval)
				// With a witness the owner's last sign is a question to the
				// backup, a frame's way after the advert.
				most := want + time.Microsecond
				if witness {
					most += interval / 50
				}
				if got < want || got > most {
					t.Errorf("%s, interval %v, witness %v: after %v, want %v", kind, interval, witness, got, want)
				}
			}
		}
	}
}

// An owner whose adverts come up to two intervals apart keeps its lease, and
// nobody takes over.
func TestGapsAreBorne(t *testing.T) {
	for _, interval := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond} {
		for _, witness := range []bool{false, true} {
			s := usual(interval)
			s.witness = witness
			w := newWorld(s)
			w.run(20 * int64(interval))
			w.setup.late = int64(interval) * 9 / 10
			w.run(2000 * int64(interval))
			if len(w.takeovers) != 1 || w.owners() != "a" {
				t.Errorf("interval %v, witness %v: takeovers %v", interval, witness, w.takeovers)
			}
		}
	}
}

func usual(interval time.Duration) setup {
	return setup{
		interval: interval, priority: [2]uint8{200, 100}, gated: true,
		delay: int64(interval / 50), linkDelay: int64(interval / 10), seed: 1,
	}
}
