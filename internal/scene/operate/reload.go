//go:build linux

package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// The policies of the scene reload.
const (
	drainNever = "drain.timeout 0s"
	drainSoon  = "drain.timeout 500ms"

	drainTimeout = 500 * time.Millisecond
	streamCount  = 200
	newPerSecond = 500
)

// nowhere gives an address that no host of a lab has.
func nowhere(e *scene.Env) netip.Addr { return lab.Address(e.Family, 200).Addr() }

// Reload is the scene of a configuration that changes under load.
func Reload() scene.Scene {
	return scene.Scene{
		Name:  "reload",
		Title: "50 reloads under load: backends come, go, drain and change weight, and nobody else notices",
		Story: `A node with five backends, 200 streams with every byte checked, and 500 new
connections a second. Its file is changed 50 times, as a seed decides: backends are
added, removed, drained and reweighted, a second service comes and goes; in between
the same is done by hand, by command, and every fifth file has a mistake. No new
connection fails; what a reload does not concern carries on; what is drained or
removed ends as drain says and in no other way; a bad file ends in exit code 1 and a
sentence, and changes nothing; what was done by hand lasts until the file changes
that key.`,
		Variants: []scene.Variant{
			{Policy: drainNever, Demo: true, Title: "connections of drained and removed backends live on"},
			{Policy: drainSoon, Title: "they are told 500 ms later"},
		},
		Demo: true,
		Run: func(ctx context.Context, e *scene.Env) (*scene.Verdict, error) {
			r, err := startReload(ctx, e)
			if err != nil {
				return nil, err
			}
			v, err := r.run(ctx)
			if err := errors.Join(err, r.close()); err != nil {
				return nil, err
			}
			if e.Without && e.Variant.Policy == drainNever && !e.Short {
				text, err := haproxyReload(ctx, e)
				if err != nil {
					return nil, err
				}
				r.cut.Versus("%s", text)
			}
			return v, nil
		},
	}
}

// reloads is how many there are, and how long their new connections are watched
// before the first.
func reloads(e *scene.Env) (n int, before time.Duration) {
	switch {
	case e.Short:
		return 12, 500 * time.Millisecond
	case e.Relaxed:
		return 20, 500 * time.Millisecond
	}
	return 50, 2 * time.Second
}

// patience is how long a new connection may take before it counts as failed.
func patience(e *scene.Env) time.Duration {
	if e.Relaxed {
		return scene.Never
	}
	return 5 * time.Second
}

// reload is one run of the scene.
type reload struct {
	*scene.Env
	lab     *lab.Lab
	servers map[string]*scene.Server
	node    *Node
	plan    *plan

	streams []*stream
	drains  map[string][]*drain // by what drains, see stream.of
	sides   int                 // how many second services there have been

	prober *traffic.Prober
	probed traffic.ProbeReport // when wg is done
	calm   traffic.ProbeReport // before the first reload
	end    context.CancelFunc  // of all traffic
	probes context.CancelFunc  // of new connections
	wg     sync.WaitGroup

	took, refusedTook []time.Duration
	byHand, bad       int
	cut               *scene.Figure // which is measured without Holdfast too
}

// A stream is a checked connection.
type stream struct {
	*traffic.Client
	of string // the second service it belongs to; "": the first one, where its backend is what can drain
}

func (s *stream) drainsWith() string {
	if s.of != "" {
		return s.of
	}
	return s.Report().Server
}

// A drain is a span in which a backend, or a removed service, was drained.
type drain struct {
	began, known   traffic.Instant // before and after the command that began it
	resumed, ended traffic.Instant // before and after the one that ended it; 0: it goes on
}

