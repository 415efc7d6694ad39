//go:build linux

package scene

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// What a kill is.
const (
	killProcess  = "backend process SIGKILLed"
	killChecked  = "backend process SIGKILLed, health checked"
	killMute     = "backend host mute"
	killDeath    = "backend host dies"
	killReset    = "backend sends RST"
	clientGone   = "client closes in the middle"
	clientReset  = "client sends RST"
	clientVanish = "client host dies"
)

// killKinds in the order in which they are shown.
var killKinds = []string{killProcess, killChecked, killMute, killDeath, killReset, clientGone, clientReset, clientVanish}

// slaughter plays the random kills: lanes beside each other, each with a
// backend and a relay of its own, and rounds of uploads and downloads in each
// that are hit at a random moment.
type slaughter struct {
	*Env
	lab     *lab.Lab
	haproxy string // the program that stands in for the relay; empty: none
	dir     string

	mu      sync.Mutex
	rng     *rand.Rand
	kills   map[string]int
	hit     map[string]int             // connections cut by it
	told    map[string][]time.Duration // and after how long they were told
	whole   int                        // connections that were complete all the same
	untold  int                        // clients that were not told in time
	crossed int
	lies    map[traffic.Lie]int
	verdict *Verdict
}

func kills(ctx context.Context, e *Env) (*Verdict, error) {
	rounds, deaths := 3, 2
	switch {
	case e.Variant.Policy == manyKills:
		rounds, deaths = 30, 12
	case e.Short:
		deaths = 0 // a client's takes the whole dead-peer timeout to be noticed
	}
	s, err := e.slaughter(ctx, rounds, deaths, "")
	if err != nil {
		return nil, err
	}
	v := s.sum(killLanes*rounds + 2*deaths)
	if haproxy, err := probe.Program("haproxy", "haproxy"); e.Without && err == nil && !(e.Short && e.Family == lab.IPv6) {
		e.Say("the same kills of backends without Holdfast: behind HAProxy")
		few := 3
		if e.Short {
			few = 1
		}
		without, err := e.slaughter(ctx, few, 0, haproxy)
		if err != nil {
			return nil, err
		}
		n := 0
		for _, k := range without.kills {
			n += k
		}
		v.versus(notTold, fmt.Sprintf("%d in %d kills, within %v", without.untold, n, haproxyPatience))
		for lie, name := range map[traffic.Lie]string{traffic.UploadLost: uploadsLost, traffic.FalseEnd: falseEnds, traffic.Corrupted: wrongBytes} {
			v.versus(name, fmt.Sprintf("%d in %d kills", without.lies[lie], n))
		}
	}
	return v, nil
}

// Names of figures.
const (
	notTold     = "clients that were not told"
	uploadsLost = "uploads that got the end of stream and never arrived"
	falseEnds   = "streams cut by an end of stream that nobody sent"
	wrongBytes  = "connections with a wrong byte"
)

// killLanes is the number of lanes with a backend that serves many rounds.
const killLanes = 6

