package sys

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PacketSender sends whole IP packets, whose source need not be an address of
// this machine. The kernel finds their way, and the neighbour, as for its own. Packets
// pass its filters for outgoing packets, and the tc programs of the link. It
// never blocks.
type PacketSender struct{ fd4, fd6 int }

// packetMemory is what the kernel may hold of packets that wait, for a link or for the
// answer of a neighbour, in bytes of its memory: about 700 for each small one.
const packetMemory = 32 << 20

// OpenPacketSender opens one in the calling thread's network namespace. It needs
// CAP_NET_RAW, and CAP_NET_ADMIN for more than a few hundred packets that wait. Where
// the machine has no IPv6, sending that fails with EAFNOSUPPORT.
func OpenPacketSender() (s *PacketSender, err error) {
	s = &PacketSender{fd4: -1, fd6: -1}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.fd4, err = openRaw(unix.AF_INET); err != nil {
		return nil, err
	}
	s.fd6, err = openRaw(unix.AF_INET6)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		s.fd6, err = -1, nil
	}
	return s, err
}

func openRaw(family int) (fd int, err error) {
	// The protocol says that packets bring their own IP header.
	fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err == unix.EAFNOSUPPORT {
		return -1, err
	}
	if err != nil {
		return -1, fmt.Errorf("raw socket: %w", needs(err, unix.CAP_NET_RAW))
	}
	if family == unix.AF_INET6 {
		// Else a source that is not here is refused.
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("raw socket: IPV6_FREEBIND: %w", err)
		}
	}
	enlarge(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	return fd, nil
}

// enlarge gives a socket memory; without CAP_NET_ADMIN as much as everybody may
// have.
func enlarge(fd, force, ask int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, packetMemory) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, ask, packetMemory)
	}
}

// Send sends the packets of the box from number first on, in order, and gives how
// many the kernel has taken. The error is of the one after these. It does not allocate.
func (s *PacketSender) Send(o *Outbox, first int) (n int, errno syscall.Errno) {
	fd := s.fd4
	if o.v6 {
		fd = s.fd6
	}
	if fd < 0 {
		return 0, unix.EAFNOSUPPORT
	}
	if first >= o.n {
		return 0, 0
	}
	for {
		r, _, e := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&o.headers[first])), uintptr(o.n-first), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return 0, e
		}
		return int(r), 0
	}
}

// Close closes the sender.
func (s *PacketSender) Close() error {
	for _, fd := range []*int{&s.fd4, &s.fd6} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	return nil
}

// Outbox is where packets of one family are laid to be sent in one call. It is
// for one goroutine.
type Outbox struct {
	headers []mmsghdr
	iovecs  []unix.Iovec
	names   []unix.RawSockaddrAny
	control [][packetInfoSpace]byte
	data    []byte
	size, n int
	v6      bool
}

// packetInfoSpace holds the control message that names a packet's source.
const packetInfoSpace = 40

// NewOutbox makes room for n packets of size bytes each.
func NewOutbox(v6 bool, n, size int) *Outbox {
	o := &Outbox{
		headers: make([]mmsghdr, n),
		iovecs:  make([]unix.Iovec, n),
		names:   make([]unix.RawSockaddrAny, n),
		control: make([][packetInfoSpace]byte, n),
		data:    make([]byte, n*size),
		size:    size,
		v6:      v6,
	}
	for i := range o.headers {
		o.iovecs[i].Base = &o.data[i*size]
		h := &o.headers[i].header
		h.Iov = &o.iovecs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&o.names[i]))
		h.Control = &o.control[i][0]
		c := (*unix.Cmsghdr)(unsafe.Pointer(&o.control[i][0]))
		if v6 {
			h.Namelen = unix.SizeofSockaddrInet6
			h.SetControllen(unix.CmsgSpace(unix.SizeofInet6Pktinfo))
			c.Level, c.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
			c.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		} else {
			h.Namelen = unix.SizeofSockaddrInet4
			h.SetControllen(unix.CmsgSpace(unix.SizeofInet4Pktinfo))
			c.Level, c.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
			c.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		}
	}
	return o
}

