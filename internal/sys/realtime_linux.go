package sys

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BootTime returns the time of CLOCK_BOOTTIME in nanoseconds: monotonic, and
// it counts the time that the machine was suspended.
func BootTime() int64 {
	var ts unix.Timespec
	// The clock exists on every Linux and &ts is valid: there is nothing to fail.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}

// BootAlarm is a timerfd on CLOCK_BOOTTIME for an [Epoll]: its descriptor
// becomes readable at the instant that is set. It never blocks.
type BootAlarm struct{ fd int }

// NewBootAlarm makes an alarm that is not set.
func NewBootAlarm() (*BootAlarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create CLOCK_BOOTTIME", err)
	}
	return &BootAlarm{fd: fd}, nil
}

// FD is the descriptor; it remains the alarm's.
func (a *BootAlarm) FD() int { return a.fd }

// Set makes the descriptor readable at the instant (of BootTime), instead of at
// the one that was set before, which is cleared; an instant that has passed
// makes it so at once. 0 unsets the alarm.
func (a *BootAlarm) Set(at int64) error {
	if at < 0 {
		at = 1
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(at)}
	return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil))
}

// Clear consumes what made the descriptor readable. Set does so too.
func (a *BootAlarm) Clear() {
	var expirations uint64
	_, _, _ = syscall.RawSyscall(unix.SYS_READ, uintptr(a.fd), uintptr(unsafe.Pointer(&expirations)), 8)
}

// Close ends the alarm.
func (a *BootAlarm) Close() error {
	if a.fd < 0 {
		return nil
	}
	fd := a.fd
	a.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// SetRealtime puts the calling thread under SCHED_RR with a priority from 1 to
// 99, so that no ordinary process delays it; priority 0 puts it back. The
// goroutine must be locked to its thread. Threads and processes that the thread
// starts run under it too.
//
// A kernel that shares its processors among groups (CONFIG_RT_GROUP_SCHED)
// refuses with EPERM what has no share in its cgroup, whatever its capabilities.
func SetRealtime(priority int) error {
	return setScheduler(0, priority)
}

func setScheduler(tid, priority int) error {
	if priority < 0 || priority > 99 {
		return fmt.Errorf("real-time priority %d: priorities are 1 to 99, and 0 for none", priority)
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	if priority > 0 {
		attr.Policy, attr.Priority = unix.SCHED_RR, uint32(priority)
	}
	err := unix.SchedSetAttr(tid, &attr, 0)
	if errors.Is(err, unix.EPERM) {
		var limit unix.Rlimit
		_ = unix.Getrlimit(unix.RLIMIT_RTPRIO, &limit)
		if effective(unix.CAP_SYS_NICE) {
			return fmt.Errorf("SCHED_RR with priority %d: %w, though CAP_SYS_NICE is held: the cgroup has no real-time share (cpu.rt_runtime_us)", priority, err)
		}
		return fmt.Errorf("SCHED_RR with priority %d: %w: it needs CAP_SYS_NICE, or a limit RTPRIO of at least %d (it is %d)", priority, err, priority, limit.Cur)
	}
	return os.NewSyscallError("sched_setattr", err)
}

// SetRealtimeAll does for every thread of this process what SetRealtime does for
// one; those that these start later are under it too.
func SetRealtimeAll(priority int) error {
	// A thread that starts meanwhile inherits from its creator, which may not
	// have been reached: a round that finds nothing to change has found all.
	for changed := true; changed; {
		changed = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				continue
			}
			now, err := scheduling(tid)
			if err == nil && now != priority {
				changed, err = true, setScheduler(tid, priority)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return err
			}
		}
	}
	return nil
}

// Scheduling tells how the calling thread is scheduled: its priority under
// SCHED_RR or SCHED_FIFO, 0 if it is an ordinary one.
func Scheduling() (priority int, err error) { return scheduling(0) }

func scheduling(tid int) (priority int, err error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return 0, os.NewSyscallError("sched_getattr", err)
	}
	if attr.Policy != unix.SCHED_RR && attr.Policy != unix.SCHED_FIFO {
		return 0, nil
	}
	return int(attr.Priority), nil
}

// LockMemory keeps all memory of this process in RAM, now and in future
// (mlockall), so that it never waits for a disk. Memory that is only reserved
// is not filled (MCL_ONFAULT): Go reserves a lot.
//
// It counts against RLIMIT_MEMLOCK all the same. Without CAP_IPC_LOCK, and with
// a limit, the program would end when its heap grows past it; so LockMemory
// refuses that, and changes nothing.
func LockMemory() error {
	if !effective(unix.CAP_IPC_LOCK) {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
			return os.NewSyscallError("getrlimit RLIMIT_MEMLOCK", err)
		}
		if limit.Cur != unix.RLIM_INFINITY {
			return fmt.Errorf("mlockall: %w: it needs CAP_IPC_LOCK, or no limit MEMLOCK (it is %d bytes)", unix.EPERM, limit.Cur)
		}
	}
	return os.NewSyscallError("mlockall", unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT))
}

// UnlockMemory undoes LockMemory.
func UnlockMemory() error { return os.NewSyscallError("munlockall", unix.Munlockall()) }
