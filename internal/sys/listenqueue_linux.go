package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ListenQueueInfo is the accept queue of a listening TCP socket.
type ListenQueueInfo struct {
	Length  int    // connections that wait to be accepted
	Max     int    // connects are dropped when there are more
	Dropped uint64 // connects dropped, since the socket was made
}

// skMemInfoDrops is SK_MEMINFO_DROPS, and skMemInfoVars how many numbers
// SO_MEMINFO gives (include/uapi/linux/sock_diag.h).
const (
	skMemInfoDrops = 8
	skMemInfoVars  = 9
)

// ListenQueue asks for the accept queue of a listening TCP socket: its length
// and bound lie in TCP_INFO in place of the segments in flight and SACKed, its
// drops in SO_MEMINFO.
func ListenQueue(fd int) (ListenQueueInfo, syscall.Errno) {
	var raw unix.TCPInfo
	size := uint32(unsafe.Sizeof(raw))
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return ListenQueueInfo{}, e
	}
	q := ListenQueueInfo{Length: int(raw.Unacked), Max: int(raw.Sacked)}
	var mem [skMemInfoVars]uint32
	size = uint32(unsafe.Sizeof(mem))
	_, _, e = syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return q, e
	}
	q.Dropped = uint64(mem[skMemInfoDrops])
	return q, 0
}

// StopKeepalive ends what SetKeepalive began.
func StopKeepalive(fd int) syscall.Errno { return setInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0) }
