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
