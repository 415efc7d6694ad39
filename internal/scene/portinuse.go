//go:build linux

package scene

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// PortInUse is the scene of a restart that finds its port taken.
func PortInUse() Scene {
	return Scene{
		Name:  "port-in-use",
		Title: "a restart finds its port taken: the message names the holder and the way out",
		Story: `A relay is stopped, and before it is started again another program has taken its
port. The message must name that program, its process number and what to do;
after that was done, the relay starts.`,
		Variants: []Variant{{Demo: true}},
		Demo:     true,
		Patient:  true,
		Run:      portInUse,
	}
}

// A holder is a program that has taken the relay's port.
type holder struct {
	what string         // for a person
	at   netip.AddrPort // where it listens
	user string         // as which it runs; empty: root
	want []string       // what the message must say, besides the address
}

// holderName is the program that has taken the port, as the system shows it.
const holderName = "web-server"

func portInUse(ctx context.Context, e *Env) (_ *Verdict, err error) {
	t, err := lab.OneArm(lab.Size{Nodes: 1})
	if err != nil {
		return nil, err
	}
	l, err := e.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	dir, err := l.Dir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, holderName)
	if err := os.Symlink(e.Program.Path, path); err != nil {
		return nil, err
	}
	node := l.Host("node1")
	listen := e.AddrPort(node)
	args := []string{listen.String(), node.AddrPort(e.Family, 7001).String(), "--check", "none"}

	v := e.Verdict()
	var refused, ready []time.Duration
	named := 0
	for _, h := range []holder{
		{"a program of the same user", listen, nobody, []string{"in use by " + holderName + " (pid %d, user nobody)", "stop it"}},
		{"a program that listens on every address", netip.AddrPortFrom(netip.IPv6Unspecified(), listen.Port()), nobody, []string{
			holderName + " (pid %d, user nobody)", fmt.Sprintf("on [::]:%d", listen.Port()), "stop it",
		}},
		{"a program of another user, which the relay may not look at", listen, "", []string{
			"of user root", "not visible to user nobody", fmt.Sprintf("sudo ss -tlnp 'sport = :%d'", listen.Port()), "stop it",
		}},
	} {
		relay, err := e.StartRelay(ctx, node, args...)
		if err != nil {
			return nil, err
		}
		if err := stop(ctx, relay.Process); err != nil {
			v.Fail("the relay did not stop in order: %v", err)
		}
		p, err := hold(ctx, e, node, h, path)
		if err != nil {
			return nil, err
		}
		e.Say("%s has taken port %d while the relay was down", h.what, listen.Port())

		began := time.Now()
		said, err := restart(ctx, e, node, args)
		if err != nil {
			v.Fail("%s holds the port: %v", h.what, err)
		}
		refused = append(refused, time.Since(began))
		e.Say("the restart says: %s", said)
		missing := 0
		for _, want := range append(h.want, listen.String()) {
			if strings.Contains(want, "%d") {
				want = fmt.Sprintf(want, p.PID())
			}
			if !strings.Contains(said, want) {
				missing++
				v.Fail("%s holds the port: the message does not say %q: %s", h.what, want, said)
			}
		}
		if missing == 0 {
			named++
		}
		if err := stop(ctx, p); err != nil {
			return nil, err
		}

		began = time.Now()
		if relay, err = e.StartRelay(ctx, node, args...); err != nil {
			v.Fail("the holder was stopped, as the message says, and the relay does not start: %v", err)
			continue
		}
		ready = append(ready, time.Since(began))
		if err := stop(ctx, relay.Process); err != nil {
			v.Fail("the relay did not stop in order: %v", err)
		}
	}
	e.Say("the holder stopped as the message says, the relay starts")
	v.Count("messages that name the holder, or how to find it, and the way out", named).Exactly(3)
	v.Time("from the restart to the message", refused...)
	v.Count("starts after the advice was followed", len(ready)).Exactly(3)
	v.Time("from the start to ready", ready...).AsPart()
	return v, nil
}

// hold makes the holder listen.
func hold(ctx context.Context, e *Env, node *lab.Host, h holder, path string) (*lab.Process, error) {
	c := e.Program.Command(ServerCommand, "-listen", h.at.String())
	if h.user != "" {
		var err error
		if c, err = e.Program.Unprivileged(c.Argv[1:]...); err != nil {
			return nil, err
		}
		path = filepath.Join(filepath.Dir(c.Argv[0]), holderName)
		if err := os.Symlink(c.Argv[0], path); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	c.Argv[0] = path
	p, err := node.Start(c)
	if err != nil {
		return nil, err
	}
	return p, p.Await(ctx, string(traffic.EventReady))
}

// restart starts the relay, which cannot listen, and returns its last words.
func restart(ctx context.Context, e *Env, node *lab.Host, args []string) (said string, err error) {
	c, err := e.Program.Unprivileged(append([]string{"relay"}, args...)...)
	if err != nil {
		return "", err
	}
	p, err := node.Start(c)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = p.Wait(ctx)
	lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
	said = lines[len(lines)-1]
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return said, errors.New("the relay ended with exit code 0")
	case !ok:
		return said, fmt.Errorf("the relay did not give up: %w", err)
	case exit.ExitCode() != 1:
		return said, fmt.Errorf("the relay ended with exit code %d", exit.ExitCode())
	}
	return said, nil
}

// stop asks a process to end, and waits for it.
func stop(ctx context.Context, p *lab.Process) error {
	if _, err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return p.Wait(ctx)
}
