package sys

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// PollBits is what poll(2) reports of a descriptor.
type PollBits int16

// The bits of poll(2) that matter for a stream socket.
const (
	PollIn    PollBits = unix.POLLIN
	PollOut   PollBits = unix.POLLOUT
	PollErr   PollBits = unix.POLLERR
	PollHup   PollBits = unix.POLLHUP
	PollRdHup PollBits = unix.POLLRDHUP
)

// String lists the names of the set bits without their prefix, as "IN|RDHUP".
func (b PollBits) String() string {
	var names []string
	for _, bit := range []struct {
		bit  PollBits
		name string
	}{{PollIn, "IN"}, {PollOut, "OUT"}, {PollErr, "ERR"}, {PollHup, "HUP"}, {PollRdHup, "RDHUP"}} {
		if b&bit.bit != 0 {
			names = append(names, bit.name)
			b &^= bit.bit
		}
	}
	if b != 0 {
		names = append(names, "0x"+strconv.FormatUint(uint64(uint16(b)), 16))
	}
	return strings.Join(names, "|")
}

// PollNow asks poll(2) once, without waiting, for everything it says of fd. It
// does not consume the socket's pending error.
func PollNow(fd int) (PollBits, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT | unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(fds, 0)
		if err == unix.EINTR {
			continue
		}
		return PollBits(fds[0].Revents), os.NewSyscallError("poll", err)
	}
}

// TakeError returns the socket's pending error (SO_ERROR) and clears it; 0 is none.
func TakeError(fd int) syscall.Errno {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.Errno(v)
}

// QueuedInput returns how many bytes wait in the socket's receive queue.
func QueuedInput(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	return n, os.NewSyscallError("ioctl SIOCINQ", err)
}

// PeekByte reports whether the socket has a byte to read (n = 1), is at the end
// of its stream (n = 0, no error) or has neither yet (EAGAIN). It takes nothing
// out of the queue.
func PeekByte(fd int) (n int, err error) {
	var b [1]byte
	for {
		n, _, err = unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// StartConnect makes a non-blocking TCP socket in the network namespace of the
// calling thread and starts to connect it. The connect may still be under way
// when it returns: wait until the socket is writable, then ask TakeError.
func StartConnect(to netip.AddrPort) (*os.File, error) {
	family := unix.AF_INET
	var sa unix.Sockaddr
	if a := to.Addr().Unmap(); a.Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	} else {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: a.As16(), ZoneId: zoneIndex(a.Zone())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return os.NewFile(uintptr(fd), to.String()), nil
}

// zoneIndex turns the zone of an IPv6 address into an interface index of the
// calling thread's namespace; an unknown one is 0, which the kernel refuses.
func zoneIndex(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq(zone)
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req) != nil {
		return 0
	}
	return req.Uint32()
}

// ReadSocket reads what is there into p without waiting (EAGAIN if nothing is;
// n = 0 without an error is the end of the stream).
func ReadSocket(fd int, p []byte) (n int, err error) {
	for {
		n, _, err = unix.Recvfrom(fd, p, unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
