package election

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fault is something that goes wrong, and ends.
type fault struct {
	kind  string
	node  int
	after int   // actions, of a freeze
	at    int64 // since the world began
	last  int64
}

func (f fault) String() string {
	s := fmt.Sprintf("%v +%v %s", time.Duration(f.at), time.Duration(f.last), f.kind)
	if f.kind != "link" && f.kind != "adverts" && f.kind != "asks" {
		s += " " + string(rune('a'+f.node))
	}
	if f.kind == "freeze" {
		s += fmt.Sprintf(" after %d", f.after)
	}
	return s
}

// bearable says whether adverts, or questions, may be cut now without a witness:
// not both within 7 I, as only one of them tells a frozen owner that has renewed
// its lease from a dead one. The link may always be cut.
func (w *world) bearable(other *[2]lossy) bool {
	return w.witness || w.split || !other[0].cut && (other[0].healed == 0 || w.t-other[0].healed >= 7*int64(w.interval))
}

// whole says whether nodes that are started now meet, which is what a witness
// needs: who has not heard of his peer since he was started cannot speak in its
// name. met says whether they have.
func (w *world) whole() bool {
	return !w.witness || !w.linkCut && !w.advert[0].cut && !w.ask[0].cut && w.node[0].daemon && w.node[1].daemon
}

func (w *world) met() bool {
	for _, n := range w.node {
		if n.up && (n.m == nil || n.m.peer.beat.MAC == MAC{}) {
			return false
		}
	}
	return true
}

// schedule puts a fault into the world.
func (w *world) schedule(f fault) {
	n := w.node[f.node]
	during := func(begin func() bool, end func()) {
		w.at(f.at, func() {
			if begin() {
				w.note("%v: %v", time.Duration(w.t), f)
				w.at(w.t+f.last, end)
			}
		})
	}
	// With a witness, a path does not heal within 7 I of another's cut, nor is one
	// cut within 7 I of another's healing: who was deaf for less than he needs to
	// notice does not know what he has not heard.
	rest := 7 * int64(w.interval)
	cuts := func(begin func() bool, heal func()) {
		w.at(f.at, func() {
			if w.witness && (w.healed != 0 && w.t-w.healed < rest || !w.met()) || !begin() {
				return
			}
			w.note("%v: %v", time.Duration(w.t), f)
			w.cutAt = w.t
			var end func()
			end = func() {
				if w.witness && w.t-w.cutAt < rest {
					w.at(w.cutAt+rest, end)
					return
				}
				w.healed = w.t
				heal()
			}
			w.at(w.t+f.last, end)
		})
	}
	both := func(paths *[2]lossy, cut bool) {
		for i := range paths {
			paths[i].cut = cut
			if !cut {
				paths[i].healed = w.t
			}
		}
	}
	switch f.kind {
	case "adverts":
		cuts(func() bool {
			if w.advert[0].cut || !w.bearable(&w.ask) {
				return false
			}
			both(&w.advert, true)
			return true
		}, func() { both(&w.advert, false) })
	case "asks":
		cuts(func() bool {
			if w.ask[0].cut || !w.bearable(&w.advert) || !w.witness && w.node[0].slower+w.node[1].slower > 2 {
				return false
			}
			both(&w.ask, true)
			return true
		}, func() { both(&w.ask, false) })
	case "link":
		cuts(func() bool {
			if w.linkCut {
				return false
			}
			w.cutLink()
			return true
		}, func() { w.linkCut = false })
	case "split": // every path between the two at once
		cuts(func() bool {
			if !w.witness && !w.split || w.linkCut || w.advert[0].cut || w.ask[0].cut {
				return false
			}
			both(&w.advert, true)
			both(&w.ask, true)
			w.cutLink()
			return true
		}, func() { both(&w.advert, false); both(&w.ask, false); w.linkCut = false })
	case "witness":
		cuts(func() bool {
			if w.wit[f.node].cut {
				return false
			}
			w.wit[f.node].cut = true
			return true
		}, func() { w.wit[f.node].cut = false })
	case "freeze":
		during(func() bool {
			if n.m == nil || n.frozen || n.stopAt >= 0 {
				return false
			}
			n.freeze(f.after)
			return true
		}, n.thaw)
	case "daemon":
		during(func() bool {
			if !n.daemon || !n.up {
				return false
			}
			n.stopDaemon()
			return true
		}, func() {
			if n.up {
				n.startDaemon()
			}
		})
	case "crash", "upgrade": // of the elector; what follows takes over what runs, or does not
		during(func() bool {
			if n.m == nil || f.kind == "crash" && !w.whole() {
				return false
			}
			n.die()
			return true
		}, func() {
			if n.up && n.m == nil {
				n.startElector(f.kind == "upgrade")
			}
		})
	case "host":
		during(func() bool {
			if !n.up || !w.whole() {
				return false
			}
			n.halt()
			return true
		}, func() {
			n.frozen = false
			n.powerOn(w.t - int64(time.Second))
		})
	case "unwell", "down":
		during(func() bool {
			if !n.well || !n.up {
				return false
			}
			n.setWell(false, f.kind == "down")
			return true
		}, func() { n.setWell(true, false) })
	case "reload": // another interval, and back
		change := func(times int64) {
			n.slower = times
			n.call(func(now Instant) {
				actions, err := n.m.Change(now, n.settings())
				if err != nil {
					panic(err)
				}
				n.do(actions)
			})
		}
		// Who starts listens by his own interval: that the other's is longer he
		// learns from an answer.
		during(func() bool {
			if w.ask[0].cut && !w.witness {
				return false
			}
			change(4)
			return true
		}, func() { change(1) })
	case "release":
		w.at(f.at, func() {
			w.note("%v: %v", time.Duration(w.t), f)
			n.call(func(now Instant) { n.do(n.m.Release(now)) })
		})
	default:
		panic(f.kind)
	}
}

