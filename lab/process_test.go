//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/tail"
)

func one(t *testing.T) *Host {
	return start(t, Topology{Hosts: []HostSpec{{Name: "host", Sysctls: []Sysctl{{"net.ipv4.tcp_retries2", "7"}}}}}).Host("host")
}

func TestRun(t *testing.T) {
	h := one(t)
	out := must(h.Run(bounded(t), "sh", "-c", "echo out; echo err >&2; cat /proc/sys/net/ipv4/tcp_retries2 /proc/sys/net/ipv4/tcp_rmem; ip -br link"))(t)
	for _, want := range []string{"out\n", "7\n", "4096\t131072\t6291456\n", "lo "} {
		if !strings.Contains(out, want) {
			t.Errorf("output %q lacks %q", out, want)
		}
	}
	if strings.Contains(out, "err") || strings.Contains(out, "eth0") {
		t.Errorf("output %q has what is not the program's", out)
	}
	_, err := h.Run(bounded(t), "sh", "-c", "echo what went wrong >&2; exit 3")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "what went wrong") {
		t.Errorf("exit 3: %v", err)
	}
	if _, err := h.Run(bounded(t), "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("no such program: %v", err)
	}
	if _, err := h.Start(Command{}); err == nil {
		t.Error("an empty command: no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := h.Run(ctx, "sleep", "1000"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCommandSettings(t *testing.T) {
	h := one(t)
	dir := must(h.lab.Dir())(t)
	var out strings.Builder
	p := must(h.Start(Command{
		Argv: []string{"sh", "-c", "id -un; pwd; echo $GREETING; cat"},
		Env:  []string{"GREETING=hello"}, Dir: dir, User: "nobody",
		Stdin: strings.NewReader("read\n"), Stdout: &out,
	}))(t)
	if err := p.Wait(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "nobody\n"+dir+"\nhello\nread\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
	if _, err := h.Start(Command{Argv: []string{"true"}, User: "no-such-user"}); err == nil {
		t.Error("no such user: no error")
	}
}

func TestAwaitAndOutput(t *testing.T) {
	h := one(t)
	p := must(h.Start(Command{Argv: []string{"sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; echo; echo ready; sleep 1000"}}))(t)
	if err := p.Await(bounded(t), "ready"); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Output()); n != tail.Size {
		t.Errorf("%d bytes of output are kept, want %d", n, tail.Size)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Await(ctx, "never"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("what is never said: %v", err)
	}
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a process that runs: %v", err)
	}
	must(p.Kill())(t)
	if err := p.Await(bounded(t), "never"); err == nil || !strings.Contains(err.Error(), "ended before") {
		t.Errorf("what a killed process never said: %v", err)
	}
	if _, err := p.Kill(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("killing it again: %v", err)
	}
}

// A frozen process does not answer, its kernel does; afterwards it goes on.
func TestFreeze(t *testing.T) {
	for _, whole := range []bool{false, true} {
		h := one(t)
		p := must(h.Start(Command{Argv: []string{"sh", "-c", "trap 'echo heard' USR1; (setsid sleep 1000 &) ; echo ready; while :; do sleep 0.01; done"}}))(t)
		if err := p.Await(bounded(t), "ready"); err != nil {
			t.Fatal(err)
		}
		freeze, resume := p.Freeze, p.Continue
		if whole {
			freeze, resume = h.Freeze, h.Continue
		}
		must(freeze())(t)
		if whole {
			pids := must(h.pids())(t)
			for _, pid := range pids {
				if !stopped(pid) {
					t.Errorf("it goes on: %s", describe(pid))
				}
			}
			if len(pids) < 2 {
				t.Errorf("%d processes", len(pids))
			}
		}
		must(p.Signal(syscall.SIGUSR1))(t)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := p.Await(ctx, "heard"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("frozen: %v", err)
		}
		cancel()
		must(resume())(t)
		if err := p.Await(bounded(t), "heard"); err != nil {
			t.Errorf("continued: %v", err)
		}
	}
}

// Processes that start others all the time are frozen too, also those that wait
// for a child to become its program; and who comes while they are continued does
// not make that endless.
func TestFreezeAmongStarts(t *testing.T) {
	h := one(t)
	const loops = 8
	for range loops {
		p := must(h.Start(Command{Argv: []string{"sh", "-c", "echo ready; while :; do /bin/true; done"}}))(t)
		if err := p.Await(bounded(t), "ready"); err != nil {
			t.Fatal(err)
		}
	}
	// Each loop has a new child, or one that has become another program, as soon
	// as anything goes on.
	look := func() map[int]string {
		all := make(map[int]string)
		for _, pid := range must(h.pids())(t) {
			if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil { // it may have ended
				all[pid] = string(name)
			}
		}
		return all
	}
	held := 0
	for range 5 {
		must(h.Freeze())(t)
		before := look()
		if len(before) < loops {
			t.Fatalf("%d processes, want at least %d", len(before), loops)
		}
		for pid := range before {
			if state, _ := processState(pid); state == 'D' {
				held++
			}
		}
		must(h.Run(bounded(t), "sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"))(t)
		if after := look(); !maps.Equal(before, after) {
			t.Errorf("before: %v\nafter: %v", before, after)
		}
		must(h.Continue())(t)
		ctx, after := bounded(t), before
		for ctx.Err() == nil && maps.Equal(before, after) {
			after = look()
		}
		if maps.Equal(before, after) {
			t.Errorf("nothing goes on: %v", after)
		}
	}
	t.Logf("%d were held by their children", held)
}

// The congestion control of every connection is the kernel's default, also
// where the machine's is another and cannot be changed for a namespace.
func TestCongestionControl(t *testing.T) {
	l := start(t, oneArm(t, Size{Clients: 1, FarClients: 1, Backends: 1}))
	for _, f := range families {
		for _, from := range []string{"client1", "far1"} {
			speaks(t, from, dial(t, l.Host(from), echo(t, l.Host("backend1"), f)))
			for _, end := range []string{from, "backend1"} {
				out := must(l.Host(end).Run(bounded(t), "ss", "-tinH", "state", "established"))(t)
				if strings.Contains(out, "bbr") || !strings.Contains(out, "cubic") {
					t.Errorf("%v: in %s: %s", f, end, out)
				}
			}
		}
	}
}

func TestDoSurvivesWhatItRuns(t *testing.T) {
	h := one(t)
	if err := h.Do(func() error { return errors.New("mine") }); err == nil || err.Error() != "mine" {
		t.Errorf("the function's error: %v", err)
	}
	if err := h.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that ended its goroutine: no error")
	}
	here := must(os.Readlink("/proc/thread-self/ns/net"))(t)
	for range 100 {
		var inside string
		if err := h.Do(func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if inside == here {
			t.Fatal("the function ran outside")
		}
		if now := must(os.Readlink("/proc/self/ns/net"))(t); now != here {
			t.Fatalf("the process is in %s now, was in %s", now, here)
		}
	}
}
