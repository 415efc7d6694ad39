//go:build linux

package scene

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// The faults of backend-dies.
const (
	faultMute   = "silence"
	faultDeath  = "death"
	faultUnwell = "check"
	policyReset = "reset"
	policyDrain = "drain"
	checkFall   = 2
	checkPort   = 7001
	probesRate  = 500

	// checkInterval and checkTimeout are of the check that the issue is about.
	checkInterval = 100 * time.Millisecond
	checkTimeout  = 100 * time.Millisecond
)

// Figures that are measured without Holdfast too.
const (
	clientsTold      = "clients of the lost backend told by RST"
	clientsToldAfter = "clients told after the fault"
	serversTold      = "backend ends told by RST"
	freshFailed      = "of these failed"
)

// BackendDies is the scene of a backend that is lost under load.
func BackendDies() Scene {
	return Scene{
		Name:  "backend-dies",
		Title: "a backend's host goes silent: both ends of its connections are told, new ones never fail",
		Story: `Three backends behind a relay that checks them every 100 ms; clients with idle,
request, upload and download connections on each, and 500 new connections a
second. One backend's host goes silent: it is cut off while it lives (silence),
or killed (death). Within 310 ms, two checks and ten milliseconds, both ends of
each of its connections have had a RST, the idle ones too, no new connection has
failed, and the other backends' connections have not noticed anything. With
on_backend_lost: drain, when only the check of a backend fails, nothing is cut.`,
		Variants: []Variant{
			{Policy: policyReset, Fault: faultMute, Demo: true, Title: "the backend's host is cut off: what it sends is lost, what it is sent arrives"},
			{Policy: policyReset, Fault: faultDeath, Demo: true, Title: "the backend's host loses its power"},
			{Policy: policyDrain, Fault: faultUnwell, Demo: true, Title: "the backend's check fails, and its connections live on"},
		},
		Demo: true,
		Run: func(ctx context.Context, e *Env) (*Verdict, error) {
			d, err := startBackendDies(ctx, e)
			if err != nil {
				return nil, err
			}
			v, err := d.run(ctx)
			if err := errors.Join(err, d.close()); err != nil {
				return nil, err
			}
			// Nobody is told without Holdfast, whichever way the host went silent:
			// a short demonstration shows it once.
			if !e.Without || e.Variant.Policy == policyDrain || e.Short && e.Variant.Fault != faultMute {
				return v, nil
			}
			b, err := e.behindHAProxy(ctx)
			if err != nil {
				return nil, err
			}
			b.beside(v)
			return v, nil
		},
	}
}

// check is the interval and the timeout of the backends' checks.
func (e *Env) check() (interval, timeout time.Duration) {
	if e.Relaxed {
		return 4 * checkInterval, 4 * checkTimeout
	}
	return checkInterval, checkTimeout
}

// toldWithin is what the scene is about: the time that the check needs, and ten
// milliseconds to tell everybody.
func (e *Env) toldWithin() time.Duration {
	interval, timeout := e.check()
	return interval*checkFall + timeout + 10*time.Millisecond
}

// backendDies is one run of the scene.
type backendDies struct {
	*Env
	lab      *lab.Lab
	backends []*Server
	lost     *Server   // the backend that the fault hits
	lostHost *lab.Host // where it runs
	unwell   *Server   // what answers the lost backend's checks, for drain
	relay    *Relay
	wire     *lab.Capture // resets for the lost backend

	fleet  *traffic.Fleet
	prober *traffic.Prober
	end    context.CancelFunc // of all traffic
	probes context.CancelFunc // of new connections
	wg     sync.WaitGroup
	probed traffic.ProbeReport // when wg is done
}

