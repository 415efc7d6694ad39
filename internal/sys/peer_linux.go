package sys

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is who made the other end of a unix socket, at the time of its connect.
type Peer struct {
	PID    int // 0 where it is in no PID namespace of ours
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary ones
}

// UnixPeer asks the kernel who is at the other end of a connected unix socket
// (SO_PEERCRED, SO_PEERGROUPS).
func UnixPeer(c syscall.RawConn) (p Peer, err error) {
	ctrlErr := c.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			err = fmt.Errorf("getsockopt SO_PEERCRED: %w", err)
			return
		}
		p = Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
		p.Groups, err = peerGroups(int(fd))
	})
	if ctrlErr != nil {
		return Peer{}, ctrlErr
	}
	if err != nil {
		return Peer{}, err
	}
	return p, nil
}

func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups): // the kernel says how many there are
			groups = make([]uint32, size/4)
		default:
			return nil, fmt.Errorf("getsockopt SO_PEERGROUPS: %w", errno)
		}
	}
}
