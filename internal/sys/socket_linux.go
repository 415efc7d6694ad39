package sys

import (
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below that return a bare [syscall.Errno] are for event loops: they
// never block (the descriptor must be non-blocking), never allocate, and are
// made without telling the Go scheduler, which is worth about a tenth of a
// relay's CPU. Zero means success. Never use them on a blocking descriptor.

// Recv reads from a non-blocking socket (recvfrom(2)). n == 0 with no error
// and len(p) > 0 is end of stream.
func Recv(fd int, p []byte) (n int, errno syscall.Errno) {
	r, _, e := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Send writes to a non-blocking socket (sendto(2)) and never raises SIGPIPE.
func Send(fd int, p []byte) (n int, errno syscall.Errno) {
	r, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// Accept takes one connection from a non-blocking listener. The new socket is
// non-blocking and close-on-exec. The address is the zero AddrPort for a unix
// socket.
func Accept(fd int) (conn int, from netip.AddrPort, errno syscall.Errno) {
	var rsa unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	r, _, e := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&rsa)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if e != 0 {
		return -1, netip.AddrPort{}, e
	}
	return int(r), addrPort(&rsa), 0
}

func addrPort(rsa *unix.RawSockaddrAny) netip.AddrPort {
	switch rsa.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(rsa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), ntohs(&sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(rsa))
		ip := netip.AddrFrom16(sa.Addr)
		if sa.Scope_id != 0 {
			ip = ip.WithZone(zoneName(sa.Scope_id))
		}
		return netip.AddrPortFrom(ip, ntohs(&sa.Port))
	}
	return netip.AddrPort{}
}

func ntohs(p *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(p))
	return uint16(b[0])<<8 | uint16(b[1])
}

// Close closes a descriptor without telling the scheduler. A socket with
// SO_LINGER of a positive time would block: none of ours has one.
func Close(fd int) {
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// ShutdownWrite sends the end of stream behind what was written.
func ShutdownWrite(fd int) syscall.Errno {
	_, _, e := syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return e
}

// Reset closes a TCP socket so that its peer receives a RST instead of an end
// of stream (SO_LINGER with time zero, then close). What the socket had not
// sent yet is dropped. On a unix socket it is a plain close.
func Reset(fd int) {
	linger := unix.Linger{Onoff: 1}
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
	Close(fd)
}

// Socket makes a non-blocking, close-on-exec stream socket for addr: TCP (not
// MPTCP) for an IP address, a unix stream socket for the zero Addr.
func Socket(addr netip.Addr) (fd int, errno syscall.Errno) {
	family, proto := unix.AF_UNIX, 0
	switch {
	case addr.Is4():
		family, proto = unix.AF_INET, unix.IPPROTO_TCP
	case addr.Is6():
		family, proto = unix.AF_INET6, unix.IPPROTO_TCP
	}
	r, _, e := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, uintptr(proto))
	if e != 0 {
		return -1, e
	}
	return int(r), 0
}

// Connect starts connecting a non-blocking socket to a TCP address, or to the
// unix socket at path when addr is the zero AddrPort. EINPROGRESS is the usual
// answer.
func Connect(fd int, addr netip.AddrPort, path string) syscall.Errno {
	rsa, size, e := rawSockaddr(addr, path)
	if e != 0 {
		return e
	}
	_, _, e = syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&rsa)), size)
	return e
}

// Bind gives a socket its local address; see [Connect] for the arguments.
func Bind(fd int, addr netip.AddrPort, path string) error {
	rsa, size, e := rawSockaddr(addr, path)
	if e == 0 {
		_, _, e = syscall.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&rsa)), size)
	}
	if e != 0 {
		return os.NewSyscallError("bind", e)
	}
	return nil
}

// BindPort is [Bind] to an IP address and port, for event loops.
func BindPort(fd int, addr netip.AddrPort) syscall.Errno {
	rsa, size, e := rawSockaddr(addr, "")
	if e == 0 {
		_, _, e = syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&rsa)), size)
	}
	return e
}

