package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// UnshareNetNS gives the calling thread a new network namespace. The caller
// has locked the thread and does not give it back to the scheduler.
func UnshareNetNS() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare network namespace: %w", err)
	}
	return nil
}

// EnterNetNS moves the calling thread into the network namespace that fd
// refers to.
func EnterNetNS(fd int) error {
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// ThreadNetNS opens the network namespace of the calling thread.
func ThreadNetNS() (*os.File, error) {
	return os.Open("/proc/thread-self/ns/net")
}

// OnMainThread reports whether the caller runs on the thread whose /proc
// entry stands for the whole process.
func OnMainThread() bool { return unix.Gettid() == unix.Getpid() }

// NetNSCookie returns the number by which eBPF programs know the network
// namespace of the calling thread. No other one has it until the machine starts
// anew. It needs Linux 5.14.
func NetNSCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("getsockopt SO_NETNS_COOKIE: %w", err)
	}
	return cookie, nil
}