func startBackendDies(ctx context.Context, e *Env) (_ *backendDies, err error) {
	d := &backendDies{Env: e}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	t, err := lab.OneArm(lab.Size{Clients: 2, Nodes: 1, Backends: 3})
	if err != nil {
		return nil, err
	}
	if d.lab, err = e.Start(ctx, t); err != nil {
		return nil, err
	}
	node := d.lab.Host("node1")
	e.Say("the network is up: 2 clients, the relay's node, 3 backends")

	interval, timeout := e.check()
	flags := []string{
		"--check", "tcp", "--check-interval", interval.String(), "--check-timeout", timeout.String(),
		"--check-fall", strconv.Itoa(checkFall), "--check-rise", "2", "--on-backend-lost", e.Variant.Policy,
	}
	args := []string{e.AddrPort(node).String()}
	lost := e.Rand().IntN(3)
	for i := range 3 {
		h := d.lab.Host(fmt.Sprintf("backend%d", i+1))
		s, err := e.StartServer(ctx, h, h.Name(), e.AddrPort(h))
		if err != nil {
			return nil, err
		}
		d.backends = append(d.backends, s)
		args = append(args, s.Address.String()+",name="+s.Name)
		if i == lost {
			d.lost, d.lostHost = s, h
		}
		if e.Variant.Fault != faultUnwell {
			continue
		}
		check, err := e.StartServer(ctx, h, h.Name()+"-check", h.AddrPort(e.Family, checkPort))
		if err != nil {
			return nil, err
		}
		if i == lost {
			d.unwell = check
		}
	}
	if e.Variant.Fault == faultUnwell {
		flags = append(flags, "--check-port", strconv.Itoa(checkPort))
	}
	if d.relay, err = e.StartRelay(ctx, node, append(args, flags...)...); err != nil {
		return nil, err
	}
	d.wire, err = node.Capture("eth0", lab.CaptureFilter{Flags: lab.RST, Addr: d.lost.Address.Addr()})
	if err != nil {
		return nil, err
	}
	return d, d.startTraffic(ctx)
}

// loads are the connections of the scene, and how many of each there are for
// each backend.
func loads(dial traffic.DialFunc, address string, perBackend, backends int) []traffic.Group {
	var groups []traffic.Group
	for _, o := range []traffic.ClientOptions{
		{Pattern: traffic.Idle},
		{Pattern: traffic.Request},
		{Pattern: traffic.Upload, Size: 16 << 10, Period: 20 * time.Millisecond},
		{Pattern: traffic.Download, Size: 16 << 10, Period: 20 * time.Millisecond},
	} {
		o.Dial, o.Address = dial, address
		groups = append(groups, traffic.Group{Count: perBackend * backends, Client: o})
	}
	// More at a time than the buffers on the way hold: a client that uploads to
	// a silent backend gets stuck in its write.
	for _, p := range []traffic.Pattern{traffic.Upload, traffic.Download} {
		groups = append(groups, traffic.Group{Count: backends, Client: traffic.ClientOptions{
			Dial: dial, Address: address, Pattern: p, Size: 6 << 20, Period: 300 * time.Millisecond,
		}})
	}
	return groups
}

func (d *backendDies) startTraffic(ctx context.Context) (err error) {
	address := d.AddrPort(d.lab.Host("node1")).String()
	d.fleet, err = traffic.NewFleet(traffic.FleetOptions{
		Seed:   d.Seed | 1,
		Groups: loads(traffic.DialWithin(d.lab.Host("client1").Do), address, 8, len(d.backends)),
	})
	if err != nil {
		return err
	}
	d.prober, err = traffic.NewProber(traffic.ProberOptions{
		Dial: traffic.DialWithin(d.lab.Host("client2").Do), Address: address, Rate: probesRate, Seed: d.Seed | 1,
	})
	if err != nil {
		return err
	}
	var all, probes context.Context
	all, d.end = context.WithCancel(ctx)
	probes, d.probes = context.WithCancel(all)
	d.wg.Go(func() { d.fleet.Run(all) })
	if err := d.fleet.Ready(ctx); err != nil {
		return err
	}
	d.wg.Go(func() { d.probed = d.prober.Run(probes) })
	d.Say("%d connections with every byte checked, and %d new ones a second", len(d.fleet.Clients()), probesRate)
	return nil
}

// close ends everything that is left.
func (d *backendDies) close() error {
	if d.end != nil {
		d.end()
	}
	d.wg.Wait()
	if d.lab == nil {
		return nil
	}
	return d.lab.Close()
}

func (d *backendDies) run(ctx context.Context) (*Verdict, error) {
	// A moment at random within some rounds of checks.
	r := d.Rand()
	r.IntN(3)
	if err := Pause(ctx, 200*time.Millisecond+time.Duration(r.Int64N(int64(3*checkInterval)))); err != nil {
		return nil, err
	}
	at, err := d.strike()
	if err != nil {
		return nil, err
	}
	if d.Variant.Policy == policyDrain {
		return d.judgeDrain(ctx, at)
	}
	return d.judgeReset(ctx, at)
}

