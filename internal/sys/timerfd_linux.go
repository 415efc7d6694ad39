package sys

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Alarm is a timerfd on CLOCK_MONOTONIC. Go's own timers are late by up to a
// millisecond when the process is otherwise idle, because its poller counts in
// milliseconds; this one is not.
type Alarm struct {
	f   *os.File
	raw syscall.RawConn
}

// NewAlarm makes an alarm that is not set.
func NewAlarm() (*Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	return &Alarm{f: f, raw: raw}, nil
}

// Set makes Wait return at the instant (of MonotonicNanos), instead of at the
// one that was set before; 0 unsets the alarm.
func (a *Alarm) Set(at int64) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(at)}
	var errno error
	if err := a.raw.Control(func(fd uintptr) {
		errno = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("timerfd_settime", errno)
}

// Wait waits for the instant that is set. After Close it fails.
func (a *Alarm) Wait() error {
	var expirations [8]byte
	_, err := a.f.Read(expirations[:])
	return err
}

// Close ends the alarm and whoever waits for it.
func (a *Alarm) Close() error { return a.f.Close() }
