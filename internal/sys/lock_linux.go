package sys

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// TryLock takes the exclusive lock of an open file or directory (flock(2)),
// which keeps it until it is closed. It reports false, and does not wait, if
// somebody else holds it.
func TryLock(f *os.File) (bool, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	ctrlErr := raw.Control(func(fd uintptr) { err = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	switch {
	case ctrlErr != nil:
		return false, ctrlErr
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("flock of %s: %w", f.Name(), err)
	}
	return true, nil
}