// play runs a world through its faults, heals everything, and lets it settle.
func (w *world) play(faults []fault) {
	end := int64(0)
	for _, f := range faults {
		w.schedule(f)
		end = max(end, f.at+f.last)
	}
	w.run(end + int64(w.interval))
	for _, n := range w.node {
		n.thaw()
	}
	w.run(w.t + w.settle(faults))
}

// settle is how long it may take at most, after the last fault, until there is
// one owner again, whatever was in progress.
func (w *world) settle(faults []fault) int64 {
	interval := w.interval
	if slices.ContainsFunc(faults, func(f fault) bool { return f.kind == "reload" }) {
		interval *= 4 // a backup remembers it until it hears another
	}
	t := NewTimes(1, interval)
	most := 2*t.Down + t.Patience + t.Grace
	moves := func(f fault) bool {
		return f.kind == "release" || f.kind == "unwell" || f.kind == "down" || f.kind == "daemon"
	}
	if w.preempt || slices.ContainsFunc(faults, moves) {
		most += w.drain + 2*MoveAnswer + drainLeeway
	}
	if !w.gated {
		most += 2 * Linger
	}
	return int64(most)
}

// verdict says what is wrong after a play.
func (w *world) verdict(faults []fault) string {
	var wrong []string
	if len(w.violations) > 0 {
		wrong = append(wrong, "two leases at "+w.violations[0])
	}
	if o := w.owners(); len(o) != 1 {
		wrong = append(wrong, fmt.Sprintf("owners in the end: %q", o))
	}
	most := 2*len(faults) + 1
	if w.preempt {
		most *= 2 // what moved for a fault moves back
	}
	if n := len(w.takeovers); n > most {
		wrong = append(wrong, fmt.Sprintf("%d takeovers for %d faults", n, len(faults)))
	}
	epoch := [2]uint64{}
	boots := 0
	for _, f := range faults {
		if f.kind == "host" {
			boots++
		}
	}
	for _, k := range w.takeovers {
		if k.epoch <= epoch[k.node] && boots == 0 {
			wrong = append(wrong, fmt.Sprintf("epoch %d after %d", k.epoch, epoch[k.node]))
		}
		epoch[k.node] = max(epoch[k.node], k.epoch)
	}
	return strings.Join(wrong, "; ")
}

