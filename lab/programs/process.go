//go:build linux

package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/internal/tail"
)

// Command is a program to run.
type Command struct {
	Argv []string // the program's path and its arguments
	Dir  string   // working directory; "" is this process's
	User string   // the user to run as; "" is this process's
}

// Process is a program that runs. *lab.Process is one.
type Process interface {
	PID() int
	Done() <-chan struct{} // closed when it has ended
	Output() string        // the last part of what it said on stdout and stderr

	// Signal sends a signal to the process and what it has started.
	Signal(sig syscall.Signal) (time.Time, error)
}

// child is a Process of this process.
type child struct {
	cmd  *exec.Cmd
	out  tail.Buffer
	done chan struct{}
}

// startHere starts a program beside this one, in its namespaces.
func startHere(c Command) (Process, error) {
	p := &child{cmd: exec.Command(c.Argv[0], c.Argv[1:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.Dir, &p.out, &p.out
	p.cmd.WaitDelay = time.Second // its children may keep the output open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.User != "" {
		cred, err := sys.Credential(c.User)
		if err != nil {
			return nil, err
		}
		p.cmd.SysProcAttr.Credential = cred
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its output
		close(p.done)
	}()
	return p, nil
}

func (p *child) PID() int              { return p.cmd.Process.Pid }
func (p *child) Done() <-chan struct{} { return p.done }
func (p *child) Output() string        { return p.out.String() }

func (p *child) Signal(sig syscall.Signal) (time.Time, error) {
	at := time.Now()
	select {
	case <-p.done:
		return at, os.ErrProcessDone
	default:
	}
	return at, sys.SignalGroup(p.PID(), sig)
}

// finish waits for a command that ends by itself and returns what it said.
func finish(ctx context.Context, p Process, what string) (string, error) {
	select {
	case <-p.Done():
	case <-ctx.Done():
		if _, err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return p.Output(), err
		}
		<-p.Done()
		return p.Output(), fmt.Errorf("programs: %s did not end: %w; it said: %s", what, ctx.Err(), said(p))
	}
	return p.Output(), nil
}

// said is the end of what a program said, for an error.
func said(p Process) string {
	s := strings.TrimSpace(p.Output())
	return s[max(0, len(s)-600):]
}
