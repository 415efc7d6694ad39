//go:build linux

package scene

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// A baseline is what came of a backend's loss behind HAProxy, which is asked
// only whether anybody is told within some seconds.
type baseline struct {
	patience time.Duration
	clients  int             // connections with the lost backend
	told     []time.Duration // of these, the clients that learned of it
	fins     int             // of these, those that were told by an end of stream, as if all were well
	servers  int             // the backend's ends that learned of it
	fresh    int             // new connections that were begun at the fault or later
	failed   int             // of these, not served within the patience
}

// behindHAProxy plays the fault of the scene behind HAProxy with the timeouts
// that Debian ships it with, and the same check. It is nil if HAProxy is not
// installed.
func (e *Env) behindHAProxy(ctx context.Context) (_ *baseline, err error) {
	program, err := probe.Program("haproxy", "haproxy")
	if err != nil {
		return nil, nil //nolint:nilnil // not installed: there is nothing to compare with
	}
	e.Say("the same without Holdfast: HAProxy with its default settings and the same check")
	t, err := lab.OneArm(lab.Size{Clients: 2, Nodes: 1, Backends: 3})
	if err != nil {
		return nil, err
	}
	l, err := e.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	node := l.Host("node1")
	var config strings.Builder
	fmt.Fprintf(&config, `defaults
  mode tcp
  timeout connect 5s
  timeout client 50s
  timeout server 50s
  timeout check %dms
listen service
  bind %s
`, checkTimeout.Milliseconds(), e.AddrPort(node))
	var backends []*Server
	for i := range 3 {
		h := l.Host(fmt.Sprintf("backend%d", i+1))
		s, err := e.StartServer(ctx, h, h.Name(), e.AddrPort(h))
		if err != nil {
			return nil, err
		}
		backends = append(backends, s)
		fmt.Fprintf(&config, "  server %s %s check inter %dms fall %d\n", s.Name, s.Address, checkInterval.Milliseconds(), checkFall)
	}
	dir, err := l.Dir()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config.String()), 0o644); err != nil {
		return nil, err
	}
	proxy, err := node.Start(lab.Command{Argv: []string{program, "-db", "-f", file}})
	if err != nil {
		return nil, err
	}
	if err := AwaitListener(ctx, l.Host("client1"), e.AddrPort(node).String(), proxy); err != nil {
		return nil, err
	}
	return e.loseBehind(ctx, l, backends[0])
}

// AwaitListener waits until somebody can connect.
func AwaitListener(ctx context.Context, from *lab.Host, address string, p *lab.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		c, err := from.Dial(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		if Pause(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("nobody listens on %s: %w: %s", address, err, p.Output())
		}
	}
}

// loseBehind plays the fault, and watches for a while.
func (e *Env) loseBehind(ctx context.Context, l *lab.Lab, lost *Server) (*baseline, error) {
	b := &baseline{patience: 2 * time.Second}
	address := e.AddrPort(l.Host("node1")).String()
	fleet, err := traffic.NewFleet(traffic.FleetOptions{
		Seed:   e.Seed | 1,
		Groups: loads(traffic.DialWithin(l.Host("client1").Do), address, 4, 3),
	})
	if err != nil {
		return nil, err
	}
	prober, err := traffic.NewProber(traffic.ProberOptions{
		Dial: traffic.DialWithin(l.Host("client2").Do), Address: address, Rate: 100, Timeout: b.patience, Seed: e.Seed | 1,
	})
	if err != nil {
		return nil, err
	}
	all, end := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fleet.Run(all)
	}()
	defer func() {
		end()
		<-ended
	}()
	if err := fleet.Ready(ctx); err != nil {
		return nil, err
	}
	probes, stop := context.WithCancel(all)
	probed := make(chan traffic.ProbeReport, 1)
	go func() { probed <- prober.Run(probes) }()
	defer stop()
	if err := Pause(ctx, 200*time.Millisecond); err != nil {
		return nil, err
	}
	host := l.Host(lost.Name)
	fault := host.Mute
	if e.Variant.Fault == faultDeath {
		fault = host.Die
	}
	at, err := fault()
	if err != nil {
		return nil, err
	}
	before := prober.Report().Started
	// New connections stop early, so that each has the whole patience left.
	if err := Pause(ctx, b.patience/4); err != nil {
		return nil, err
	}
	stop()
	if err := Pause(ctx, b.patience*3/4); err != nil {
		return nil, err
	}
	for _, c := range fleet.Clients() {
		r := c.Report()
		if r.Server != lost.Name {
			continue
		}
		b.clients++
		if r.Told() {
			b.told = append(b.told, r.At.Sub(traffic.InstantOf(at)))
			if r.Ending == traffic.FIN {
				b.fins++
			}
		}
		if f, ok := lost.Journal.Facts(r.ID); ok && f.End.Ending != traffic.Alive {
			b.servers++
		}
	}
	report := <-probed
	b.fresh = report.Started - before
	for _, f := range report.Failures {
		if f.StartedAt >= traffic.InstantOf(at) {
			b.failed++
		}
	}
	return b, nil
}

// beside puts the baseline beside the figures.
func (b *baseline) beside(v *Verdict) {
	if b == nil {
		return
	}
	told := fmt.Sprintf("%d of %d in %v", len(b.told), b.clients, b.patience)
	if b.fins > 0 {
		told += fmt.Sprintf(", %d by FIN", b.fins)
	}
	v.versus(clientsTold, told)
	if len(b.told) == 0 {
		v.versus(clientsToldAfter, fmt.Sprintf("not told in %v", b.patience))
	}
	v.versus(serversTold, fmt.Sprintf("%d of %d in %v", b.servers, b.clients, b.patience))
	v.versus(freshFailed, fmt.Sprintf("%d of %d not served in %v", b.failed, b.fresh, b.patience))
}

// versus is Versus for the figure of that name, if there is one.
func (v *Verdict) versus(name, text string) {
	for _, f := range v.Figures {
		if f.Name == name {
			f.Without = text
		}
	}
}
