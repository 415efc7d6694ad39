package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// options are what the command line says.
type options struct {
	rounds     int
	cell       time.Duration
	rows       []Row
	candidates []candidate
	family     int
	profile    string        // a row, or nothing
	takeovers  int           // how many of each candidate
	binary     string        // of holdfast
	patience   time.Duration // what may be spent on waiting for a quiet machine
	progress   io.Writer
}

// A runner is a run under way.
type runner struct {
	options
	site       *site
	dir        string // for files of the proxies; removed at the end
	self       string // this program
	loops      int    // of the load generator and of the backend each
	backend    netip.AddrPort
	backendPID int
	stands     []*stand
}

// A stand is a candidate that can take part.
type stand struct {
	candidate
	path   string
	target netip.AddrPort // where clients connect
	pids   []int
	stop   func()
}

// run measures everything and returns the report.
func run(ctx context.Context, o options) (report *Report, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	site, err := newSite(ctx, o.family)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, site.lab.Close()) }()

	r := &runner{options: o, site: site, dir: dir, self: self, loops: max(1, runtime.NumCPU()/2)}
	stop, err := r.startBackend(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	report = &Report{
		Started: time.Now(), Network: siteAbout, Family: o.family, Rounds: o.rounds, Seconds: o.cell.Seconds(), Rows: o.rows,
	}
	describeMachine(report)
	for _, c := range o.candidates {
		path, state := c.state()
		report.Candidates = append(report.Candidates, state)
		if state.Skipped != "" {
			continue
		}
		s := &stand{candidate: c, path: path}
		if err := r.start(ctx, s); err != nil {
			return nil, err
		}
		defer s.stop()
		r.stands = append(r.stands, s)
	}
	if len(r.stands) == 0 {
		return nil, errors.New("no candidate is installed")
	}
	if err := r.rounds(ctx, report); err != nil {
		return nil, err
	}
	if o.profile != "" {
		if report.Profile, err = r.profile(ctx); err != nil {
			return nil, err
		}
	}
	if o.takeovers > 0 {
		f := lab.IPv4
		if o.family == 6 {
			f = lab.IPv6
		}
		if report.Takeovers, err = takeovers(ctx, o.takeovers, o.binary, f, o.progress); err != nil {
			return nil, err
		}
	}
	report.summarize(allTargets())
	return report, nil
}

