package sys

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SetUserTimeout bounds for how long what was sent may stay unacknowledged, or a
// peer's window closed, before the connection ends with ETIMEDOUT
// (TCP_USER_TIMEOUT, in milliseconds).
func SetUserTimeout(fd int, d time.Duration) syscall.Errno {
	return setInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}

// SetUnsentLimit bounds what a socket takes before it was sent
// (TCP_NOTSENT_LOWAT, in bytes): what is written next does not wait behind a
// full send buffer.
func SetUnsentLimit(fd, bytes int) syscall.Errno {
	return setInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
}