// Len gives how many packets lie in the box.
func (o *Outbox) Len() int { return o.n }

// Room gives for how many more there is room.
func (o *Outbox) Room() int { return len(o.headers) - o.n }

// Clear empties the box.
func (o *Outbox) Clear() { o.n = 0 }

// Next gives the empty buffer of the next packet, to append it to and hand it to
// Add. There must be room.
func (o *Outbox) Next() []byte { return o.data[o.n*o.size:][:0:o.size] }

// Add lays the packet that Next's buffer was filled with into the box. Routes are
// chosen by both addresses; the zone of to, if it has one, is the link.
func (o *Outbox) Add(packet []byte, from, to netip.Addr) {
	i := o.n
	o.iovecs[i].SetLen(len(packet))
	data := unix.CmsgLen(0)
	if o.v6 {
		*(*unix.RawSockaddrInet6)(unsafe.Pointer(&o.names[i])) = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.As16(), Scope_id: zoneID(to.Zone())}
		*(*unix.Inet6Pktinfo)(unsafe.Pointer(&o.control[i][data])) = unix.Inet6Pktinfo{Addr: from.As16()}
	} else {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&o.names[i])) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.As4()}
		*(*unix.Inet4Pktinfo)(unsafe.Pointer(&o.control[i][data])) = unix.Inet4Pktinfo{Spec_dst: from.As4()}
	}
	o.n++
}

// PacketReceiver receives copies of the IP packets of one family that come in
// for this machine, on every link, whether their destination is an address of
// it or not. They begin with their IP header. They pass it before the tc
// programs and the kernel's filters. It never blocks.
//
// One that does not listen costs the machine nothing.
type PacketReceiver struct {
	fd       int
	protocol uint16
}

// OpenPacketReceiver opens one in the calling thread's network namespace, which
// does not listen yet, and admits nothing. It needs CAP_NET_RAW, and CAP_NET_ADMIN
// for a large buffer.
func OpenPacketReceiver(v6 bool) (r *PacketReceiver, err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", needs(err, unix.CAP_NET_RAW))
	}
	r = &PacketReceiver{fd: fd, protocol: unix.ETH_P_IP}
	if v6 {
		r.protocol = unix.ETH_P_IPV6
	}
	enlarge(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	if err := r.SetFilter([]FilterInsn{{Op: unix.BPF_RET | unix.BPF_K}}); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// SetFilter says which packets are received from now on: those for which the
// program, that sees them from the IP header on, gives the number of bytes to keep.
func (r *PacketReceiver) SetFilter(program []FilterInsn) error {
	insns := make([]unix.SockFilter, len(program))
	for i, f := range program {
		insns[i] = unix.SockFilter{Code: f.Op, Jt: f.True, Jf: f.False, K: f.K}
	}
	prog := unix.SockFprog{Len: uint16(len(insns)), Filter: unsafe.SliceData(insns)}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("filter of %d instructions for packets: %w", len(program), err)
	}
	return nil
}

// Listen makes packets come, or come no more. To begin is quick; to end takes the kernel
// some milliseconds.
func (r *PacketReceiver) Listen(on bool) error {
	// Protocol 0 would leave it where it is; this one has no frames (it is reserved).
	protocol := uint16(0xffff)
	if on {
		protocol = r.protocol<<8 | r.protocol>>8
	}
	return os.NewSyscallError("bind packet socket", unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: protocol}))
}

// FD is the descriptor, for an [Epoll]; it remains the receiver's.
func (r *PacketReceiver) FD() int { return r.fd }

// Receive fills the batch with what has arrived; EAGAIN means nothing. It does not
// allocate.
func (r *PacketReceiver) Receive(b *Batch) (n int, errno syscall.Errno) { return b.receive(r.fd) }

// Dropped gives how many packets the kernel has dropped since the last call,
// because they were not received in time.
func (r *PacketReceiver) Dropped() (uint64, error) {
	stats, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt PACKET_STATISTICS", err)
	}
	return uint64(stats.Drops), nil
}

// Close closes the receiver.
func (r *PacketReceiver) Close() error {
	if r.fd < 0 {
		return nil
	}
	fd := r.fd
	r.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}
