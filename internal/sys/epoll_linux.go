package sys

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Event bits of an [Epoll].
const (
	EventIn        = unix.EPOLLIN
	EventOut       = unix.EPOLLOUT
	EventPeerEnd   = unix.EPOLLRDHUP // the peer sent its end of stream
	EventHangup    = unix.EPOLLHUP   // both directions are over
	EventError     = unix.EPOLLERR   // the socket has an error, such as a RST
	EventEdge      = unix.EPOLLET
	EventExclusive = unix.EPOLLEXCLUSIVE
)

// Event is one entry of a batch: what happened, and the key that was given
// when the descriptor was added.
type Event struct {
	Bits uint32
	Key  uint64
}

// Epoll is an epoll instance and owns its descriptor. Wait is for one
// goroutine; Add, Modify and Delete are safe from any.
type Epoll struct {
	fd  int
	raw []unix.EpollEvent
}

// NewEpoll makes an instance that returns at most batch events at a time.
func NewEpoll(batch int) (*Epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &Epoll{fd: fd, raw: make([]unix.EpollEvent, batch)}, nil
}

// Close ends the instance. It must not be called while Wait runs.
func (e *Epoll) Close() error { return os.NewSyscallError("close", unix.Close(e.fd)) }

// Add watches fd for bits; its events carry key.
func (e *Epoll) Add(fd int, bits uint32, key uint64) syscall.Errno {
	return e.ctl(unix.EPOLL_CTL_ADD, fd, bits, key)
}

// Delete stops watching fd.
func (e *Epoll) Delete(fd int) syscall.Errno { return e.ctl(unix.EPOLL_CTL_DEL, fd, 0, 0) }

func (e *Epoll) ctl(op, fd int, bits uint32, key uint64) syscall.Errno {
	ev := unix.EpollEvent{Events: bits, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(e.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	return errno
}

// Wait fills out with what happened, waiting at most timeoutMS milliseconds
// (-1: for ever, 0: not at all). An interrupted wait returns no events.
func (e *Epoll) Wait(out []Event, timeoutMS int) ([]Event, error) {
	n, err := unix.EpollWait(e.fd, e.raw, timeoutMS)
	if err != nil {
		if err == unix.EINTR {
			return out[:0], nil
		}
		return out[:0], os.NewSyscallError("epoll_wait", err)
	}
	out = out[:0]
	for i := range n {
		ev := &e.raw[i]
		out = append(out, Event{Bits: ev.Events, Key: uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32})
	}
	return out, nil
}

// Waker interrupts the Wait of an [Epoll] from another goroutine (eventfd).
type Waker struct{ fd int }

// NewWaker makes a waker and adds it to e under key.
func NewWaker(e *Epoll, key uint64) (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if errno := e.Add(fd, EventIn, key); errno != 0 {
		unix.Close(fd)
		return nil, os.NewSyscallError("epoll_ctl", errno)
	}
	return &Waker{fd: fd}, nil
}

// Wake makes the current or next Wait return an event with the waker's key.
func (w *Waker) Wake() {
	one := uint64(1)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(&one)), 8)
}

// Clear consumes what Wake left.
func (w *Waker) Clear() {
	var n uint64
	_, _, _ = syscall.RawSyscall(unix.SYS_READ, uintptr(w.fd), uintptr(unsafe.Pointer(&n)), 8)
}

// Close ends the waker.
func (w *Waker) Close() error { return os.NewSyscallError("close", unix.Close(w.fd)) }
