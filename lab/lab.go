//go:build linux

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// Options are the settings of a lab; the zero value works.
type Options struct {
	// Logger gets what happens, faults at level info. nil: nothing is logged.
	Logger *slog.Logger
	// Seed makes random loss (see [Link.SetLoss]) the same for the same
	// sequence of frames. 0 is a seed like any other.
	Seed uint64
}

// Lab is a running topology. Its methods, and those of its hosts, links and
// processes, may be called at the same time.
type Lab struct {
	log *slog.Logger

	hosts    map[string]*Host
	switches map[string]*swtch
	links    []*Link
	words    *sys.SharedArray
	stamps   *os.File // keeps the kernel noting the time of frames, for captures

	mu     sync.RWMutex // held for reading while words is in use
	closed bool
	dir    string
	ending []func() error // captures and the like, ended by Close
}

// ErrClosed is what the methods of a closed lab return.
var ErrClosed = netns.ErrClosed

// swtch is a bridge in a namespace of its own.
type swtch struct {
	name   string
	ns     *netns.NS
	nl     *rtnl.Handle
	bridge int
}

// Link is a cable between a host and a switch.
type Link struct {
	lab  *Lab
	spec LinkSpec
	id   int
	host *Host
	sw   *swtch

	mac      net.HardwareAddr // of the host's interface
	index    int              // the host's interface
	port     int              // the switch's port
	portName string
	taps     [2]*os.File
}

// Start builds the topology. Everything is in place when it returns: links
// carry frames and addresses can be used. It needs root; [Supported] says what
// is missing where it fails.
func Start(ctx context.Context, t Topology, o Options) (l *Lab, err error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	l = &Lab{
		log:      cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		hosts:    map[string]*Host{},
		switches: map[string]*swtch{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("lab: %w", err), l.Close())
			l = nil
		}
	}()
	began := time.Now()
	if l.words, err = sys.NewSharedArray(max(1, gateWords(len(t.Links)))); err != nil {
		return l, err
	}
	if l.stamps, err = sys.KeepTimestamps(); err != nil {
		return l, err
	}
	if err := l.makeNamespaces(t); err != nil {
		return l, err
	}
	for i, spec := range t.interfaceNames() {
		if err := ctx.Err(); err != nil {
			return l, err
		}
		if err := l.addLink(i, spec, o.Seed, len(t.Links)); err != nil {
			return l, fmt.Errorf("link of %s to %s: %w", spec.Host, spec.Switch, err)
		}
	}
	for _, h := range l.hosts {
		if err := h.configure(); err != nil {
			return l, fmt.Errorf("host %s: %w", h.spec.Name, err)
		}
	}
	if err := l.awaitLinks(ctx); err != nil {
		return l, err
	}
	l.log.Debug("lab started", "hosts", len(l.hosts), "links", len(l.links), "took", time.Since(began))
	return l, nil
}

// makeNamespaces makes those of all hosts and switches at once: each takes the
// kernel some milliseconds.
func (l *Lab) makeNamespaces(t Topology) error {
	for _, spec := range t.Hosts {
		l.hosts[spec.Name] = &Host{lab: l, spec: spec, processes: map[*Process]bool{}}
	}
	for _, name := range t.Switches {
		l.switches[name] = &swtch{name: name}
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(l.hosts)+len(l.switches))
	for _, h := range l.hosts {
		wg.Go(func() { errs <- h.open() })
	}
	for _, s := range l.switches {
		wg.Go(func() { errs <- s.open() })
	}
	wg.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}