// strike does what the scene is about.
func (d *backendDies) strike() (at time.Time, err error) {
	switch d.Variant.Fault {
	case faultMute:
		at, err = d.lostHost.Mute()
		d.Say("%s falls silent: nothing that it sends arrives any more", d.lost.Name)
	case faultDeath:
		at, err = d.lostHost.Die()
		d.Say("%s is dead: its cable first, then its power", d.lost.Name)
	case faultUnwell:
		at, err = d.unwell.Kill()
		d.Say("what answers the checks of %s is gone, its connections are not", d.lost.Name)
	default:
		err = fmt.Errorf("there is no fault %q", d.Variant.Fault)
	}
	return at, err
}

// theirs returns the clients whose connection was with the lost backend, and
// the others.
func (d *backendDies) theirs() (lost, kept []*traffic.Client) {
	for _, c := range d.fleet.Clients() {
		if c.Report().Server == d.lost.Name {
			lost = append(lost, c)
		} else {
			kept = append(kept, c)
		}
	}
	return lost, kept
}

func (d *backendDies) judgeReset(ctx context.Context, at time.Time) (*Verdict, error) {
	v := d.Verdict()
	lost, kept := d.theirs()
	waiting, cancel := context.WithTimeout(ctx, GiveUp)
	defer cancel()
	for _, c := range lost {
		select {
		case <-c.Ended():
		case <-waiting.Done():
		}
	}
	down, detectErr := d.relay.AwaitEvent(waiting, d.isDown)
	v.Must(detectErr == nil, "the relay never declared %s down: %v", d.lost.Name, detectErr)
	d.Say("the clients of %s are told, %s after the fault", d.lost.Name, Milliseconds(lastTold(lost).Sub(traffic.InstantOf(at))))

	d.judgeClients(v, at, lost)
	detection := down.Time.Sub(at.Round(0)) // another process's clock: only the wall's is common
	if detectErr == nil {
		v.Time("detection by the relay", detection).AsPart()
	}
	if d.Variant.Fault == faultMute {
		d.judgeServer(waiting, v, at, lost)
	} else {
		d.judgeWire(waiting, v, at, lost)
	}
	// New connections go on for a while: the lost backend must not be asked again.
	if err := Pause(ctx, 300*time.Millisecond); err != nil {
		return nil, err
	}
	d.finish(ctx, v, kept)
	cut := d.judgeProbes(v, at)
	d.judgeRecords(v, len(lost)+cut)
	d.judgeKept(v, kept)
	d.judgeLies(v, lost, kept)
	d.explain(v, at)
	return v, nil
}

func (d *backendDies) isDown(e RelayEvent) bool {
	return e.Event == "backend" && e.Backend == d.lost.Name && e.State == "down"
}

func lastTold(clients []*traffic.Client) (at traffic.Instant) {
	for _, c := range clients {
		at = max(at, c.Report().At)
	}
	return at
}

// judgeClients is about the clients of the lost backend, by their own clock.
func (d *backendDies) judgeClients(v *Verdict, at time.Time, lost []*traffic.Client) {
	fault := traffic.InstantOf(at)
	times := make(map[traffic.Pattern][]time.Duration)
	var all []time.Duration
	told := 0
	for _, c := range lost {
		r := c.Report()
		if r.Ending != traffic.RST {
			v.Fail("a client of the lost backend was not told by RST: %s", r)
			continue
		}
		told++
		all = append(all, r.At.Sub(fault))
		times[r.Pattern] = append(times[r.Pattern], r.At.Sub(fault))
	}
	v.Count(clientsTold, told).Exactly(len(lost))
	v.Time(clientsToldAfter, all...).Within(d.toldWithin()).AsHeadline()
	for _, p := range []traffic.Pattern{traffic.Idle, traffic.Request, traffic.Upload, traffic.Download} {
		v.Must(len(times[p]) > 0, "no connection of the pattern %s with the lost backend was told", p)
		v.Time(p.String(), times[p]...).AsPart()
	}
}

