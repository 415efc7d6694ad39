//go:build linux

package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
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
	done chan struct{}

	mu  sync.Mutex
	out []byte
}

const outputKept = 64 << 10

// startHere starts a program beside this one, in its namespaces.
func startHere(c Command) (Process, error) {
	p := &child{cmd: exec.Command(c.Argv[0], c.Argv[1:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.Dir, p, p
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

func (p *child) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, b...)
	if over := len(p.out) - outputKept; over > 0 {
		p.out = append(p.out[:0], p.out[over:]...)
	}
	return len(b), nil
}

func (p *child) PID() int              { return p.cmd.Process.Pid }
func (p *child) Done() <-chan struct{} { return p.done }

func (p *child) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.out)
}

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
		return p.Output(), fmt.Errorf("programs: %s did not end: %w; it said: %s", what, ctx.Err(), tail(p.Output()))
	}
	return p.Output(), nil
}

// tail is the end of an output, for an error.
func tail(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-600):]
}