// Listen makes a bound socket accept connections.
func Listen(fd, backlog int) error {
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

func rawSockaddr(addr netip.AddrPort, path string) (rsa unix.RawSockaddrAny, size uintptr, errno syscall.Errno) {
	port := [2]byte{byte(addr.Port() >> 8), byte(addr.Port())}
	switch ip := addr.Addr(); {
	case ip.Is4():
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&rsa))
		sa.Family, sa.Addr = unix.AF_INET, ip.As4()
		sa.Port = *(*uint16)(unsafe.Pointer(&port))
		return rsa, unix.SizeofSockaddrInet4, 0
	case ip.Is6():
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&rsa))
		sa.Family, sa.Addr, sa.Scope_id = unix.AF_INET6, ip.As16(), zoneID(ip.Zone())
		sa.Port = *(*uint16)(unsafe.Pointer(&port))
		return rsa, unix.SizeofSockaddrInet6, 0
	}
	sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(&rsa))
	sa.Family = unix.AF_UNIX
	if path == "" || len(path) >= len(sa.Path) {
		return rsa, 0, unix.ENAMETOOLONG
	}
	for i := range len(path) {
		sa.Path[i] = int8(path[i])
	}
	return rsa, uintptr(2 + len(path) + 1), 0
}

// LocalAddr returns what a TCP socket is bound to.
func LocalAddr(fd int) (netip.AddrPort, error) {
	var rsa unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	if _, _, e := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&rsa)), uintptr(unsafe.Pointer(&size))); e != 0 {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", e)
	}
	return addrPort(&rsa), nil
}

// SetFreebind lets a socket be bound to an address of addr's family that this
// machine does not have, or not yet (IP_FREEBIND, IPV6_FREEBIND).
func SetFreebind(fd int, addr netip.Addr) syscall.Errno {
	if addr.Is6() {
		return setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}
	return setInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
}

func setInt(fd, level, opt, value int) syscall.Errno {
	v := int32(value)
	_, _, e := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(unsafe.Pointer(&v)), 4, 0)
	return e
}

// SetReuseAddr lets a listener bind while connections of an earlier one linger.
func SetReuseAddr(fd int) syscall.Errno { return setInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }

// SetV6Only keeps an IPv6 listener from taking IPv4 connections as well.
func SetV6Only(fd int) syscall.Errno { return setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1) }

// SetNoDelay switches Nagle's algorithm off.
func SetNoDelay(fd int) syscall.Errno { return setInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// SetKeepalive makes the kernel probe a quiet connection every interval, first
// after the same time, and give it up after count unanswered probes. The
// interval is in whole seconds, at least one: tcp(7) knows nothing finer.
func SetKeepalive(fd int, interval time.Duration, count int) syscall.Errno {
	secs := max(1, int(interval/time.Second))
	for _, o := range [...]struct{ level, opt, value int }{
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, secs},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		// Last: with keepalive on, setting the idle time re-arms the timer
		// with the silence so far counted.
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, secs},
	} {
		if e := setInt(fd, o.level, o.opt, o.value); e != 0 {
			return e
		}
	}
	return 0
}

// SetMaxRTO bounds the time between two retransmissions and between two
// zero-window probes (TCP_RTO_MAX_MS, Linux 6.15; ENOPROTOOPT before). The
// kernel takes 1 s to 120 s.
func SetMaxRTO(fd int, d time.Duration) syscall.Errno {
	ms := min(max(d.Milliseconds(), 1000), 120_000)
	return setInt(fd, unix.IPPROTO_TCP, tcpRTOMaxMS, int(ms))
}

// tcpRTOMaxMS is TCP_RTO_MAX_MS of include/uapi/linux/tcp.h.
const tcpRTOMaxMS = 44

// SocketError returns and clears the pending error of a socket (SO_ERROR).
func SocketError(fd int) syscall.Errno {
	var v, size int32 = 0, 4
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR, uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return e
	}
	return syscall.Errno(v)
}

// Unread returns how many bytes a socket has received that nobody has read
// (SIOCINQ). An end of stream behind them is not counted.
func Unread(fd int) (int, syscall.Errno) { return ioctlInt(fd, unix.SIOCINQ) }

// Unacked returns how many bytes were written to a TCP socket that the peer's
// kernel has not acknowledged (SIOCOUTQ). A FIN that was sent and not
// acknowledged counts as one.
func Unacked(fd int) (int, syscall.Errno) { return ioctlInt(fd, unix.SIOCOUTQ) }

func ioctlInt(fd int, req uintptr) (int, syscall.Errno) {
	var v int32
	_, _, e := syscall.RawSyscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(&v)))
	return int(v), e
}
