//go:build linux

package relay

import (
	"fmt"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// position says how far a TCP socket's two streams have gone, from the kernel's
// counters alone: received is how many bytes of the peer's stream have been
// read from the socket, sent how many bytes have been written to it.
//
// Both counters of TCP_INFO speak of sequence numbers: bytes_received counts
// the peer's FIN, bytes_acked counts our SYN on the side that connected, and
// our FIN once acknowledged (net/ipv4/tcp_input.c: tcp_rcv_nxt_update,
// tcp_snd_una_update). connected says that this side did; ended that this
// side's end of stream was sent. The FIN of the peer shows in the state.
type position struct {
	received, sent uint64
}

func positionOf(fd int, connected, ended bool) (position, error) {
	var info sys.TCPInfo
	for range 16 {
		// Segments arrive while we look: take only a reading during which
		// nothing moved.
		if errno := sys.GetTCPInfo(fd, &info); errno != 0 {
			return position{}, fmt.Errorf("reading the kernel's counters: %w", errno)
		}
		unread, errno := sys.Unread(fd)
		if errno != 0 {
			return position{}, fmt.Errorf("reading the kernel's counters: %w", errno)
		}
		unacked, errno := sys.Unacked(fd)
		if errno != 0 {
			return position{}, fmt.Errorf("reading the kernel's counters: %w", errno)
		}
		var again sys.TCPInfo
		if errno := sys.GetTCPInfo(fd, &again); errno != 0 {
			return position{}, fmt.Errorf("reading the kernel's counters: %w", errno)
		}
		if info.BytesReceived != again.BytesReceived || info.BytesAcked != again.BytesAcked || info.State != again.State {
			continue
		}
		return derive(info, unread, unacked, connected, ended)
	}
	return position{}, fmt.Errorf("reading the kernel's counters: they never stood still: %w", syscall.EBUSY)
}

// derive is the arithmetic of [position].
func derive(info sys.TCPInfo, unread, unacked int, connected, ended bool) (position, error) {
	received, sent := info.BytesReceived, info.BytesAcked+uint64(unacked)
	switch info.State {
	case sys.TCPCloseWait, sys.TCPLastAck, sys.TCPClosing:
		received-- // the peer's FIN
	case sys.TCPEstablished, sys.TCPFinWait1, sys.TCPFinWait2:
	default:
		return position{}, fmt.Errorf("a socket in state %d has no position", info.State)
	}
	if connected {
		sent-- // our SYN
	}
	if ended {
		sent-- // our FIN, acknowledged or not
	}
	return position{received: received - uint64(unread), sent: sent}, nil
}
