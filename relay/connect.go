//go:build linux

package relay

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// unixRetry bounds the pause before a unix socket whose accept queue is full is
// tried again: connect(2) does not wait there as it does for TCP. Between the
// bounds it is an eighth of what the client has waited, so that a long queue
// costs little.
const (
	minUnixRetry = 5 * time.Millisecond
	maxUnixRetry = 50 * time.Millisecond
)

// admit takes over an accepted client and starts looking for a backend.
func (l *loop) admit(s *Service, fd int, from netip.AddrPort) {
	if !s.allows(from) {
		l.turnAway(s, fd, from, CauseNotAllowed, "the client's address is in none of the allowed networks")
		return
	}
	id := l.relay.lastID.Add(1)
	entry, ok := l.store.open(id)
	if !ok || l.stopping {
		if ok {
			l.store.drop(entry)
		}
		l.turnAway(s, fd, from, CauseResources, "the relay has no room for another connection")
		return
	}
	p := &pair{
		loop: l, service: s, id: id, entry: entry, from: from,
		in: flow{slot: noSlot}, out: flow{slot: noSlot}, timer: noTimer,
		began: time.Now(), moved: l.now,
	}
	p.client = leg{pair: p, fd: fd, side: ByClient, tcp: from.IsValid()}
	p.backend = leg{pair: p, fd: -1, side: ByBackend}
	l.pairs.add(p)
	s.pairs[l.number].add(p)
	if errno := l.watch(&p.client); errno != 0 {
		p.reset(CauseResources, ByRelay, "epoll_ctl: "+errno.Error())
		return
	}
	p.attempt()
}

// turnAway resets a client that was given to this loop and is no connection yet.
func (l *loop) turnAway(s *Service, fd int, from netip.AddrPort, cause Cause, detail string) {
	sys.Reset(fd)
	l.load.Add(-1)
	s.refused(from, cause, detail)
	s.left()
}

// attempt tries backends until a connect is under way or established, or none
// is left.
func (p *pair) attempt() {
	for p.stage == stageConnecting {
		t, err := p.service.pick(p.from.Addr(), p.tried)
		if err != nil {
			p.refuse(err)
			return
		}
		p.target = t
		p.attempts++
		p.dialed = p.loop.now
		p.at(&p.connectBy, p.loop.now+int64(p.service.options.Load().ConnectTimeout))
		if p.dial() {
			return
		}
	}
}

// dial connects to the chosen backend. It reports false when that failed at
// once and another is to be tried.
func (p *pair) dial() bool {
	addr := p.target.Address
	p.loop.relay.descriptors.RLock()
	fd, errno := sys.Socket(addr.ip.Addr())
	p.loop.relay.descriptors.RUnlock()
	if errno != 0 {
		if errno == syscall.EMFILE || errno == syscall.ENFILE {
			p.loop.relay.gate.byDescriptors.Add(1)
		}
		p.reset(CauseResources, ByRelay, "socket: "+errno.Error())
		return true
	}
	p.backend = leg{pair: p, fd: fd, side: ByBackend, tcp: !addr.IsUnix()}
	if p.backend.tcp {
		// Without a hold, small writes would wait for the backend's delayed
		// acknowledgements. A failure costs latency only.
		_ = sys.SetNoDelay(fd)
	}
	errno = sys.Connect(fd, addr.ip, addr.path)
	switch {
	case errno == 0 || errno == syscall.EINPROGRESS:
		if e := p.loop.watch(&p.backend); e != 0 {
			p.reset(CauseResources, ByRelay, "epoll_ctl: "+e.Error())
			return true
		}
		if errno == 0 {
			p.opened()
			p.advance()
		}
		return true
	case errno == syscall.EAGAIN && addr.IsUnix():
		p.backend.close()
		pause := min(max((p.loop.now-p.dialed)/8, int64(minUnixRetry)), int64(maxUnixRetry))
		p.at(&p.retryAt, p.loop.now+pause)
		return true
	}
	p.failed(errno)
	return false
}

// connecting looks at a connect under way, after an event.
func (p *pair) connecting() {
	if p.client.hangup {
		// A client that ended its stream may well wait for an answer; one
		// that reset is gone.
		var info sys.TCPInfo
		if p.client.tcp && sys.GetTCPInfo(p.client.fd, &info) == 0 && info.State == sys.TCPClosed {
			p.client.over = overRST
			p.client.fail(syscall.ECONNRESET)
			p.brokenBy(&p.client)
			return
		}
	}
	g := &p.backend
	if g.fd < 0 || !g.writable && !g.hangup {
		return
	}
	if errno := sys.SocketError(g.fd); errno != 0 {
		p.failed(errno)
		p.attempt()
		return
	}
	if g.writable {
		p.opened()
	}
}

// opened marks the connection established.
func (p *pair) opened() {
	p.stage = stageOpen
	p.backend.writable = true
	p.connectBy, p.retryAt = 0, 0
	p.tried = nil
	p.moved = p.loop.now
	p.service.opened(p.target)
	p.startWatching()
}

// failed gives up on the chosen backend.
func (p *pair) failed(errno syscall.Errno) {
	t := p.target
	p.lastErr = t.Name + ": " + errno.Error()
	switch errno {
	case syscall.EADDRNOTAVAIL, syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
		// This machine's fault, perhaps for this destination only.
		p.local = true
	case syscall.ETIMEDOUT:
		p.service.evidence(t, EvidenceTimeout, p.dialed)
	default:
		p.service.evidence(t, EvidenceRefused, p.dialed)
	}
	p.abandon()
	p.tried = append(p.tried, t.Name)
}

// abandon ends the attempt at the chosen backend, so that another can be made.
func (p *pair) abandon() {
	p.backend.close()
	p.service.release(p.target)
	p.target = nil
	p.connectBy, p.retryAt = 0, 0
}

// refuse tells the client that there is nobody to serve it.
func (p *pair) refuse(err error) {
	switch {
	case len(p.tried) > 0:
		cause := CauseUnreachable
		if p.local {
			cause = CauseResources
		}
		p.reset(cause, ByRelay, "no backend is left; the last error was "+p.lastErr)
	case errors.Is(err, balance.ErrFull):
		p.reset(CauseNoBackend, ByRelay, "every backend that is up is at its connection limit")
	default:
		p.reset(CauseNoBackend, ByRelay, p.service.whyNobody())
	}
}