func (r *runner) rounds(ctx context.Context, report *Report) error {
	began := time.Now()
	for round := 1; round <= r.options.rounds; round++ {
		fmt.Fprintf(r.progress, "round %d of %d", round, r.options.rounds)
		if done := round - 1; done > 0 {
			left := time.Since(began) / time.Duration(done) * time.Duration(r.options.rounds-done)
			fmt.Fprintf(r.progress, ", %v left", left.Round(time.Second))
		}
		fmt.Fprintln(r.progress)
		for _, row := range r.rows {
			if err := r.measure(ctx, report, row, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure measures a row on every candidate once. With patience it first waits
// for others to leave the machine alone, and does it again if they did not
// until the end, as long as the patience lasts.
func (r *runner) measure(ctx context.Context, report *Report, row Row, round int) error {
	for {
		before, err := r.background(ctx)
		for err == nil && before > tooBusy && r.patience > 0 {
			r.patience -= backgroundTime
			before, err = r.background(ctx)
		}
		if err != nil {
			return err
		}
		began := time.Now()
		samples, err := r.samples(ctx, row, round)
		if err != nil {
			return err
		}
		after, err := r.background(ctx)
		if err != nil {
			return err
		}
		if after <= tooBusy || r.patience <= 0 {
			report.Background = append(report.Background, (before+after)/2)
			report.Samples = append(report.Samples, samples...)
			return nil
		}
		r.patience -= time.Since(began)
	}
}

func (r *runner) samples(ctx context.Context, row Row, round int) ([]Sample, error) {
	var samples []Sample
	for i := range r.stands {
		// Rotated, so that no candidate always follows the same one.
		s := r.stands[(i+round-1)%len(r.stands)]
		if !s.measures(row) {
			continue
		}
		values, out, err := r.cell(ctx, row, s)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("%s on %s: %w", row.Name, s.name, err)
		}
		samples = append(samples, Sample{
			Row: row.Name, Candidate: s.name, Round: round, Values: values, Errors: out.Errors, Error: out.FirstError,
		})
	}
	return samples, nil
}

// backgroundTime is how long the machine is watched: some twenty clock ticks of
// all CPUs together.
const backgroundTime = 100 * time.Millisecond

// background measures how busy the machine is while this run does nothing.
func (r *runner) background(ctx context.Context) (share float64, err error) {
	before, err := readMachineTimes()
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(backgroundTime):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	after, err := readMachineTimes()
	if err != nil || after.all == before.all {
		return 0, err
	}
	return float64(after.busy-before.busy) / float64(after.all-before.all), nil
}

// cell measures one row on one candidate, once.
func (r *runner) cell(ctx context.Context, row Row, s *stand) (map[string]float64, outcome, error) {
	switch row.Load {
	case loadIdle:
		return r.idle(ctx, row, s)
	case loadListing:
		return r.listing(ctx, row, s)
	}
	out, err := r.load(ctx, r.role(row, s, r.options.cell))
	return row.values(out), out, err
}

func (r *runner) role(row Row, s *stand, window time.Duration) role {
	return role{
		Target: s.target, Load: row.Load, Connections: row.Connections, Loops: r.loops,
		Warmup: max(100*time.Millisecond, window/5), Window: window, PIDs: s.pids, Backend: r.backendPID,
	}
}

// idle measures how much a fresh process of the candidate grows by holding
// connections that each had one request.
func (r *runner) idle(ctx context.Context, row Row, s *stand) (_ map[string]float64, out outcome, err error) {
	fresh := &stand{candidate: s.candidate, path: s.path}
	if err := r.start(ctx, fresh); err != nil {
		return nil, out, err
	}
	defer fresh.stop()
	before, err := memory(fresh.pids)
	if err != nil {
		return nil, out, err
	}
	client, err := startWorker(ctx, r.site.client, r.self, r.role(row, fresh, 10*time.Second))
	if err != nil {
		return nil, out, err
	}
	defer client.end()
	if out, err = client.outcome(); err != nil {
		return nil, out, err
	}
	held := row.Connections - out.Errors
	if held <= 0 {
		return nil, out, nil
	}
	after, err := settledMemory(ctx, fresh.pids)
	if err != nil {
		return nil, out, err
	}
	return map[string]float64{bytesEach: float64(after-before) / float64(held)}, out, nil
}

// settledMemory waits until the processes' memory stands still, or a second.
func settledMemory(ctx context.Context, pids []int) (int64, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := int64(-1)
	for range 10 {
		now, err := memory(pids)
		if err != nil || now == last {
			return now, err
		}
		last = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return last, nil
}

// start starts the candidate on a port of its own and waits until it answers.
// Direct needs no process: clients connect to the backend.
func (r *runner) start(ctx context.Context, s *stand) error {
	if s.name == direct {
		s.target, s.stop = r.backend, func() {}
		return nil
	}
	r.site.ports++
	s.target = netip.AddrPortFrom(r.site.proxy.addr, firstProxyPort+r.site.ports)
	dir := filepath.Join(r.dir, fmt.Sprintf("%s-%d", s.name, r.site.ports))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	argv, err := s.command(s.path, dir, s.target, r.backend)
	if err != nil {
		return err
	}
	p, err := r.site.proxy.Start(lab.Command{Argv: argv, Dir: dir})
	if err != nil {
		return err
	}
	s.stop = func() { stopProcess(p) }
	if err = r.answers(ctx, p, s.target); err == nil {
		s.pids, err = processTree(p.PID())
	}
	if err != nil {
		s.stop()
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// answers waits until one request through target is answered.
func (r *runner) answers(ctx context.Context, p *lab.Process, target netip.AddrPort) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("no answer through it within 10 s"))
	defer cancel()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := r.load(ctx, role{Target: target, Load: loadRequests, Connections: 1, Loops: 1, Window: 20 * time.Millisecond, Backend: r.backendPID})
		if err == nil && out.Errors == 0 && out.Count > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return cmp.Or(p.Wait(ctx), fmt.Errorf("it ended at once and said %q", p.Output()))
		case <-ctx.Done():
			return fmt.Errorf("%w (%s); it said %q", context.Cause(ctx), cmp.Or(out.FirstError, "no error"), p.Output())
		}
	}
}

// startBackend starts the backend and learns its address.
func (r *runner) startBackend(ctx context.Context) (stop func(), err error) {
	w, err := startWorker(ctx, r.site.backend, r.self, role{Listen: netip.AddrPortFrom(r.site.backend.addr, backendPort), Loops: r.loops})
	if err != nil {
		return nil, err
	}
	r.backendPID = w.PID()
	line, err := w.line()
	if err == nil {
		r.backend, err = netip.ParseAddrPort(string(bytes.TrimSpace(line)))
	}
	if err != nil {
		w.end()
		return nil, err
	}
	return w.end, nil
}

// load runs a client and returns what it measured.
func (r *runner) load(ctx context.Context, role role) (outcome, error) {
	w, err := startWorker(ctx, r.site.client, r.self, role)
	if err != nil {
		return outcome{}, err
	}
	defer w.end()
	return w.outcome()
}

// outcome waits for what a client measured.
func (w *worker) outcome() (out outcome, err error) {
	line, err := w.line()
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(line, &out)
}
