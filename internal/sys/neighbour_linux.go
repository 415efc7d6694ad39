package sys

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NeighbourSocket sends any Ethernet frame on one link, and receives those that
// ask for and answer about neighbours: ARP, and IPv6 neighbour solicitations and
// advertisements without extension headers. It never blocks.
//
// It sees what the machine's kernel and other sockets send on the link too, not
// what it sends itself, nor frames to another host. Frames pass it before the tc programs on their way in,
// and after them on their way out: it sees what they refuse to let in, and not
// what they refuse to let out.
//
// Opening and closing one takes the kernel some milliseconds: it is done at the
// start, not in a takeover.
type NeighbourSocket struct{ fd int }

// What a filter can load besides the frame (linux/filter.h).
const (
	filterPacketType  = 0xfffff000 + 4
	filterVLANTag     = 0xfffff000 + 44
	filterVLANPresent = 0xfffff000 + 48
)

// neighbourFilter takes ARP, and ICMPv6 of types 135 and 136. A frame of a VLAN
// above the link comes by with its tag taken off: it is somebody else's, unless
// the tag is only a priority (VLAN 0). So is what a switch sends everywhere,
// because it does not know where the host is that it is for.
var neighbourFilter = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: filterPacketType},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_OTHERHOST, Jt: 13},
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: filterVLANPresent},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jt: 2},
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: filterVLANTag},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0xfff, Jt: 9},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12}, // EtherType
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_ARP, Jt: 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IPV6, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 20}, // next header
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMPV6, Jf: 4},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 54}, // type
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 135, Jt: 1},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 136, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// OpenNeighbourSocket opens one on a link of the calling thread's network
// namespace. It needs CAP_NET_RAW.
func OpenNeighbourSocket(ifindex int) (s *NeighbourSocket, err error) {
	// Protocol 0 receives nothing until bind, when the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket for neighbours on link %d: %w", ifindex, needs(err, unix.CAP_NET_RAW))
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	prog := unix.SockFprog{Len: uint16(len(neighbourFilter)), Filter: &neighbourFilter[0]}
	all := uint16(unix.ETH_P_ALL) // the only one that shows outgoing frames
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"filter", func() error { return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog) }},
		{"bind", func() error {
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: ifindex})
		}},
	} {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("socket for neighbours on link %d: %s: %w", ifindex, step.what, err)
		}
	}
	return &NeighbourSocket{fd: fd}, nil
}

// FD is the descriptor, for an [Epoll]; it remains the socket's.
func (s *NeighbourSocket) FD() int { return s.fd }

// Receive fills the batch with what has arrived; EAGAIN means nothing, ENETDOWN
// that the link went down in between. It does not allocate.
func (s *NeighbourSocket) Receive(b *Batch) (n int, errno syscall.Errno) { return b.receive(s.fd) }

// Send sends a whole Ethernet frame. It does not allocate.
func (s *NeighbourSocket) Send(frame []byte) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(frame))), uintptr(len(frame)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return errno
}

// Dropped gives how many frames the kernel has dropped since the last call,
// because they were not received in time.
func (s *NeighbourSocket) Dropped() (uint64, error) {
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt PACKET_STATISTICS", err)
	}
	return uint64(stats.Drops), nil
}

// Close closes the socket.
func (s *NeighbourSocket) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}
