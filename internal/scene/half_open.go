//go:build linux

package scene

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// The faults of the scene half-open.
const (
	hostsVanish = "hosts vanish"
	lossyLink   = "5 % loss"
)

// HalfOpen is the scene of hosts that vanish while nobody, or somebody, sends.
func HalfOpen() Scene {
	return Scene{
		Name:  "half-open",
		Title: "a client host or a backend host vanishes: freed within the bound, whatever the connection was doing; the living live on",
		Story: `A host vanishes: its switch port goes down, then its power. Not one frame says so.
Its connections were idle, pushed to, uploading, downloading, or stalled because
the client had stopped reading, and each of these looks different to a kernel:
keepalive sees only the quiet ones, a user timeout only those that owe
acknowledgements. The other end of each must be told by RST within
dead_peer_timeout and one probe. Under loss nobody dies: connections of every
kind, readers among them that pause for longer than the bound, live through
5 % of lost frames in both directions, every byte right.`,
		Variants: []Variant{
			{Policy: "dead_peer_timeout 7s", Fault: hostsVanish, Demo: true},
			{Policy: "dead_peer_timeout 15s", Fault: hostsVanish, Title: "the default bound", Long: true},
			{Policy: "dead_peer_timeout 7s", Fault: lossyLink, Title: "50 connections for 15 s, none may die"},
			{Policy: "dead_peer_timeout 15s", Fault: lossyLink, Title: "200 connections for 60 s, none may die", Long: true},
		},
		Demo:    true,
		Patient: true,
		Run:     halfOpen,
	}
}

// bound is a dead-peer timeout and the time between two probes under it, as
// the relay divides it: six probes or more, in whole seconds.
type bound struct{ timeout, probe time.Duration }

func newBound(timeout time.Duration) bound {
	return bound{timeout, max(time.Second, (timeout / 7).Truncate(time.Second))}
}

func (b bound) limit() time.Duration { return b.timeout + b.probe }

func halfOpen(ctx context.Context, e *Env) (*Verdict, error) {
	b := newBound(7 * time.Second)
	if e.Variant.Policy == "dead_peer_timeout 15s" {
		b = newBound(15 * time.Second)
	}
	if e.Variant.Fault == lossyLink {
		return liveOn(ctx, e, b)
	}
	return vanish(ctx, e, b)
}

// vanishing are the five things that a connection may be doing when its peer
// vanishes.
var vanishing = []traffic.Pattern{traffic.Idle, traffic.Push, traffic.Upload, traffic.Download, traffic.ZeroWindow}

// doing says the pattern as the readers know it.
func doing(p traffic.Pattern) string {
	return map[traffic.Pattern]string{
		traffic.Idle: "idle", traffic.Request: "request", traffic.Push: "pushing", traffic.Upload: "uploading",
		traffic.Download: "downloading", traffic.ZeroWindow: "zero window",
	}[p]
}

// eachPattern is a fleet's groups: two connections of each of the five.
func eachPattern(dial traffic.DialFunc, address string) []traffic.Group {
	var groups []traffic.Group
	for _, p := range vanishing {
		groups = append(groups, traffic.Group{Count: 2, Client: traffic.ClientOptions{Dial: dial, Address: address, Pattern: p}})
	}
	return groups
}

