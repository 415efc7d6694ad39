package sys

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// TryNetNamespace makes a network namespace on a thread of its own, which ends
// with the namespace: nothing is left, and the caller's is untouched. A nil
// error means that this process can make one.
func TryNetNamespace() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			err = fmt.Errorf("unshare CLONE_NEWNET: %w", err)
		}
		result <- err
	}()
	return <-result
}