// judgeServer is about the other end: the backend that still hears, by its own
// clock.
func (d *backendDies) judgeServer(ctx context.Context, v *Verdict, at time.Time, lost []*traffic.Client) {
	var times []time.Duration
	for _, c := range lost {
		id := c.Report().ID
		ev, err := d.lost.AwaitEvent(ctx, func(ev traffic.Event) bool { return ev.Kind == traffic.EventEnded && ev.ID == id })
		if err != nil || ev.End.Ending != traffic.RST {
			v.Fail("the backend's end of %s was not told by RST: %+v, %v", c.Report(), ev.End, err)
			continue
		}
		times = append(times, ev.End.At.Sub(traffic.InstantOf(at)))
	}
	v.Count(serversTold, len(times)).Exactly(len(lost))
	v.Time("backend ends told after the fault", times...).Within(d.toldWithin())
}

// judgeWire is about the other end where there is nobody left to ask: the
// resets that leave the node for it.
func (d *backendDies) judgeWire(ctx context.Context, v *Verdict, at time.Time, lost []*traffic.Client) {
	legs := make(map[traffic.ID]string) // the relay's address, as the backend saw it
	for _, ev := range d.lost.Events() {
		if ev.Kind == traffic.EventAccepted {
			legs[ev.ID] = ev.Remote
		}
	}
	var times []time.Duration
	for _, c := range lost {
		id := c.Report().ID
		s, err := d.wire.Await(ctx, func(s lab.Segment) bool {
			return s.Source.String() == legs[id] && s.Destination == d.lost.Address
		})
		if err != nil {
			v.Fail("no RST left for the dead backend from %s, the other end of %s: %v", legs[id], c.Report(), err)
			continue
		}
		times = append(times, s.Time.Sub(at))
	}
	v.Count("resets to the dead backend on the wire", len(times)).Exactly(len(lost))
	v.Time("resets on the wire after the fault", times...).Within(d.toldWithin())
}

// finish ends the traffic that lives in an orderly way, and then the servers, so
// that what they have to say is complete.
func (d *backendDies) finish(ctx context.Context, v *Verdict, live []*traffic.Client) {
	d.Say("the other connections end in order, each with a last checked exchange")
	d.probes()
	d.fleet.Finish()
	ctx, cancel := context.WithTimeout(ctx, GiveUp)
	defer cancel()
	for _, c := range live {
		select {
		case <-c.Ended():
		case <-ctx.Done():
		}
	}
	d.end()
	d.wg.Wait()
	// A dead one has ended already; one that does not end is killed with the lab.
	_, _ = d.relay.Signal(syscall.SIGTERM)
	for _, s := range d.backends {
		_, _ = s.Signal(syscall.SIGTERM)
	}
	for _, s := range d.backends {
		select {
		case <-s.Done():
		case <-ctx.Done():
		}
	}
	if err := d.relay.Wait(ctx); err != nil {
		v.Fail("the relay did not end in order: %v", err)
	}
	for _, ev := range d.relay.Events() {
		v.Must(ev.Event != "lost", "the relay lost %d of its events", ev.Count)
		v.Must(ev.Event != "backend" || ev.Backend == d.lost.Name || ev.State != "down",
			"the relay declared %s down, which is well: at %s: %s", ev.Backend, ev.Time.Format(clock), ev.Reason)
	}
}

// clock is how the relay's log writes a time.
const clock = "15:04:05.000"

// explain adds what the relay said to a verdict that needs explaining.
func (d *backendDies) explain(v *Verdict, at time.Time) {
	if v.OK() {
		return
	}
	v.Note("the fault was at %s; the relay's warnings:", at.Format(clock))
	for _, w := range d.relay.Warnings() {
		v.Note("%s", w)
	}
}

// judgeRecords asks whether the relay has recorded each end with its cause.
func (d *backendDies) judgeRecords(v *Verdict, lost int) {
	recorded := 0
	for _, ev := range d.relay.Events() {
		if ev.Event == "connection" && ev.Backend == d.lost.Name && ev.Cause == "backend_down" && ev.ToldClient == "rst" && ev.ToldBackend == "rst" {
			recorded++
		}
	}
	// A new client that had everything before it closed is no loss to it, and a
	// loss to the relay, whose backend never acknowledged the end.
	v.Count("ends recorded as the backend's loss", recorded).AtLeast(int64(lost))
}

