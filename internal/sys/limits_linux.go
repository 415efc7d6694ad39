package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// FileLimit returns the limits on open descriptors of this process: the one in
// force, and the one it may raise it to. Go raises the first to the second when
// a program starts.
func FileLimit() (soft, hard uint64, err error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, 0, fmt.Errorf("getrlimit RLIMIT_NOFILE: %w", err)
	}
	return l.Cur, l.Max, nil
}

// OpenFiles counts the open descriptors of this process.
func OpenFiles() (int, error) {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names) - 1, err // without the one that reads
}
