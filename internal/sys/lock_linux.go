package sys

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// LockedElsewhere takes the exclusive lock of an open file or directory
// (flock(2)), which it keeps until it is closed, and reports whether somebody
// else holds it instead. It does not wait.
func LockedElsewhere(f *os.File) (bool, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	ctrlErr := raw.Control(func(fd uintptr) { err = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	switch {
	case ctrlErr != nil:
		return false, ctrlErr
	case errors.Is(err, unix.EWOULDBLOCK):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("flock of %s: %w", f.Name(), err)
	}
	return false, nil
}
