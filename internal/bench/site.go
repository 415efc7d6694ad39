package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// A site is where a run takes place: three hosts and how they are joined.
type site struct {
	about                  string // for the report
	client, proxy, backend host
	close                  func() error
}

// A host is where processes run.
type host struct {
	addr  netip.Addr
	start func(*exec.Cmd) error                // starts the command in the host
	port  func(n int) (port uint16, err error) // a port for the n-th listener
}

// loopbackSite is this machine itself, for those who cannot make namespaces.
func loopbackSite(_ context.Context, family int) (*site, error) {
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if family == 6 {
		addr = netip.IPv6Loopback()
	}
	h := host{
		addr:  addr,
		start: (*exec.Cmd).Start,
		port: func(int) (uint16, error) {
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
			if err != nil {
				return 0, err
			}
			defer l.Close()
			return uint16(l.Addr().(*net.TCPAddr).Port), nil
		},
	}
	return &site{about: "loopback", client: h, proxy: h, backend: h, close: func() error { return nil }}, nil
}

// A process is a started child of the run.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how, after done
}

// startProcess starts cmd in h. When ctx ends it is asked to end.
func startProcess(ctx context.Context, h host, cmd *exec.Cmd) (*process, error) {
	if err := h.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, p.terminate)
	go func() {
		p.err = cmd.Wait()
		stop()
		close(p.done)
	}()
	return p, nil
}

func (p *process) terminate() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }

// stop ends the process and waits for its end.
func (p *process) stop() {
	p.terminate()
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// labSite is a laboratory: each host in a network namespace of its own, all on
// one switch. Direct traffic does not pass the proxy's host.
func labSite(ctx context.Context, family int) (*site, error) {
	top, err := lab.OneArm(lab.Size{Clients: 1, Nodes: 1, Backends: 1})
	if err != nil {
		return nil, err
	}
	for i := range top.Hosts {
		// A client of ten thousand connections a second would use up its ports,
		// and so would the proxy towards its backend.
		top.Hosts[i].Sysctls = append(top.Hosts[i].Sysctls,
			lab.Sysctl{Name: "net.ipv4.tcp_tw_reuse", Value: "1"},
			lab.Sysctl{Name: "net.ipv4.ip_local_port_range", Value: "1024 65535"},
			lab.Sysctl{Name: "net.ipv4.tcp_max_tw_buckets", Value: "262144"},
		)
	}
	l, err := lab.Start(ctx, top, lab.Options{})
	if err != nil {
		return nil, fmt.Errorf("%w (-network loopback needs no namespaces)", err)
	}
	f := lab.IPv4
	if family == 6 {
		f = lab.IPv6
	}
	in := func(name string) host {
		h := l.Host(name)
		return host{
			addr:  h.Addr(f),
			start: func(cmd *exec.Cmd) error { return h.Do(cmd.Start) },
			// Below the range that connections take their own ports from.
			port: func(n int) (uint16, error) { return uint16(100 + n), nil },
		}
	}
	return &site{
		about:  "three network namespaces on one bridge, cubic, the kernel's default buffers",
		client: in("client1"), proxy: in("node1"), backend: in("backend1"), close: l.Close,
	}, nil
}
