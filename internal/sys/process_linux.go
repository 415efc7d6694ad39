package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

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
