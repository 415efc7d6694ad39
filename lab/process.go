//go:build linux

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/internal/tail"
)

// Command describes a program to run in a host.
type Command struct {
	// Argv is the program, looked up in PATH, and its arguments.
	Argv []string
	// Env is added to this process's environment, as "NAME=value".
	Env []string
	// Dir is the working directory; empty means this process's.
	Dir string
	// User is the name of the user to run as; empty means this process's.
	User string
	// Stdin is what the program reads; nil means nothing.
	Stdin io.Reader
	// Stdout gets the standard output; nil keeps it in Output beside the
	// standard error.
	Stdout io.Writer
}

// Process is a program running in a host, in a process group of its own. It
// ends with the lab at the latest.
type Process struct {
	host *Host
	cmd  *exec.Cmd
	name string
	out  tail.Buffer
	done chan struct{}
	err  error // of Wait; read after done
}

// Start starts a program in the host.
func (h *Host) Start(c Command) (*Process, error) {
	if len(c.Argv) == 0 {
		return nil, fmt.Errorf("lab: start in %s: Command.Argv is empty", h.spec.Name)
	}
	p := &Process{host: h, name: c.Argv[0], done: make(chan struct{})}
	p.cmd = exec.Command(c.Argv[0], c.Argv[1:]...)
	p.cmd.Env = append(append(os.Environ(), c.Env...), ownerVariable+"="+owner())
	p.cmd.Dir, p.cmd.Stdin = c.Dir, c.Stdin
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if c.Stdout != nil {
		p.cmd.Stdout = c.Stdout
	}
	// The program's own children may keep its output open after its end.
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.User != "" {
		cred, err := sys.Credential(c.User)
		if err != nil {
			return nil, fmt.Errorf("lab: start %s in %s: %w", p.name, h.spec.Name, err)
		}
		p.cmd.SysProcAttr.Credential = cred
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return nil, fmt.Errorf("lab: start %s in %s: the host is dead", p.name, h.spec.Name)
	}
	if err := h.ns.DoAtHome(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("lab: start %s in %s: %w", p.name, h.spec.Name, err)
	}
	h.processes[p] = true
	go p.wait()
	return p, nil
}

func (p *Process) wait() {
	err := p.cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		p.err = fmt.Errorf("lab: %s in %s: %w%s", p.name, p.host.spec.Name, err, p.said())
	}
	p.host.mu.Lock()
	delete(p.host.processes, p)
	p.host.mu.Unlock()
	close(p.done)
}

// Run runs a program in the host to its end and gives its standard output. If
// it fails, or ctx ends and kills it, the error holds what it said.
func (h *Host) Run(ctx context.Context, argv ...string) (string, error) {
	var out strings.Builder
	p, err := h.Start(Command{Argv: argv, Stdout: &out})
	if err != nil {
		return "", err
	}
	select {
	case <-p.done:
		return out.String(), p.err
	case <-ctx.Done():
		_, err := p.Kill()
		<-p.done
		return out.String(), cmp.Or(ctx.Err(), err)
	}
}

// PID is the number of the process, as this process sees it.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and its output has been read, up
// to 1 s later if others hold its output open.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process, or of ctx. An end with another
// status than 0, or by a signal, is an error that holds the end of the output
// and unwraps to *exec.ExitError.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("lab: %s in %s: still running: %w", p.name, p.host.spec.Name, ctx.Err())
	}
}

// Output gives the last 64 kB of what the process wrote.
func (p *Process) Output() string { return p.out.String() }

// Await waits until the output contains text: that is how a program says that
// it is ready. It is an error if the process ends first.
func (p *Process) Await(ctx context.Context, text string) error {
	for {
		changed := p.out.Changed()
		if strings.Contains(p.out.String(), text) {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			if strings.Contains(p.out.String(), text) {
				return nil
			}
			return fmt.Errorf("lab: %s in %s ended before it said %q%s", p.name, p.host.spec.Name, text, p.said())
		case <-ctx.Done():
			return fmt.Errorf("lab: %s in %s has not said %q: %w%s", p.name, p.host.spec.Name, text, ctx.Err(), p.said())
		}
	}
}

// Kill kills the process and its group with SIGKILL. Its kernel closes its
// connections, as after any end: the host lives.
func (p *Process) Kill() (time.Time, error) { return p.Signal(syscall.SIGKILL) }

// Freeze stops the process and its group; its kernel goes on for it.
func (p *Process) Freeze() (time.Time, error) { return p.Signal(syscall.SIGSTOP) }

// Continue lets a frozen process and its group go on.
func (p *Process) Continue() (time.Time, error) { return p.Signal(syscall.SIGCONT) }

// Signal sends a signal to the process and its group. It is
// os.ErrProcessDone if the process has ended.
func (p *Process) Signal(sig syscall.Signal) (time.Time, error) {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	at := time.Now()
	err := os.ErrProcessDone
	if p.host.processes[p] {
		err = sys.SignalGroup(p.PID(), sig)
	}
	if err != nil {
		return at, fmt.Errorf("lab: %v to %s in %s: %w", sig, p.name, p.host.spec.Name, err)
	}
	return at, nil
}

// said is the end of the output in a form that continues an error message.
func (p *Process) said() string {
	s := strings.TrimSpace(p.Output())
	if s == "" {
		return ""
	}
	if len(s) > 1000 {
		s = "..." + s[len(s)-1000:]
	}
	return ": " + s
}