// slaughter plays the lanes, through the relay or, where the program is given,
// those with a backend that lives again through HAProxy.
func (e *Env) slaughter(ctx context.Context, rounds, deaths int, haproxy string) (*slaughter, error) {
	t, err := lab.OneArm(lab.Size{Clients: 1 + deaths, Nodes: 1, Backends: killLanes + deaths})
	if err != nil {
		return nil, err
	}
	l, err := e.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	s := &slaughter{
		Env: e, lab: l, haproxy: haproxy, rng: e.Rand(), kills: map[string]int{}, hit: map[string]int{}, told: map[string][]time.Duration{},
		lies: map[traffic.Lie]int{}, verdict: e.Verdict(),
	}
	if s.dir, err = l.Dir(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	jobs := []func() error{
		func() error { return s.processes(ctx, 1, killProcess, rounds, unchecked...) },
		func() error { return s.processes(ctx, 2, killChecked, rounds, checked...) },
		func() error { return s.mutes(ctx, 3, rounds) },
		func() error { return s.resets(ctx, 4, rounds) },
	}
	if haproxy == "" {
		jobs = append(jobs,
			func() error { return s.clients(ctx, 5, clientGone, rounds) },
			func() error { return s.clients(ctx, 6, clientReset, rounds) },
			func() error { return s.clientDeaths(ctx, deaths) })
		e.Say("uploads and downloads run, bulk and paced; %d kills at random moments", killLanes*rounds+2*deaths)
	}
	for i := range deaths {
		jobs = append(jobs, func() error { return s.death(ctx, killLanes+1+i) })
	}
	errs := make(chan error, len(jobs))
	for _, job := range jobs {
		go func() {
			err := job()
			if err != nil {
				cancel() // one lane that cannot be played spoils the run
			}
			errs <- err
		}()
	}
	for range jobs {
		if jobErr := <-errs; err == nil || errors.Is(err, context.Canceled) {
			err = jobErr
		}
	}
	return s, err
}

// unchecked is a relay that never takes a backend for down.
var unchecked = []string{"--check", "none"}

// checked are the health checks that find a silent backend quickly.
var checked = []string{"--check-interval", "100ms", "--check-timeout", "100ms", "--check-fall", "2", "--check-rise", "1"}

func (s *slaughter) sum(want int) *Verdict {
	v := s.verdict
	total := 0
	table := Table{Title: "kills at random moments", Header: []string{"what", "kills", "connections cut by it", "the other end told after"}}
	for _, kind := range killKinds {
		if s.kills[kind] == 0 {
			continue
		}
		total += s.kills[kind]
		after := "-"
		if len(s.told[kind]) > 0 {
			after = (&Figure{Unit: Time, Values: int64s(s.told[kind])}).Measured()
		}
		table.Rows = append(table.Rows, []string{kind, strconv.Itoa(s.kills[kind]), strconv.Itoa(s.hit[kind]), after})
	}
	v.Table(table)
	cut := 0
	for _, n := range s.hit {
		cut += n
	}
	v.Count("kills", total).Exactly(want)
	v.Count("connections cut by them", cut).AtLeast(1)
	v.Count("connections that were complete all the same", s.whole)
	v.Count(notTold, s.untold).Exactly(0)
	v.Count(uploadsLost, s.lies[traffic.UploadLost]).Exactly(0).AsHeadline()
	v.Count(falseEnds, s.lies[traffic.FalseEnd]).Exactly(0)
	v.Count(wrongBytes, s.lies[traffic.Corrupted]).Exactly(0)
	v.Count("the client's own end crossed that of the killed backend on the way", s.crossed)
	return v
}

// transfers are the connections of every round: bulk and paced in both directions,
// and an upload that the client ends long before the server has read it.
func transfers(dial traffic.DialFunc, to string) []traffic.Group {
	const bulk, paced = 24 << 20, 384 << 10
	o := traffic.ClientOptions{Dial: dial, Address: to}
	var groups []traffic.Group
	add := func(p traffic.Pattern, length int64, size int, period, pace time.Duration) {
		o.Pattern, o.Length, o.Size, o.Period, o.Pace = p, length, size, period, pace
		groups = append(groups, traffic.Group{Count: 1, Client: o})
	}
	add(traffic.Upload, bulk, 0, 0, 0)
	add(traffic.Upload, paced, 4<<10, 2*time.Millisecond, 0)
	add(traffic.Upload, 1<<20, 16<<10, 0, 3*time.Millisecond)
	add(traffic.Download, bulk, 0, 0, 0)
	add(traffic.Download, paced, 4<<10, 2*time.Millisecond, 0)
	return groups
}

// moment is when to strike: the bulk is done in some 30 ms, the paced ones
// take about 200 ms.
func (s *slaughter) moment() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := 30 * time.Millisecond
	if s.rng.IntN(2) == 0 {
		longest = 220 * time.Millisecond
	}
	return time.Duration(s.rng.Int64N(int64(longest)))
}

func (s *slaughter) seed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Uint64() | 1
}

