//go:build linux

package scene

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// The variants of the scene endings.
const (
	everyEnding = "every ending"
	randomKills = "random kills"
	manyKills   = "200 kills"
)

// Endings is the scene of what the other end of a connection sees when one end
// of it ends.
func Endings() Scene {
	return Scene{
		Name:  "endings",
		Title: "every way in which a connection can end, from either side, in every phase: the other end sees the truth",
		Story: `A close, a half-close, a RST, a close with bytes unread, a killed program, a host
that falls silent; before any byte, idle, in the middle of an upload or a
download, after the other end has ended its stream; by the client or by the
backend. What poll, read and write say at the other end is recorded for a direct
connection and for one through the relay, which must show the same truth or a
stricter one: silence becomes a RST, and an end of stream is passed on only when
every byte before it was acknowledged, which a capture beside the relay confirms.
Then uploads and downloads are hit at random moments: nobody who has ended a
stream and got the end of stream back was lied to, and no download was cut by a
FIN that nobody meant.`,
		Variants: []Variant{
			{Fault: everyEnding, Demo: true},
			{Fault: randomKills, Title: "uploads and downloads hit at random moments", Demo: true},
			{Policy: manyKills, Fault: randomKills, Title: "the same for longer", Long: true},
		},
		Demo:    true,
		Patient: true,
		Run: func(ctx context.Context, e *Env) (*Verdict, error) {
			if e.Variant.Fault == randomKills {
				return kills(ctx, e)
			}
			return endingsTable(ctx, e)
		},
	}
}

func endingsTable(ctx context.Context, e *Env) (*Verdict, error) {
	b := newBound(7 * time.Second)
	t, err := lab.OneArm(lab.Size{Clients: 3, Nodes: 1, Backends: 3})
	if err != nil {
		return nil, err
	}
	l, err := e.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	st := &stage{Env: e, lab: l, timeout: b.timeout, listeners: map[string]net.Listener{}}
	node := l.Host("node1")
	capture, err := node.Capture("eth0", lab.CaptureFilter{Addr: node.Addr(e.Family)})
	if err != nil {
		return nil, err
	}
	for i := range 3 {
		h := l.Host(fmt.Sprintf("backend%d", i+1))
		ln, err := h.Listen(ctx, "tcp", e.AddrPort(h).String())
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		st.listeners[h.Name()] = ln
		if _, err := e.StartRelay(ctx, node, st.relayOf(h).String(), e.AddrPort(h).String(), "--check", "none", "--dead-peer-timeout", b.timeout.String()); err != nil {
			return nil, err
		}
	}
	all := trials()
	if e.Short {
		// The scene half-open shows what becomes of silence, which takes long.
		all = slices.DeleteFunc(all, func(t *trial) bool { return t.ending.silent() })
	}
	if err := st.playAll(ctx, all, b.limit()); err != nil {
		return nil, err
	}

	v := e.Verdict()
	table := Table{
		Title:  "what the other end sees",
		Header: []string{"who ends", "when", "how", "directly", "through the relay", "verdict"},
	}
	counts := map[string]int{}
	var toldSilent []time.Duration
	var pairs []legs
	for _, t := range all {
		verdict, ok := t.judge()
		if !ok {
			v.Fail("%v, %s, %v: %s (directly: %s; through the relay: %s)", t.by, t.phase.name(t.by), t.ending, verdict, t.runs[0].seen, t.runs[1].seen)
			verdict = "WRONG: " + verdict
		}
		counts[verdict]++
		if t.ending.silent() {
			toldSilent = append(toldSilent, t.runs[1].seen.after)
		}
		pairs = append(pairs, t.runs[1].legs)
		text := seen.String
		if e.Short {
			if ok && t.runs[0].seen.told() == t.runs[1].seen.told() {
				continue
			}
			text = seen.brief
		}
		table.Rows = append(table.Rows, []string{t.by.String(), t.phase.name(t.by), t.ending.String(), text(t.runs[0].seen), text(t.runs[1].seen), verdict})
	}
	if e.Short {
		table.Title += ", where the relay makes a difference"
	}
	v.Table(table)
	v.Count("endings compared", len(all)).Exactly(endingsIn(e.Short))
	untrue := len(all)
	for verdict, n := range counts {
		if !strings.HasPrefix(verdict, "WRONG") {
			untrue -= n
		}
	}
	v.Count("endings that tell less than a direct one", untrue).Exactly(0).AsHeadline()
	v.Count("the same truth as directly", counts["same"])
	v.Count("a stricter one: a RST for a FIN that would hide a loss", counts["stricter: what it sent is lost, and it is told so"])
	if len(toldSilent) > 0 {
		v.Count("silence, told by RST", counts["told"]).Exactly(len(toldSilent)).Versus("nobody is told")
		v.Time("told after the host fell silent", toldSilent...).Within(b.limit()).Versus("not after %v", b.limit())
	}

	fins, wrong := checkFINs(capture.Segments(), node.Addr(e.Family), pairs)
	for _, w := range wrong {
		v.Fail("on the wire: %s", w)
	}
	v.Count("FINs on the wire, each after the acknowledgement of every byte before it", fins-len(wrong)).AtLeast(1)
	v.Count("segments that the capture has missed", int(capture.Lost())).Exactly(0)
	return v, nil
}

// endingsIn is how many rows the table must have: eight endings in five phases
// from two sides, less the four that cannot be; and without the two silent
// endings where time is short.
func endingsIn(short bool) int {
	if short {
		return (8-2)*5*2 - 4
	}
	return 8*5*2 - 4
}
