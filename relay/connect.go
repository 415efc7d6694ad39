//go:build linux

package relay

import (
	"errors"
	"log/slog"
	"net/netip"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/internal/sourceport"
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
	p.locate()
	p.client.come()
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
		if p.redial {
			p.redial = false
		} else {
			t, err := p.service.pick(p.from.Addr(), p.tried)
			if err != nil {
				p.refuse(err)
				return
			}
			p.target = t
			p.attempts++
		}
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
	fd, errno := -1, syscall.EADDRNOTAVAIL
	if l := p.way(addr); l != nil {
		fd, errno = p.dialFrom(l)
	}
	if fd < 0 && errno == syscall.EADDRNOTAVAIL {
		if fd, errno = p.socket(addr, false); errno == 0 {
			errno = sys.Connect(fd, addr.ip, addr.path)
		}
	}
	if fd < 0 {
		if errno == syscall.EMFILE || errno == syscall.ENFILE {
			p.loop.relay.gate.byDescriptors.Add(1)
		}
		p.reset(CauseResources, ByRelay, "socket: "+errno.Error())
		return true
	}
	p.backend = leg{pair: p, fd: fd, side: ByBackend, tcp: !addr.IsUnix()}
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

// socket makes one for a backend leg; bound says that it is to be bound.
func (p *pair) socket(addr Address, bound bool) (fd int, errno syscall.Errno) {
	p.loop.relay.descriptors.RLock()
	fd, errno = sys.Socket(addr.ip.Addr())
	p.loop.relay.descriptors.RUnlock()
	if errno != 0 || addr.IsUnix() {
		return fd, errno
	}
	if bound {
		// The kernel then lets a port be bound that another way uses, and judges
		// by all four numbers when it connects.
		_ = sys.SetReuseAddr(fd)
	}
	// Without a hold, small writes would wait for the backend's delayed
	// acknowledgements. A failure costs latency only.
	_ = sys.SetNoDelay(fd)
	return fd, 0
}

// trialTimeout bounds a connect that is to find out whether a backend answers to an
// address: no longer than that does a client wait for a backend that does not.
const trialTimeout = 500 * time.Millisecond

// way is the lane that the backend leg is to go by; nil: from the machine's own
// address.
func (p *pair) way(to Address) *sourceport.Lane {
	origins := p.service.origins.Load()
	if !p.local.IsValid() || p.doubted != nil || origins == nil {
		return nil
	}
	from := origins.Of(p.local.Addr(), to.ip.Addr())
	if !from.IsValid() {
		return nil
	}
	s := &p.loop.relay.lanes
	l := s.Lane(sourceport.Way{From: from, To: to.ip})
	open, trial := l.Open(p.loop.now)
	if !open {
		s.byNoWay.Add(1)
		return nil
	}
	p.trial = trial
	return l
}

// portTries bounds how many source ports a leg tries that the kernel does not let
// it have: others of this machine use them, or their last connection on this way is
// not forgotten yet (TIME_WAIT) and its end cannot be told from a new beginning. A
// kernel that can tell them apart, by timestamps (RFC 6191), lets it have the port
// at once: so it does for a bound socket, whatever net.ipv4.tcp_tw_reuse says.
const portTries = 64

// dialFrom connects on a lane. EADDRNOTAVAIL without a descriptor says that the leg
// is to come from the machine's own address.
func (p *pair) dialFrom(l *sourceport.Lane) (fd int, errno syscall.Errno) {
	s, addr := &p.loop.relay.lanes, p.target.Address
	fd = -1
	for range portTries {
		port, ok := l.Take()
		if !ok {
			break
		}
		if fd < 0 {
			if fd, errno = p.socket(addr, true); errno != 0 {
				l.Give(port)
				return -1, errno
			}
		}
		errno = sys.BindPort(fd, netip.AddrPortFrom(l.From, port))
		if errno == syscall.EADDRINUSE {
			l.Give(port)
			continue
		}
		away := errno != 0 // also EADDRNOTAVAIL: no IP_FREEBIND, as this is the question whether the address is here
		if !away {
			errno = sys.Connect(fd, addr.ip, "")
			away = errno == syscall.EINVAL
		}
		if !away && errno != syscall.EADDRNOTAVAIL {
			p.lane, p.port = l, port
			if p.trial {
				p.at(&p.connectBy, min(p.connectBy, p.loop.now+int64(trialTimeout)))
			}
			return fd, errno
		}
		l.Give(port)
		sys.Close(fd) // it stays bound: the next try takes another
		fd = -1
		if away {
			p.trial = false
			s.byAway.Add(1)
			return -1, syscall.EADDRNOTAVAIL
		}
	}
	if fd >= 0 {
		sys.Close(fd)
	}
	p.trial = false
	s.byPorts.Add(1)
	return -1, syscall.EADDRNOTAVAIL
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
	p.openedAt = p.loop.now
	p.judgeWay()
	p.backend.come()
	p.service.opened(p.target)
	p.startWatching()
}

// judgeWay draws the conclusion from a connect that has succeeded.
func (p *pair) judgeWay() {
	tell := func(what string, from netip.Addr) {
		p.service.warn(what, slog.String("backend", p.target.Name), slog.String("address", from.String()))
	}
	switch l := p.lane; {
	case l != nil:
		if l.Prove() {
			tell("a backend answers to the address again: its connections come from there", l.From)
		}
	case p.doubted != nil:
		p.loop.relay.lanes.byNoWay.Add(1)
		// One that was slow to answer here as well may have been so there.
		if p.loop.now-p.dialed < int64(trialTimeout) && p.doubted.Shut(p.loop.now) {
			tell("a backend answers to this machine's own address, and not to the one that its connections should come from: "+
				"see to its way back, or nobody can tell it when the address moves", p.doubted.From)
		}
	}
	p.trial, p.doubted = false, nil
}

// failed gives up on the chosen backend, or has it tried again from another
// address.
func (p *pair) failed(errno syscall.Errno) {
	if l := p.lane; l != nil {
		l.Doubt()
		if p.trial {
			p.backend.close()
			p.doubted, p.redial = l, true
			p.connectBy = 0
			return
		}
	}
	t := p.target
	p.lastErr = t.Name + ": " + errno.Error()
	switch errno {
	case syscall.EADDRNOTAVAIL:
		p.short = true
		p.lastErr = t.Name + ": no source port is left: widen net.ipv4.ip_local_port_range, set net.ipv4.tcp_tw_reuse to 1, or add backends"
	case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
		// This machine's fault, perhaps for this destination only.
		p.short = true
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
	p.trial, p.redial, p.doubted = false, false, nil
	p.connectBy, p.retryAt = 0, 0
}

// refuse tells the client that there is nobody to serve it.
func (p *pair) refuse(err error) {
	switch {
	case len(p.tried) > 0:
		cause := CauseUnreachable
		if p.short {
			cause = CauseResources
		}
		p.reset(cause, ByRelay, "no backend is left; the last error was "+p.lastErr)
	case errors.Is(err, balance.ErrFull):
		p.reset(CauseNoBackend, ByRelay, "every backend that is up is at its connection limit")
	default:
		p.reset(CauseNoBackend, ByRelay, p.service.whyNobody())
	}
}
