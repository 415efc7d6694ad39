//go:build linux

package operate

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// Full is the scene of a node that more clients want than it has room for.
func Full() scene.Scene {
	return scene.Scene{
		Name:  "full",
		Title: "20,000 clients want a node with 10,000 descriptors, and then come half-open floods: the rest is served, and the limit named",
		Story: `A node may have 10,000 descriptors, which is room for some 4,900 connections, and
20,000 clients connect and stay. Those that find no room are refused at once, by RST;
200 streams that were there before carry on with every byte checked; status, metrics,
events and the log name the limit and how to raise it, without a line for each
client. Of those that got in, the silent ones lose their place after idle_timeout, and
new clients are served again; a client that sends a byte a second is a slow client,
and keeps its place. Then somebody sends SYN after SYN and never answers: new
connections are served all the while.`,
		Variants: []scene.Variant{{Demo: true}},
		Run: func(ctx context.Context, e *scene.Env) (*scene.Verdict, error) {
			f, err := startFull(ctx, e)
			if err != nil {
				return nil, err
			}
			v, err := f.run(ctx)
			if err := errors.Join(err, f.close()); err != nil {
				return nil, err
			}
			return v, nil
		},
	}
}

// fullSize is how much of everything there is.
type fullSize struct {
	descriptors int           // that the node may have
	crowd       int           // clients that want in
	streams     int           // of each of two patterns
	syns        int           // of the flood
	idle        time.Duration // idle_timeout
}

func sizeOf(e *scene.Env) fullSize {
	switch {
	case e.Short:
		return fullSize{1000, 2000, 20, 2000, 3 * time.Second}
	case e.Relaxed: // a test: its clients may be slow
		return fullSize{2000, 4000, 20, 5000, 6 * time.Second}
	}
	return fullSize{10_000, 20_000, 100, 8000, 10 * time.Second}
}

// full is one run of the scene.
type full struct {
	*scene.Env
	fullSize
	lab    *lab.Lab
	server *scene.Server
	node   *Node
	listen string
	fleet  *scene.Fleet
	crowd  *crowd
	end    context.CancelFunc // of the slow clients and the flood
	wg     sync.WaitGroup
}

func startFull(ctx context.Context, e *scene.Env) (_ *full, err error) {
	f := &full{Env: e, fullSize: sizeOf(e)}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	t, err := lab.OneArm(lab.Size{Clients: 4, Nodes: 1, Backends: 1})
	if err != nil {
		return nil, err
	}
	if f.lab, err = e.Start(ctx, t); err != nil {
		return nil, err
	}
	backend, node := f.lab.Host("backend1"), f.lab.Host("node1")
	if f.server, err = e.StartServer(ctx, backend, backend.Name(), e.AddrPort(backend)); err != nil {
		return nil, err
	}
	f.listen = e.AddrPort(node).String()
	f.node, err = StartNode(ctx, e, f.lab, node, NodeConfig{Descriptors: f.descriptors, Services: fmt.Sprintf(`services:
  - name: front
    listen: %q
    idle_timeout: %v
    backends:
      - {name: backend1, address: %q}
`, f.listen, f.idle, f.server.Address)})
	if err != nil {
		return nil, err
	}
	o := traffic.ClientOptions{Dial: scene.DialFrom(f.lab.Host("client1")), Address: f.listen, Pattern: traffic.Request, Period: 50 * time.Millisecond}
	push := o
	push.Pattern = traffic.Push
	if f.fleet, err = scene.RunFleet(ctx, e.Seed|1, []traffic.Group{{Count: f.streams, Client: o}, {Count: f.streams, Client: push}}); err != nil {
		return nil, err
	}
	e.Say("the node may have %d descriptors; %d streams with every byte checked", f.descriptors, 2*f.streams)
	return f, nil
}

