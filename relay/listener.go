//go:build linux

package relay

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// A listener is one listening socket, shared by all loops. It belongs to a
// service, and can pass to another without its queue noticing.
type listener struct {
	service atomic.Pointer[Service]
	fd      int
	asked   Address // as the options have it
	addr    Address // as bound: with the port that the kernel chose
	backlog int
	file    os.FileInfo // of a unix socket, so that only our own is removed

	refs    atomic.Int32 // loops that still watch it
	dropped atomic.Bool  // no loop is to watch it any more
	closed  chan struct{}
}

// bindListener makes a socket that is bound and does not listen yet; floating
// says that its address need not be here. An error is a [*ListenError].
func bindListener(a Address, floating bool) (*listener, error) {
	fd, errno := sys.Socket(a.ip.Addr())
	if errno != 0 {
		return nil, &ListenError{Address: a, Err: os.NewSyscallError("socket", errno)}
	}
	ln := &listener{fd: fd, asked: a, addr: a, closed: make(chan struct{})}
	err := prepareListener(fd, a, floating)
	if err == nil {
		if a.IsUnix() {
			ln.file, err = os.Lstat(a.path)
		} else {
			var local netip.AddrPort
			local, err = sys.LocalAddr(fd)
			ln.addr = AddressFrom(local)
		}
	}
	if err != nil {
		ln.close()
		return nil, &ListenError{Address: a, Err: err}
	}
	return ln, nil
}

func prepareListener(fd int, a Address, floating bool) error {
	if !a.IsUnix() {
		if errno := sys.SetReuseAddr(fd); errno != 0 {
			return os.NewSyscallError("setsockopt SO_REUSEADDR", errno)
		}
		// Accepted sockets inherit it. A failure costs latency only.
		_ = sys.SetNoDelay(fd)
	}
	if a.ip.Addr().Is6() {
		if errno := sys.SetV6Only(fd); errno != 0 {
			return os.NewSyscallError("setsockopt IPV6_V6ONLY", errno)
		}
	}
	if floating {
		if errno := sys.SetFreebind(fd, a.ip.Addr()); errno != 0 {
			return os.NewSyscallError("setsockopt IP_FREEBIND", errno)
		}
	}
	return sys.Bind(fd, a.ip, a.path)
}

// listen has the socket take connects. On one that listens already it only
// changes the length of the queue.
func (ln *listener) listen(backlog int) error {
	if err := sys.Listen(ln.fd, backlog); err != nil {
		return &ListenError{Address: ln.asked, Err: err}
	}
	ln.backlog = backlog
	return nil
}

// close closes the socket. No loop may watch it any more.
func (ln *listener) close() {
	defer close(ln.closed)
	sys.Close(ln.fd)
	// A successor may have put its own socket in the same place meanwhile.
	if ln.file != nil && !ln.gone() {
		_ = os.Remove(ln.addr.path)
	}
}

// gone reports whether the file of a unix socket was removed, or another was put
// in its place: nobody can connect any more.
func (ln *listener) gone() bool {
	if ln.file == nil {
		return false
	}
	now, err := os.Lstat(ln.addr.path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, ln.file)
}

// watchOnLoops has every loop accept from ln.
func (r *Relay) watchOnLoops(ln *listener) {
	ln.refs.Store(int32(len(r.loops)))
	for _, l := range r.loops {
		l.post(func() { l.addListener(ln) })
	}
}

// drop has the loops let go of ln. The last one accepts who is in its queue,
// and closes it; ln.closed tells. The caller holds mu.
func (r *Relay) drop(ln *listener) {
	ln.dropped.Store(true)
	if !r.running {
		ln.close() // no loop has come to watching it
		return
	}
	for _, l := range r.loops {
		if !l.post(func() { l.forget(ln) }) && ln.refs.Add(-1) == 0 {
			ln.close()
		}
	}
}

