package sys

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TCPState is a socket's state as include/net/tcp_states.h numbers it.
type TCPState uint8

// The states that callers ask about.
const (
	TCPEstablished TCPState = 1
	TCPFinWait1    TCPState = 4
	TCPFinWait2    TCPState = 5
	TCPClosed      TCPState = 7
	TCPCloseWait   TCPState = 8
	TCPLastAck     TCPState = 9
	TCPClosing     TCPState = 11
)

// TCPInfo is what the kernel tells of a TCP socket (TCP_INFO), reduced to what
// is used here, in Go's units.
type TCPInfo struct {
	State            TCPState
	Retransmits      uint8         // of the oldest unacknowledged segment, since it was first sent
	Probes           uint8         // unanswered keepalive or zero-window probes
	Unacked          uint32        // segments in flight
	LastDataReceived time.Duration // since then; the kernel's clock ticks every 1 to 10 ms
	LastACKReceived  time.Duration // since then, answers to probes included
	BytesAcked       uint64        // by the peer; the SYN counts as one on the connecting side, a FIN on either
	BytesReceived    uint64        // in order; a FIN counts as one
	SendWindow       uint32        // what the peer takes at the moment
}

// GetTCPInfo fills info for fd.
func GetTCPInfo(fd int, info *TCPInfo) syscall.Errno {
	var raw unix.TCPInfo
	size := uint32(unsafe.Sizeof(raw))
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return e
	}
	*info = TCPInfo{
		State:            TCPState(raw.State),
		Retransmits:      raw.Retransmits,
		Probes:           raw.Probes,
		Unacked:          raw.Unacked,
		LastDataReceived: time.Duration(raw.Last_data_recv) * time.Millisecond,
		LastACKReceived:  time.Duration(raw.Last_ack_recv) * time.Millisecond,
		BytesAcked:       raw.Bytes_acked,
		BytesReceived:    raw.Bytes_received,
		SendWindow:       raw.Snd_wnd,
	}
	return 0
}

// RawTCPInfo fills buf with fd's struct tcp_info, as far as the kernel knows it
// and buf has room, and returns how much that is.
func RawTCPInfo(fd int, buf []byte) (int, syscall.Errno) {
	size := uint32(len(buf))
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0, e
	}
	return int(min(size, uint32(len(buf)))), 0
}
