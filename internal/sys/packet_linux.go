package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FilterInsn is one instruction of a classic BPF socket filter.
type FilterInsn struct {
	Op          uint16
	True, False uint8 // how many instructions a jump skips
	K           uint32
}

// PacketSocket receives copies of the frames of one link (AF_PACKET).
type PacketSocket struct {
	file *os.File
	// now is the moment at which this process has read both clocks most
	// nearly at once; only Receive uses it.
	now time.Time
}

// KeepTimestamps makes the kernel note the time of every frame until the
// returned file is closed. It begins a little later; frames before that are
// stamped when they are read.
func KeepTimestamps() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket for timestamps: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("timestamps: %w", err)
	}
	return os.NewFile(uintptr(fd), "timestamps"), nil
}

// packetBuffer is what the kernel may keep for a slow reader, in bytes.
const packetBuffer = 32 << 20

// OpenPacketSocket opens one on a link of the calling thread's network
// namespace. No frame that the filter refuses is ever queued.
func OpenPacketSocket(ifindex int, filter []FilterInsn) (s *PacketSocket, err error) {
	// Protocol 0 receives nothing until bind.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	insns := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		insns[i] = unix.SockFilter{Code: f.Op, Jt: f.True, Jf: f.False, K: f.K}
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: unsafe.SliceData(insns)}
	all := uint16(unix.ETH_P_ALL)
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"filter", func() error {
			return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
		}},
		{"timestamps", func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) }},
		{"buffer", func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetBuffer) }},
		{"bind", func() error {
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: ifindex})
		}},
	} {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("packet socket on link %d: %s: %w", ifindex, step.what, err)
		}
	}
	return &PacketSocket{file: os.NewFile(uintptr(fd), "packet"), now: time.Now()}, nil
}

// Receive waits for a frame and copies its beginning into buf. at is when the
// kernel saw it, outgoing whether this machine's end of the link sent it.
func (s *PacketSocket) Receive(buf []byte) (n int, at time.Time, outgoing bool, err error) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0, at, false, err
	}
	oob := make([]byte, 64)
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		var oobn int
		var from unix.Sockaddr
		n, oobn, _, from, rerr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT)
		if rerr == unix.EAGAIN || rerr == unix.EINTR {
			return false
		}
		if rerr == nil {
			at = s.timestamp(oob[:oobn])
			ll, ok := from.(*unix.SockaddrLinklayer)
			outgoing = ok && ll.Pkttype == unix.PACKET_OUTGOING
		}
		return true
	})
	return n, at, outgoing, errors.Join(err, rerr)
}

// timestamp finds the kernel's time of arrival and gives it a monotonic
// reading, by which it can be compared with time.Now.
func (s *PacketSocket) timestamp(oob []byte) time.Time {
	now := s.clocks()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return now
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			sec, nsec := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return now.Add(time.Duration(int64(sec)*1e9 + int64(nsec) - now.UnixNano()))
		}
	}
	return now
}

// clockStep is how far apart two readings of both clocks are if the wall clock
// was set in between, and not only one of them interrupted.
const clockStep = 5 * time.Millisecond

// clocks gives a moment with both clocks' readings. time.Now reads one after
// the other, and the thread may lose the processor in between: of two moments
// the one whose monotonic reading is earlier, against the wall, is the better.
func (s *PacketSocket) clocks() time.Time {
	now := time.Now()
	late := now.Sub(s.now) - time.Duration(now.UnixNano()-s.now.UnixNano())
	if late < 0 || late > clockStep {
		s.now = now
	}
	return s.now
}

// Dropped gives how many frames the kernel has dropped since the last call,
// because the reader was slow.
func (s *PacketSocket) Dropped() (uint64, error) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var stats *unix.TpacketStats
	var serr error
	err = raw.Control(func(fd uintptr) {
		stats, serr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err := errors.Join(err, serr); err != nil {
		return 0, err
	}
	return uint64(stats.Drops), nil
}

// Close closes the socket; a Receive that waits returns an error.
func (s *PacketSocket) Close() error { return s.file.Close() }
