//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childVariable makes this test program one that runs a lab, to be killed.
// Its value says how: "main" calls Main first, "bare" does not, "panic" calls
// Main and panics in the end. "given" runs no lab: see sayGiven.
const (
	childVariable = "LAB_TEST_CHILD"
	markVariable  = "LAB_TEST_MARK" // by which the test finds what comes of it
)

// child runs a lab that has everything that could be left until it gets a
// signal.
func child(how string) int {
	if how == "given" {
		return sayGiven()
	}
	if how != "bare" {
		Main()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	top, err := OneArm(Size{Clients: 1, FarClients: 1, Backends: 1})
	if err != nil {
		return fail(err)
	}
	top.Link("client1", 0).Taps = true
	l, err := Start(context.Background(), top, Options{})
	if err != nil {
		return fail(err)
	}
	dir, err := l.Dir()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "file"), []byte("left"), 0o600)
	}
	if err != nil {
		return fail(err)
	}
	for _, h := range l.hosts {
		// One process that stays, and one that became a daemon.
		if _, err := h.Start(Command{Argv: []string{"sh", "-c", "(setsid sleep 1000 &); sleep 1000"}}); err != nil {
			return fail(err)
		}
		if _, err := h.Capture("eth0", CaptureFilter{}); err != nil {
			return fail(err)
		}
	}
	fmt.Println("ready", dir)
	<-stop
	if how == "panic" {
		panic("as the test wishes")
	}
	if err := l.Close(); err != nil {
		return fail(err)
	}
	return 0
}

// offspring is such a program, running.
type offspring struct {
	cmd    *exec.Cmd
	mark   string
	stdout *bufio.Reader
}

func spawn(t *testing.T, how string) *offspring {
	t.Helper()
	o := &offspring{mark: fmt.Sprintf("%d-%d", os.Getpid(), rand.Uint64())}
	o.cmd = exec.Command(os.Args[0])
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, insideVariable+"=") { // it is to make namespaces of its own
			o.cmd.Env = append(o.cmd.Env, v)
		}
	}
	o.cmd.Env = append(o.cmd.Env, childVariable+"="+how, markVariable+"="+o.mark)
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	o.stdout = bufio.NewReader(out)
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return o
}

// ready waits until the lab is there, and gives the lab's directory.
func (o *offspring) ready(t *testing.T) string {
	t.Helper()
	line, err := o.stdout.ReadString('\n')
	dir, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ok {
		t.Fatalf("the lab is not ready: %q, %v", line, err)
	}
	return dir
}

// alive lists the processes that came of the program and have not ended.
func (o *offspring) alive(t *testing.T) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !bytes.Contains(env, []byte(markVariable+"="+o.mark)) {
			continue
		}
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// traces is what could be left and be seen from here.
func traces(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, ns := range []string{"net", "mnt", "pid"} {
		paths, _ := filepath.Glob("/proc/[0-9]*/ns/" + ns)
		for _, p := range paths {
			if name, err := os.Readlink(p); err == nil {
				all = append(all, "namespace "+name)
			}
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		all = append(all, "link "+l.Name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		all = append(all, "mount "+strings.TrimSpace(line))
	}
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp", "/run/netns", "/var/run/netns"} {
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, f := range files {
			if strings.Contains(f, dirPrefix) || strings.Contains(f, "netns") {
				all = append(all, "file "+f)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// gone waits until nothing is left of the program, and says what is otherwise.
func (o *offspring) gone(t *testing.T, before []string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		reapOrphans()
		pids := o.alive(t)
		fresh := slices.DeleteFunc(traces(t), func(s string) bool { _, old := slices.BinarySearch(before, s); return old })
		if len(pids) == 0 && len(fresh) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			for _, pid := range pids {
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				t.Errorf("left: process %d %q", pid, cmdline)
			}
			for _, s := range fresh {
				t.Errorf("left: %s", s)
			}
			return
		}
	}
}

// reapOrphans collects the remains of processes whose parent was killed: this
// process is the first of its PID namespace, and they fall to it.
func reapOrphans() {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		rest := string(stat[bytes.LastIndexByte(stat, ')')+1:])
		if strings.HasPrefix(rest, fmt.Sprintf(" Z %d ", os.Getpid())) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

func TestNothingIsLeft(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a laboratory needs root")
	}
	random := rand.New(rand.NewPCG(7, 7))
	for _, c := range []struct {
		name  string
		times int
		how   string
		ready bool // before it ends; otherwise at a random moment
		end   func(t *testing.T, o *offspring)
		want  func(*os.ProcessState) bool
	}{
		{"killed at a random moment", 12, "main", false, kill, nil},
		{"killed when ready", 2, "main", true, kill, nil},
		{"killed inside", 2, "main", true, killInside, func(s *os.ProcessState) bool { return s.ExitCode() == 128+9 }},
		{"interrupted", 2, "main", true, interrupt, (*os.ProcessState).Success},
		{"interrupted at a random moment", 4, "main", false, interrupt, nil},
		{"panic", 1, "panic", true, interrupt, func(s *os.ProcessState) bool { return s.ExitCode() == 2 }},
		{"interrupted without Main", 1, "bare", true, interrupt, (*os.ProcessState).Success},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range c.times {
				before := traces(t)
				o := spawn(t, c.how)
				if c.ready {
					o.ready(t)
				} else {
					<-time.After(time.Duration(random.Int64N(int64(400 * time.Millisecond))))
				}
				c.end(t, o)
				io.Copy(io.Discard, o.stdout)
				err := o.cmd.Wait()
				if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
					t.Fatal(err)
				}
				if c.want != nil && !c.want(o.cmd.ProcessState) {
					t.Errorf("ended with %v", o.cmd.ProcessState)
				}
				o.gone(t, before)
			}
		})
	}
}

func kill(t *testing.T, o *offspring)      { signalTo(t, o.cmd.Process.Pid, syscall.SIGKILL) }
func interrupt(t *testing.T, o *offspring) { signalTo(t, o.cmd.Process.Pid, syscall.SIGINT) }

// killInside kills the program in the new namespaces, not the one that waits
// for it.
func killInside(t *testing.T, o *offspring) {
	inside := slices.DeleteFunc(o.alive(t), func(pid int) bool { return pid == o.cmd.Process.Pid })
	signalTo(t, slices.Min(inside), syscall.SIGKILL) // the first that was started
}

func signalTo(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// Without Main, a daemon and the directory outlive a killed lab: Sweep finds
// both, and leaves those of a living lab alone.
func TestSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a laboratory needs root")
	}
	before := traces(t)
	dead, living := spawn(t, "bare"), spawn(t, "bare")
	deadDir, livingDir := dead.ready(t), living.ready(t)
	kill(t, dead)
	_ = dead.cmd.Wait()
	if _, err := os.Stat(deadDir); err != nil {
		t.Fatalf("nothing to sweep: %v", err)
	}
	removed, err := Sweep()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(removed, "directory "+deadDir) || !strings.Contains(strings.Join(removed, ","), "process ") {
		t.Errorf("removed %q", removed)
	}
	if _, err := os.Stat(livingDir); err != nil {
		t.Errorf("the directory of the living lab: %v", err)
	}
	if n := len(living.alive(t)); n < 3 {
		t.Errorf("%d processes of the living lab", n)
	}
	interrupt(t, living)
	if err := living.cmd.Wait(); err != nil {
		t.Errorf("the living lab: %v", err)
	}
	dead.gone(t, before)
	living.gone(t, before)
	if removed, err := Sweep(); err != nil || len(removed) != 0 {
		t.Errorf("sweeping a clean floor: %q, %v", removed, err)
	}
}