// begin starts a round's connections, and waits as long as the relay's backend
// is not back from the round before.
func (s *slaughter) begin(ctx context.Context, dial traffic.DialFunc, to string) (*Fleet, error) {
	deadline := time.Now().Add(Never)
	for {
		fleet, err := RunFleet(ctx, s.seed(), transfers(dial, to))
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return fleet, err
		}
		if err := Pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// patience is how long the other end may take to be told here: the dead-peer
// timeout, and much. Nobody need wait that long for HAProxy.
const (
	patience        = 10*time.Second + Never
	haproxyPatience = 2 * time.Second
)

// reports waits until every client of a round has ended.
func (s *slaughter) reports(ctx context.Context, kind string, fleet *Fleet) []traffic.Report {
	limit := patience
	if s.haproxy != "" {
		limit = haproxyPatience
	}
	select {
	case <-fleet.done:
	case <-ctx.Done():
	case <-time.After(limit):
	}
	fleet.End()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range fleet.Reports() {
		if !r.Told() && ctx.Err() == nil {
			s.untold++
			s.verdict.Fail("%s: a client was not told within %v: %s", kind, limit, r)
		}
	}
	return fleet.Reports()
}

// relayOf starts the relay of a lane, and returns where it listens.
func (s *slaughter) relayOf(ctx context.Context, n int, args ...string) (string, error) {
	node, backend := s.lab.Host("node1"), s.lab.Host("backend"+strconv.Itoa(n))
	at, server := node.AddrPort(s.Family, servicePort+uint16(n)), s.AddrPort(backend)
	if s.haproxy == "" {
		_, err := s.StartRelay(ctx, node, append([]string{at.String(), server.String(), "--dead-peer-timeout", "7s"}, args...)...)
		return at.String(), err
	}
	check := " check inter 100ms fall 2 rise 1 on-marked-down shutdown-sessions"
	if len(args) == len(unchecked) {
		check = ""
	}
	config := fmt.Sprintf("defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 50s\n  timeout server 50s\n  timeout check 100ms\n"+
		"listen service\n  bind %s\n  server one %s%s\n", at, server, check)
	file := filepath.Join(s.dir, fmt.Sprintf("haproxy-%d.cfg", n))
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return "", err
	}
	_, err := node.Start(lab.Command{Argv: []string{s.haproxy, "-db", "-f", file}})
	return at.String(), err // begin waits for it
}

// judge judges the clients of a round whose server had fate, by the server's
// exact facts.
func (s *slaughter) judge(kind string, at time.Time, fate traffic.Fate, reports []traffic.Report, facts map[traffic.ID]traffic.ServerFacts) {
	struck := traffic.InstantOf(at)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kills[kind]++
	for _, r := range reports {
		f := facts[r.ID]
		f.Fate, f.FateAt = fate, struck
		v := traffic.LiedTo(r, f)
		if kind == killReset && v.Lie == traffic.NoLie && r.Ending == traffic.FIN && !r.Complete && f.End.At >= struck {
			v = traffic.Verdict{Lie: traffic.FalseEnd, Why: fmt.Sprintf("the backend's RST became an end of stream after %d bytes", r.Received)}
		}
		if v.Crossed {
			s.crossed++
		}
		if v.Lie != traffic.NoLie {
			s.lies[v.Lie]++
			s.verdict.Fail("%s: %v: %s (%s)", kind, v.Lie, v.Why, r)
		}
		if r.Complete {
			s.whole++
			continue
		}
		s.hit[kind]++
		if r.Told() && r.At > struck {
			s.told[kind] = append(s.told[kind], r.At.Sub(struck))
		}
	}
}

// processes kills a server process again and again; its kernel lives.
func (s *slaughter) processes(ctx context.Context, n int, kind string, rounds int, checks ...string) error {
	backend := s.lab.Host("backend" + strconv.Itoa(n))
	to, err := s.relayOf(ctx, n, checks...)
	if err != nil {
		return err
	}
	for i := range rounds {
		ledger := filepath.Join(s.dir, fmt.Sprintf("%s-%d", backend.Name(), i))
		server, err := s.StartServer(ctx, backend, backend.Name(), s.AddrPort(backend), "-ledger", ledger)
		if err != nil {
			return err
		}
		fleet, err := s.begin(ctx, DialFrom(s.lab.Host("client1")), to)
		if err != nil {
			return err
		}
		err = Pause(ctx, s.moment())
		at, killErr := server.Kill()
		if err := errors.Join(err, killErr); err != nil {
			fleet.End()
			return err
		}
		reports := s.reports(ctx, kind, fleet)
		<-server.Done()
		facts, err := traffic.ReadLedger(ledger)
		if err != nil {
			return err
		}
		s.judge(kind, at, traffic.Killed, reports, facts)
	}
	return nil
}

