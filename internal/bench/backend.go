package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// The protocol between client and backend: what a client sends comes back, so
// that a request of messageSize bytes is answered by as many. A first byte of
// askStream instead turns the connection into an endless stream from the
// backend; it occurs nowhere in a request.
const (
	messageSize = 64
	askStream   = 's'

	bulkChunk = 128 << 10
	backlog   = 4096
)

// backend is the server behind every candidate: epoll loops, the first of which
// also accepts and deals connections out in turn.
type backend struct {
	listener int
	loops    []*sys.Epoll
	next     int
	// streams says which descriptors carry a stream. A slot belongs to the loop
	// that watches the descriptor and is false while nobody does; it is atomic
	// because the next loop to own it is another one.
	streams []atomic.Bool
}

// serve listens, prints the address it got, and serves until stdin ends.
func serve(r role, stdin io.Reader, stdout io.Writer) error {
	fd, err := listen(r.Listen)
	if err != nil {
		return err
	}
	local, err := sys.LocalAddr(fd)
	if err != nil {
		return err
	}
	files, _, err := sys.FileLimit()
	if err != nil {
		return err
	}
	b := &backend{listener: fd, streams: make([]atomic.Bool, min(files, 1<<20))}
	for range r.Loops {
		ep, err := sys.NewEpoll(256)
		if err != nil {
			return err
		}
		b.loops = append(b.loops, ep)
	}
	if errno := b.loops[0].Add(fd, sys.EventIn, uint64(fd)); errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	failed := make(chan error, r.Loops)
	for _, ep := range b.loops {
		go func() { failed <- b.run(ep) }()
	}
	fmt.Fprintln(stdout, local)
	go func() {
		untilParentGone(stdin)
		failed <- nil
	}()
	return <-failed
}

func listen(addr netip.AddrPort) (fd int, err error) {
	fd, errno := sys.Socket(addr.Addr())
	if errno != 0 {
		return -1, os.NewSyscallError("socket", errno)
	}
	if errno := sys.SetReuseAddr(fd); errno != 0 {
		return -1, os.NewSyscallError("setsockopt", errno)
	}
	if err := sys.Bind(fd, addr, ""); err != nil {
		return -1, fmt.Errorf("backend on %s: %w", addr, err)
	}
	return fd, sys.Listen(fd, backlog)
}

func (b *backend) run(ep *sys.Epoll) error {
	chunk := make([]byte, bulkChunk)
	requests := make([]byte, 4096)
	var events []sys.Event
	for {
		var err error
		if events, err = ep.Wait(events, -1); err != nil {
			return err
		}
		for _, ev := range events {
			fd := int(ev.Key)
			switch {
			case fd == b.listener:
				if err := b.accept(); err != nil {
					return err
				}
			case b.streams[fd].Load():
				// Level-triggered: what does not fit now is asked for again.
				if _, errno := sys.Send(fd, chunk); errno != 0 && errno != syscall.EAGAIN {
					b.close(fd)
				}
			default:
				b.answer(ep, fd, ev.Bits, requests)
			}
		}
	}
}

// accept takes all that wait. A full descriptor table is an error: the rows are
// chosen so that it does not happen.
func (b *backend) accept() error {
	for {
		fd, _, errno := sys.Accept(b.listener)
		switch {
		case errno == syscall.EAGAIN:
			return nil
		case errno == syscall.ECONNABORTED || errno == syscall.EINTR:
			continue
		case errno != 0:
			return fmt.Errorf("backend: %w", os.NewSyscallError("accept", errno))
		case fd >= len(b.streams):
			return errors.New("backend: more descriptors than its limit said")
		}
		_ = sys.SetNoDelay(fd)
		ep := b.loops[b.next%len(b.loops)]
		b.next++
		if errno := ep.Add(fd, sys.EventIn|sys.EventPeerEnd|sys.EventEdge, uint64(fd)); errno != 0 {
			return os.NewSyscallError("epoll_ctl", errno)
		}
	}
}

// answer sends back what has come.
func (b *backend) answer(ep *sys.Epoll, fd int, bits uint32, buffer []byte) {
	for {
		n, errno := sys.Recv(fd, buffer)
		switch {
		case errno == syscall.EAGAIN:
			return
		case errno != 0 || n == 0:
			b.close(fd)
			return
		case buffer[0] == askStream:
			b.stream(ep, fd)
			return
		}
		// A client has one request out at a time: it always fits.
		if _, errno := sys.Send(fd, buffer[:n]); errno != 0 {
			b.close(fd)
			return
		}
		if n < len(buffer) && bits&(sys.EventPeerEnd|sys.EventHangup|sys.EventError) == 0 {
			return // drained: more makes a new edge
		}
	}
}

func (b *backend) stream(ep *sys.Epoll, fd int) {
	b.streams[fd].Store(true)
	_ = ep.Delete(fd)
	if errno := ep.Add(fd, sys.EventOut, uint64(fd)); errno != 0 {
		b.close(fd)
	}
}

func (b *backend) close(fd int) {
	b.streams[fd].Store(false)
	sys.Close(fd)
}
