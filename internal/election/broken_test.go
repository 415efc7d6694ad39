package election

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// broken are worlds in which one rule does not hold. The model must find what
// comes of it in each of them, or it would not find it anywhere.
var broken = []struct {
	name    string
	witness bool
	kinds   []string
	change  func(*setup)
	// onlyClaims: nobody has two leases, but somebody says what is not so.
	onlyClaims bool
}{
	{"the lease is longer than the silence that is waited for", false, []string{"freeze"}, func(s *setup) {
		s.mute = true
		s.derive = func(p uint8, i time.Duration) Times {
			t := NewTimes(p, i)
			t.Lease = t.Down + i
			return t
		}
	}, false},
	{"the backup acts after two intervals, whatever is answered", false, []string{"freeze"}, func(s *setup) {
		s.mute = true
		s.derive = func(p uint8, i time.Duration) Times {
			t := NewTimes(p, i)
			t.Down, t.Suspect = 2*i, i
			return t
		}
	}, false},
	{"the lease is extended before the advert leaves, and nobody is asked", false, []string{"freeze"}, func(s *setup) { s.leaseFirst, s.mute = true, true }, false},
	{"advert and lease are done however late", false, []string{"freeze"}, func(s *setup) { s.writeLate, s.speakLate = true, true }, false},
	{"an advert leaves however late it is", false, []string{"freeze"}, func(s *setup) { s.speakLate = true }, true},
	{"kernels do not answer", false, []string{"adverts", "link"}, func(s *setup) { s.mute = true }, false},
	{"the witness does not answer in the peer's name", true, []string{"split"}, func(s *setup) { s.noReflection = true }, false},
	{"an owner needs no witness", true, []string{"split", "witness"}, func(s *setup) { s.carefree = [2]bool{true, false} }, false},
	{"a backup needs no witness", true, []string{"split", "witness"}, func(s *setup) { s.carefree = [2]bool{false, true} }, false},
	{"paths between the nodes are all cut, without a witness", false, []string{"split"}, func(s *setup) { s.split = true }, false},
}

func TestBrokenRulesAreFound(t *testing.T) {
	const interval = 100 * time.Millisecond
	for _, c := range broken {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, found := 0, ""
			schedules(c.kinds, int64(interval)/4, int64(interval), func(faults []fault) {
				n++
				if found != "" {
					return
				}
				s := usual(interval)
				s.witness, s.seed = c.witness, uint64(n)
				s.start[1] = int64(interval / 3)
				s.priority = [2]uint8{255, 254} // hardly any skew, which would make good for much
				c.change(&s)
				w := newWorld(s)
				w.play(faults)
				want := func(v string) bool { return strings.Contains(v, "may speak until") != c.onlyClaims }
				if i := slices.IndexFunc(w.violations, want); i >= 0 {
					found = fmt.Sprintf("schedule %d, %v: %s", n, faults, w.violations[i])
				}
			})
			if found == "" {
				t.Errorf("%d schedules, and never two owners", n)
			}
			t.Log(found)
		})
	}
}

// After a split without a witness both own; when it has healed one of them
// stays, the one that goes before the other, and never lost its lease.
func TestSplitHeals(t *testing.T) {
	for _, first := range []int{0, 1} {
		for _, priority := range [][2]uint8{{200, 100}, {100, 200}, {100, 100}} {
			s := usual(100 * time.Millisecond)
			s.split, s.priority = true, priority
			s.start[1-first] = 10 * int64(s.interval) // the other one owns before the split
			w := newWorld(s)
			stays := 0
			if priority[1] > priority[0] {
				stays = 1
			}
			withdrawn := [2]int{}
			w.onAction = func(n *node, a Action) {
				if a.Do == Withdraw {
					withdrawn[n.i]++
				}
			}
			w.schedule(fault{kind: "split", at: 30 * int64(s.interval), last: 100 * int64(s.interval)})
			w.run(60 * int64(s.interval))
			if w.owners() != "a+b" {
				t.Errorf("priorities %v: %q own in the split", priority, w.owners())
			}
			w.run(131 * int64(s.interval))
			w.run(w.t + 4*int64(s.interval))
			if want := w.node[stays].name; w.owners() != want || withdrawn[stays] != 0 || withdrawn[1-stays] != 1 {
				t.Errorf("priorities %v: %q owns after it, want %q; withdrawn %v", priority, w.owners(), want, withdrawn)
			}
		}
	}
}
