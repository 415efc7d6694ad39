package sys

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Groups of RouteWatch: what rtnetlink tells of.
const (
	RouteLinks      = 1 << (unix.RTNLGRP_LINK - 1)
	RouteAddresses4 = 1 << (unix.RTNLGRP_IPV4_IFADDR - 1)
	RouteAddresses6 = 1 << (unix.RTNLGRP_IPV6_IFADDR - 1)
)

// routeWatchBuffer is what the kernel may keep for a slow reader, in bytes.
const routeWatchBuffer = 1 << 20

// A RouteWatch receives what rtnetlink tells everybody, without waiting.
type RouteWatch struct {
	fd  int
	buf []byte
}

// OpenRouteWatch subscribes to groups in the network namespace of the calling
// thread.
func OpenRouteWatch(groups uint32) (*RouteWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// Without the right to force it, the kernel's own limit has to do: what
	// does not fit is an overrun, and told.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, routeWatchBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, routeWatchBuffer)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	return &RouteWatch{fd: fd, buf: make([]byte, 1<<16)}, nil
}

// FD is readable when there is something to receive.
func (w *RouteWatch) FD() int { return w.fd }

// Receive appends the messages that have arrived to msgs, at most one
// datagram's. more is false when there was nothing; lost is true when the
// kernel has dropped messages because nobody read.
func (w *RouteWatch) Receive(msgs []NetlinkMessage) (_ []NetlinkMessage, more, lost bool, err error) {
	for {
		n, from, err := unix.Recvfrom(w.fd, w.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return msgs, false, false, nil
		case errors.Is(err, unix.ENOBUFS):
			return msgs, true, true, nil
		case err != nil:
			return msgs, false, false, fmt.Errorf("read from rtnetlink: %w", err)
		case n > len(w.buf):
			return msgs, true, true, nil
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			return msgs, true, false, nil // not from the kernel
		}
		msgs, _ = SplitMessages(msgs, w.buf[:n]) // the kernel cuts none short
		return msgs, true, false, nil
	}
}

// Close ends the subscription.
func (w *RouteWatch) Close() error {
	if w.fd < 0 {
		return nil
	}
	fd := w.fd
	w.fd = -1
	return unix.Close(fd)
}
