//go:build linux

package own

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
)

// pairPort is where the nodes await each other.
const pairPort = 7420

// A node is `holdfast run` in a host of its own, as root.
type node struct {
	scene.Relay // its process and its events

	arena    *arena
	host     *lab.Host
	number   int // 1 or 2
	dir      string
	file     string
	socket   string
	priority uint8
}

// pairPlan is how two nodes share the address.
type pairPlan struct {
	interval time.Duration
	unicast  bool
	witness  bool
	alone    bool   // no link: the other node is somebody else's
	service  bool   // a relay service listens on the address, with the arena's backends behind it
	more     string // more keys of the group, as lines of the file below it
	drain    time.Duration
}

// startPair starts both nodes, the first one first, and waits until it owns the
// address and the other one follows.
func (a *arena) startPair(ctx context.Context, p pairPlan) (nodes [2]*node, err error) {
	var backends []*scene.Server
	if p.service {
		for i := range a.backends {
			h := a.lab.Host(fmt.Sprintf("backend%d", i+1))
			s, err := a.StartServer(ctx, h, h.Name(), a.AddrPort(h))
			if err != nil {
				return nodes, err
			}
			backends = append(backends, s)
		}
	}
	keys, err := a.keys(ctx)
	if err != nil {
		return nodes, err
	}
	for i := range a.nodes {
		n, err := a.startNode(ctx, i+1, p, filepath.Join(keys, fmt.Sprintf("node%d", i+1)), backends)
		if err != nil {
			return nodes, err
		}
		nodes[i] = n
		if i == 0 {
			if err := n.awaitRole(ctx, admin.RoleActive); err != nil {
				return nodes, err
			}
		}
	}
	a.Say("%s owns %v, %s stands by; adverts every %v", nodes[0].host.Name(), a.vip.Addr(), nodes[1].host.Name(), p.interval)
	return nodes, errors.Join(nodes[1].awaitRole(ctx, admin.RoleBackup), nodes[0].awaitPair(ctx, "synced"), nodes[1].awaitPair(ctx, "synced"))
}

// startNode starts one node, and waits until it is ready.
func (a *arena) startNode(ctx context.Context, number int, p pairPlan, keys string, backends []*scene.Server) (_ *node, err error) {
	n := &node{arena: a, host: a.nodes[number-1], number: number, priority: uint8(201 - number)}
	if n.dir, err = a.dirOf(n.host.Name()); err != nil {
		return nil, err
	}
	n.file, n.socket = filepath.Join(n.dir, "holdfast.yaml"), filepath.Join(n.dir, "holdfast.sock")
	if err := n.write(p, keys, backends); err != nil {
		return nil, err
	}
	return n, n.start(ctx)
}

// keys makes those of the pair.
func (a *arena) keys(ctx context.Context) (string, error) {
	dir, err := a.lab.Dir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "keys")
	c := a.Program.Command("pair", "init", dir)
	p, err := a.nodes[0].Start(c)
	if err != nil {
		return "", err
	}
	return dir, p.Wait(ctx)
}

// pairAddress is where a node, numbered from 1, awaits the other one.
func (a *arena) pairAddress(number int) netip.AddrPort {
	if a.pairLink {
		return netip.AddrPortFrom(lab.PairAddress(a.Family, number).Addr(), pairPort)
	}
	return netip.AddrPortFrom(a.nodes[number-1].Addr(a.Family), pairPort)
}

// write writes the node's file.
func (n *node) write(p pairPlan, keys string, backends []*scene.Server) error {
	a := n.arena
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s\n", n.host.Name())
	if !p.alone {
		fmt.Fprintf(&b, "pair:\n  listen: %q\n  peer: %q\n  keys: %s\n", a.pairAddress(n.number), a.pairAddress(3-n.number), keys)
	}
	if p.witness {
		fmt.Fprintf(&b, "  witness: %q\n", a.lab.Host("router").Addr(a.Family))
	}
	fmt.Fprintf(&b, "addresses:\n  - name: front\n    interface: eth0\n    addresses: [%q]\n    vrrp: {id: %d, priority: %d, interval: %v", a.vip, routerID, n.priority, p.interval)
	if p.unicast {
		fmt.Fprintf(&b, ", peers: [%q]", a.nodes[2-n.number].Addr(a.Family))
	}
	fmt.Fprintf(&b, "}\n%s", p.more)
	if len(backends) > 0 {
		fmt.Fprintf(&b, "services:\n  - name: front\n    listen: %q\n    health: {none: {}}\n", a.target())
		if p.drain > 0 {
			fmt.Fprintf(&b, "    drain: {timeout: %v}\n", p.drain)
		}
		b.WriteString("    backends:\n")
		for _, s := range backends {
			fmt.Fprintf(&b, "      - {name: %s, address: %q}\n", s.Name, s.Address)
		}
	}
	fmt.Fprintf(&b, "admin: {socket: %s}\ndirectories: {runtime: %s, bpf: %s}\n", n.socket, n.dir, filepath.Join(n.dir, "bpf"))
	return os.WriteFile(n.file, []byte(b.String()), 0o644)
}

