package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// WatchAll makes the link of the socket receive every frame, whoever it is for,
// and the socket tell each frame's mark by ReceiveMarked.
func (s *PacketSocket) WatchAll(ifindex int) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(ifindex), Type: unix.PACKET_MR_PROMISC})
		if serr == nil {
			serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVMARK, 1)
		}
	})
	if err := errors.Join(err, serr); err != nil {
		return fmt.Errorf("packet socket: watch link %d: %w", ifindex, err)
	}
	return nil
}

// ReceiveMarked is Receive with the frame's mark in place of its direction.
func (s *PacketSocket) ReceiveMarked(buf []byte) (n int, at time.Time, mark uint32, err error) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0, at, 0, err
	}
	oob := make([]byte, 96)
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		var oobn int
		n, oobn, _, _, rerr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT)
		if rerr == unix.EAGAIN || rerr == unix.EINTR {
			return false
		}
		if rerr == nil {
			at, mark = s.timestamp(oob[:oobn]), markOf(oob[:oobn])
		}
		return true
	})
	return n, at, mark, errors.Join(err, rerr)
}

// markOf finds the mark among the ancillary data; 0 is none.
func markOf(oob []byte) uint32 {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_MARK && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data)
		}
	}
	return 0
}
