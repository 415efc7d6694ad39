package sys

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// controlSize holds what a raw IPv6 socket tells beside a datagram: the
// destination and the hop limit.
const controlSize = 64

// Batch is where a socket's messages are received, many in one call, without
// allocation. What it gives out is valid until it is filled again. It is for
// one goroutine, and for any number of sockets in turn.
type Batch struct {
	headers []mmsghdr
	iovecs  []unix.Iovec
	names   []unix.RawSockaddrAny
	control [][controlSize]byte
	data    []byte
	size    int
	n       int
}

// NewBatch makes room for n messages of size bytes each. What is longer is cut,
// and Cut says so.
func NewBatch(n, size int) *Batch {
	b := &Batch{
		headers: make([]mmsghdr, n),
		iovecs:  make([]unix.Iovec, n),
		names:   make([]unix.RawSockaddrAny, n),
		control: make([][controlSize]byte, n),
		data:    make([]byte, n*size),
		size:    size,
	}
	for i := range b.headers {
		b.iovecs[i].Base = &b.data[i*size]
		b.iovecs[i].SetLen(size)
		h := &b.headers[i].header
		h.Iov = &b.iovecs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.control[i][0]
	}
	return b
}

// receive takes what has arrived, at most as many as there is room for. EAGAIN
// means that there is nothing.
func (b *Batch) receive(fd int) (n int, errno syscall.Errno) {
	for i := range b.headers {
		h := &b.headers[i].header
		h.Namelen = unix.SizeofSockaddrAny
		h.SetControllen(controlSize)
	}
	b.n = 0
	for {
		r, _, e := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])), uintptr(len(b.headers)), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return 0, e
		}
		b.n = int(r)
		return b.n, 0
	}
}

// Len gives how many messages the batch holds.
func (b *Batch) Len() int { return b.n }

// Full says that there was no room for another: there may be more to receive.
func (b *Batch) Full() bool { return b.n == len(b.headers) }

// Bytes gives message i as it was received.
func (b *Batch) Bytes(i int) []byte { return b.data[i*b.size:][:b.headers[i].length] }

// Cut says whether message i was longer than there is room for.
func (b *Batch) Cut(i int) bool { return b.headers[i].header.Flags&unix.MSG_TRUNC != 0 }

// Frame gives the frame i of a [NeighbourSocket], and whether this machine
// sent it, instead of receiving it.
func (b *Batch) Frame(i int) (frame []byte, outgoing bool) {
	sa := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&b.names[i]))
	return b.Bytes(i), sa.Pkttype == unix.PACKET_OUTGOING
}

// Datagram is one message of a [VRRPSocket]. The addresses have no zone.
type Datagram struct {
	Message  []byte
	From, To netip.Addr
	HopLimit int // -1 if the kernel has not told
}

// Datagram gives the datagram i of a [VRRPSocket]; it is not valid if what was
// received is no whole IP datagram.
func (b *Batch) Datagram(i int) (d Datagram, valid bool) {
	raw := b.Bytes(i)
	switch b.names[i].Addr.Family {
	case unix.AF_INET: // with the IP header
		if len(raw) < 20 || b.Cut(i) {
			return Datagram{}, false
		}
		header := int(raw[0]&0xf) * 4
		if header < 20 || len(raw) < header {
			return Datagram{}, false
		}
		return Datagram{
			Message:  raw[header:],
			From:     netip.AddrFrom4([4]byte(raw[12:16])),
			To:       netip.AddrFrom4([4]byte(raw[16:20])),
			HopLimit: int(raw[8]),
		}, true
	case unix.AF_INET6: // without, what is needed of it is told beside
		if b.Cut(i) {
			return Datagram{}, false
		}
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&b.names[i]))
		d = Datagram{Message: raw, From: netip.AddrFrom16(sa.Addr), HopLimit: -1}
		b.told(i, &d)
		return d, d.To.IsValid()
	}
	return Datagram{}, false
}

// told reads the control messages of datagram i.
func (b *Batch) told(i int, d *Datagram) {
	oob := b.control[i][:min(b.headers[i].header.Controllen, controlSize)]
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		length := h.Len
		if length < unix.SizeofCmsghdr || length > uint64(len(oob)) {
			return
		}
		data := oob[unix.CmsgLen(0):length]
		if h.Level == unix.IPPROTO_IPV6 {
			switch {
			case h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
				d.To = netip.AddrFrom16([16]byte(data[:16]))
			case h.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
				d.HopLimit = int(*(*int32)(unsafe.Pointer(&data[0])))
			}
		}
		oob = oob[min(len(oob), unix.CmsgSpace(len(data))):]
	}
}