// vanish lets a client host and a backend host vanish in the same instant, each
// with connections of every pattern, and waits for who is told, and when.
func vanish(ctx context.Context, e *Env, b bound) (*Verdict, error) {
	t, err := lab.OneArm(lab.Size{Clients: 2, Nodes: 1, Backends: 2})
	if err != nil {
		return nil, err
	}
	l, err := e.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	node := l.Host("node1")
	var servers [2]*Server
	var relays [2]*Relay
	var listen [2]string
	for i := range 2 {
		h := l.Host(fmt.Sprintf("backend%d", i+1))
		if servers[i], err = e.StartServer(ctx, h, h.Name(), e.AddrPort(h)); err != nil {
			return nil, err
		}
		listen[i] = node.AddrPort(e.Family, servicePort+uint16(i)).String()
		if relays[i], err = e.StartRelay(ctx, node, listen[i], e.AddrPort(h).String(), "--check", "none", "--dead-peer-timeout", b.timeout.String()); err != nil {
			return nil, err
		}
	}
	// The clients of the first relay vanish; so does the backend of the second.
	doomed, err := RunFleet(ctx, e.Seed, eachPattern(DialFrom(l.Host("client1")), listen[0]))
	if err != nil {
		return nil, err
	}
	defer doomed.End()
	bereft, err := RunFleet(ctx, e.Seed+1, eachPattern(DialFrom(l.Host("client2")), listen[1]))
	if err != nil {
		return nil, err
	}
	defer bereft.End()
	var direct [2]*Fleet // the same without Holdfast: nobody in between
	if e.Without {
		if direct[0], err = RunFleet(ctx, e.Seed+2, eachPattern(DialFrom(l.Host("client1")), e.AddrPort(l.Host("backend1")).String())); err != nil {
			return nil, err
		}
		defer direct[0].End()
		if direct[1], err = RunFleet(ctx, e.Seed+3, eachPattern(DialFrom(l.Host("client2")), e.AddrPort(l.Host("backend2")).String())); err != nil {
			return nil, err
		}
		defer direct[1].End()
	}
	e.Say("connections of five patterns run: idle, pushing, uploading, downloading, zero window")
	if err := Pause(ctx, 300*time.Millisecond+time.Duration(e.Rand().Int64N(int64(time.Second)))); err != nil {
		return nil, err
	}
	diedClient, err := l.Host("client1").Die()
	if err != nil {
		return nil, err
	}
	diedBackend, err := l.Host("backend2").Die()
	if err != nil {
		return nil, err
	}
	e.Say("a client host and a backend host have vanished; their peers must be told within %v", b.limit())

	v := e.Verdict()
	patience, cancel := context.WithDeadline(ctx, diedBackend.Add(b.limit()+Never))
	defer cancel()
	for _, p := range vanishing {
		v.clientVanished(patience, b, p, diedClient, doomed, servers[0], relays[0]).versus(direct[0], p, diedClient, func(r traffic.Report) bool {
			facts, ok := servers[0].Journal.Facts(r.ID)
			return ok && facts.End.At != 0
		})
		e.Say("client host vanished: %s connections freed", doing(p))
	}
	for _, p := range vanishing {
		v.backendVanished(patience, b, p, diedBackend, bereft, relays[1]).versus(direct[1], p, diedBackend, traffic.Report.Told)
		e.Say("backend host vanished: clients of %s connections told", doing(p))
	}
	return v, nil
}

// clientVanished judges the connections of one pattern whose client is gone:
// the relay must have ended them as dead, and the server been told by RST.
func (v *Verdict) clientVanished(ctx context.Context, b bound, p traffic.Pattern, died time.Time, doomed *Fleet, s *Server, relay *Relay) *Figure {
	var freed, told []time.Duration
	for _, r := range doomed.Reports() {
		if r.Pattern != p {
			continue
		}
		end, err := relay.AwaitEvent(ctx, func(ev RelayEvent) bool { return ev.Event == "connection" && ev.Client == r.Local })
		if err != nil {
			v.Fail("client host vanished, %s: the relay has not freed the connection %v after the fault", doing(p), time.Since(died).Round(time.Second))
			continue
		}
		v.Must(end.Cause == "dead_peer" && end.By == "client" && end.ToldBackend == "rst",
			"client host vanished, %s: the relay's record says %s by %s, backend told %q (%s)", doing(p), end.Cause, end.By, end.ToldBackend, end.Detail)
		freed = append(freed, end.Time.Round(0).Sub(died.Round(0)))
		ev, err := s.AwaitEvent(ctx, func(ev traffic.Event) bool { return ev.Kind == traffic.EventEnded && ev.ID == r.ID })
		if err != nil {
			v.Fail("client host vanished, %s: the server was not told", doing(p))
			continue
		}
		v.Must(ev.End.Ending == traffic.RST, "client host vanished, %s: the server was told by %v (%s)", doing(p), ev.End.Ending, ev.End.Errno)
		told = append(told, ev.End.At.Sub(traffic.InstantOf(died)))
	}
	f := v.Time("client host vanished, "+doing(p)+": server told", told...).Within(b.limit())
	v.Time("freed by the relay's own record", freed...).Within(b.limit()).AsPart()
	return f
}

// backendVanished judges the connections of one pattern whose backend is gone:
// the client must have been told by RST.
func (v *Verdict) backendVanished(ctx context.Context, b bound, p traffic.Pattern, died time.Time, bereft *Fleet, relay *Relay) *Figure {
	var told, freed []time.Duration
	for _, c := range bereft.Clients() {
		if c.Report().Pattern != p {
			continue
		}
		select {
		case <-c.Ended():
		case <-ctx.Done():
			v.Fail("backend host vanished, %s: the client was not told within %v", doing(p), time.Since(died).Round(time.Second))
			continue
		}
		r := c.Report()
		v.Must(r.Ending == traffic.RST && !r.Corrupt, "backend host vanished, %s: the client was told by %v (%s)", doing(p), r.Ending, r)
		told = append(told, r.At.Sub(traffic.InstantOf(died)))
		end, err := relay.AwaitEvent(ctx, func(ev RelayEvent) bool { return ev.Event == "connection" && ev.Client == r.Local })
		if err != nil {
			v.Fail("backend host vanished, %s: the relay has no record of the end", doing(p))
			continue
		}
		v.Must(end.Cause == "dead_peer" && end.By == "backend", "backend host vanished, %s: the relay's record says %s by %s (%s)", doing(p), end.Cause, end.By, end.Detail)
		freed = append(freed, end.Time.Round(0).Sub(died.Round(0)))
	}
	f := v.Time("backend host vanished, "+doing(p)+": client told", told...).Within(b.limit())
	v.Time("freed by the relay's own record", freed...).Within(b.limit()).AsPart()
	return f
}

