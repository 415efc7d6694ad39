package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/daemon"
)

// Reload takes the file's changes, all of them or, with an error, which is an
// *admin.Error, none. by says who asked for it. Reloads wait for each other.
//
// The events file is opened anew in either case: who rotates it sends SIGHUP.
func (n *node) Reload(ctx context.Context, by string) (admin.Reload, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	if n.stopping.Load() { // systemd has been told so, and is not told anything else
		return admin.Reload{}, daemon.StoppingError()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.serving, cancel)() // a slow name server does not hold up the end
	n.notified(n.manager.Reloading())
	if n.events != nil {
		n.events.Reopen()
	}
	c, changes, err := n.reload(ctx)
	if err != nil {
		refused := refusal(err)
		n.refuse(refused, by)
		n.notified(n.manager.Ready("the last reload was refused: " + refused.Text))
		return admin.Reload{}, refused
	}
	n.taken(c)
	reason := "nothing has changed"
	if len(changes) > 0 {
		reason = strings.Join(changes, "; ")
	}
	n.log.Info("the file was taken", "file", c.File, "digest", c.Digest, "by", by, "changes", len(changes))
	n.journal.Add(admin.Event{Event: admin.EventReload, Change: &admin.Change{State: "taken", Reason: reason, ByHand: by}})
	n.notified(n.manager.Ready(n.summary()))
	return admin.Reload{File: c.File, Digest: c.Digest, Changes: changes}, nil
}

// reload does what can fail first. The caller holds reloading.
func (n *node) reload(ctx context.Context) (_ *config.Config, changes []string, err error) {
	c, err := config.Load(n.o.File)
	if err != nil {
		return nil, nil, err
	}
	was := n.running()
	if err := keeps(was, c); err != nil {
		return nil, nil, err
	}
	services, err := daemon.Resolve(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if c.Node != was.Node {
		changes = append(changes, fmt.Sprintf("node: %s is now %s", was.Node, c.Node))
	}
	// Who may use the socket is undone where the rest fails; the metrics' new
	// address is not used before the rest has succeeded.
	if c.Admin.Mode != was.Admin.Mode || c.Admin.Group != was.Admin.Group {
		if err := n.setAccess(c); err != nil {
			return nil, nil, err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, n.setAccess(was))
			}
		}()
		changes = append(changes, fmt.Sprintf("admin: the socket has mode %v and group %s", c.Admin.Mode, groupName(c.Admin.Group)))
	}
	metrics := n.metrics
	if c.Metrics.Listen != was.Metrics.Listen {
		if metrics, err = listenMetrics(c.Metrics.Listen); err != nil {
			return nil, nil, err
		}
	}
	settings := n.settings(c, services)
	turnLog, err := n.logs.prepare(c.Log)
	if err == nil {
		err = settings.Check()
	}
	if err == nil {
		var more []string
		more, err = n.daemon.Apply(services) // the last that can fail
		changes = append(changes, more...)
	}
	if err != nil {
		if metrics != n.metrics && metrics != nil {
			err = errors.Join(err, metrics.Close())
		}
		return nil, nil, err
	}
	// Who listens on an address does so before it comes. The rest of the file is in
	// force: who asked for it may go away.
	changes = append(changes, n.addresses.apply(n.serving, was, c, settings)...)
	n.pair.take(c)
	if metrics != n.metrics {
		changes = append(changes, n.replaceMetrics(metrics))
	}
	if c.Log != was.Log {
		turnLog()
		changes = append(changes, fmt.Sprintf("log: level %s, format %s", c.Log.Level, c.Log.Format))
	}
	return c, changes, nil
}

// keeps refuses what a running node cannot change.
func keeps(was, now *config.Config) error {
	for _, k := range []struct{ key, was, now string }{
		{"admin.socket", was.Admin.Socket, now.Admin.Socket},
		{"directories.runtime", was.Directories.Runtime, now.Directories.Runtime},
		{"directories.bpf", was.Directories.BPF, now.Directories.BPF},
		{"pair", pairText(was.Pair), pairText(now.Pair)},
		{"node", nameInPair(was), nameInPair(now)},
	} {
		if k.was != k.now {
			return &admin.Error{
				Code:   admin.CodeRefused,
				Text:   fmt.Sprintf("%s: a reload cannot change it from %s to %s", k.key, k.was, k.now),
				Remedy: "leave it as it was, or restart the node",
			}
		}
	}
	return nil
}

// nameInPair is the name by which the other node knows this one; "" for a single
// node.
func nameInPair(c *config.Config) string {
	if c.Pair == nil {
		return ""
	}
	return c.Node
}

// pairText is what of a pair cannot be changed by a reload.
func pairText(p *config.Pair) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("listen %s, peer %s, keys %s", p.Listen, p.Peer, p.Keys)
}

// setAccess says who may use the socket: who may open it, and who may change
// things.
func (n *node) setAccess(c *config.Config) error {
	if err := n.socket.SetAccess(os.FileMode(c.Admin.Mode), c.Admin.Group); err != nil {
		return err
	}
	return n.server.SetGroup(c.Admin.Group)
}

func groupName(name string) string {
	if name == "" {
		return "none"
	}
	return name
}

// refusal makes an answer of why a reload failed: what is wrong with the file,
// line by line, where it is the file.
func refusal(err error) *admin.Error {
	if e, ok := errors.AsType[*admin.Error](err); ok {
		return e
	}
	e := &admin.Error{Code: admin.CodeRefused, Text: err.Error(), Remedy: "nothing has changed"}
	if mistakes, ok := errors.AsType[config.Errors](err); ok {
		e.Text = "the file has a mistake"
		if len(mistakes) > 1 {
			e.Text = fmt.Sprintf("the file has %d mistakes", len(mistakes))
		}
		for _, m := range mistakes {
			e.Config = append(e.Config, admin.ConfigError{File: m.File, Line: m.Line, Column: m.Column, Path: m.Path, What: m.What, Excerpt: m.Excerpt})
		}
	}
	return e
}

// refuse records a reload that changed nothing.
func (n *node) refuse(e *admin.Error, by string) {
	why := e.Text
	if len(e.Config) > 0 {
		c := e.Config[0]
		c.Excerpt = ""
		why += ": " + c.String()
	}
	n.mu.Lock()
	n.file.Refused++
	n.file.Error = why
	n.since = time.Now()
	n.disk = fileOnDisk{} // so that status says at once that it is another
	n.mu.Unlock()
	n.log.Error("the file was refused: nothing has changed", "file", n.o.File, "by", by, "reason", why)
	n.journal.Add(admin.Event{Event: admin.EventReload, Change: &admin.Change{State: "refused", Reason: why, ByHand: by}})
}

// taken records which file runs.
func (n *node) taken(c *config.Config) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.config != nil {
		n.file.Reloads++
	}
	n.config = c
	n.file.File, n.file.Digest, n.file.Loaded, n.file.Error = c.File, c.Digest, time.Now(), ""
	n.disk = fileOnDisk{}
}

// running is the configuration that runs.
func (n *node) running() *config.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.config
}

func (n *node) name() string { return n.running().Node }
