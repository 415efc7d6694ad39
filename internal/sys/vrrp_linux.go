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

// ProtocolVRRP is the IP protocol of adverts.
const ProtocolVRRP = 112

// VRRPSocket sends and receives adverts of one family on one link (a raw socket
// of IP protocol 112). It never blocks. Checksums are its user's: the kernel
// neither fills them in nor looks at them.
//
// What it sends has hop limit 255 and the traffic class of network control; what
// it sends to a group does not come back to this machine.
type VRRPSocket struct {
	fd      int
	ifindex int
	six     bool
}

// OpenVRRPSocket opens one on a link of the calling thread's network namespace.
// It needs CAP_NET_RAW.
func OpenVRRPSocket(ifindex int, six bool) (s *VRRPSocket, err error) {
	family, name := unix.AF_INET, "IPv4"
	if six {
		family, name = unix.AF_INET6, "IPv6"
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, ProtocolVRRP)
	if err != nil {
		return nil, fmt.Errorf("socket for %s adverts on link %d: %w", name, ifindex, needs(err, unix.CAP_NET_RAW))
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	set := func(level, option, value int) func() error {
		return func() error { return unix.SetsockoptInt(fd, level, option, value) }
	}
	type step struct {
		what string
		do   func() error
	}
	const control = 7 // TC_PRIO_CONTROL
	steps := []step{
		{"link", set(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, ifindex)},
	}
	if six {
		steps = append(steps,
			step{"multicast link", set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifindex)},
			step{"multicast hop limit", set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)},
			step{"multicast loop", set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0)},
			step{"only joined groups", set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0)},
			step{"hop limit", set(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255)},
			step{"traffic class", set(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0xc0)},
			step{"destinations", set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)},
			step{"hop limits", set(unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)})
	} else {
		steps = append(steps,
			step{"multicast link", func() error {
				return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifindex)})
			}},
			step{"multicast TTL", set(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 255)},
			step{"multicast loop", set(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0)},
			step{"only joined groups", set(unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0)},
			step{"TTL", set(unix.IPPROTO_IP, unix.IP_TTL, 255)},
			step{"type of service", set(unix.IPPROTO_IP, unix.IP_TOS, 0xc0)})
	}
	// After the type of service, which sets a priority too.
	steps = append(steps, step{"priority", set(unix.SOL_SOCKET, unix.SO_PRIORITY, control)})
	for _, step := range steps {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("socket for %s adverts on link %d: %s: %w", name, ifindex, step.what, err)
		}
	}
	return &VRRPSocket{fd: fd, ifindex: ifindex, six: six}, nil
}

// Join makes the socket receive what is sent to a multicast group on its link.
func (s *VRRPSocket) Join(group netip.Addr) error {
	var err error
	if s.six {
		err = unix.SetsockoptIPv6Mreq(s.fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(s.ifindex)})
	} else if group.Is4() {
		err = unix.SetsockoptIPMreqn(s.fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(s.ifindex)})
	} else {
		err = unix.EAFNOSUPPORT
	}
	if err != nil {
		return fmt.Errorf("join %v on link %d: %w", group, s.ifindex, err)
	}
	return nil
}

// FD is the descriptor, for an [Epoll]; it remains the socket's.
func (s *VRRPSocket) FD() int { return s.fd }

// Receive fills the batch with what has arrived; EAGAIN means nothing. It does
// not allocate.
func (s *VRRPSocket) Receive(b *Batch) (n int, errno syscall.Errno) { return b.receive(s.fd) }

// Send sends one message from an address of this machine to a group or a peer,
// over the socket's link. It does not allocate. A full queue is an error
// (ENOBUFS, EAGAIN), it is not waited for.
func (s *VRRPSocket) Send(msg []byte, from, to netip.Addr) syscall.Errno {
	var (
		name4   unix.RawSockaddrInet4
		name6   unix.RawSockaddrInet6
		control [controlSize]byte
		iov     unix.Iovec
		h       unix.Msghdr
	)
	if from.Is4() == s.six || to.Is4() == s.six {
		return unix.EAFNOSUPPORT
	}
	iov.Base = unsafe.SliceData(msg)
	iov.SetLen(len(msg))
	h.Iov = &iov
	h.SetIovlen(1)
	h.Control = &control[0]
	c := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := unsafe.Pointer(&control[unix.CmsgLen(0)])
	if s.six {
		name6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.As16(), Scope_id: uint32(s.ifindex)}
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&name6)), unix.SizeofSockaddrInet6
		c.Level, c.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		c.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		h.SetControllen(unix.CmsgSpace(unix.SizeofInet6Pktinfo))
		*(*unix.Inet6Pktinfo)(data) = unix.Inet6Pktinfo{Addr: from.As16(), Ifindex: uint32(s.ifindex)}
	} else {
		name4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.As4()}
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&name4)), unix.SizeofSockaddrInet4
		c.Level, c.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		c.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		h.SetControllen(unix.CmsgSpace(unix.SizeofInet4Pktinfo))
		*(*unix.Inet4Pktinfo)(data) = unix.Inet4Pktinfo{Ifindex: int32(s.ifindex), Spec_dst: from.As4()}
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return errno
}

// Close closes the socket.
func (s *VRRPSocket) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// needs adds to a refusal which capability is missing.
func needs(err error, capability int) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: it needs %v", err, CapabilitySet(capability))
	}
	return err
}