// close ends everything that is left.
func (f *full) close() error {
	if f.end != nil {
		f.end()
	}
	if f.crowd != nil {
		f.crowd.close()
	}
	f.wg.Wait()
	if f.fleet != nil {
		f.fleet.End()
	}
	if f.lab == nil {
		return nil
	}
	return f.lab.Close()
}

func (f *full) run(ctx context.Context) (*scene.Verdict, error) {
	v := f.Verdict()
	slow, end := context.WithCancel(ctx)
	f.end = end
	if err := f.overrun(ctx, v); err != nil {
		return nil, err
	}
	if err := f.named(ctx, v); err != nil {
		return nil, err
	}
	dribbling := f.crowd.drip(slow, time.Second)
	if err := f.free(ctx, v, dribbling); err != nil {
		return nil, err
	}
	if err := f.flood(ctx, v); err != nil {
		return nil, err
	}
	f.finish(ctx, v)
	return v, nil
}

// overrun lets in more clients than there is room for.
func (f *full) overrun(ctx context.Context, v *scene.Verdict) error {
	f.crowd = newCrowd(f.listen, f.idle-100*time.Millisecond)
	began := time.Now()
	f.crowd.rush(ctx, f.fullSize.crowd, scene.DialFrom(f.lab.Host("client2")), scene.DialFrom(f.lab.Host("client3")))
	took := time.Since(began)
	// The last ones are told.
	var room admin.Limit
	var now crowded
	if err := until(ctx, "the node holds who is connected", func() (bool, error) {
		s, err := f.node.Status(ctx)
		if err != nil {
			return false, err
		}
		room = limitOf(s, "connections")
		now = f.crowd.now()
		return len(now.freed) > 0 || uint64(now.open+2*f.streams) == room.Used, nil
	}); err != nil {
		return err
	}
	in, refused := now.open+len(now.freed), len(now.refused)
	f.Say("%d clients in %.1f s: %d have a place, %d were refused", f.fullSize.crowd, took.Seconds(), in, refused)
	v.Count("clients that wanted in", now.arrived).Exactly(f.fullSize.crowd)
	v.Count("room for connections, as the node says", int(room.Max)).AtLeast(int64(f.descriptors)*4/10 - 50).AtMost(int64(f.descriptors) / 2).AsPart()
	v.Count("clients that got a place", in).AtLeast(int64(room.Max) - int64(2*f.streams) - 2).AsPart()
	v.Count("clients refused", refused).AtLeast(int64(f.fullSize.crowd) - int64(room.Max)).AsPart()
	v.Time("told by RST after their connect began", now.refused...).AsPart()
	v.Must(len(now.odd) == 0, "%d clients saw something else than a place or a RST: %.300q", len(now.odd), now.odd)
	return f.knock(ctx, v)
}

// knock lets clients connect to the full node one by one: the rush is over, and
// they wait for nothing but the node.
func (f *full) knock(ctx context.Context, v *scene.Verdict) error {
	const clients = 100
	late := newCrowd(f.listen, f.idle)
	defer late.close()
	for range clients {
		late.arrive(ctx, scene.DialFrom(f.lab.Host("client2")))
		if err := scene.Pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	if err := until(ctx, "those that knock at a full node are told", func() (bool, error) { return late.now().open == 0, nil }); err != nil {
		v.Fail("%v", err)
	}
	now := late.now()
	v.Count("clients that came later, and were refused", len(now.refused)).Exactly(clients)
	v.Time("99 of 100 of them told by RST after their connect began", most(now.refused)).Within(20 * time.Millisecond).AsHeadline()
	v.Time("all of them", now.refused...).AsPart()
	return nil
}

// most is what 99 of 100 do not exceed.
func most(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)*99/100]
}

// until waits for a condition, looking at it again and again.
func until(ctx context.Context, what string, met func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, scene.Never)
	defer cancel()
	for {
		ok, err := met()
		if err != nil || ok {
			return err
		}
		if err := scene.Pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("not so: %s: %w", what, err)
		}
	}
}

