package probe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// RemoveStaleSocket removes the file of a unix socket on which nobody listens
// any more: what a process leaves behind that was killed. A socket that lives
// is left alone, and the error, a [*ListenError], says whose it is.
func RemoveStaleSocket(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil // not there, or binding will say more
	}
	if fi.Mode().Type() != os.ModeSocket {
		return ExplainListenUnix(path, syscall.EADDRINUSE)
	}
	if holders, err := UnixHolders(path); err == nil && len(holders) > 0 {
		return ExplainListenUnix(path, syscall.EADDRINUSE)
	}
	// The list knows this network namespace and the paths as they were bound:
	// only a connect tells for certain.
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case err == nil:
		c.Close()
		return ExplainListenUnix(path, syscall.EADDRINUSE)
	case errors.Is(err, syscall.ECONNREFUSED):
		// Refused also by a socket that is bound and does not listen yet; the
		// moment between the two calls of its start is the price.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot listen on unix:%s: the socket of a process that is gone cannot be removed: %w", path, errors.Unwrap(err))
		}
		return nil
	case errors.Is(err, os.ErrNotExist):
		return nil
	default:
		// EPROTOTYPE: somebody's datagram socket. EAGAIN: a full queue. EACCES:
		// another user's. All of them live.
		return ExplainListenUnix(path, syscall.EADDRINUSE)
	}
}