func (l *loop) addListener(ln *listener) {
	if ln.dropped.Load() {
		return
	}
	index := len(l.listeners)
	for i, old := range l.listeners {
		if old == nil {
			index = i
			break
		}
	}
	if index == len(l.listeners) {
		l.listeners = append(l.listeners, nil)
	}
	l.listeners[index] = ln
	if errno := l.watchListener(index, ln); errno != 0 {
		l.relay.log.Error("cannot watch a listener", "address", ln.addr.String(), "err", os.NewSyscallError("epoll_ctl", errno))
	}
}

// forget stops watching a listener that was dropped.
func (l *loop) forget(ln *listener) {
	for i, have := range l.listeners {
		if have == ln {
			_ = l.epoll.Delete(ln.fd) // the descriptor is valid, and in there
			l.listeners[i] = nil
		}
	}
	if ln.refs.Add(-1) > 0 {
		return
	}
	queue, _ := sys.ListenQueue(ln.fd)
	if ln.addr.IsUnix() {
		queue.Length = ln.service.Load().options.Load().Backlog + 1
	}
	l.empty(ln, queue.Length)
}

// empty accepts the clients that were in the queue of a dropped listener, at
// most so many, and closes it. Whoever completes a connect between the last
// accept and the close is reset by the kernel, like everybody after.
func (l *loop) empty(ln *listener, left int) {
	for range acceptBatch {
		if left == 0 || l.stopping || !l.acceptOne(ln) {
			ln.close()
			return
		}
		left--
	}
	if !l.post(func() { l.empty(ln, left) }) {
		ln.close()
	}
}

// accept takes what waits in a listener's queue.
func (l *loop) accept(ln *listener) {
	for range acceptBatch {
		if !l.acceptOne(ln) {
			return
		}
	}
}

// acceptOne takes one client, and reports whether there may be another.
func (l *loop) acceptOne(ln *listener) bool {
	l.relay.descriptors.RLock()
	fd, from, errno := sys.Accept(ln.fd)
	l.relay.descriptors.RUnlock()
	switch errno {
	case 0:
	case syscall.EAGAIN:
		return false
	case syscall.EINTR, syscall.ECONNABORTED:
		return true
	case syscall.EMFILE, syscall.ENFILE:
		return l.refuseOne(ln, errno)
	default:
		l.pause(ln)
		l.acceptFailed(ln, errno)
		return false
	}
	if ln.addr.IsUnix() {
		from = netip.AddrPort{}
	}
	s := ln.service.Load()
	s.accepted.Add(1)
	if why := l.relay.gate.enter(); why != "" {
		sys.Reset(fd)
		s.refused(from, CauseResources, why)
		return true
	}
	to := l.relay.leastLoaded(l)
	to.load.Add(1)
	s.live.Add(1) // here, so that Drain sees one that is handed over
	if to == l {
		l.admit(s, fd, from)
	} else if !to.post(func() { to.admit(s, fd, from) }) {
		to.turnAway(s, fd, from, CauseShutdown, "the relay was closed")
	}
	return true
}

// failureLogs is the shortest time between two lines about accepts that failed.
const failureLogs = time.Second

// acceptFailed logs why nobody can be accepted, at most once a second: a
// listener is tried again twenty times a second.
func (l *loop) acceptFailed(ln *listener, errno syscall.Errno) {
	l.acceptFailures++
	if l.acceptLogged != 0 && l.now-l.acceptLogged < int64(failureLogs) {
		return
	}
	ln.service.Load().warn("accept failed", slog.String("address", ln.addr.String()),
		slog.Any("err", os.NewSyscallError("accept4", errno)), slog.Uint64("times", l.acceptFailures))
	l.acceptLogged, l.acceptFailures = l.now, 0
}