// mutes lets a backend host fall silent and come back.
func (s *slaughter) mutes(ctx context.Context, n, rounds int) error {
	backend := s.lab.Host("backend" + strconv.Itoa(n))
	to, err := s.relayOf(ctx, n, checked...)
	if err != nil {
		return err
	}
	ledger := filepath.Join(s.dir, backend.Name())
	if _, err := s.StartServer(ctx, backend, backend.Name(), s.AddrPort(backend), "-ledger", ledger); err != nil {
		return err
	}
	for range rounds {
		if err := s.silence(ctx, killMute, backend, (*lab.Host).Mute, to, ledger); err != nil {
			return err
		}
		if _, err := backend.Unmute(); err != nil {
			return err
		}
	}
	return nil
}

// death lets a backend host vanish.
func (s *slaughter) death(ctx context.Context, n int) error {
	backend := s.lab.Host("backend" + strconv.Itoa(n))
	to, err := s.relayOf(ctx, n, checked...)
	if err != nil {
		return err
	}
	ledger := filepath.Join(s.dir, backend.Name())
	if _, err := s.StartServer(ctx, backend, backend.Name(), s.AddrPort(backend), "-ledger", ledger); err != nil {
		return err
	}
	return s.silence(ctx, killDeath, backend, (*lab.Host).Die, to, ledger)
}

// silence is one round with a backend host that falls silent.
func (s *slaughter) silence(ctx context.Context, kind string, backend *lab.Host, fall func(*lab.Host) (time.Time, error), to, ledger string) error {
	fleet, err := s.begin(ctx, DialFrom(s.lab.Host("client1")), to)
	if err != nil {
		return err
	}
	err = Pause(ctx, s.moment())
	at, fallErr := fall(backend)
	if err := errors.Join(err, fallErr); err != nil {
		fleet.End()
		return err
	}
	reports := s.reports(ctx, kind, fleet)
	facts, err := traffic.ReadLedger(ledger)
	if err != nil {
		return err
	}
	s.judge(kind, at, traffic.Silent, reports, facts)
	return nil
}

// tracked remembers connections, to reset them.
type tracked struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (t *tracked) add(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns = append(t.conns, c)
}

// reset resets every connection, and returns when it began.
func (t *tracked) reset() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := time.Now()
	for _, c := range t.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it fails on a connection that has ended already
		}
		_ = c.Close()
	}
	t.conns = nil
	return at
}

// trackedListener remembers what it accepts.
type trackedListener struct {
	net.Listener
	tracked
}

func (l *trackedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.add(c)
	}
	return c, err
}

// resets has a backend send RSTs.
func (s *slaughter) resets(ctx context.Context, n, rounds int) error {
	backend := s.lab.Host("backend" + strconv.Itoa(n))
	to, err := s.relayOf(ctx, n, unchecked...)
	if err != nil {
		return err
	}
	inner, err := backend.Listen(ctx, "tcp", s.AddrPort(backend).String())
	if err != nil {
		return err
	}
	ln := &trackedListener{Listener: inner}
	journal := &traffic.Journal{}
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() {
		served <- traffic.Serve(ctx, ln, traffic.ServerOptions{Name: backend.Name(), OnEvent: journal.Add, Ledger: filepath.Join(s.dir, backend.Name())})
	}()
	defer func() { stop(); <-served }()
	for range rounds {
		fleet, err := s.begin(ctx, DialFrom(s.lab.Host("client1")), to)
		if err != nil {
			return err
		}
		if err := Pause(ctx, s.moment()); err != nil {
			fleet.End()
			return err
		}
		at := ln.reset()
		reports := s.reports(ctx, killReset, fleet)
		for _, r := range reports {
			if err := ended(ctx, journal, r.ID); err != nil {
				return err
			}
		}
		s.judge(killReset, at, traffic.Running, reports, journal.All())
	}
	return nil
}

// ended waits until a server knows that a connection has ended.
func ended(ctx context.Context, j *traffic.Journal, id traffic.ID) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		changed := j.Changed()
		if f, ok := j.Facts(id); ok && f.End.At != 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the server has not seen the end of connection %v: %w", id, ctx.Err())
		}
	}
}