// start runs the node, and waits until it is ready.
func (n *node) start(ctx context.Context) error {
	n.Relay = scene.Relay{}
	return n.Start(ctx, n.host, n.arena.Program.Command("run", "-c", n.file, "--events", "-"))
}

// holdfast runs a command on the node.
func (n *node) holdfast(ctx context.Context, args ...string) (string, error) {
	c := n.arena.Program.Command(append(args, "--socket", n.socket)...)
	var out strings.Builder
	c.Stdout = &out
	p, err := n.host.Start(c)
	if err != nil {
		return "", err
	}
	err = p.Wait(ctx)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("holdfast %s on %s: exit code %d: %s", strings.Join(args, " "), n.host.Name(), exit.ExitCode(), strings.TrimSpace(p.Output()))
	}
	return out.String(), err
}

// status asks the node how it is.
func (n *node) status(ctx context.Context) (s admin.Status, err error) {
	out, err := n.holdfast(ctx, "status", "-o", "json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("holdfast status -o json: %w: %.100q", err, out)
	}
	return s, nil
}

// group is how the arena's address stands at the node.
func (n *node) group(ctx context.Context) (g admin.AddressGroup, err error) {
	s, err := n.status(ctx)
	if err != nil {
		return g, err
	}
	if len(s.Addresses) != 1 {
		return g, fmt.Errorf("%s has %d groups of addresses: %+v", n.host.Name(), len(s.Addresses), s.Addresses)
	}
	return s.Addresses[0], nil
}

// awaitRole waits until the node has a role.
func (n *node) awaitRole(ctx context.Context, role string) error {
	var g admin.AddressGroup
	err := n.until(ctx, func() (_ bool, err error) {
		g, err = n.group(ctx)
		return g.Role == role, err
	})
	if err != nil {
		return fmt.Errorf("%s is not %s but %s (%s %s): %w", n.host.Name(), role, g.Role, g.Cause, g.Reason, err)
	}
	return nil
}

// awaitPair waits until the node says that of its link to the other one.
func (n *node) awaitPair(ctx context.Context, state string) error {
	var s admin.Status
	err := n.until(ctx, func() (_ bool, err error) {
		s, err = n.status(ctx)
		return s.Pair != nil && s.Pair.State == state, err
	})
	if err != nil {
		return fmt.Errorf("the link of %s is not %s: %+v: %w", n.host.Name(), state, s.Pair, err)
	}
	return nil
}

// until asks the node again and again, which costs a process each time.
func (n *node) until(ctx context.Context, met func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, scene.Never)
	defer cancel()
	for {
		ok, err := met()
		if err != nil || ok {
			return err
		}
		if err := scene.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// roles are the changes of the node's role, as its events say them.
func (n *node) roles() (all []admin.RoleChange) {
	for _, e := range n.Events() {
		if e.Event == admin.EventAddress && e.Role != nil {
			all = append(all, *e.Role)
		}
	}
	return all
}

// story is its roles, for a verdict.
func (n *node) story() string {
	var story []string
	for _, r := range n.roles() {
		story = append(story, fmt.Sprintf("%s (%s, epoch %d)", r.To, r.Cause, r.Epoch))
	}
	return strings.Join(story, ", ")
}

// elector is the node's process that owns addresses.
func (n *node) elector() (lab.Running, error) { return n.running("elector") }

// daemon is the node's own process.
func (n *node) daemon() (lab.Running, error) { return n.running("run") }

// running finds the holdfast process of the host with a command.
func (n *node) running(command string) (lab.Running, error) {
	all, err := n.host.Processes()
	if err != nil {
		return lab.Running{}, err
	}
	var found []lab.Running
	for _, r := range all {
		if len(r.Argv) > 1 && r.Argv[1] == command {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return lab.Running{}, fmt.Errorf("%s has %d processes `holdfast %s`: %v", n.host.Name(), len(found), command, all)
	}
	return found[0], nil
}
