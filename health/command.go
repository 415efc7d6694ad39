//go:build linux

package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// program is a command that was looked up.
type program struct {
	path       string
	credential *syscall.Credential // nil: run as who we are
}

func (c CommandCheck) lookUp() (program, error) {
	path, err := exec.LookPath(c.Argv[0])
	if err != nil {
		return program{}, fmt.Errorf("health: Command.Argv: %w", err)
	}
	p := program{path: path}
	if c.User == "" {
		return p, nil
	}
	credential, err := sys.Credential(c.User)
	if err != nil {
		return program{}, fmt.Errorf("health: Command.User: %w", err)
	}
	if int(credential.Uid) != os.Geteuid() { // no privilege is needed to be oneself
		p.credential = credential
	}
	return p, nil
}

// startError is that a program could not be started.
type startError struct{ err error }

func (e *startError) Error() string { return "start: " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// command runs the program to its end, or to the context's. Cleanup reaps it, as
// a process in uninterruptible sleep can outlive its SIGKILL for long and must not
// keep the verdict.
func (p *probe) command(ctx context.Context) (missing string, cleanup func(), err error) {
	var said tail
	cmd := exec.Command(p.program.path, p.check.Command.Argv[1:]...)
	cmd.Args[0] = p.check.Command.Argv[0]
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOLDFAST_BACKEND=" + p.name, "HOLDFAST_ADDRESS=" + p.backend}
	cmd.Stdout, cmd.Stderr = &said, &said
	// Who left the process group can still hold the output open.
	cmd.WaitDelay = 100 * time.Millisecond
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.program.credential}
	if err := cmd.Start(); err != nil {
		if pathErr, ok := errors.AsType[*os.PathError](err); ok && pathErr.Path == cmd.Path {
			err = pathErr.Err // the program is named anyway; /dev/null, which it needs too, is not
		}
		return "", func() {}, &startError{err}
	}
	exited := make(chan error, 1)
	go awaitExit(cmd.Process.Pid, exited)
	// The group is killed before its leader is reaped: until then the number
	// cannot be another group's.
	killGroup := func() { _ = sys.SignalGroup(cmd.Process.Pid, syscall.SIGKILL) }

	select {
	case <-ctx.Done():
		killGroup()
		return "end of the program", func() {
			if err := <-exited; err == nil {
				killGroup() // what it forked while it was being killed
			}
			_ = cmd.Wait()
		}, ctx.Err()
	case err := <-exited:
		if err == nil {
			killGroup()
		}
		if waitErr := cmd.Wait(); waitErr != nil && !errors.Is(waitErr, exec.ErrWaitDelay) {
			err = waitErr
		}
		if err != nil && len(said.text) > 0 {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.text))
		}
		return "", func() {}, err
	}
}

func awaitExit(pid int, exited chan<- error) { exited <- sys.AwaitExit(pid) }

// tail keeps the end of what is written to it. os/exec writes from one goroutine,
// and Wait ends it.
type tail struct{ text []byte }

func (t *tail) Write(b []byte) (int, error) {
	const keep = 200
	t.text = append(t.text, b[max(0, len(b)-keep):]...)
	t.text = t.text[max(0, len(t.text)-keep):]
	return len(b), nil
}
