package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// A site is where a run takes place: a laboratory with three hosts on one
// switch. Direct traffic does not pass the proxy's host.
type site struct {
	lab                    *lab.Lab
	client, proxy, backend host
	ports                  uint16 // given to proxies so far
}

// siteAbout says in the report what the figures are figures of.
const siteAbout = "client, proxy and backend in network namespaces on one bridge, cubic, the kernel's default buffers"

// A host is where processes run.
type host struct {
	*lab.Host
	addr netip.Addr
}

// Ports lie below the range that connections take their own from.
const (
	backendPort    = 100
	firstProxyPort = 101
)

func newSite(ctx context.Context, family int) (*site, error) {
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
		return nil, err
	}
	f := lab.IPv4
	if family == 6 {
		f = lab.IPv6
	}
	in := func(name string) host {
		h := l.Host(name)
		return host{h, h.Addr(f)}
	}
	return &site{lab: l, client: in("client1"), proxy: in("node1"), backend: in("backend1")}, nil
}

// stopProcess ends a process and waits for its end.
func stopProcess(p *lab.Process) {
	_, _ = p.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.Done():
	case <-time.After(3 * time.Second):
		_, _ = p.Kill()
		<-p.Done()
	}
}

// A worker is this program at work in a host: the backend, or a client.
type worker struct {
	*lab.Process
	ctx   context.Context // of its start: what ended it, if it ended early
	lines *bufio.Reader   // what it prints
	end   func()          // ends it; may be called again
}

// startWorker starts this program in h with a role. It ends with ctx, or when
// end is called.
func startWorker(ctx context.Context, h host, self string, r role) (_ *worker, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			if r, w, err = os.Pipe(); err == nil {
				files = append(files, r, w)
			}
		}
		return r, w
	}
	stdin, input := pipe()
	lines, stdout := pipe()
	if err != nil {
		return nil, err
	}
	p, err := h.Start(lab.Command{Argv: []string{self}, Env: []string{roleVariable + "=" + string(text)}, Stdin: stdin, Stdout: stdout})
	if err != nil {
		return nil, err
	}
	stdin.Close()
	stdout.Close()
	kill := context.AfterFunc(ctx, func() { _, _ = p.Kill() })
	end := func() {
		kill()
		input.Close()
		stopProcess(p)
		lines.Close()
	}
	return &worker{p, ctx, bufio.NewReader(lines), sync.OnceFunc(end)}, nil
}

// line reads what the worker prints.
func (w *worker) line() ([]byte, error) {
	line, err := w.lines.ReadBytes('\n')
	switch {
	case err == nil:
		return line, nil
	case w.ctx.Err() != nil:
		return nil, context.Cause(w.ctx)
	}
	return nil, fmt.Errorf("the load generator ended without a result: %w", cmp.Or(w.Wait(w.ctx), err))
}
