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
	for _, m := range []struct {
		source, target, fstype, data string
		flags                        uintptr
	}{
		{target: "/", flags: syscall.MS_REC | syscall.MS_PRIVATE}, // nothing that is mounted here shows outside
		{source: "proc", target: "/proc", fstype: "proc", flags: syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC},
		{source: "tmpfs", target: scratch, fstype: "tmpfs", data: "mode=1777", flags: syscall.MS_NOSUID | syscall.MS_NODEV},
	} {
		if err := syscall.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
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
	defer syscall.Close(fd)
	if syscall.SetNonblock(fd, true) != nil {
		return true
	}
	n, err := syscall.Read(fd, make([]byte, 1))
	return n == 0 || err != syscall.EAGAIN
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

	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer syscall.Close(pipe[1])
	files, err := inherited()
	if err != nil {
		return 0, err
	}
	// Of a variable that is there twice, the first one counts.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, insideVariable+"=") })
	env = append(env, fmt.Sprintf("%s=enter:%d", insideVariable, len(files)))
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   env,
		Files: append(files, uintptr(pipe[0])),
		Sys: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
			// A terminal's signals come once: from here. And where the kernel shares
			// processors out by session (sched_autogroup), this one is a lab's own.
			Setsid: true,
		},
	})
	syscall.Close(pipe[0])
	if err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = syscall.Kill(pid, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 1, nil // it cannot be waited for, but it ran
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

// inherited lists the descriptors that this process was given and would give
// to a program it executes, each at its own number.
func inherited() ([]uintptr, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	files := []uintptr{0, 1, 2}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < len(files) {
			continue
		}
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC != 0 {
			continue
		}
		for len(files) < fd {
			files = append(files, ^uintptr(0)) // closed
		}
		files = append(files, uintptr(fd))
	}
	return files, nil
}
