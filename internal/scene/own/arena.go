//go:build linux

package own

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// An arena is the network of these scenes: two nodes, clients beside them and
// behind a router, which is everybody's gateway and the nodes' witness, and
// backends. The switch is watched.
type arena struct {
	*scene.Env
	lab   *lab.Lab
	watch *lab.Watch
	vip   netip.Prefix // the address that the nodes have between them
	nodes [2]*lab.Host
	arenaPlan

	askers []*asker
}

// An arenaPlan is what an arena is made of.
type arenaPlan struct {
	backends  int
	strangers int  // "client3" and on: hosts beside the two clients
	pairLink  bool // the nodes have a network of their own
	quiet     bool // the watch keeps no traffic but who has an address, and adverts
}

// vipNumber is the last number of the address.
const vipNumber = 100

// port is where the address is served.
const port = 7000

func newArena(ctx context.Context, e *scene.Env, p arenaPlan) (_ *arena, err error) {
	t, err := lab.OneArm(lab.Size{Clients: 2 + p.strangers, FarClients: 1, Nodes: 2, Backends: p.backends, PairLink: p.pairLink})
	if err != nil {
		return nil, err
	}
	a := &arena{Env: e, arenaPlan: p, vip: lab.Address(e.Family, vipNumber)}
	if a.lab, err = e.Start(ctx, t); err != nil {
		return nil, err
	}
	a.nodes = [2]*lab.Host{a.lab.Host("node1"), a.lab.Host("node2")}
	a.watch, err = a.lab.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{a.vip.Addr()}, Traffic: !p.quiet})
	if err != nil {
		return nil, errors.Join(err, a.lab.Close())
	}
	return a, nil
}

// target is where clients connect.
func (a *arena) target() netip.AddrPort { return netip.AddrPortFrom(a.vip.Addr(), port) }

// close ends everything.
func (a *arena) close() error {
	for _, k := range a.askers {
		k.end()
	}
	return a.lab.Close()
}

// dirOf makes a directory for the files of one program of a node.
func (a *arena) dirOf(what string) (string, error) {
	dir, err := a.lab.Dir()
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(dir, what+"-"); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// serve starts a server on every address of each node, that of the arena among
// them: what an operator has behind an address without any service.
func (a *arena) serve(ctx context.Context) error {
	listen := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	if a.Family == lab.IPv6 {
		listen = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	for _, h := range a.nodes {
		if _, err := a.StartServer(ctx, h, h.Name(), listen); err != nil {
			return err
		}
	}
	return nil
}

// An asker makes new connections with an exchange each, again and again, and
// remembers what came of each.
type asker struct {
	name   string
	prober *traffic.Prober
	stop   context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	probes []traffic.Probe
}

// ask lets a host connect to the address so many times a second, until the
// asker's end.
func (a *arena) ask(ctx context.Context, host string, rate int, timeout time.Duration) (*asker, error) {
	k := &asker{name: host, done: make(chan struct{})}
	var err error
	k.prober, err = traffic.NewProber(traffic.ProberOptions{
		Dial: scene.DialFrom(a.lab.Host(host)), Address: a.target().String(), Rate: rate, Timeout: timeout,
		Seed: scene.Seed(a.Seed, len(a.askers)+1) | 1, OnProbe: k.add,
	})
	if err != nil {
		return nil, err
	}
	ctx, k.stop = context.WithCancel(ctx)
	go func() {
		defer close(k.done)
		k.prober.Run(ctx)
	}()
	a.askers = append(a.askers, k)
	return k, nil
}

func (k *asker) add(p traffic.Probe) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.probes = append(k.probes, p)
}

// end lets those that are under way end, and returns all, in the order of their
// beginning.
func (k *asker) end() []traffic.Probe {
	k.stop()
	<-k.done
	return k.all()
}

func (k *asker) all() []traffic.Probe {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.SortedFunc(slices.Values(k.probes), func(a, b traffic.Probe) int { return int(a.StartedAt - b.StartedAt) })
}

// served waits until so many more connections have been served.
func (k *asker) served(ctx context.Context, more int) error {
	from := k.prober.Report().Succeeded
	return until(ctx, fmt.Sprintf("%s is served", k.name), func() (bool, error) {
		return k.prober.Report().Succeeded >= from+more, nil
	})
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
		if err := scene.Pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("not so: %s: %w", what, err)
		}
	}
}

// gap is the longest time after a fault in which no exchange ended well, up to
// the first that began when the address had its new owner. ok: there is one.
func gap(probes []traffic.Probe, fault, owned time.Time) (longest time.Duration, ok bool) {
	last, from := traffic.InstantOf(fault), traffic.InstantOf(owned)
	probes = slices.DeleteFunc(probes, func(p traffic.Probe) bool { return p.Err != nil || p.EndedAt < last })
	slices.SortFunc(probes, func(a, b traffic.Probe) int { return int(a.EndedAt - b.EndedAt) })
	for _, p := range probes {
		longest, last = max(longest, p.EndedAt.Sub(last)), p.EndedAt
		if p.StartedAt >= from {
			return longest, true
		}
	}
	return 0, false
}

// failed sorts what came of connections: how many could not be made, were
// refused, or ended in the middle of their exchange.
type failed struct {
	connects  int      // that failed, the refused ones among them
	refused   int      // of these, by RST
	exchanges int      // that ended before their answer, although the connect succeeded
	how       []string // the first few, in words
}

func failures(probes []traffic.Probe) (f failed) {
	for _, p := range probes {
		switch {
		case p.Err == nil:
			continue
		case p.Stage != "connect":
			f.exchanges++
		default:
			f.connects++
			if p.Ending == traffic.Refused || p.Ending == traffic.RST {
				f.refused++
			}
		}
		if len(f.how) < 5 {
			f.how = append(f.how, fmt.Sprintf("%s: %v, after %.1f ms", p.Stage, p.Err, float64(p.EndedAt.Sub(p.StartedAt))/1e6))
		}
	}
	return f
}