// refuseOne uses the spare descriptor to accept one client and reset it: a
// process without descriptors refuses cleanly and does not spin.
func (l *loop) refuseOne(ln *listener, why syscall.Errno) bool {
	from, errno, spare := l.resetOne(ln)
	switch {
	case !spare:
		l.pause(ln)
		return false
	case errno != 0:
		if errno != syscall.EAGAIN {
			l.pause(ln) // somebody else in the process was faster
		}
		return false
	}
	if ln.addr.IsUnix() {
		from = netip.AddrPort{}
	}
	s := ln.service.Load()
	s.accepted.Add(1)
	l.relay.gate.byDescriptors.Add(1)
	s.refused(from, CauseResources, "no descriptors left: raise the limit of open files ("+why.Error()+")")
	return true
}

// resetOne accepts and resets one client in the place of the spare descriptor;
// spare says whether there was one.
func (l *loop) resetOne(ln *listener) (from netip.AddrPort, errno syscall.Errno, spare bool) {
	l.relay.descriptors.Lock() // no other loop may take what is free for a moment
	defer l.relay.descriptors.Unlock()
	if l.spare < 0 {
		l.openSpare()
	}
	if l.spare < 0 {
		return from, 0, false
	}
	sys.Close(l.spare)
	l.spare = -1
	fd, from, errno := sys.Accept(ln.fd)
	if errno == 0 {
		sys.Reset(fd)
	}
	l.openSpare()
	return from, errno, true
}

// acceptPause is how long a loop leaves a listener alone that it can accept
// nothing from. Its clients wait in the kernel's queue.
const acceptPause = 50 * time.Millisecond

// pause stops watching a listener for a moment: level-triggered, it would come
// up again at once, and the loop would spin.
func (l *loop) pause(ln *listener) {
	for i, have := range l.listeners {
		if have == ln && l.epoll.Delete(ln.fd) == 0 {
			l.paused = append(l.paused, i)
			l.pausedTo = l.now + int64(acceptPause)
		}
	}
}

// unpause watches listeners again whose pause is over.
func (l *loop) unpause() {
	if len(l.paused) == 0 || l.now < l.pausedTo {
		return
	}
	paused := l.paused
	l.paused = nil
	for _, i := range paused {
		// Meanwhile it may be gone, or another, which is watched already.
		if ln := l.listeners[i]; ln != nil {
			_ = l.watchListener(i, ln)
		}
	}
}

// watchListener is level-triggered: what one batch leaves in the queue comes
// up again.
func (l *loop) watchListener(index int, ln *listener) syscall.Errno {
	return l.epoll.Add(ln.fd, sys.EventIn|sys.EventExclusive, keyListener|uint64(index))
}

// ListenerStatus is one of a service's listening sockets as it stands.
type ListenerStatus struct {
	Address Address
	// Queue is how many connections wait to be accepted, and QueueMax how many
	// can: the kernel takes one more. Both are 0 for a unix socket, of which
	// the kernel does not tell.
	Queue, QueueMax int
	// Dropped is how many connects the kernel has dropped here since the
	// socket was made, nearly always because the queue was full. Unix sockets
	// drop none: their clients wait. It is 0 where the kernel does not tell
	// (SO_MEMINFO, Linux 4.12).
	Dropped uint64
	// Gone says that the file of a unix socket was removed, or replaced by
	// another: nobody can connect any more, until Configure makes it anew.
	Gone bool
}

// Listeners returns the service's listening sockets as the kernel sees them;
// none when it has stopped listening.
func (s *Service) Listeners() []ListenerStatus {
	s.mu.Lock() // they stay open while it is held
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	list := make([]ListenerStatus, len(s.listeners))
	for i, ln := range s.listeners {
		list[i].Address = ln.addr
		if ln.addr.IsUnix() {
			list[i].Gone = ln.gone()
			continue
		}
		queue, _ := sys.ListenQueue(ln.fd)
		list[i].Queue, list[i].QueueMax, list[i].Dropped = queue.Length, queue.Max, queue.Dropped
	}
	return list
}
