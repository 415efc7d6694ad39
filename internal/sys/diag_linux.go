package sys

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The message types of NETLINK_SOCK_DIAG.
const (
	DiagByFamily = unix.SOCK_DIAG_BY_FAMILY
	DiagDestroy  = unix.SOCK_DESTROY
)

// Groups of DiagWatch: sockets of one address family that the kernel frees.
const (
	DiagDestroyed4 = 1 << (unix.SKNLGRP_INET_TCP_DESTROY - 1)
	DiagDestroyed6 = 1 << (unix.SKNLGRP_INET6_TCP_DESTROY - 1)
)

// diagPatience is how long the kernel may take for an answer. It answers
// within the call that asks; this only keeps a caller from waiting for ever.
const diagPatience = 5 * time.Second

// diagBuffer is larger than any datagram of NETLINK_SOCK_DIAG: the largest are
// the pieces of a dump, 32 KiB.
const diagBuffer = 64 << 10

// DiagEach is how many requests Each takes at once. Their answers fit into every
// socket's receive buffer.
const DiagEach = 64

// diagAnswer is larger than what is told of one socket without its TCP_INFO.
const diagAnswer = 1 << 10

// A DiagSocket asks NETLINK_SOCK_DIAG about the network namespace of the thread
// that opened it.
type DiagSocket struct {
	fd      int
	seq     uint32
	out     []byte
	in      []byte
	answers *Batch // of Each
}

// OpenDiag opens one.
func OpenDiag() (_ *DiagSocket, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("socket NETLINK_SOCK_DIAG: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	patience := unix.NsecToTimeval(int64(diagPatience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return nil, fmt.Errorf("time limit of NETLINK_SOCK_DIAG: %w", err)
	}
	// An answer that something failed need not hold the request as well.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// Connected to the kernel, it takes messages from nobody else.
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("connect NETLINK_SOCK_DIAG: %w", err)
	}
	return &DiagSocket{fd: fd, in: make([]byte, diagBuffer)}, nil
}

// Ask sends a request and returns the number that its answers carry. A dump
// (dump true) is answered by many messages, the last of them Done; everything
// else by one.
func (s *DiagSocket) Ask(kind uint16, dump bool, body []byte) (seq uint32, err error) {
	s.seq++
	flags := uint16(unix.NLM_F_REQUEST)
	if dump {
		flags |= unix.NLM_F_DUMP
	}
	if kind == DiagDestroy {
		flags |= unix.NLM_F_ACK // it has no other answer
	}
	s.out = appendMessage(s.out[:0], kind, flags, s.seq, body)
	return s.seq, s.send()
}

func (s *DiagSocket) send() error {
	for {
		_, err := unix.Write(s.fd, s.out)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send on NETLINK_SOCK_DIAG: %w", err)
		}
		return nil
	}
}