// judgeProbes is about new connections: none fails but those that the lost
// backend had accepted before the fault, whose requests nobody can take back.
func (d *backendDies) judgeProbes(v *Verdict, at time.Time) (cut int) {
	fault := traffic.InstantOf(at)
	failed := 0
	for _, f := range d.probed.Failures {
		if f.StartedAt < fault && f.Ending == traffic.RST && d.Variant.Policy == policyReset {
			cut++
			continue
		}
		failed++
		v.Fail("a new connection failed: begun %s after the fault, at %s after %s: %s",
			Milliseconds(f.StartedAt.Sub(fault)), f.Stage, Milliseconds(f.After), f.Err)
	}
	v.Must(d.probed.Failed == len(d.probed.Failures), "%d new connections failed", d.probed.Failed)
	v.Count("new connections", d.probed.Started)
	v.Count(freshFailed, failed).Exactly(0).AsPart()
	if d.Variant.Policy == policyReset {
		v.Count("of these established with the lost backend at the fault, and told", cut).AsPart()
	}
	v.Time("slowest new connection, from connect to end of stream", d.probed.Worst)
	v.Time("half of them within", d.probed.P50).AsPart()
	v.Time("99 of 100 within", d.probed.P99).AsPart()
	v.Time("the judge itself was late by at most", d.probed.Late)
	return cut
}

// judgeKept is about the connections that the fault must not touch.
func (d *backendDies) judgeKept(v *Verdict, kept []*traffic.Client) {
	untouched := 0
	var moved int64
	for _, c := range kept {
		r := c.Report()
		moved += r.Sent + r.Received
		if r.Complete && !r.Corrupt {
			untouched++
		} else {
			v.Fail("a connection that the fault must not touch did not end as it was meant to: %s", r)
		}
	}
	what := "connections of other backends untouched"
	if d.Variant.Policy == policyDrain {
		what = "connections that carried on to their natural end"
	}
	v.Count(what, untouched).Exactly(len(kept))
	v.Bytes("bytes checked on them", moved)
}

// judgeLies asks what both ends of each connection saw, and whether the client
// was told the truth.
func (d *backendDies) judgeLies(v *Verdict, lost, kept []*traffic.Client) {
	lies := 0
	for i, c := range slices.Concat(lost, kept) {
		r := c.Report()
		var facts traffic.ServerFacts
		for _, s := range d.backends {
			if f, ok := s.Journal.Facts(r.ID); ok {
				facts = f
			}
		}
		if i < len(lost) && d.Variant.Policy == policyReset {
			facts.Fate = traffic.Silent
		}
		if verdict := traffic.LiedTo(r, facts); verdict.Lie != traffic.NoLie {
			lies++
			v.Fail("a client was told something untrue (%s: %s): %s", verdict.Lie, verdict.Why, r)
		}
	}
	v.Count("clients told something untrue, or given a wrong byte", lies).Exactly(0)
}

func (d *backendDies) judgeDrain(ctx context.Context, at time.Time) (*Verdict, error) {
	v := d.Verdict()
	lost, kept := d.theirs()
	waiting, cancel := context.WithTimeout(ctx, GiveUp)
	defer cancel()
	down, err := d.relay.AwaitEvent(waiting, d.isDown)
	v.Must(err == nil, "the relay never declared %s down: %v", d.lost.Name, err)
	if err == nil {
		d.Say("the relay gives %s no new connections", d.lost.Name)
	}
	// Long enough that what is wrong shows: the lost backend's connections go on.
	if err := Pause(ctx, 500*time.Millisecond); err != nil {
		return nil, err
	}
	all := slices.Concat(lost, kept)
	cut := 0
	for _, c := range all {
		if r := c.Report(); r.Told() {
			cut++
			v.Fail("a connection was cut while it should drain: %s", r)
		}
	}
	d.finish(ctx, v, all)
	v.Count("connections of the drained backend", len(lost)).AtLeast(16)
	v.Count("connections cut", cut).Exactly(0).AsHeadline()
	d.judgeKept(v, all)
	d.judgeProbes(v, at)
	if err == nil {
		got := 0
		for _, ev := range d.relay.Events() {
			// The relay's loops learn of it some time after the check knew.
			if ev.Event == "connection" && ev.Backend == d.lost.Name && ev.Began().After(down.Time.Add(20*time.Millisecond)) {
				got++
				v.Fail("the drained backend got a new connection %s after it was down: %+v", Milliseconds(ev.Began().Sub(down.Time)), ev)
			}
		}
		v.Count("new connections that the drained backend got", got).Exactly(0)
		v.Time("detection by the relay", down.Time.Sub(at.Round(0))).Within(d.toldWithin())
	}
	d.judgeLies(v, lost, kept)
	d.explain(v, at)
	return v, nil
}