func startReload(ctx context.Context, e *scene.Env) (_ *reload, err error) {
	r := &reload{Env: e, servers: make(map[string]*scene.Server), drains: make(map[string][]*drain)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	const backends = 6
	t, err := lab.OneArm(lab.Size{Clients: 2, Nodes: 1, Backends: backends})
	if err != nil {
		return nil, err
	}
	if r.lab, err = e.Start(ctx, t); err != nil {
		return nil, err
	}
	addresses := make(map[string]netip.AddrPort)
	for i := range backends {
		h := r.lab.Host(fmt.Sprintf("backend%d", i+1))
		s, err := e.StartServer(ctx, h, h.Name(), e.AddrPort(h))
		if err != nil {
			return nil, err
		}
		r.servers[s.Name], addresses[s.Name] = s, s.Address
	}
	host := r.lab.Host("node1")
	head := "    health: {tcp: {}, interval: 1s, timeout: 1s}\n"
	if e.Variant.Policy == drainSoon {
		head += fmt.Sprintf("    drain: {timeout: %v}\n", drainTimeout)
	}
	r.plan = newPlan(e.Rand(), e.AddrPort(host), head, addresses)
	if r.node, err = StartNode(ctx, e, r.lab, host, NodeConfig{Services: r.plan.services()}); err != nil {
		return nil, err
	}
	e.Say("the node runs: 1 service, %d backends", len(r.plan.file))
	return r, r.startTraffic(ctx)
}

func (r *reload) startTraffic(ctx context.Context) (err error) {
	var all, calm context.Context
	all, r.end = context.WithCancel(ctx)
	if err := r.fill(all); err != nil {
		return err
	}
	newProber := func(seed uint64) (*traffic.Prober, error) {
		return traffic.NewProber(traffic.ProberOptions{
			Dial: scene.DialFrom(r.lab.Host("client2")), Address: r.plan.listen.String(), Rate: newPerSecond, Seed: seed | 1, Timeout: patience(r.Env),
		})
	}
	before, err := newProber(r.Seed + 1)
	if err != nil {
		return err
	}
	if r.prober, err = newProber(r.Seed + 2); err != nil {
		return err
	}
	r.Say("%d streams with every byte checked, and %d new connections a second", streamCount, newPerSecond)
	_, span := reloads(r.Env)
	calm, stop := context.WithTimeout(all, span)
	defer stop()
	r.calm = before.Run(calm)
	var probes context.Context
	probes, r.probes = context.WithCancel(all)
	r.wg.Go(func() { r.probed = r.prober.Run(probes) })
	return nil
}

// fill starts streams until there are as many as there should be, in the place
// of those that have ended with their backend, and waits until each is served.
func (r *reload) fill(ctx context.Context) error {
	live, side := 0, 0
	for _, s := range r.streams {
		switch {
		case s.Report().Told():
		case s.of == "":
			live++
		case s.of == r.side():
			side++
		}
	}
	patterns := []traffic.ClientOptions{
		{Pattern: traffic.Idle},
		{Pattern: traffic.Request, Period: 100 * time.Millisecond},
		{Pattern: traffic.Upload, Size: 8 << 10, Period: 100 * time.Millisecond},
		{Pattern: traffic.Download, Size: 8 << 10, Period: 100 * time.Millisecond},
	}
	var added []*stream
	start := func(n int, address netip.AddrPort, of string) error {
		for range n {
			o := patterns[len(r.streams)%len(patterns)]
			o.Dial, o.Address = scene.DialFrom(r.lab.Host("client1")), address.String()
			o.ID = traffic.ID(scene.Seed(r.Seed, len(r.streams)+1)<<16 | uint64(len(r.streams)+1))
			c, err := traffic.NewClient(o)
			if err != nil {
				return err
			}
			s := &stream{c, of}
			r.streams, added = append(r.streams, s), append(added, s)
			r.wg.Go(func() { c.Run(ctx) })
		}
		return nil
	}
	if err := start(streamCount-live, r.plan.listen, ""); err != nil {
		return err
	}
	if r.plan.side {
		const each = 4
		if err := start(each-side, netip.AddrPortFrom(r.plan.listen.Addr(), r.plan.listen.Port()+1), r.side()); err != nil {
			return err
		}
	}
	for _, s := range added {
		select {
		case <-s.Ready():
		case <-s.Ended():
			select {
			case <-s.Ready(): // both: it was ready first
			default:
				return fmt.Errorf("a stream ended before it was served: %s", s.Report())
			}
		case <-ctx.Done():
			return fmt.Errorf("a stream is not served: %s: %w", s.Report(), ctx.Err())
		}
	}
	return nil
}

// side names the present second service, as streams remember it.
func (r *reload) side() string { return fmt.Sprintf("side %d", r.sides) }

// close ends everything that is left.
func (r *reload) close() error {
	if r.end != nil {
		r.end()
	}
	r.wg.Wait()
	if r.lab == nil {
		return nil
	}
	return r.lab.Close()
}

func (r *reload) run(ctx context.Context) (*scene.Verdict, error) {
	v := r.Verdict()
	count, _ := reloads(r.Env)
	for i := range count {
		if err := r.step(ctx, v, i); err != nil {
			return nil, err
		}
		if err := r.check(ctx, v); err != nil {
			return nil, err
		}
		if err := r.fill(ctx); err != nil {
			v.Fail("after reload %d: %v", i+1, err)
			break
		}
		if (i+1)%10 == 0 {
			r.Say("%d reloads, %d files refused, %d changes by hand", i+1, r.bad, r.byHand)
		}
		if err := scene.Pause(ctx, time.Duration(r.plan.rand.Int64N(int64(100*time.Millisecond)))); err != nil {
			return nil, err
		}
	}
	if err := r.settle(ctx, v); err != nil {
		return nil, err
	}
	status, err := r.node.Status(ctx)
	if err != nil {
		return nil, err
	}
	r.finish(ctx, v)
	r.judge(v, count, status)
	return v, nil
}

// step does one reload, and what comes before it: a change by hand, a bad file.
func (r *reload) step(ctx context.Context, v *scene.Verdict, i int) error {
	if i%5 == 2 {
		if err := r.refuse(ctx, v); err != nil {
			return err
		}
	}
	if r.plan.rand.IntN(2) == 0 {
		args := r.plan.command()
		for i := 0; args == nil && i < 10; i++ { // what it drew is not possible as things stand
			args = r.plan.command()
		}
		if args != nil {
			began := traffic.Now()
			if _, err := r.node.Must(ctx, args...); err != nil {
				return err
			}
			r.noteDrains(began)
			r.byHand++
		}
	}
	hadSide := r.plan.side
	what := r.plan.reload()
	if err := r.node.Write(r.plan.services()); err != nil {
		return err
	}
	began := traffic.Now()
	did, err := r.node.Holdfast(ctx, "reload")
	if err != nil {
		return err
	}
	v.Must(did.exit == 0, "reload %d (%s) was refused: %s", i+1, strings.Join(what, ", "), strings.TrimSpace(did.said))
	r.took = append(r.took, did.took)
	switch {
	case hadSide && !r.plan.side:
		r.drains[r.side()] = append(r.drains[r.side()], &drain{began: began, known: traffic.Now()})
	case !hadSide && r.plan.side:
		r.sides++
	}
	r.noteDrains(began)
	return nil
}

// noteDrains compares who takes new clients with who did before the last
// command, which began then.
func (r *reload) noteDrains(began traffic.Instant) {
	now := traffic.Now()
	for _, name := range r.plan.names {
		w, _ := r.plan.weight(name)
		all := r.drains[name]
		draining := len(all) > 0 && all[len(all)-1].ended == 0
		switch {
		case w == 0 && !draining:
			r.drains[name] = append(all, &drain{began: began, known: now})
		case w > 0 && draining:
			all[len(all)-1].resumed, all[len(all)-1].ended = began, now
		}
	}
}

// refuse offers a file with a mistake.
func (r *reload) refuse(ctx context.Context, v *scene.Verdict) error {
	before, err := r.node.Status(ctx)
	if err != nil {
		return err
	}
	bad := r.plan.bad(nowhere(r.Env))
	if err := r.node.Write(bad.services); err != nil {
		return err
	}
	did, err := r.node.Holdfast(ctx, "reload")
	if err != nil {
		return err
	}
	r.bad++
	r.refusedTook = append(r.refusedTook, did.took)
	v.Must(did.exit == 1, "%s: the reload ended with exit code %d", bad.what, did.exit)
	for _, want := range bad.says {
		v.Must(strings.Contains(did.said, want), "%s: the reload does not say %q: %s", bad.what, want, strings.TrimSpace(did.said))
	}
	after, err := r.node.Status(ctx)
	if err != nil {
		return err
	}
	v.Must(after.Config.Digest == before.Config.Digest && after.Config.Reloads == before.Config.Reloads &&
		after.Config.Refused == before.Config.Refused+1 && after.Config.Error != "" && after.Config.Changed,
		"%s: status does not say that the file was refused: before %+v, after %+v", bad.what, before.Config, after.Config)
	return r.check(ctx, v)
}

// check asks the node whether its backends are what the plan makes of them.
func (r *reload) check(ctx context.Context, v *scene.Verdict) error {
	did, err := r.node.Must(ctx, "backends", "--service", "front", "-o", "json")
	if err != nil {
		return err
	}
	var got []admin.Backend
	if err := json.Unmarshal([]byte(did.out), &got); err != nil {
		return fmt.Errorf("holdfast backends -o json: %w: %.100q", err, did.out)
	}
	there := make(map[string]admin.Backend)
	for _, b := range got {
		if !b.Removed {
			there[b.Name] = b
		}
	}
	for _, name := range r.plan.names {
		weight, want := r.plan.weight(name)
		_, hand := r.plan.hand[name]
		b, ok := there[name]
		state := "up"
		if weight == 0 {
			state = "drain"
		}
		switch {
		case ok != want:
			v.Fail("backend %s is listed: %v, in the file: %v", name, ok, want)
		case ok && (b.Weight != weight || b.State != state || (b.ByHand != nil) != hand):
			v.Fail("backend %s has weight %d, state %s (%s), by hand %+v; it must have weight %d, state %s, by hand: %v",
				name, b.Weight, b.State, b.Reason, b.ByHand, weight, state, hand)
		}
	}
	v.Must(len(there) == len(r.plan.file), "%d backends are listed, %d are in the file", len(there), len(r.plan.file))
	return nil
}

// settle waits until what drains has been told, where the policy says so.
func (r *reload) settle(ctx context.Context, v *scene.Verdict) error {
	if r.Variant.Policy != drainSoon {
		return nil
	}
	r.Say("what still drains is told, %v after its drain began", drainTimeout)
	ctx, cancel := context.WithTimeout(ctx, drainTimeout+scene.Never)
	defer cancel()
	for _, s := range r.streams {
		spans := r.drains[s.drainsWith()]
		if len(spans) == 0 || spans[len(spans)-1].ended != 0 {
			continue
		}
		select {
		case <-s.Ended():
			continue
		default:
		}
		select {
		case <-s.Ended():
		case <-ctx.Done():
			v.Fail("a stream of what drains since %v is still there: %s", traffic.Now().Sub(spans[len(spans)-1].known), s.Report())
		}
	}
	return nil
}

// finish ends the traffic in an orderly way, then the node, then the servers.
func (r *reload) finish(ctx context.Context, v *scene.Verdict) {
	r.Say("the streams end in order, each with a last checked exchange")
	r.probes()
	for _, s := range r.streams {
		s.Finish()
	}
	ctx, cancel := context.WithTimeout(ctx, scene.GiveUp)
	defer cancel()
	for _, s := range r.streams {
		select {
		case <-s.Ended():
		case <-ctx.Done():
		}
	}
	r.end()
	r.wg.Wait()
	if _, err := r.node.Signal(syscall.SIGTERM); err == nil {
		err = r.node.Wait(ctx)
		v.Must(err == nil, "the node did not end in order: %v", err)
	}
	for _, s := range r.servers {
		_, _ = s.Signal(syscall.SIGTERM)
	}
	for _, s := range r.servers {
		select {
		case <-s.Done():
		case <-ctx.Done():
		}
	}
}

func (r *reload) judge(v *scene.Verdict, count int, status admin.Status) {
	v.Count("new connections", r.probed.Started)
	v.Count("new connections that failed", r.probed.Failed).Exactly(0).AsPart().AsHeadline()
	for _, f := range r.probed.Failures {
		v.Note("a new connection failed at %s after %s, with %s: %s", f.Stage, scene.Milliseconds(f.After), f.Server, f.Err)
	}
	r.judgeStreams(v)
	v.Count("reloads taken", int(status.Config.Reloads)).Exactly(count)
	v.Time("from the command to its exit code, the start of its process included", r.took...).AsPart()
	v.Count("bad files refused, with a sentence and exit code 1", int(status.Config.Refused)).Exactly(r.bad)
	v.Time("from the command to its exit code, the start of its process included", r.refusedTook...).AsPart()
	v.Count("changes by hand", r.byHand).AtLeast(1)
	v.Time("new connections, 99 of 100 within", r.probed.P99).Within(max(3*r.calm.P99, r.calm.P99+20*time.Millisecond))
	v.Time("before the first reload", r.calm.P99).AsPart()
	v.Time("slowest new connection", r.probed.Worst).AsPart()
	v.Time("the judge itself was late by at most", r.probed.Late)

	taken, refused, strays := 0, 0, 0
	for _, ev := range r.node.Events() {
		switch {
		case ev.Event == "lost":
			v.Fail("%d events are lost", ev.Count)
		case ev.Event == "reload" && ev.State == "taken":
			taken++
		case ev.Event == "reload" && ev.State == "refused":
			refused++
			v.Must(ev.Reason != "", "the event of a refused file does not say why")
		case ev.Event == "backend" && ev.State == "down":
			v.Fail("backend %s was declared down, which is well: %s", ev.Backend, ev.Reason)
		case ev.Event == "connection" && r.stray(ev):
			strays++
			v.Fail("%s got a new connection %v after it was told to drain: %+v", ev.Backend, ev.Began(), ev)
		}
	}
	v.Count("events of a file taken, and refused", taken+refused).Exactly(count + r.bad)
	v.Count("new connections that a drained backend got", strays).Exactly(0)
}

// stray reports whether a connection began on a backend that was drained: well
// after the command was answered, and before the one that ended it was given.
func (r *reload) stray(ev scene.RelayEvent) bool {
	const slack = 20 * time.Millisecond
	// The node's clock is the wall's: what began when is told by the age of now.
	began := traffic.Now().Add(-time.Since(ev.Began()))
	return ev.Service == "front" && slices.ContainsFunc(r.drains[ev.Backend], func(d *drain) bool {
		return began > d.known.Add(slack) && (d.ended == 0 || began < d.resumed)
	})
}

// judgeStreams is about the checked connections: each carried on to its natural
// end, or ended because what it belonged to drained, at the time that drain says.
func (r *reload) judgeStreams(v *scene.Verdict) {
	cut, lies, kept := 0, 0, 0
	var moved int64
	var late []time.Duration
	for _, s := range r.streams {
		report := s.Report()
		moved += report.Sent + report.Received
		var facts traffic.ServerFacts
		if server := r.servers[report.Server]; server != nil {
			facts, _ = server.Journal.Facts(report.ID)
		}
		if verdict := traffic.LiedTo(report, facts); verdict.Lie != traffic.NoLie || report.Corrupt {
			lies++
			v.Fail("a client was told something untrue (%s: %s): %s", verdict.Lie, verdict.Why, report)
		}
		if report.Complete {
			kept++
			continue
		}
		if after, ok := r.drained(s, report); ok {
			late = append(late, after)
			continue
		}
		cut++
		v.Fail("a stream was cut that no change concerned: %s", report)
	}
	v.Count("streams that carried on to their natural end", kept).AtLeast(1)
	r.cut = v.Count("streams cut that no change concerned", cut).Exactly(0)
	v.Bytes("bytes checked on them", moved)
	v.Count("clients told something untrue, or given a wrong byte", lies).Exactly(0)
	if r.Variant.Policy == drainSoon {
		v.Count("streams of drained and removed backends, told by RST", len(late)).AtLeast(1)
		v.Time("told after their drain began", late...).Within(drainTimeout + 100*time.Millisecond)
	}
}

// drained reports whether a stream ended by RST because what it belonged to
// drained for as long as drain says, and how long after that began.
func (r *reload) drained(s *stream, report traffic.Report) (after time.Duration, ok bool) {
	const early = 10 * time.Millisecond // a drain is dated before its command was run
	if r.Variant.Policy != drainSoon || report.Ending != traffic.RST {
		return 0, false
	}
	for _, d := range r.drains[s.drainsWith()] {
		if report.At.Sub(d.began) >= drainTimeout-early && (d.ended == 0 || report.At < d.ended) {
			return report.At.Sub(d.known), true
		}
	}
	return 0, false
}