// Each sends at most [DiagEach] requests, which have one answer each and whose
// bodies lie one behind the other, size bytes each; and hands on the answers: m to
// request i. It is not for dumps. It allocates nothing from the second time on.
func (s *DiagSocket) Each(kind uint16, bodies []byte, size int, take func(i int, m NetlinkMessage) error) error {
	if s.answers == nil {
		s.answers = NewBatch(DiagEach, diagAnswer)
	}
	first, n := s.seq+1, 0
	s.out = s.out[:0]
	for ; len(bodies) >= size && n < DiagEach; bodies = bodies[size:] {
		s.seq++
		s.out = appendMessage(s.out, kind, unix.NLM_F_REQUEST, s.seq, bodies[:size])
		for len(s.out)%unix.NLMSG_ALIGNTO != 0 {
			s.out = append(s.out, 0)
		}
		n++
	}
	if err := s.send(); err != nil {
		return err
	}
	var room [4]NetlinkMessage
	for left := n; left > 0; {
		// They have been there since the send.
		got, errno := s.answers.receive(s.fd)
		if errno != 0 {
			return fmt.Errorf("receive on NETLINK_SOCK_DIAG: %d of %d answers are missing: %w", left, n, errno)
		}
		for i := range got {
			msgs, err := SplitMessages(room[:0], s.answers.Bytes(i))
			if err != nil {
				return err
			}
			for _, m := range msgs {
				if m.Seq-first >= uint32(n) {
					continue // of a request whose answer was not waited for
				}
				left--
				if err := take(int(m.Seq-first), m); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Receive appends one datagram's messages to msgs. They are valid until the
// next call.
func (s *DiagSocket) Receive(msgs []NetlinkMessage) ([]NetlinkMessage, error) {
	for {
		n, err := unix.Read(s.fd, s.in)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return msgs, fmt.Errorf("receive on NETLINK_SOCK_DIAG: the kernel has not answered for %s: %w", diagPatience, os.ErrDeadlineExceeded)
		case err != nil:
			return msgs, fmt.Errorf("receive on NETLINK_SOCK_DIAG: %w", err)
		case n == len(s.in):
			return msgs, fmt.Errorf("receive on NETLINK_SOCK_DIAG: a datagram does not fit into %d bytes", n)
		}
		return SplitMessages(msgs, s.in[:n])
	}
}

// Close closes the socket.
func (s *DiagSocket) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// A DiagWatch receives what NETLINK_SOCK_DIAG tells of its own accord.
type DiagWatch struct {
	file   *os.File
	raw    syscall.RawConn
	buf    []byte
	closed atomic.Bool
}

// OpenDiagWatch subscribes to groups in the network namespace of the calling
// thread. buffer is how many bytes the kernel may keep for a slow reader; who
// lacks CAP_NET_ADMIN gets at most net.core.rmem_max.
func OpenDiagWatch(groups uint32, buffer int) (*DiagWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("socket NETLINK_SOCK_DIAG: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("subscribe to NETLINK_SOCK_DIAG: %w", err)
	}
	file := os.NewFile(uintptr(fd), "NETLINK_SOCK_DIAG")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &DiagWatch{file: file, raw: raw, buf: make([]byte, diagBuffer)}, nil
}

// Receive appends one datagram's messages to msgs; they are valid until the next
// call. With wait it waits for one, else more is false when there is none. lost
// is true when the kernel has dropped some because nobody read, and drops more
// until everything that lies there is read. Stop and Close end a wait.
func (w *DiagWatch) Receive(msgs []NetlinkMessage, wait bool) (_ []NetlinkMessage, more, lost bool, err error) {
	var n int
	var from unix.Sockaddr
	var rerr error
	err = w.raw.Read(func(fd uintptr) bool {
		for {
			n, from, rerr = unix.Recvfrom(int(fd), w.buf, unix.MSG_TRUNC)
			if rerr != unix.EINTR {
				return rerr != unix.EAGAIN || !wait
			}
		}
	})
	switch {
	case err != nil && w.closed.Load():
		return msgs, false, false, os.ErrClosed // the runtime has an error of its own for it
	case err != nil:
		return msgs, false, false, err
	case rerr == unix.EAGAIN:
		return msgs, false, false, nil
	case rerr == unix.ENOBUFS:
		return msgs, true, true, nil
	case rerr != nil:
		return msgs, false, false, fmt.Errorf("receive on NETLINK_SOCK_DIAG: %w", rerr)
	case n > len(w.buf):
		return msgs, true, true, nil
	}
	if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
		return msgs, true, false, nil // not from the kernel
	}
	msgs, err = SplitMessages(msgs, w.buf[:n])
	return msgs, true, false, err
}

// StopWith makes a wait in Receive end with os.ErrDeadlineExceeded when ctx is
// done. The returned function takes that back, and must be called before the
// next StopWith.
func (w *DiagWatch) StopWith(ctx context.Context) (release func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = w.file.SetReadDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-ended
			_ = w.file.SetReadDeadline(time.Time{})
		}
	}
}

// Close ends the subscription, and a wait in Receive with os.ErrClosed.
func (w *DiagWatch) Close() error {
	if w.closed.Swap(true) {
		return nil
	}
	return w.file.Close()
}
