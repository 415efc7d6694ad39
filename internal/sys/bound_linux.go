package sys

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A BoundSocket is a TCP socket that is bound to a port and neither listens nor
// connects: such sockets are in no list below /proc/net.
type BoundSocket struct {
	Local netip.AddrPort
	V6    bool
	UID   int
	Inode uint64
}

// The pieces of linux/inet_diag.h and linux/sock_diag.h that x/sys lacks.
const (
	tcpfBoundInactive    = 1 << 13
	inetDiagReqV2Size    = 56
	inetDiagMsgSize      = 72
	inetDiagMsgSrcPort   = 4
	inetDiagMsgSrc       = 8
	inetDiagMsgUID       = 64
	inetDiagMsgInode     = 68
	inetDiagReqStatesOff = 4
)

// BoundSockets lists the TCP sockets of one address family (AF_INET, AF_INET6)
// in this thread's network namespace that are bound and do nothing else. A
// kernel before 6.8 lists none.
func BoundSockets(v6 bool) ([]BoundSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("socket NETLINK_SOCK_DIAG: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()

	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	req := make([]byte, unix.SizeofNlMsghdr+inetDiagReqV2Size)
	h := (*unix.NlMsghdr)(unsafe.Pointer(&req[0]))
	h.Len = uint32(len(req))
	h.Type = unix.SOCK_DIAG_BY_FAMILY
	h.Flags = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	body := req[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[inetDiagReqStatesOff:], tcpfBoundInactive)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send on NETLINK_SOCK_DIAG: %w", err)
	}

	var found []BoundSocket
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("receive on NETLINK_SOCK_DIAG: %w", err)
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			m := (*unix.NlMsghdr)(unsafe.Pointer(&b[0]))
			if int(m.Len) < unix.SizeofNlMsghdr || int(m.Len) > len(b) {
				return nil, fmt.Errorf("NETLINK_SOCK_DIAG: message of %d bytes in %d", m.Len, len(b))
			}
			data := b[unix.SizeofNlMsghdr:m.Len]
			switch m.Type {
			case unix.NLMSG_DONE:
				return found, nil
			case unix.NLMSG_ERROR:
				if len(data) < 4 {
					return nil, fmt.Errorf("NETLINK_SOCK_DIAG: short error message")
				}
				return nil, fmt.Errorf("NETLINK_SOCK_DIAG: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(data))))
			case unix.SOCK_DIAG_BY_FAMILY:
				if len(data) >= inetDiagMsgSize {
					found = append(found, parseBound(data))
				}
			}
			b = b[min(len(b), (int(m.Len)+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
}

func parseBound(msg []byte) BoundSocket {
	s := BoundSocket{
		V6:    msg[0] == unix.AF_INET6,
		UID:   int(binary.NativeEndian.Uint32(msg[inetDiagMsgUID:])),
		Inode: uint64(binary.NativeEndian.Uint32(msg[inetDiagMsgInode:])),
	}
	port := binary.BigEndian.Uint16(msg[inetDiagMsgSrcPort:])
	addr := netip.AddrFrom4([4]byte(msg[inetDiagMsgSrc:]))
	if s.V6 {
		addr = netip.AddrFrom16([16]byte(msg[inetDiagMsgSrc:]))
	}
	s.Local = netip.AddrPortFrom(addr, port)
	return s
}
