package sys

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Credential looks a user up by name or number, with all groups, for a process
// that is to run as that user.
func Credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("there is no user %q", name)
		}
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("the groups of user %q: %w", name, err)
	}
	ids := make([]uint32, 0, 2+len(groups))
	for _, text := range append([]string{u.Uid, u.Gid}, groups...) {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the numbers of user %q: %w", name, err)
		}
		ids = append(ids, uint32(id))
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}, nil
}

// AwaitExit waits until a child process has ended and leaves it to be reaped, so
// that its number, and that of its process group, still belong to it.
func AwaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("waitid of process %d: %w", pid, err)
		}
	}
}

// Signal sends a signal to a process. It is os.ErrProcessDone if there is no
// process of this number.
func Signal(pid int, sig syscall.Signal) error {
	err := unix.Kill(pid, sig)
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// SignalGroup sends a signal to every process of a process group. It is
// os.ErrProcessDone if there is no group of this number.
func SignalGroup(group int, sig syscall.Signal) error { return Signal(-group, sig) }

// SameMemory reports whether two processes share their memory, as a process and
// the child do that it has made by vfork, until the child runs its own program. It
// needs the right to trace both, and a kernel with CONFIG_KCMP.
func SameMemory(a, b int) (bool, error) {
	const vm = 1 // KCMP_VM
	differ, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), vm, 0, 0, 0)
	if errno != 0 {
		return false, fmt.Errorf("kcmp of processes %d and %d: %w", a, b, errno)
	}
	return differ == 0, nil
}

// ReapEnded collects what is left of a process that has ended, if it is this
// process's child; any other it leaves alone.
func ReapEnded(pid int) {
	_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // not ours, or not ended: nothing to collect
}

// SetNice gives every thread of this process another nice value, from -20, the
// most of a processor, to 19. A lower one than before needs CAP_SYS_NICE. New
// threads and processes have that of the thread that made them.
func SetNice(nice int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // a thread that has ended meanwhile
			return fmt.Errorf("setpriority of thread %s: %w", t.Name(), err)
		}
	}
	return nil
}

// ErrnoName returns the kernel's name of an error, as "ECONNRESET", or its
// number where it has none.
func ErrnoName(errno syscall.Errno) string {
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return "errno " + strconv.Itoa(int(errno))
}

// ExitedChild returns a child of this process that has ended and was not reaped,
// and leaves it so. pid is 0 where there is none.
func ExitedChild() (pid int, err error) {
	var info struct {
		unix.Siginfo
		_ [64]byte // whatever a kernel may add
	}
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info.Siginfo, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
		switch err {
		case nil:
			child := (*struct {
				_      [3]int32 // signo, errno, code
				fields struct {
					_   [0]uintptr // the union begins as pointers are aligned
					pid int32
				}
			})(unsafe.Pointer(&info))
			return int(child.fields.pid), nil
		case unix.EINTR:
		case unix.ECHILD:
			return 0, nil
		default:
			return 0, fmt.Errorf("waitid: %w", err)
		}
	}
}

// Group returns the process group and the session of a process; 0 is this one.
func Group(pid int) (group, session int, err error) {
	if group, err = unix.Getpgid(pid); err != nil {
		return 0, 0, fmt.Errorf("getpgid of process %d: %w", pid, err)
	}
	if session, err = unix.Getsid(pid); err != nil {
		return 0, 0, fmt.Errorf("getsid of process %d: %w", pid, err)
	}
	return group, session, nil
}
