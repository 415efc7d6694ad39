package election

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

// schedules gives every pair of faults of the kinds, that begin at every part of
// an interval of the first one, the second up to 4 I later, each short, about as long as it takes to take over, or long.
func schedules(kinds []string, step, I int64, each func([]fault)) {
	single := func(kind string, node int, at int64) (all []fault) {
		for _, last := range []int64{I, 13 * I / 4, 5 * I} {
			if kind != "freeze" {
				all = append(all, fault{kind: kind, node: node, at: at, last: last})
				continue
			}
			for after := range 5 {
				all = append(all, fault{kind: kind, node: node, after: after, at: at, last: last})
			}
		}
		return all
	}
	nodes := func(kind string) int {
		switch kind {
		case "adverts", "asks", "link", "split":
			return 1
		}
		return 2
	}
	for _, k1 := range kinds {
		for n1 := range nodes(k1) {
			for at1 := 20 * I; at1 < 21*I; at1 += step {
				for _, f1 := range single(k1, n1, at1) {
					each([]fault{f1})
					for _, k2 := range kinds {
						for n2 := range nodes(k2) {
							for at2 := at1; at2 <= at1+4*I; at2 += step {
								for _, f2 := range single(k2, n2, at2) {
									each([]fault{f1, f2})
								}
							}
						}
					}
				}
			}
		}
	}
}

// parts is how finely an interval is divided: the number of schedules grows with
// its square.
var parts = flag.Int64("parts", 1, "at how many moments of an interval a fault begins")

// Every pair of faults, at every part of an interval: frozen before every
// action, on either node, and every path. 254 and 255 leave hardly any skew.
func TestEveryPairOfFaults(t *testing.T) {
	for _, c := range []struct {
		witness  bool
		priority [2]uint8
		kinds    []string
	}{
		{false, [2]uint8{200, 100}, []string{"adverts", "asks", "link", "freeze", "crash", "host", "release"}},
		{false, [2]uint8{255, 254}, []string{"adverts", "freeze", "crash", "down"}},
		{true, [2]uint8{200, 100}, []string{"split", "witness", "freeze", "crash", "release"}},
		{true, [2]uint8{255, 254}, []string{"split", "witness", "freeze"}},
	} {
		t.Run(fmt.Sprintf("witness=%v/priorities=%v", c.witness, c.priority), func(t *testing.T) {
			t.Parallel()
			const interval = 100 * time.Millisecond
			n := 0
			schedules(c.kinds, int64(interval) / *parts, int64(interval), func(faults []fault) {
				n++
				s := usual(interval)
				s.priority, s.witness, s.seed = c.priority, c.witness, uint64(n)
				s.start[1] = int64(interval / 3)
				w := newWorld(s)
				w.play(faults)
				if wrong := w.verdict(faults); wrong != "" {
					t.Errorf("%s\n%v", wrong, faults)
				}
			})
			t.Logf("%d schedules", n)
		})
	}
}