func (s *swtch) open() (err error) {
	if s.ns, err = netns.New(); err != nil {
		return fmt.Errorf("switch %s: %w", s.name, err)
	}
	err = s.ns.Do(func() (err error) {
		// A switch has no addresses: the bridge itself says nothing.
		if err := setSysctls([]Sysctl{
			{"net.ipv6.conf.all.disable_ipv6", "1"},
			{"net.ipv6.conf.default.disable_ipv6", "1"},
		}); err != nil {
			return err
		}
		// Nor does it look at packets: where br_netfilter is loaded, that would
		// cost every frame a twentieth of its way.
		for _, table := range []string{"arptables", "iptables", "ip6tables"} {
			err := setSysctls([]Sysctl{{"net.bridge.bridge-nf-call-" + table, "0"}})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if s.nl, err = rtnl.Open(); err != nil {
			return err
		}
		s.bridge, err = s.nl.AddBridge("switch", net.HardwareAddr{0x02, 0x77, 2, 0, 0, 1})
		return err
	})
	if err != nil {
		return fmt.Errorf("switch %s: %w", s.name, err)
	}
	return nil
}

func (l *Lab) addLink(id int, spec LinkSpec, seed uint64, links int) error {
	k := &Link{
		lab: l, spec: spec, id: id, host: l.hosts[spec.Host], sw: l.switches[spec.Switch],
		mac:      net.HardwareAddr{0x02, 0x77, 0, 0, byte((id + 1) >> 8), byte(id + 1)},
		portName: fmt.Sprintf("port%d", id),
	}
	l.links = append(l.links, k)
	k.host.links = append(k.host.links, k)
	cable := k.makeVeth
	if spec.Taps {
		cable = k.makeTaps
	}
	if err := cable(); err != nil {
		return err
	}
	nl := k.sw.nl
	if err := errors.Join(nl.AddPort(k.sw.bridge, k.port), nl.AddForwarding(k.port, k.mac)); err != nil {
		return err
	}
	if spec.NoOffload {
		if err := k.host.nl.SetMaxSegments(k.index, 1); err != nil {
			return err
		}
	}
	// The host's side first: the port then finds its peer up.
	if err := errors.Join(k.host.nl.SetState(k.index, true), nl.SetState(k.port, true)); err != nil {
		return err
	}
	return k.attachGates(seed, links)
}

func (k *Link) makeVeth() error {
	err := k.host.ns.WithFD(func(fd int) (err error) {
		k.port, err = k.sw.nl.AddVeth(rtnl.Veth{
			Name: k.portName, MAC: net.HardwareAddr{0x02, 0x77, 1, 0, byte((k.id + 1) >> 8), byte(k.id + 1)},
			MTU: k.spec.MTU, PeerNS: fd, PeerName: k.spec.Interface, PeerMAC: k.mac,
		})
		return err
	})
	if err != nil {
		return err
	}
	k.index, err = k.host.nl.Index(k.spec.Interface)
	return err
}

// linkPatience bounds how long the links of a lab may take to come up: alone
// some milliseconds, and beside seven other labs on a busy machine more than 10 s.
const linkPatience = 30 * time.Second

// awaitLinks waits until the kernel has taken note that every link is up at
// both ends, and answers for its addresses; it does so on its own time.
func (l *Lab) awaitLinks(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, k := range l.links {
		for {
			here, err := k.host.nl.Running(k.index)
			if err != nil {
				return err
			}
			there, err := k.sw.nl.Running(k.port)
			if err != nil {
				return err
			}
			tentative, err := k.host.nl.Tentative(k.index)
			if err != nil {
				return err
			}
			if here && there && !tentative {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("link of %s to %s does not come up: %w", k.spec.Host, k.spec.Switch, ctx.Err())
			}
		}
	}
	return nil
}

// Host gives the host called name. It panics if the topology has none: a name
// is part of the program that wrote the topology.
func (l *Lab) Host(name string) *Host {
	h := l.hosts[name]
	if h == nil {
		panic(fmt.Sprintf("lab: there is no host %q in the topology", name))
	}
	return h
}

// Dir gives a directory for the lab's files that Close removes.
func (l *Lab) Dir() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", ErrClosed
	}
	if l.dir == "" {
		dir, err := os.MkdirTemp("", dirPrefix+owner()+"-")
		if err != nil {
			return "", fmt.Errorf("lab: %w", err)
		}
		// Programs that run as another user have their files here too.
		if err := os.Chmod(dir, 0o755); err != nil {
			return "", fmt.Errorf("lab: %w", err)
		}
		l.dir = dir
	}
	return l.dir, nil
}

// onClose has f called by Close, before the namespaces go.
func (l *Lab) onClose(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.ending = append(l.ending, f)
	return nil
}

// Close ends every process of the lab and takes the topology apart. Sockets
// that were made in it by this process go on existing, but their packets go
// nowhere. It may be called again.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	ending := l.ending
	l.mu.Unlock()

	var errs []error
	for _, h := range l.hosts {
		if h.ns != nil {
			errs = append(errs, h.killAll())
		}
	}
	for _, f := range ending {
		errs = append(errs, f())
	}
	for _, k := range l.links {
		errs = append(errs, k.close())
	}
	for _, h := range l.hosts {
		errs = append(errs, closeNS(h.ns, h.nl))
	}
	for _, s := range l.switches {
		errs = append(errs, closeNS(s.ns, s.nl))
	}
	if l.words != nil {
		l.mu.Lock()
		errs = append(errs, l.words.Close())
		l.mu.Unlock()
	}
	if l.stamps != nil {
		errs = append(errs, l.stamps.Close())
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: close: %w", err)
	}
	return nil
}

func closeNS(ns *netns.NS, nl *rtnl.Handle) error {
	if nl != nil {
		nl.Close()
	}
	if ns == nil {
		return nil
	}
	return ns.Close()
}

func (k *Link) close() error {
	var errs []error
	for _, f := range k.taps {
		if f != nil {
			if err := f.Close(); !errors.Is(err, os.ErrClosed) { // whoever carries the frames may have closed it
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