func limitOf(s admin.Status, name string) admin.Limit {
	for _, l := range s.Limits {
		if l.Name == name {
			return l
		}
	}
	return admin.Limit{}
}

// named asks whether a person, and a machine, learn what has run out.
func (f *full) named(ctx context.Context, v *scene.Verdict) error {
	// The node looks at its limits once a second.
	var l admin.Limit
	problem := ""
	if err := until(ctx, "status names the limit", func() (bool, error) {
		status, err := f.node.Status(ctx)
		l = limitOf(status, "connections")
		for _, p := range status.Problems {
			if p.Code == admin.ProblemLimit {
				problem = p.Text
			}
		}
		return problem != "" && status.State == "degraded", err
	}); err != nil {
		return err
	}
	v.Must(l.Reached > 0 && !l.Last.IsZero() && strings.Contains(l.Source, fmt.Sprint(f.descriptors)) && l.Remedy != "",
		"status does not name the limit: %+v", l)
	f.Say("status says: %s", problem)
	check, err := f.node.Holdfast(ctx, "status", "--check")
	if err != nil {
		return err
	}
	v.Must(check.exit == 2, "status --check of a full node ends with exit code %d: %s", check.exit, check.said)
	metrics, err := f.node.Metrics(ctx)
	if err != nil {
		return err
	}
	const metric = `holdfast_limit_refused_total{limit="connections"}`
	v.Must(metrics[metric] >= float64(l.Reached), "the metric %s is %v, and status says %d", metric, metrics[metric], l.Reached)
	event, err := f.node.AwaitEvent(ctx, func(ev scene.RelayEvent) bool { return ev.Event == admin.EventLimit })
	v.Must(err == nil && event.Reason != "", "no event names the limit: %+v, %v", event, err)
	lines := 0
	for _, w := range f.node.Warnings() {
		if strings.Contains(w, "limit") || strings.Contains(w, "refused") {
			lines++
		}
	}
	v.Count("lines of the log about it", lines).AtLeast(1).AtMost(20)
	return nil
}

// free waits until the silent clients have lost their places, and asks whether
// new ones are served.
func (f *full) free(ctx context.Context, v *scene.Verdict, dribbling int) error {
	f.Say("%d of those that have a place send a byte a second, the others nothing, and lose theirs after %v", dribbling, f.idle)
	if err := until(ctx, "the silent clients have lost their places", func() (bool, error) {
		return f.crowd.now().open <= dribbling, nil
	}); err != nil {
		return err
	}
	if err := scene.Pause(ctx, time.Second); err != nil {
		return err
	}
	now := f.crowd.now()
	v.Count("silent clients that lost their places after idle_timeout", len(now.freed)-now.dribbled).AtLeast(1)
	v.Time("after they connected", now.freed...).AsPart()
	v.Count("clients that send a byte a second, and kept theirs", now.open).Exactly(dribbling)
	report, err := f.probe(ctx, time.Second)
	if err != nil {
		return err
	}
	v.Count("new connections afterwards", report.Started)
	v.Count("of these failed", report.Failed).Exactly(0).AsPart()
	return nil
}

