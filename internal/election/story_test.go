package election

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/holdfast-net/holdfast/vrrp"
)

// The stories in testdata are read like a log: what is done to two nodes, a and
// b, and what their machines want. Only what people would want to know is
// shown; "show" adds kinds of actions.
//
//	world interval=100ms [witness] [preempt] [ipv6] [no-gate] [priorities=200,100] [drain=1s]
//	start NODE...             switch hosts on
//	run DURATION              let time pass
//	cut PATH... / heal PATH... adverts asks link witness-a witness-b
//	freeze NODE / go-on NODE  the elector's process
//	die NODE                  the host
//	release NODE
//	well NODE / unwell NODE / down NODE
//	forge NODE PRIORITY TIMES somebody sends NODE adverts in its peer's name, 30 ms apart
//	owners
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		var w *world
		var out strings.Builder
		show := map[Do]bool{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out.Reset()
			names := func(f func(n *node)) {
				for _, a := range d.CmdArgs {
					f(w.node[a.Key[0]-'a'])
				}
			}
			switch d.Cmd {
			case "world":
				s := usual(100 * time.Millisecond)
				s.delay, s.linkDelay = 0, 0
				for _, a := range d.CmdArgs {
					switch a.Key {
					case "interval":
						s.interval = duration(t, a.Vals[0])
					case "drain":
						s.drain = duration(t, a.Vals[0])
					case "priorities":
						for i, v := range a.Vals {
							if _, err := fmt.Sscan(v, &s.priority[i]); err != nil {
								t.Fatal(err)
							}
						}
					case "witness":
						s.witness = true
					case "preempt":
						s.preempt = true
					case "ipv6":
						s.six = true
					case "no-gate":
						s.gated = false
					default:
						d.Fatalf(t, "unknown word %q", a.Key)
					}
				}
				s.split = true
				s.start = [2]int64{1 << 62, 1 << 62}
				w = newWorld(s)
				w.onAction = func(n *node, a Action) {
					switch a.Do {
					case SendAdvert, Lease, SendBeat, Ask, Reflect:
						if !show[a.Do] {
							return
						}
					}
					if a.Do == Lease {
						fmt.Fprintf(&out, "%9s %s: lease for %s\n", at(w.t), n.name, time.Duration(a.Until-n.clock()))
						return
					}
					fmt.Fprintf(&out, "%9s %s: %v\n", at(w.t), n.name, a)
				}
			case "show":
				clear(show)
				for _, a := range d.CmdArgs {
					for k := SendAdvert; k <= Report; k++ {
						if k.String() == a.Key {
							show[k] = true
						}
					}
				}
			case "start":
				names(func(n *node) { n.powerOn(n.boot) })
			case "run":
				w.run(w.t + int64(duration(t, d.CmdArgs[0].Key)))
			case "cut", "heal":
				cut := d.Cmd == "cut"
				for _, a := range d.CmdArgs {
					switch a.Key {
					case "adverts":
						w.advert[0].cut, w.advert[1].cut = cut, cut
					case "asks":
						w.ask[0].cut, w.ask[1].cut = cut, cut
					case "witness-a":
						w.wit[0].cut = cut
					case "witness-b":
						w.wit[1].cut = cut
					case "link":
						if cut {
							w.cutLink()
						} else {
							w.linkCut = false
						}
					default:
						d.Fatalf(t, "unknown path %q", a.Key)
					}
				}
			case "freeze":
				names(func(n *node) { n.freeze(0) })
			case "go-on":
				names(func(n *node) { n.thaw() })
			case "die":
				names(func(n *node) { n.halt() })
			case "release":
				names(func(n *node) { n.call(func(now Instant) { n.do(n.m.Release(now)) }) })
			case "well":
				names(func(n *node) { n.setWell(true, false) })
			case "unwell":
				names(func(n *node) { n.setWell(false, false) })
			case "down":
				names(func(n *node) { n.setWell(false, true) })
			case "stop":
				names(func(n *node) { n.call(func(now Instant) { n.do(n.m.Stop(now)) }) })
			case "forge":
				n := w.node[d.CmdArgs[0].Key[0]-'a']
				var priority uint8
				var times int
				if _, err := fmt.Sscan(d.CmdArgs[1].Key+" "+d.CmdArgs[2].Key, &priority, &times); err != nil {
					t.Fatal(err)
				}
				forged := vrrp.Advert{Family: vrrp.IPv4, ID: 51, Priority: priority, Interval: w.interval, Addresses: []netip.Addr{vip4}}
				for range times {
					n.call(func(now Instant) { n.do(n.m.Advert(now, n.peer().addr[0], forged)) })
					w.run(w.t + 30*ms)
				}
			case "owners":
				return "owners: " + w.owners()
			default:
				d.Fatalf(t, "unknown command")
			}
			if len(w.violations) > 0 {
				fmt.Fprintf(&out, "two leases: %s\n", w.violations[0])
				w.violations = nil
			}
			return out.String()
		})
	})
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// at shows a time in the world to a tenth of a millisecond.
func at(t int64) string { return fmt.Sprintf("%.1fms", float64(t)/float64(ms)) }
