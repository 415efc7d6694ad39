package sys

import (
	"encoding/binary"
	"fmt"
	"net/netip"

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
	s, err := OpenDiag()
	if err != nil {
		return nil, err
	}
	defer s.Close()

	request := make([]byte, inetDiagReqV2Size)
	request[0], request[1] = unix.AF_INET, unix.IPPROTO_TCP
	if v6 {
		request[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(request[inetDiagReqStatesOff:], tcpfBoundInactive)
	if _, err := s.Ask(DiagByFamily, true, request); err != nil {
		return nil, err
	}
	var found []BoundSocket
	var msgs []NetlinkMessage
	for {
		if msgs, err = s.Receive(msgs[:0]); err != nil {
			return nil, err
		}
		for _, m := range msgs {
			if done, err := m.Done(); done {
				return found, err
			}
			if refused, err := m.Answer(); refused {
				return nil, fmt.Errorf("NETLINK_SOCK_DIAG: %w", err)
			}
			if m.Type == DiagByFamily && len(m.Body) >= inetDiagMsgSize {
				found = append(found, parseBound(m.Body))
			}
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