// clients has clients go away in the middle, by close or by RST; it is the
// server's end that is judged.
func (s *slaughter) clients(ctx context.Context, n int, kind string, rounds int) error {
	backend := s.lab.Host("backend" + strconv.Itoa(n))
	to, err := s.relayOf(ctx, n, unchecked...)
	if err != nil {
		return err
	}
	server, err := s.StartServer(ctx, backend, backend.Name(), s.AddrPort(backend))
	if err != nil {
		return err
	}
	dial := DialFrom(s.lab.Host("client1"))
	for range rounds {
		var made tracked
		fleet, err := s.begin(ctx, func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err == nil {
				made.add(c)
			}
			return c, err
		}, to)
		if err != nil {
			return err
		}
		if err := Pause(ctx, s.moment()); err != nil {
			fleet.End()
			return err
		}
		at := time.Now()
		if kind == clientReset {
			at = made.reset()
		}
		fleet.End()
		if err := s.judgeServer(ctx, kind, at, fleet.Reports(), server); err != nil {
			return err
		}
	}
	return nil
}

// clientDeaths lets client hosts vanish, each at a moment of its own.
func (s *slaughter) clientDeaths(ctx context.Context, deaths int) error {
	const n = 5 // beside the clients that close: the server serves both
	backend := s.lab.Host("backend" + strconv.Itoa(n))
	at := s.AddrPort(backend)
	server, err := s.StartServer(ctx, backend, "deaths", netip.AddrPortFrom(at.Addr(), at.Port()+1))
	if err != nil {
		return err
	}
	node := s.lab.Host("node1")
	to := node.AddrPort(s.Family, servicePort-1).String()
	if _, err := s.StartRelay(ctx, node, to, server.Address.String(), "--check", "none", "--dead-peer-timeout", "7s"); err != nil {
		return err
	}
	errs := make([]error, deaths)
	var wg sync.WaitGroup
	for i := range deaths {
		wg.Go(func() { errs[i] = s.clientDeath(ctx, s.lab.Host("client"+strconv.Itoa(2+i)), to, server) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *slaughter) clientDeath(ctx context.Context, client *lab.Host, to string, server *Server) error {
	fleet, err := s.begin(ctx, DialFrom(client), to)
	if err != nil {
		return err
	}
	defer fleet.End()
	if err := Pause(ctx, s.moment()); err != nil {
		return err
	}
	at, err := client.Die()
	if err != nil {
		return err
	}
	return s.judgeServer(ctx, clientVanish, at, fleet.Reports(), server)
}

// judgeServer judges what a server was told of clients that went away: an end
// of stream only after every byte that the client's kernel had taken, and none
// at all from a client that was reset or silent.
func (s *slaughter) judgeServer(ctx context.Context, kind string, at time.Time, reports []traffic.Report, server *Server) error {
	struck := traffic.InstantOf(at)
	for _, r := range reports {
		if r.StartedAt == 0 {
			continue
		}
		if err := ended(ctx, server.Journal, r.ID); err != nil {
			return fmt.Errorf("%s: %w: %s", kind, err, r)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kills[kind]++
	for _, r := range reports {
		f, _ := server.Journal.Facts(r.ID)
		lie := traffic.NoLie
		switch {
		case f.Corrupt:
			lie = traffic.Corrupted
		case f.End.Ending != traffic.FIN || f.End.At <= struck || f.Complete:
		case r.HalfClosedAt != 0 && r.Pattern == traffic.Upload && f.In == r.Sent:
			// All of it had been sent, its end too.
		case kind == clientGone && (r.Pattern != traffic.Upload || f.In == r.Sent):
			// As directly: a close looks like any other.
		default:
			lie = traffic.FalseEnd
		}
		if lie != traffic.NoLie {
			s.lies[lie]++
			s.verdict.Fail("%s: the server was told a lie: %v: it has %d bytes (%s)", kind, lie, f.In, r)
		}
		if f.Complete {
			s.whole++
			continue
		}
		s.hit[kind]++
		if f.End.At > struck {
			s.told[kind] = append(s.told[kind], f.End.At.Sub(struck))
		}
	}
	return nil
}
