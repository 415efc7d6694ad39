//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// insideVariable is "enter:FD" in the process that Main starts, FD being the
// end of a pipe that the starting process holds open, and then the name of the
// PID namespace, by which further processes know that they are inside.
const insideVariable = "HOLDFAST_LAB"

// scratch is where the private file system for temporary files is mounted: a
// directory that every Linux system has and that holds nothing but such files.
const scratch = "/dev/shm"

// Main makes sure that nothing of this process's labs outlives it, however it
// ends: also by SIGKILL, a panic or Ctrl-C. Call it first thing in main, or in
// TestMain:
//
//	func TestMain(m *testing.M) {
//		lab.Main()
//		os.Exit(m.Run())
//	}
//
// It starts the program anew, as the first process of a PID and a mount
// namespace, and does not return in this process, which hands signals on and
// ends with the same status. In the new process it returns, and the kernel
// kills everything that was started there when that process ends, which it
// does at the latest when this one is gone. TMPDIR is a file system in memory
// that no other process sees and that goes with the last one that does.
//
// Without root Main returns at once; [Start] will fail then, and [Supported]
// says why. It also returns at once where an enclosing program has called it.
func Main() {
	value := os.Getenv(insideVariable)
	if fd, ok := strings.CutPrefix(value, "enter:"); ok && os.Getpid() == 1 {
		if err := enter(fd); err != nil {
			fmt.Fprintf(os.Stderr, "lab: %v\n", err)
			os.Exit(1)
		}
		return
	}
	if here, err := pidNamespace(); err != nil || here == value || os.Geteuid() != 0 {
		return
	}
	_, _ = Sweep() // best effort: what it cannot remove is no reason not to run
	if status, err := runInside(); err == nil {
		os.Exit(status)
	}
	// Namespaces are not to be had; Start will say so.
}

func pidNamespace() (string, error) { return os.Readlink("/proc/self/ns/pid") }

// enter arranges the new namespaces; it runs in their first process.
func enter(fd string) error {
	if n, err := strconv.Atoi(fd); err != nil || starterGone(n) {
		return errors.New("the process that started this one is gone")
	}
	if err := sys.UnshareMounts(); err != nil { // first: nothing that is mounted here shows outside
		return err
	}
	if err := errors.Join(sys.MountProc("/proc"), sys.MountTmpfs(scratch)); err != nil {
		return err
	}
	name, err := pidNamespace()
	if err != nil {
		return err
	}
	return errors.Join(os.Setenv(insideVariable, name), os.Setenv("TMPDIR", scratch))
}

// starterGone closes the gap before the parent-death signal was set: the pipe
// is at its end if the process that holds the other one is gone.
func starterGone(fd int) bool {
	pipe := os.NewFile(uintptr(fd), "pipe from the starter")
	if pipe == nil {
		return true
	}
	defer pipe.Close()
	bits, err := sys.PollNow(fd)
	return err != nil || bits != 0
}

// runInside runs this program in new namespaces and gives its exit status.
func runInside() (int, error) {
	// The parent-death signal is sent at the death of the thread that made the
	// process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	inside, here, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer here.Close()
	defer inside.Close()
	files, err := sys.InheritedFiles()
	if err != nil {
		return 0, err
	}
	// Of a variable that is there twice, the first one counts.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, insideVariable+"=") })
	env = append(env, fmt.Sprintf("%s=enter:%d", insideVariable, len(files)))
	// In a session of its own a terminal's signals come once: from here. And
	// where the kernel shares processors out by session (sched_autogroup), that
	// one is a lab's own.
	program, err := sys.StartContained("/proc/self/exe", os.Args, env, append(files, inside.Fd()))
	if err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = program.Signal(s) // it fails if the program has ended, which is waited for
		}
	}()
	state, err := program.Wait()
	if err != nil {
		return 1, nil // it cannot be waited for, but it ran
	}
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}