// probe makes new connections for a while.
func (f *full) probe(ctx context.Context, span time.Duration) (traffic.ProbeReport, error) {
	p, err := traffic.NewProber(traffic.ProberOptions{Dial: scene.DialFrom(f.lab.Host("client1")), Address: f.listen, Rate: 200, Seed: f.Seed | 1, Timeout: patience(f.Env)})
	if err != nil {
		return traffic.ProbeReport{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	return p.Run(ctx), nil
}

// flood sends SYNs whose senders never answer, and asks whether new clients are
// served all the while.
func (f *full) flood(ctx context.Context, v *scene.Verdict) error {
	host := f.lab.Host("client4")
	// The host's own kernel would finish each connection: it does not hear the
	// answers.
	rules := lab.Command{Argv: []string{"nft", "-f", "-"}, Stdin: strings.NewReader(
		"table inet flood {\nchain input {\ntype filter hook input priority 0;\ntcp flags & (syn | ack) == syn | ack drop\n}\n}\n")}
	p, err := host.Start(rules)
	if err != nil {
		return err
	}
	if err := p.Wait(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dial := scene.DialFrom(host)
	sent := make(chan error, f.syns)
	f.wg.Go(func() {
		for range f.syns {
			f.wg.Go(func() {
				conn, err := dial(ctx, "tcp", f.listen)
				if err == nil {
					conn.Close()
					sent <- errors.New("one was completed")
				}
			})
		}
	})
	half := 0
	err = until(ctx, "half-open connections fill the queue", func() (bool, error) {
		n, err := halfOpenAt(f.lab.Host("node1"))
		half = max(half, n)
		return half >= f.syns*9/10 || half >= 4000, err
	})
	if err != nil {
		v.Fail("the flood is none: %d half-open connections: %v", half, err)
	}
	f.Say("%d SYNs that nobody answers for: %d half-open connections at the node", f.syns, half)
	report, err := f.probe(ctx, 2*time.Second)
	if err != nil {
		return err
	}
	v.Count("half-open connections at the node, of a flood of SYNs", half).AtLeast(100)
	v.Count("new connections in the flood", report.Started)
	v.Count("of these failed", report.Failed).Exactly(0).AsPart()
	for _, failure := range report.Failures[:min(3, len(report.Failures))] {
		v.Note("a new connection failed at %s after %s: %s", failure.Stage, scene.Milliseconds(failure.After), failure.Err)
	}
	v.Time("99 of 100 within", report.P99).AsPart()
	cancel()
	f.wg.Wait()
	v.Must(len(sent) == 0, "%d connections of the flood were completed: it is none", len(sent))
	return nil
}

// halfOpenAt counts a host's half-open connections (SYN_RECV).
func halfOpenAt(h *lab.Host) (n int, err error) {
	err = h.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				if field := strings.Fields(line); len(field) > 3 && field[3] == "03" {
					n++
				}
			}
		}
		return nil
	})
	return n, err
}

// finish ends the streams in order, and judges them.
func (f *full) finish(ctx context.Context, v *scene.Verdict) {
	f.Say("the streams end in order, each with a last checked exchange")
	f.fleet.Finish()
	ctx, cancel := context.WithTimeout(ctx, scene.GiveUp)
	defer cancel()
	select {
	case <-f.fleet.Done():
	case <-ctx.Done():
		f.fleet.End()
	}
	f.end()
	f.crowd.close()
	if _, err := f.node.Signal(syscall.SIGTERM); err == nil {
		err = f.node.Wait(ctx)
		v.Must(err == nil, "the node did not end in order: %v", err)
	}
	// What the server has to say is complete when it has ended.
	_, _ = f.server.Signal(syscall.SIGTERM)
	select {
	case <-f.server.Done():
	case <-ctx.Done():
	}
	kept, lies := 0, 0
	var moved int64
	for _, r := range f.fleet.Reports() {
		moved += r.Sent + r.Received
		facts, _ := f.server.Journal.Facts(r.ID)
		if verdict := traffic.LiedTo(r, facts); verdict.Lie != traffic.NoLie || r.Corrupt {
			lies++
			v.Fail("a client was told something untrue (%s: %s): %s", verdict.Lie, verdict.Why, r)
		}
		if r.Complete {
			kept++
			continue
		}
		v.Fail("an established stream did not carry on: %s", r)
	}
	v.Count("streams that carried on through all of it", kept).Exactly(2 * f.streams)
	v.Bytes("bytes checked on them", moved)
	v.Count("clients told something untrue, or given a wrong byte", lies).Exactly(0)
	lost := 0
	for _, ev := range f.node.Events() {
		if ev.Event == admin.EventLost {
			lost += int(ev.Count)
		}
	}
	v.Count("events lost", lost).Exactly(0)
}
