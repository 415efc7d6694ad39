//go:build linux

package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
)

// metricsPort is where a node of a scene shows its metrics, on its own loopback.
const metricsPort = 9420

// A Node is `holdfast run` running in a host, as the user nobody.
type Node struct {
	scene.Relay        // its process and its events
	File        string // its configuration
	Socket      string

	host    *lab.Host
	program *scene.Program
}

// A NodeConfig is what a node of a scene is started with.
type NodeConfig struct {
	Services    string // the services section of its file
	Descriptors int    // its limit; 0: that of this process
}

// StartNode runs `holdfast run` in the host, and waits until it is ready.
func StartNode(ctx context.Context, e *scene.Env, l *lab.Lab, h *lab.Host, c NodeConfig) (*Node, error) {
	dir, err := l.Dir()
	if err != nil {
		return nil, err
	}
	if dir, err = nobodysDir(dir); err != nil {
		return nil, err
	}
	n := &Node{File: filepath.Join(dir, "holdfast.yaml"), Socket: filepath.Join(dir, "holdfast.sock"), host: h, program: e.Program}
	if err := n.Write(c.Services); err != nil {
		return nil, err
	}
	cmd, err := e.Program.Unprivileged("run", "-c", n.File, "--events", "-")
	if err != nil {
		return nil, err
	}
	if c.Descriptors > 0 {
		cmd.Argv = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, c.Descriptors), "sh"}, cmd.Argv...)
	}
	return n, n.Start(ctx, h, cmd)
}

// nobodysDir makes a directory for the files of a node.
func nobodysDir(parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, "node-")
	if err != nil {
		return "", err
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return "", err
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	return dir, errors.Join(errUID, errGID, os.Chmod(dir, 0o755), os.Chown(dir, uid, gid))
}

// Write puts services into the file. Nothing happens before the next reload.
func (n *Node) Write(services string) error {
	dir := filepath.Dir(n.File)
	text := fmt.Sprintf(`admin: {socket: %s}
directories: {runtime: %s}
metrics: {listen: "127.0.0.1:%d"}
%s`, n.Socket, dir, metricsPort, services)
	return os.WriteFile(n.File, []byte(text), 0o644)
}

// ran is a command that has ended.
type ran struct {
	out  string // its standard output
	said string // its standard error
	exit int
	took time.Duration
}

// Holdfast runs a command of holdfast in the node's host, as root.
func (n *Node) Holdfast(ctx context.Context, args ...string) (ran, error) {
	c := n.program.Command(append(args, "--socket", n.Socket)...)
	var out strings.Builder
	c.Stdout = &out
	began := time.Now()
	p, err := n.host.Start(c)
	if err != nil {
		return ran{}, err
	}
	err = p.Wait(ctx)
	r := ran{out.String(), p.Output(), 0, time.Since(began)}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.exit, err = exit.ExitCode(), nil
	}
	if err != nil {
		return r, fmt.Errorf("holdfast %s: %w", strings.Join(args, " "), err)
	}
	return r, nil
}

// Must runs a command that has to succeed.
func (n *Node) Must(ctx context.Context, args ...string) (ran, error) {
	r, err := n.Holdfast(ctx, args...)
	if err == nil && r.exit != 0 {
		err = fmt.Errorf("holdfast %s: exit code %d: %s", strings.Join(args, " "), r.exit, strings.TrimSpace(r.said))
	}
	return r, err
}

// Status asks the node how it is.
func (n *Node) Status(ctx context.Context) (admin.Status, error) {
	var s admin.Status
	r, err := n.Must(ctx, "status", "-o", "json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(r.out), &s); err != nil {
		return s, fmt.Errorf("holdfast status -o json: %w: %.100q", err, r.out)
	}
	return s, nil
}

// Metrics fetches the node's metrics, by name with labels as they are written.
func (n *Node) Metrics(ctx context.Context) (map[string]float64, error) {
	text, err := get(ctx, n.host, fmt.Sprintf("127.0.0.1:%d", metricsPort), "/metrics")
	if err != nil {
		return nil, err
	}
	all := make(map[string]float64)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		all[line[:at]] = v
	}
	return all, nil
}

// get fetches a page from inside a host.
func get(ctx context.Context, h *lab.Host, address, path string) (string, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, network, addr string) (net.Conn, error) { return h.Dial(ctx, network, addr) },
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return "", err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", req.URL, res.Status)
	}
	return string(text), err
}
