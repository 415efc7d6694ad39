//go:build linux

package operate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// haproxyReload reloads HAProxy with nothing changed but a backend added, and
// says what becomes of its established connections. Without hard-stop-after the
// old process stays as long as one of them lives; with it they are cut. "" where
// HAProxy is not installed.
func haproxyReload(ctx context.Context, e *scene.Env) (_ string, err error) {
	const hardStop = time.Second
	program, err := probe.Program("haproxy", "haproxy")
	if err != nil {
		return "", nil //nolint:nilerr // not installed: there is nothing to compare with
	}
	e.Say("the same without Holdfast: HAProxy is reloaded, with hard-stop-after %v", hardStop)
	t, err := lab.OneArm(lab.Size{Clients: 1, Nodes: 1, Backends: 2})
	if err != nil {
		return "", err
	}
	l, err := e.Start(ctx, t)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	node, client := l.Host("node1"), l.Host("client1")
	config := fmt.Sprintf(`global
  hard-stop-after %dms
defaults
  mode tcp
  timeout connect 5s
  timeout client 50s
  timeout server 50s
listen service
  bind %s
`, hardStop.Milliseconds(), e.AddrPort(node))
	dir, err := l.Dir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "haproxy.cfg")
	var proxy *lab.Process
	var fleet *scene.Fleet
	for i := range 2 {
		h := l.Host(fmt.Sprintf("backend%d", i+1))
		s, err := e.StartServer(ctx, h, h.Name(), e.AddrPort(h))
		if err != nil {
			return "", err
		}
		config += fmt.Sprintf("  server %s %s\n", s.Name, s.Address)
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			return "", err
		}
		if i > 0 {
			break
		}
		if proxy, err = node.Start(lab.Command{Argv: []string{program, "-W", "-f", file}}); err != nil {
			return "", err
		}
		if err := scene.AwaitListener(ctx, client, e.AddrPort(node).String(), proxy); err != nil {
			return "", err
		}
		fleet, err = scene.RunFleet(ctx, e.Seed|1, []traffic.Group{
			{Count: 10, Client: traffic.ClientOptions{Dial: scene.DialFrom(client), Address: e.AddrPort(node).String()}},
			{Count: 10, Client: traffic.ClientOptions{Dial: scene.DialFrom(client), Address: e.AddrPort(node).String(), Pattern: traffic.Push}},
		})
		if err != nil {
			return "", err
		}
		defer fleet.End()
	}
	// To the master alone: its workers take the signal for something else.
	if err := sys.Signal(proxy.PID(), syscall.SIGUSR2); err != nil {
		return "", err
	}
	if err := scene.Pause(ctx, hardStop+500*time.Millisecond); err != nil {
		return "", err
	}
	cut, fins := 0, 0
	for _, r := range fleet.Reports() {
		if r.Told() {
			cut++
		}
		if r.Ending == traffic.FIN {
			fins++
		}
	}
	return fmt.Sprintf("%d of %d, %d by FIN (hard-stop-after %v)", cut, len(fleet.Clients()), fins, hardStop), nil
}
