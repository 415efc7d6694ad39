package election

import (
	"fmt"
	"testing"
	"time"
)

// schedules gives every pair of faults of the kinds, that begin at every part of
// an interval of the first one, the second up to 4 I later, each short or long.
func schedules(kinds []string, step, I int64, each func([]fault)) {
	single := func(kind string, node int, at int64) (all []fault) {
		for _, last := range []int64{I, 5 * I} {
			if kind != "freeze" {
				all = append(all, fault{kind: kind, node: node, at: at, last: last})
				continue
			}
			for after := range 4 {
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

// Every pair of faults, at every part of an interval: frozen before every
// action, on either node, and every path.
func TestEveryPairOfFaults(t *testing.T) {
	for _, witness := range []bool{false, true} {
		kinds := []string{"adverts", "asks", "link", "freeze", "crash", "host", "release"}
		if witness {
			kinds = []string{"split", "witness", "freeze", "crash", "release"}
		}
		t.Run(fmt.Sprintf("witness=%v", witness), func(t *testing.T) {
			t.Parallel()
			interval := 100 * time.Millisecond
			step := int64(interval) / 2
			if testing.Short() {
				step = int64(interval)
			}
			n := 0
			schedules(kinds, step, int64(interval), func(faults []fault) {
				n++
				w := newWorld(setup{
					interval: interval, priority: [2]uint8{200, 100}, gated: true, witness: witness,
					delay: int64(interval / 100), linkDelay: ms, seed: uint64(n), start: [2]int64{0, int64(interval / 3)},
				})
				w.play(faults)
				if wrong := w.verdict(faults); wrong != "" {
					t.Errorf("%s\n%v", wrong, faults)
				}
			})
			t.Logf("%d schedules", n)
		})
	}
}
