package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// The pieces of linux/inet_diag.h and linux/socket.h that are used here. They are
// the same on every architecture; numbers without another word are in the
// machine's order.
const (
	afInet  = 2
	afInet6 = 10

	protocolTCP = 6

	// struct inet_diag_req_v2
	requestSize   = 56
	requestExt    = 2
	requestStates = 4
	requestID     = 8

	// struct inet_diag_msg
	messageSize     = 72
	messageState    = 1
	messageTimer    = 2
	messageRetrans  = 3
	messageID       = 4
	messageExpires  = 52
	messageReceiveQ = 56
	messageSendQ    = 60
	messageUID      = 64
	messageInode    = 68

	// struct inet_diag_sockid; ports and addresses in network order
	idSize       = 48
	idLocalPort  = 0
	idRemotePort = 2
	idLocal      = 4
	idRemote     = 20
	idInterface  = 36
	idCookie     = 40

	requestBytecode = 1 // INET_DIAG_REQ_BYTECODE

	// attributes of an answer, INET_DIAG_*
	attributeInfo     = 2
	attributeShutdown = 8
	attributeV6Only   = 11
	attributeMark     = 15
	attributeCgroup   = 21

	attributeHeader = 4
	attributeMask   = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

var order = binary.NativeEndian

// appendRequest appends a request (struct inet_diag_req_v2) for the sockets of
// one address family.
func appendRequest(b []byte, family byte, states States, info bool) []byte {
	n := len(b)
	b = append(b, make([]byte, requestSize)...)
	r := b[n:]
	r[0], r[1] = family, protocolTCP
	if info {
		r[requestExt] = 1 << (attributeInfo - 1)
	}
	order.PutUint32(r[requestStates:], uint32(states))
	return b
}

// appendAttribute appends a netlink attribute. b must be aligned.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = order.AppendUint16(b, uint16(attributeHeader+len(value)))
	b = order.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// noCookie in a request stands for any.
const noCookie = 1<<64 - 1

// appendExact appends a request for one socket.
func appendExact(b []byte, family byte, local, remote netip.AddrPort, ifindex int, cookie uint64) []byte {
	n := len(b)
	b = appendRequest(b, family, AllStates, false)
	id := b[n+requestID:]
	binary.BigEndian.PutUint16(id[idLocalPort:], local.Port())
	binary.BigEndian.PutUint16(id[idRemotePort:], remote.Port())
	putAddress(id[idLocal:], family, local.Addr())
	putAddress(id[idRemote:], family, remote.Addr())
	order.PutUint32(id[idInterface:], uint32(ifindex))
	order.PutUint32(id[idCookie:], uint32(cookie))
	order.PutUint32(id[idCookie+4:], uint32(cookie>>32))
	return b
}

// putAddress writes a as a socket of that family has it.
func putAddress(b []byte, family byte, a netip.Addr) {
	if family == afInet {
		v4 := a.Unmap().As4()
		copy(b, v4[:])
		return
	}
	v6 := a.As16()
	copy(b, v6[:])
}

// decode reads a struct inet_diag_msg and its attributes.
func decode(b []byte) (Socket, error) {
	if len(b) < messageSize {
		return Socket{}, fmt.Errorf("a socket of %d bytes, at least %d", len(b), messageSize)
	}
	s := Socket{
		State:        State(b[messageState]),
		Timer:        Timer(b[messageTimer]),
		Retransmits:  b[messageRetrans],
		TimerLeft:    time.Duration(order.Uint32(b[messageExpires:])) * time.Millisecond,
		ReceiveQueue: order.Uint32(b[messageReceiveQ:]),
		SendQueue:    order.Uint32(b[messageSendQ:]),
		UID:          order.Uint32(b[messageUID:]),
		Inode:        order.Uint32(b[messageInode:]),
	}
	id := b[messageID : messageID+idSize]
	var local, remote netip.Addr
	switch b[0] {
	case afInet:
		local, remote = netip.AddrFrom4([4]byte(id[idLocal:])), netip.AddrFrom4([4]byte(id[idRemote:]))
	case afInet6:
		local, remote = netip.AddrFrom16([16]byte(id[idLocal:])), netip.AddrFrom16([16]byte(id[idRemote:]))
		if local.Is4In6() {
			s.Mapped = true
			local = local.Unmap()
			remote = remote.Unmap()
			if remote == netip.IPv6Unspecified() { // bound to an IPv4 address, not connected
				remote = netip.IPv4Unspecified()
			}
		}
	default:
		return Socket{}, fmt.Errorf("a socket of address family %d", b[0])
	}
	s.Local = netip.AddrPortFrom(local, binary.BigEndian.Uint16(id[idLocalPort:]))
	s.Remote = netip.AddrPortFrom(remote, binary.BigEndian.Uint16(id[idRemotePort:]))
	s.Interface = int(order.Uint32(id[idInterface:]))
	s.Cookie = uint64(order.Uint32(id[idCookie:])) | uint64(order.Uint32(id[idCookie+4:]))<<32

	for rest := b[messageSize:]; len(rest) > 0; {
		if len(rest) < attributeHeader {
			return Socket{}, fmt.Errorf("socket %s: %d bytes are left over", s, len(rest))
		}
		n := int(order.Uint16(rest))
		if n < attributeHeader || n > len(rest) {
			return Socket{}, fmt.Errorf("socket %s: an attribute of %d bytes in %d", s, n, len(rest))
		}
		value := rest[attributeHeader:n]
		switch kind := order.Uint16(rest[2:]) & attributeMask; {
		case kind == attributeInfo && len(value) > 0:
			info := ParseTCPInfo(value)
			s.Info = &info
		case kind == attributeShutdown && len(value) >= 1:
			s.Shutdown = Shutdown(value[0] & 3)
		case kind == attributeV6Only && len(value) >= 1:
			s.V6Only = value[0] != 0
		case kind == attributeMark && len(value) >= 4:
			s.Mark = order.Uint32(value)
		case kind == attributeCgroup && len(value) >= 8:
			s.Cgroup = order.Uint64(value)
		}
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return s, nil
}