// versus says what the figure came to on direct connections.
func (f *Figure) versus(direct *Fleet, p traffic.Pattern, died time.Time, told func(traffic.Report) bool) {
	if direct == nil {
		return
	}
	n, of := 0, 0
	for _, r := range direct.Reports() {
		if r.Pattern == p {
			of++
			if told(r) {
				n++
			}
		}
	}
	if n == 0 {
		f.Versus("not after %.0f s", time.Since(died).Seconds())
		return
	}
	f.Versus("%d of %d told", n, of)
}

// liveOn runs healthy connections over a link that loses frames in both
// directions for longer than the bound: none may die.
func liveOn(ctx context.Context, e *Env, b bound) (*Verdict, error) {
	each, length := 10, 15*time.Second // 50 connections
	if b.timeout > 7*time.Second {
		each, length = 40, time.Minute // 200
	}
	const loss = 0.05
	t, err := lab.OneArm(lab.Size{Clients: 1, Nodes: 1, Backends: 1})
	if err != nil {
		return nil, err
	}
	t.Link("client1", 0).NoOffload = true // a lost frame is one segment
	l, err := e.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	backend, node, client := l.Host("backend1"), l.Host("node1"), l.Host("client1")
	server, err := e.StartServer(ctx, backend, "backend1", e.AddrPort(backend))
	if err != nil {
		return nil, err
	}
	relay, err := e.StartRelay(ctx, node, e.AddrPort(node).String(), e.AddrPort(backend).String(), "--check", "none", "--dead-peer-timeout", b.timeout.String())
	if err != nil {
		return nil, err
	}
	o := traffic.ClientOptions{Dial: DialFrom(client), Address: e.AddrPort(node).String()}
	var groups []traffic.Group
	group := func(n int, p traffic.Pattern, period time.Duration) {
		o.Pattern, o.Period = p, period
		groups = append(groups, traffic.Group{Count: n, Client: o})
	}
	group(2*each, traffic.Idle, 0)
	group(each, traffic.Request, time.Second)
	group(each, traffic.Push, time.Second)
	group(each, traffic.ZeroWindow, 0) // reads on after the whole time: longer than the bound
	fleet, err := RunFleet(ctx, e.Seed, groups)
	if err != nil {
		return nil, err
	}
	defer fleet.End()
	link := client.Links()[0]
	for _, d := range []lab.Direction{lab.FromHost, lab.ToHost} {
		if _, err := link.SetLoss(d, loss); err != nil {
			return nil, err
		}
	}
	e.Say("%d healthy connections under %.0f %% loss each way for %v, among them readers that pause all the time", 5*each, 100*loss, length)
	if err := Pause(ctx, length); err != nil {
		return nil, err
	}
	v := e.Verdict()
	killed := map[traffic.Pattern]int{}
	for _, r := range fleet.Reports() {
		if r.Told() {
			killed[r.Pattern]++
			v.Fail("a healthy connection was ended: %s", r)
		}
	}
	for _, ev := range relay.Events() {
		v.Must(ev.Event != "connection", "the relay has ended a healthy connection: %+v", ev)
	}
	e.Say("every connection is asked for one more exchange and its end; still under loss")
	fleet.Finish()
	select {
	case <-fleet.done:
	case <-time.After(45 * time.Second):
		fleet.End()
	case <-ctx.Done():
	}
	complete, wrong := 0, 0
	for _, r := range fleet.Reports() {
		facts, _ := server.Journal.Facts(r.ID)
		if verdict := traffic.LiedTo(r, facts); verdict.Lie != traffic.NoLie {
			wrong++
			v.Fail("%s: %s", verdict.Lie, verdict.Why)
		}
		if r.Complete && r.Checked {
			complete++
			continue
		}
		v.Fail("a connection did not come to its end: %s", r)
	}
	for _, p := range []traffic.Pattern{traffic.Idle, traffic.Request, traffic.Push, traffic.ZeroWindow} {
		v.Count("killed, "+doing(p), killed[p]).Exactly(0)
	}
	v.Count("connections that ended as they were meant to", complete).Exactly(5 * each)
	v.Count("connections with a wrong or missing byte", wrong).Exactly(0)
	v.Count("frames lost on the way", int(link.Dropped(lab.FromHost)+link.Dropped(lab.ToHost))).AtLeast(1)
	return v, nil
}
