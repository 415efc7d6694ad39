package elector

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// TestWithoutCapabilities has an elector that may not be a real-time process, nor
// set addresses.
func TestWithoutCapabilities(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("it takes root, and setpriv, to run a program with fewer capabilities")
	}
	less := "-sys_nice,-ipc_lock,-sys_resource,-net_admin"
	d := open(t, runtimeDir(t), func(o *Options) {
		o.Program = []string{setpriv, "--bounding-set", less, "--inh-caps", less, os.Args[0], "elector"}
	})
	i := d.Info()
	if i.RealTime || len(i.Lacks) == 0 || !strings.Contains(strings.Join(i.Lacks, "\n"), "CAP_SYS_NICE") {
		t.Errorf("without CAP_SYS_NICE it says of itself %+v", i)
	}
	for _, lack := range []string{"real-time priority", "right to set addresses"} {
		if !slices.ContainsFunc(d.Problems(), func(p Problem) bool { return strings.Contains(p.Text, "the elector has no "+lack) }) {
			t.Errorf("%q is not among the problems: %+v", lack, d.Problems())
		}
	}
	d.Deliver([]byte("works"))
	next(t, "it works all the same", d.beats)
}

// TestRealTime looks at what a process has become that may.
func TestRealTime(t *testing.T) {
	d := open(t, runtimeDir(t), nil)
	i := d.Info()
	if !i.RealTime {
		t.Skipf("this machine gives no real-time priority: %s", i.Lacks)
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", i.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", i.PID, task.Name()))
		if err != nil {
			continue // a thread that has ended
		}
		// Fields 40 and 41 are rt_priority and policy; 2 is SCHED_RR.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if f[37] != fmt.Sprint(priority) || f[38] != "2" {
			t.Errorf("thread %s has policy %s and priority %s", task.Name(), f[38], f[37])
		}
	}
	if len(tasks) < 2 {
		t.Errorf("it has %d threads", len(tasks))
	}
}

func TestOneElectorForADirectory(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	d.Deliver([]byte("own front")) // so that it does not end
	next(t, "it owns", d.changes)
	if err := os.Remove(socketPath(dir)); err != nil { // so that another is started
		t.Fatal(err)
	}
	pid := d.Info().PID
	d.end()
	if _, err := newDaemon(t, dir, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("is held by another elector (pid %d)", pid)) {
		t.Errorf("a second elector got %v", err)
	}
	if sys.Signal(pid, 0) != nil {
		t.Fatal("the first elector has ended")
	}
	// Without its lock nobody finds it, and nothing keeps another from running.
	if err := os.Remove(lockPath(dir)); err != nil {
		t.Fatal(err)
	}
	await(t, "it ends", func() bool { sys.ReapEnded(pid); return sys.Signal(pid, 0) != nil })
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"--runtime"}, {"--runtime", "x", "more"}, {"--nonsense"}, {"--ready", "x", "--runtime", "y"}} {
		if err := start([]string{"x"}, args, "test", io.Discard, patience, newPuppet); err == nil {
			t.Errorf("%q were taken", args)
		}
	}
}
