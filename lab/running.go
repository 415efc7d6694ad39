//go:build linux

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Running is a process in a host, whoever started it.
type Running struct {
	PID  int
	Argv []string

	host *Host
}

// Processes lists the host's processes, those that its programs have started
// among them, by number.
func (h *Host) Processes() ([]Running, error) {
	pids, err := h.pids()
	if err != nil {
		return nil, fmt.Errorf("lab: host %s: processes: %w", h.spec.Name, err)
	}
	slices.Sort(pids)
	var all []Running
	for _, pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || len(line) == 0 {
			continue // it has ended
		}
		r := Running{PID: pid, host: h}
		for arg := range bytes.SplitSeq(bytes.TrimSuffix(line, []byte{0}), []byte{0}) {
			r.Argv = append(r.Argv, string(arg))
		}
		all = append(all, r)
	}
	return all, nil
}

// Freeze stops this process alone, and returns when it has stopped.
func (r Running) Freeze() (time.Time, error) {
	return r.signal(syscall.SIGSTOP, "freeze", func(state byte) bool { return state != 'Z' && stopped(r.PID) })
}

// Continue lets this process go on.
func (r Running) Continue() (time.Time, error) {
	return r.signal(syscall.SIGCONT, "continue", func(state byte) bool { return state != 'T' && state != 'Z' })
}

// Kill ends this process alone with SIGKILL, and returns when it has ended.
func (r Running) Kill() (time.Time, error) {
	return r.signal(syscall.SIGKILL, "kill", func(state byte) bool { return state == 'Z' })
}

func (r Running) signal(sig syscall.Signal, what string, reached func(state byte) bool) (time.Time, error) {
	at := time.Now()
	err := sys.Signal(r.PID, sig)
	if errors.Is(err, os.ErrProcessDone) && sig == syscall.SIGKILL {
		err = nil
	}
	for err == nil {
		state, ok := processState(r.PID)
		if !ok && sig == syscall.SIGKILL || ok && reached(state) {
			break
		}
		switch {
		case !ok, state == 'Z':
			err = os.ErrProcessDone
		case time.Since(at) > signalPatience:
			err = fmt.Errorf("it has not obeyed after %v: %s", signalPatience, describe(r.PID))
		}
		time.Sleep(100 * time.Microsecond)
	}
	if err != nil {
		err = fmt.Errorf("process %d (%.60q): %w", r.PID, r.Argv, err)
	}
	return r.host.fault(at, fmt.Sprintf("%s process %d", what, r.PID), err)
}

// Spin starts busy processes in the host, so many for each processor of the
// machine, and returns when they run. stop ends them.
func (h *Host) Spin(perProcessor int) (stop func() error, err error) {
	var spinners []*Process
	stop = func() error {
		var errs []error
		for _, p := range spinners {
			if _, err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				errs = append(errs, err)
				continue
			}
			<-p.Done()
		}
		spinners = nil
		return errors.Join(errs...)
	}
	for range perProcessor * runtime.NumCPU() {
		p, err := h.Start(Command{Argv: []string{"sh", "-c", "while :; do :; done"}})
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		spinners = append(spinners, p)
	}
	return stop, nil
}
