//go:build linux

package relay

import (
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// at sets one of the pair's deadlines and makes sure that it comes up.
func (p *pair) at(deadline *int64, when int64) {
	*deadline = when
	p.loop.timers.set(p, when)
}

// tick runs the deadlines that are due and arms the rest.
func (p *pair) tick() {
	now := p.loop.now
	due := func(deadline *int64) bool {
		if *deadline == 0 || *deadline > now || p.stage == stageOver {
			return false
		}
		*deadline = 0
		return true
	}
	if p.stage == stageConnecting {
		if due(&p.retryAt) && !p.dial() {
			p.attempt()
		}
		if p.stage == stageConnecting && due(&p.connectBy) {
			p.failed(syscall.ETIMEDOUT)
			p.attempt()
		}
	}
	if due(&p.ackAt) || due(&p.answeredAt) {
		p.settle()
	}
	if due(&p.checkAt) {
		p.check()
	}
	if due(&p.idleAt) {
		p.expireIdle(&p.idleAt, p.service.options.Load().IdleTimeout, CauseIdle)
	}
	if due(&p.drainIdle) {
		p.expireIdle(&p.drainIdle, p.service.options.Load().Drain.Idle, CauseDrained)
	}
	if due(&p.drainBy) {
		p.reset(CauseDrained, ByRelay, "drain timeout")
	}
	if due(&p.lostAt) {
		p.reviewLost()
	}
	if p.stage == stageOver {
		return
	}
	for _, deadline := range [...]int64{p.retryAt, p.connectBy, p.ackAt, p.answeredAt, p.checkAt, p.idleAt, p.drainIdle, p.drainBy, p.lostAt} {
		if deadline != 0 {
			p.loop.timers.set(p, deadline)
		}
	}
}

// expireIdle resets a connection that has been idle for limit, or looks again
// when it would have been. A limit of 0 is one that was lifted meanwhile.
func (p *pair) expireIdle(deadline *int64, limit time.Duration, cause Cause) {
	if limit == 0 {
		return
	}
	if p.loop.now-p.moved >= int64(limit) {
		p.reset(cause, ByRelay, "idle for "+limit.String())
		return
	}
	p.at(deadline, p.moved+int64(limit))
}

// startWatching sets the deadlines that an established connection lives under.
func (p *pair) startWatching() {
	o := p.service.options.Load()
	if o.DeadPeerTimeout > 0 && (p.client.tcp || p.backend.tcp) {
		p.at(&p.checkAt, p.loop.now+int64(probeInterval(o.DeadPeerTimeout)))
	}
	if o.IdleTimeout > 0 {
		p.at(&p.idleAt, p.moved+int64(o.IdleTimeout))
	}
	if p.leaving || p.service.isDraining(p.target) {
		p.drain()
	}
}

// adopt has a connection that was made under the old options live under those
// of now. A bound that is exceeded already ends it here.
func (p *pair) adopt(old, now *ServiceOptions) {
	if p.stage == stageConnecting {
		if p.connectBy != 0 && now.ConnectTimeout != old.ConnectTimeout {
			p.at(&p.connectBy, p.dialed+int64(now.ConnectTimeout))
		}
		return
	}
	if now.DeadPeerTimeout != old.DeadPeerTimeout && (p.client.tcp || p.backend.tcp) {
		p.checkAt = p.loop.now
		p.client.probed, p.backend.probed = false, false // the kernel is to ask at other intervals
		if now.DeadPeerTimeout < 0 {
			p.checkAt, p.stuckAt = 0, 0
			p.client.stopProbing()
			p.backend.stopProbing()
		}
	}
	if now.IdleTimeout != old.IdleTimeout {
		if p.idleAt = 0; now.IdleTimeout > 0 {
			p.at(&p.idleAt, p.moved+int64(now.IdleTimeout))
		}
	}
	if now.OnBackendLost != old.OnBackendLost {
		p.adoptLost(now.OnBackendLost)
	}
	if p.stage == stageOpen {
		p.bound()
		p.tick()
	}
}

// adoptLost applies another policy to a connection whose backend is marked down.
func (p *pair) adoptLost(policy LostPolicy) {
	switch {
	case policy == LostDrain:
		p.lost, p.lostAt = nil, 0
	case p.lost == nil:
		if down := p.service.down(p.target); down != nil {
			p.backendLost(down.since, down.why)
		}
	}
}

// bound puts the connection under the bounds of Drain as they are now, or lifts
// them, as the state of its backend and service asks.
func (p *pair) bound() {
	if p.lost != nil || p.leaving || p.service.isDraining(p.target) {
		p.drain()
	} else {
		p.drainFrom, p.drainBy, p.drainIdle = 0, 0, 0
	}
}

// drain sets the bounds of Drain, which count from when this was first called.
func (p *pair) drain() {
	d := p.service.options.Load().Drain
	if p.drainFrom == 0 {
		p.drainFrom = p.loop.now
	}
	p.drainBy, p.drainIdle = 0, 0
	if d.Timeout > 0 {
		p.at(&p.drainBy, p.drainFrom+int64(d.Timeout))
	}
	// A connection to a lost backend that only delivers what is left has until
	// the timeout, however slowly its client reads.
	if d.Idle > 0 && (p.lost == nil || p.lostAt != 0) {
		p.at(&p.drainIdle, p.moved+int64(d.Idle))
	}
}

// probeInterval is the time between two probes of a quiet peer: whole seconds,
// as tcp(7) counts, and at least six of them within the bound.
func probeInterval(bound time.Duration) time.Duration {
	return max(time.Second, (bound / 7).Truncate(time.Second))
}

// check asks the kernel how long each side has been silent.
//
// The judge of a dead peer is this silence, and nothing else: the time since
// the last data or acknowledgement, answers to probes included. The kernel only
// does the asking. Keepalive asks a quiet peer; retransmission asks one that
// owes acknowledgements, zero-window probes one that does not read, both at
// least once an interval because their back-off is bounded (TCP_RTO_MAX_MS). So
// one bound holds for every traffic pattern, and a peer that answers lives for
// ever. TCP_USER_TIMEOUT is not set: it also kills a reader that has paused for
// the time but answers every probe (docs/decisions/0003).
func (p *pair) check() {
	bound := p.service.options.Load().DeadPeerTimeout
	if bound < 0 {
		return // it was lifted meanwhile
	}
	wait := bound
	for _, g := range [...]*leg{&p.client, &p.backend} {
		if !g.tcp || g.fd < 0 {
			continue
		}
		asked := g.probed
		if !asked {
			g.probed = true
			g.startProbing(bound)
		}
		var info sys.TCPInfo
		if sys.GetTCPInfo(g.fd, &info) != 0 || info.State == sys.TCPClosed {
			continue // broken: what it sent is being delivered; see stuck
		}
		silence := min(info.LastDataReceived, info.LastACKReceived)
		if silence >= bound {
			if asked && (info.Unacked > 0 || info.Probes > 0 || info.Retransmits > 0) {
				g.over = overDead
				g.fail(syscall.ETIMEDOUT)
				p.settle()
				return
			}
			// Silent, but never asked: this process was stopped before it
			// first came here, or a kernel without TCP_RTO_MAX_MS lets the gaps
			// between zero-window probes grow beyond the bound.
			silence = bound - probeInterval(bound)
		}
		wait = min(wait, bound-silence)
	}
	if p.stuck(bound) {
		return
	}
	p.at(&p.checkAt, p.loop.now+int64(max(wait, 10*time.Millisecond)))
}

func (g *leg) startProbing(bound time.Duration) {
	interval := probeInterval(bound)
	// Failures leave the kernel's own, slower ways of finding a dead peer.
	// The count makes the kernel a second judge, one that never comes first.
	_ = sys.SetKeepalive(g.fd, interval, int(bound/interval)+2)
	_ = sys.SetMaxRTO(g.fd, interval)
}

// maxRTO is the kernel's own bound (TCP_RTO_MAX).
const maxRTO = 120 * time.Second

func (g *leg) stopProbing() {
	if g.tcp && g.fd >= 0 {
		_ = sys.StopKeepalive(g.fd)
		_ = sys.SetMaxRTO(g.fd, maxRTO)
	}
}

// stuck ends a connection whose one side is gone by RST while the other has
// not taken a byte of what is left for it for the whole bound: nobody but the
// relay would keep it.
func (p *pair) stuck(bound time.Duration) bool {
	var f *flow
	var src, dst *leg
	switch {
	case p.backend.erred:
		f, src, dst = &p.out, &p.backend, &p.client
	case p.client.erred:
		f, src, dst = &p.in, &p.client, &p.backend
	default:
		return false
	}
	taken := f.written - uint64(unacked(dst))
	if p.stuckAt == 0 || taken != p.taken {
		p.stuckAt, p.taken = p.loop.now, taken
		return false
	}
	if p.loop.now-p.stuckAt < int64(bound) {
		return false
	}
	p.reset(CauseReset, src.side, "the other side stopped reading what was left")
	return true
}

// lost is what a connection remembers while it may finish although its backend
// is marked down.
type lost struct {
	why   string
	quiet int64  // nothing heard for this long: it is silent
	heard uint64 // bytes received and acknowledged at the last look
}

// minQuiet is the shortest silence that says anything about a backend that is
// still heard from when it is marked down.
const minQuiet = 100 * time.Millisecond

// backendLost applies the policy for a lost backend to one of its established
// connections. since is when the last failed check began: what was heard after
// it was heard from a backend that is thought dead.
func (p *pair) backendLost(since time.Time, why string) {
	ago := max(time.Since(since), 0)
	p.lost = &lost{why: why, quiet: int64(max(ago, minQuiet))}
	if p.delivering() {
		// The backend has said all it had to say; it is the client that reads.
		p.drain()
		return
	}
	alive := time.Duration(p.loop.now-p.moved) < ago
	if p.backend.tcp {
		var info sys.TCPInfo
		if sys.GetTCPInfo(p.backend.fd, &info) != 0 {
			alive = false
		} else {
			alive = min(info.LastDataReceived, info.LastACKReceived) < ago
			p.lost.heard = info.BytesReceived + info.BytesAcked
		}
	}
	if !alive {
		p.reset(CauseBackendDown, ByBackend, why)
		return
	}
	p.at(&p.lostAt, p.loop.now+p.lost.quiet)
	p.drain() // knows lostAt
}

// delivering reports whether the backend has ended its stream and the client
// is still being given it.
func (p *pair) delivering() bool {
	return (p.backend.over != notOver || p.backend.hangup) && !p.out.passed && (p.out.held() || p.backend.readable || unacked(&p.client) > 0)
}

// reviewLost looks whether a connection to a backend that is marked down still
// makes progress.
func (p *pair) reviewLost() {
	if p.lost == nil {
		return
	}
	progress := p.delivering()
	if p.backend.tcp {
		var info sys.TCPInfo
		if sys.GetTCPInfo(p.backend.fd, &info) == 0 {
			heard := info.BytesReceived + info.BytesAcked
			progress = progress || heard != p.lost.heard
			p.lost.heard = heard
		}
	} else {
		progress = progress || p.loop.now-p.moved < p.lost.quiet
	}
	if !progress {
		p.reset(CauseBackendDown, ByBackend, p.lost.why)
		return
	}
	p.at(&p.lostAt, p.loop.now+p.lost.quiet)
}

// backendFound takes back what backendLost has begun.
func (p *pair) backendFound() {
	if p.lost != nil {
		p.lost, p.lostAt = nil, 0
		p.bound()
	}
}
