package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// NetlinkMessage is one message of a netlink datagram; Body is behind its
// header and belongs to who received it only until he receives again.
type NetlinkMessage struct {
	Type  uint16
	Flags uint16
	Seq   uint32
	Body  []byte
}

// Done says whether m is the last message of a dump, which is whole if err is
// nil.
func (m NetlinkMessage) Done() (done bool, err error) {
	if m.Type != unix.NLMSG_DONE {
		return false, nil
	}
	if len(m.Body) >= 4 {
		if code := int32(binary.NativeEndian.Uint32(m.Body)); code < 0 {
			return true, syscall.Errno(-code)
		}
	}
	return true, nil
}

// Answer says whether m ends a request: with an error, or without one if what was
// asked for is done.
func (m NetlinkMessage) Answer() (answer bool, err error) {
	if m.Type != unix.NLMSG_ERROR {
		return false, nil
	}
	if len(m.Body) < 4 {
		return true, errors.New("netlink: an answer that is too short")
	}
	if code := int32(binary.NativeEndian.Uint32(m.Body)); code != 0 {
		return true, syscall.Errno(-code)
	}
	return true, nil
}

// Interrupted says that what is dumped has changed meanwhile in a way that can
// have hidden something.
func (m NetlinkMessage) Interrupted() bool { return m.Flags&unix.NLM_F_DUMP_INTR != 0 }

// SplitMessages appends the messages of a datagram to msgs. What is behind a
// message that does not fit is an error; what is before it is appended.
func SplitMessages(msgs []NetlinkMessage, b []byte) ([]NetlinkMessage, error) {
	for len(b) > 0 {
		if len(b) < unix.SizeofNlMsghdr {
			return msgs, fmt.Errorf("netlink: %d bytes are left over", len(b))
		}
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			return msgs, fmt.Errorf("netlink: a message of %d bytes in %d", n, len(b))
		}
		msgs = append(msgs, NetlinkMessage{
			Type:  binary.NativeEndian.Uint16(b[4:]),
			Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq:   binary.NativeEndian.Uint32(b[8:]),
			Body:  b[unix.SizeofNlMsghdr:n:n],
		})
		b = b[min((n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return msgs, nil
}

// appendMessage appends a message with that body to b.
func appendMessage(b []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the sender's port: the kernel knows it
	return append(b, body...)
}
