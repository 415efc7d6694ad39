package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/lab"
)

// listEvery is how often the connections are listed: somebody looks as often as
// it makes sense to. The requests take all of the machine, so that the work of a
// listing has to come out of theirs.
const listEvery = time.Second

// listingCells is how many cells each part lasts, so that there are several
// listings in it.
const listingCells = 3

// listLimit is how many connections a listing shows of those that it finds.
const listLimit = 100

// listing measures requests beside many connections that are held, in turns
// without and with somebody who lists them.
func (r *runner) listing(ctx context.Context, row Row, s *stand) (_ map[string]float64, out outcome, err error) {
	node := &stand{candidate: s.candidate, path: s.path}
	client, err := r.startNode(ctx, node)
	if err != nil {
		return nil, out, err
	}
	defer node.stop()
	held, err := startWorker(ctx, r.site.client, r.self, r.role(Row{Load: loadIdle, Connections: row.Held}, node, 30*time.Second))
	if err != nil {
		return nil, out, err
	}
	defer held.end()
	if out, err = held.outcome(); err != nil || out.Errors > 0 {
		return nil, out, err
	}
	var latency [2][]float64 // p99 without and with listings
	var took []time.Duration
	load := Row{Load: loadRequests, Connections: row.Connections}
	for _, with := range []int{0, 1, 1, 0} { // a drift of the machine meets both
		end := func() ([]time.Duration, error) { return nil, nil }
		if with == 1 {
			end = r.listAgain(ctx, client, row.Held)
		}
		got, err := r.load(ctx, r.role(load, node, listingCells*r.options.cell))
		listed, listErr := end()
		if err = errors.Join(err, listErr); err != nil {
			return nil, out, err
		}
		out.Count += got.Count
		if out.Errors += got.Errors; out.FirstError == "" {
			out.FirstError = got.FirstError
		}
		latency[with] = append(latency[with], float64(got.P99)/float64(time.Microsecond))
		took = append(took, listed...)
	}
	without, with := (latency[0][0]+latency[0][1])/2, (latency[1][0]+latency[1][1])/2
	values := map[string]float64{p99: without, p99Listing: with}
	if without > 0 {
		values[p99Change] = (with/without - 1) * 100
		values[p99Noise] = math.Abs(latency[0][0]-latency[0][1]) / without * 100
	}
	if len(took) > 0 {
		slices.Sort(took)
		values[listingHalf] = float64(took[len(took)/2]) / float64(time.Millisecond)
		values[listingWorst] = float64(took[len(took)-1]) / float64(time.Millisecond)
	}
	return values, out, nil
}

// startNode starts holdfast run with one service, and returns who asks it.
func (r *runner) startNode(ctx context.Context, s *stand) (*admin.Client, error) {
	r.site.ports++
	s.target = netip.AddrPortFrom(r.site.proxy.addr, firstProxyPort+r.site.ports)
	dir := filepath.Join(r.dir, fmt.Sprintf("node-%d", r.site.ports))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "socket")
	file, err := writeConfig(dir, "holdfast.yaml", fmt.Sprintf(`admin: {socket: %q}
directories: {runtime: %q}
services:
  - {name: bench, listen: %q, health: {none: {}}, backends: [{name: one, address: %q}]}
`, socket, dir, s.target, r.backend))
	if err != nil {
		return nil, err
	}
	p, err := r.site.proxy.Start(lab.Command{Argv: []string{s.path, "run", "-c", file}, Dir: dir})
	if err != nil {
		return nil, err
	}
	s.stop = func() { stopProcess(p) }
	if err = r.answers(ctx, p, s.target); err == nil {
		s.pids, err = processTree(p.PID())
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("holdfast run: %w", err)
	}
	return &admin.Client{Socket: socket}, nil
}

// listAgain lists connections again and again until end, which says how long each
// listing took.
func (r *runner) listAgain(ctx context.Context, c *admin.Client, held int) (end func() ([]time.Duration, error)) {
	ctx, stop := context.WithCancel(ctx)
	var took []time.Duration
	done := make(chan error, 1)
	f := admin.Filter{Client: r.site.client.addr.String(), Backend: "one", Limit: listLimit}
	go func() {
		ticker := time.NewTicker(listEvery)
		defer ticker.Stop()
		for {
			began := time.Now()
			list, err := c.Connections(ctx, f)
			switch {
			case ctx.Err() != nil:
				done <- nil
				return
			case err == nil && list.Matched < held:
				err = fmt.Errorf("a listing of %d connections found %d", held, list.Matched)
			}
			if err != nil {
				done <- err
				return
			}
			took = append(took, time.Since(began))
			select {
			case <-ticker.C:
			case <-ctx.Done():
				done <- nil
				return
			}
		}
	}()
	return func() ([]time.Duration, error) {
		stop()
		err := <-done
		return took, err
	}
}