var kinds = []string{"adverts", "asks", "link", "freeze", "freeze", "daemon", "crash", "upgrade", "host", "unwell", "down", "release", "reload"}

// drawWorld draws a world and what goes wrong in it.
func drawWorld(t *rapid.T, witness bool) (setup, []fault) {
	interval := rapid.SampledFrom([]time.Duration{10, 20, 50, 100, 300, 1000}).Draw(t, "interval in ms") * time.Millisecond
	I := int64(interval)
	s := setup{
		interval: interval, witness: witness, gated: true,
		priority: [2]uint8{
			rapid.SampledFrom([]uint8{1, 100, 200, 254, 255}).Draw(t, "priority of a"),
			rapid.SampledFrom([]uint8{1, 100, 200, 254, 255}).Draw(t, "priority of b"),
		},
		six:        rapid.Bool().Draw(t, "IPv6"),
		preempt:    rapid.IntRange(0, 3).Draw(t, "preempt") == 0,
		needsAlive: rapid.Bool().Draw(t, "needs the daemon"),
		rate:       [2]int64{rapid.Int64Range(-500, 500).Draw(t, "rate of a"), rapid.Int64Range(-500, 500).Draw(t, "rate of b")},
		delay:      I / rapid.SampledFrom([]int64{1000, 100, 30}).Draw(t, "delay part"),
		linkDelay:  rapid.SampledFrom([]int64{ms / 2, 3 * ms}).Draw(t, "link delay"),
		late:       I / rapid.SampledFrom([]int64{1000, 10, 2}).Draw(t, "late part"),
		double:     rapid.SampledFrom([]int{0, 0, 30}).Draw(t, "twice"),
		loss:       rapid.SampledFrom([]int{0, 0, 5, 10}).Draw(t, "loss"),
		seed:       rapid.Uint64().Draw(t, "seed"),
	}
	if witness && s.loss > 0 {
		s.late = min(s.late, I/10) // each is borne, not both: a lease may end, and comes back
	}
	s.start[1] = rapid.Int64Range(0, 6*I).Draw(t, "start of b")
	list := kinds
	if witness {
		list = append([]string{"split", "split", "witness", "witness", "witness"}, kinds...)
	}
	n := rapid.IntRange(0, 6).Draw(t, "faults")
	var faults []fault
	at := 10 * I
	for range n {
		at += rapid.Int64Range(0, 40).Draw(t, "later by") * I / 4
		f := fault{
			kind: rapid.SampledFrom(list).Draw(t, "kind"),
			node: rapid.IntRange(0, 1).Draw(t, "node"),
			at:   at + rapid.Int64Range(0, I/4).Draw(t, "and"),
			last: rapid.SampledFrom([]int64{I / 2, I, 2 * I, 3 * I, 4 * I, 7 * I, 30 * I, 100 * I}).Draw(t, "for"),
		}
		if f.kind == "freeze" {
			f.after = rapid.IntRange(0, 6).Draw(t, "after")
		}
		faults = append(faults, f)
	}
	return s, faults
}

func checkWorld(t *rapid.T, witness bool) {
	s, faults := drawWorld(t, witness)
	w := newWorld(s)
	w.log = func(line string) { t.Log(line) }
	w.onAction = func(n *node, a Action) {
		if a.Do == Own || a.Do == Withdraw || a.Do == Report {
			t.Logf("%v %s: %v", time.Duration(w.t), n.name, a)
		}
	}
	w.play(faults)
	if wrong := w.verdict(faults); wrong != "" {
		t.Fatalf("%s\n%+v\n%v", wrong, s, faults)
	}
}

// Whatever goes wrong, as long as one path is left between the two.
func TestOneOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkWorld(t, false) })
}

// Whatever goes wrong, with a witness.
func TestOneOwnerWithWitness(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkWorld(t, true) })
}
