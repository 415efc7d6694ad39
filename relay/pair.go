//go:build linux

package relay

import (
	"net/netip"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sourceport"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// A leg is one of a connection's two sockets.
type leg struct {
	pair  *pair
	fd    int    // -1: none
	index uint32 // in loop.legs; 0: not watched
	side  Side
	tcp   bool

	readable bool // an edge said so, and no read has come back short since
	writable bool // no write has come back short since the last edge
	hangup   bool // the peer ended or broke the stream: a short read is not the end of it
	erred    bool // the kernel reports an error, read or not
	errno    syscall.Errno
	over     over // of the stream that comes from this leg
	probed   bool // keepalive is set
	told     bool // that it is there: Options.OnLegs
}

// note takes the bits of an event.
func (g *leg) note(bits uint32) {
	if bits&(sys.EventIn|sys.EventPeerEnd|sys.EventHangup|sys.EventError) != 0 {
		g.readable = true
	}
	if bits&sys.EventOut != 0 {
		g.writable = true
	}
	if bits&(sys.EventPeerEnd|sys.EventHangup|sys.EventError) != 0 {
		g.hangup = true
	}
	if bits&sys.EventError != 0 {
		g.erred = true
	}
	if g.erred && g.over != notOver {
		// Nobody reads a stream that has ended, so nobody else would learn
		// that a RST came behind its FIN.
		_ = g.failure()
	}
}

// fail records that the leg's connection is broken. What is unread stays
// readable.
func (g *leg) fail(errno syscall.Errno) {
	if errno != 0 && g.errno == 0 {
		g.errno = errno
	}
	if g.errno != 0 && g.over != notOver {
		g.over = overBy(g.errno)
	}
}

// broken reports whether the leg takes no more bytes.
func (g *leg) broken() bool { return g.erred || g.errno != 0 }

// failure is the error of a broken leg, also while its stream is still read.
func (g *leg) failure() syscall.Errno {
	if g.errno == 0 {
		g.fail(sys.SocketError(g.fd))
	}
	return g.errno
}

// A flow is one direction of a connection. read == written + len(held bytes).
type flow struct {
	read    uint64 // from the source's socket
	written uint64 // to the sink's socket
	slot    int32  // holds the bytes between; noSlot when there are none
	off     int32  // of the first of them in the slot
	end     int32
	passed  bool // the end of stream was passed on
}

const noSlot = -1

func (f *flow) held() bool { return f.slot != noSlot }

type stage uint8

const (
	stageConnecting stage = iota
	stageOpen
	stageOver
)

// A pair is a client's connection with its backend leg. It belongs to one loop
// for life and is touched by that loop's goroutine only.
type pair struct {
	loop    *loop
	service *Service
	id      uint64
	entry   int32 // in the store
	links   [chainKinds]links
	stage   stage
	queued  bool // in loop.again
	leaving bool // under the bounds of Drain, as the address it came to leaves
	from    netip.AddrPort
	local   netip.AddrPort // where the client has connected to, if that is in Groups

	client, backend leg
	in, out         flow // client to backend, backend to client

	target   *target  // the backend chosen; nil between two attempts
	tried    []string // backends that failed this client
	attempts int
	lastErr  string
	short    bool // a failure was this machine's own

	lane     *sourceport.Lane // of the backend leg; nil: it comes from the machine's own address
	port     uint16           // in lane
	trial    bool             // the leg is to find out whether the backend answers on lane
	redial   bool             // the trial has failed: the same backend once more, not by the lane
	doubted  *sourceport.Lane // on which the trial was; nil: there was none
	openedAt int64            // when the connect succeeded

	began  time.Time
	dialed int64 // when the connect to target began
	moved  int64 // when a byte last moved

	// Timers: when each is due, 0 for none. See deadline.go.
	timer      int
	due        int64
	connectBy  int64
	retryAt    int64
	checkAt    int64 // are the peers alive?
	ackAt      int64 // look again whether the last bytes are acknowledged
	ackWait    int64
	answeredAt int64
	idleAt     int64
	drainFrom  int64
	drainBy    int64
	drainIdle  int64
	lostAt     int64
	lost       *lost
	stuckAt    int64
	taken      uint64

	endedFirst Side  // whose end of stream came first; ByRelay: nobody's yet
	lastIn     int64 // when the client last sent something
	unanswered bool  // and the backend has sent nothing since

	writtenAtEnd uint64 // in.written when the backend's end of stream came
}

// advance moves what can be moved and draws the consequences.
func (p *pair) advance() {
	if p.stage == stageConnecting {
		p.connecting()
	}
	if p.stage != stageOpen {
		return
	}
	more := p.pump(&p.in, 0, &p.client, &p.backend)
	if p.stage != stageOpen {
		return
	}
	more = p.pump(&p.out, 1, &p.backend, &p.client) || more
	if p.stage != stageOpen {
		return
	}
	if p.client.over|p.backend.over != notOver || p.client.broken() || p.backend.broken() {
		if p.settle(); p.stage != stageOpen {
			return
		}
	}
	if more && !p.queued {
		p.queued = true
		p.loop.again = append(p.loop.again, p)
	}
}

// pump copies one direction until one side blocks or the budget is used up;
// more says the latter.
func (p *pair) pump(f *flow, direction int, src, dst *leg) (more bool) {
	l := p.loop
	for range pumpBudget {
		if f.held() {
			if !p.flush(f, dst) {
				return false
			}
		}
		if src.over != notOver || !src.readable || dst.broken() {
			return false
		}
		buf := l.store.bytes(l.scratch)
		l.store.note(p.entry, direction, l.scratch, f.read)
		n, errno := l.kernel.recv(src.fd, buf)
		switch {
		case errno == syscall.EAGAIN:
			src.readable = false
			return false
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			src.over = overRST // for fail to refine
			src.fail(errno)
			return false
		case n == 0:
			src.over = overFIN
			if src.broken() {
				// An error met while writing, or a RST behind the FIN, which
				// Linux does not show to a reader: no end of stream.
				_ = src.failure()
				src.fail(0)
			}
			if p.endedFirst == ByRelay {
				p.endedFirst = src.side
			}
			if src.side == ByBackend {
				p.writtenAtEnd = p.in.written
			}
			return false
		}
		f.read += uint64(n)
		p.moved = l.now
		if src.side == ByClient {
			p.lastIn, p.unanswered = l.now, true
		} else {
			p.unanswered = false
		}
		if n < len(buf) && !src.hangup {
			src.readable = false
		}
		f.slot, f.off, f.end = l.scratch, 0, int32(n)
		if !p.flush(f, dst) {
			// The slot stays with the flow, where the ledger says it is.
			if f.held() {
				slot, err := l.store.take()
				if err != nil {
					l.scratch, f.slot = f.slot, noSlot
					p.reset(CauseResources, ByRelay, err.Error())
					return false
				}
				l.scratch = slot
			}
			return false
		}
	}
	return true
}

// flush writes what a flow holds and reports whether it holds nothing any
// more. Bytes that can never be delivered, because the sink is broken, are
// dropped; they are still counted as read and not written.
func (p *pair) flush(f *flow, dst *leg) bool {
	l := p.loop
	for !dst.broken() {
		if !dst.writable {
			return false
		}
		n, errno := l.kernel.send(dst.fd, l.store.bytes(f.slot)[f.off:f.end])
		switch errno {
		case 0:
			f.written += uint64(n)
			f.off += int32(n)
			p.moved = l.now
			if f.off < f.end {
				dst.writable = false
				return false
			}
			p.letGo(f)
			return true
		case syscall.EAGAIN:
			dst.writable = false
			return false
		case syscall.EINTR:
		default:
			dst.fail(errno)
			// What the peer sent before it broke the connection is read first.
			dst.readable, dst.hangup = true, true
		}
	}
	p.letGo(f)
	return false
}

// letGo gives a flow's slot back, unless it is the loop's scratch.
func (p *pair) letGo(f *flow) {
	if f.held() && f.slot != p.loop.scratch {
		p.loop.store.give(f.slot)
	}
	f.slot = noSlot
}

// settle applies the rules of endings until they say wait.
func (p *pair) settle() {
	for {
		in, out := p.view(&p.in, &p.client, &p.backend), p.view(&p.out, &p.backend, &p.client)
		out.meant = p.listens()
		switch decide(in, out, p.answered()) {
		case actWait:
			p.awaitAcks(in, out)
			return
		case actEndBackend:
			p.passEnd(&p.in, &p.backend)
		case actEndClient:
			p.passEnd(&p.out, &p.client)
		case actClose:
			p.finish(End{Cause: CauseClosed, By: p.endedFirst, ToldClient: ToldFIN, ToldBackend: ToldFIN})
			return
		case actResetClient:
			p.brokenBy(&p.backend)
			return
		case actResetBackend:
			p.brokenBy(&p.client)
			return
		case actResetBoth:
			dead := &p.client
			if p.backend.over == overDead {
				dead = &p.backend
			}
			p.reset(CauseDeadPeer, dead.side, dead.errno.Error())
			return
		}
	}
}

// view describes a direction to the rules. The kernel is asked only when its
// answer can matter.
func (p *pair) view(f *flow, src, dst *leg) stream {
	s := stream{over: src.over, held: f.held(), passed: f.passed, broken: dst.broken()}
	if s.broken && s.over == notOver && src.broken() {
		// What is unread can go nowhere, so nobody reads up to the end.
		s.over = overBy(src.failure())
	}
	if !s.held && !s.passed && !s.broken && p.client.over|p.backend.over != notOver {
		s.acked = unacked(dst) == 0
	}
	return s
}

// unacked is how many bytes the peer's kernel has not acknowledged. What was
// written to a unix socket is with the peer at once.
func unacked(g *leg) int {
	if !g.tcp || g.fd < 0 {
		return 0
	}
	n, errno := sys.Unacked(g.fd)
	if errno != 0 {
		return 0
	}
	return n
}

func (p *pair) passEnd(f *flow, dst *leg) {
	f.passed = true
	p.ackWait = 0
	if errno := sys.ShutdownWrite(dst.fd); errno != 0 {
		// ENOTCONN: a RST has arrived meanwhile; its event is on its way.
		dst.readable, dst.hangup = true, true
	}
}

// answered reports whether a client that has not ended its own stream may be
// given the backend's end of stream. That end looks the same whether the
// backend meant it or was killed, and a client that reads it takes it for "all
// is well", also for bytes that it sends after. So it is held back while the
// client is in the middle of saying something: it has spoken since the backend
// last did, and has not been quiet for a moment since. If the backend is gone,
// the client's next bytes draw a RST, and the client gets that instead.
func (p *pair) answered() bool {
	if p.backend.over != overFIN || p.out.passed || p.client.over != notOver {
		return true // nobody asks
	}
	if p.unanswered && p.loop.now-p.lastIn < int64(quietClient) {
		return false
	}
	unread, _ := sys.Unread(p.client.fd)
	return unread == 0
}

// listens reports whether the backend has acknowledged bytes that were sent to
// it after its end of stream had come: then it has only ended its own stream. A
// killed backend's kernel answers such bytes with a RST, never with an
// acknowledgement.
func (p *pair) listens() bool {
	if p.backend.over != overFIN || p.out.passed || p.backend.broken() {
		return false
	}
	return p.in.written-uint64(unacked(&p.backend)) > p.writtenAtEnd
}

// quietClient is how long a client must not have sent anything before an end of
// stream that may be a crash is taken for a meant one. It is far above the gaps
// within an upload and below what a person notices.
const quietClient = 100 * time.Millisecond

// awaitAcks arranges for another look if an end waits for acknowledgements.
// The kernel has no event for "everything is acknowledged", so it is asked, at
// growing intervals: nearly always the first answer is yes.
func (p *pair) awaitAcks(in, out stream) {
	owing := in.over != notOver && !in.held && !in.settled() ||
		out.over != notOver && !out.held && (!out.settled() || !out.passed && !in.held && !in.settled())
	if !owing {
		if !p.answered() {
			// What is unread in the client's socket has no time: its event, or
			// the backend's, brings the next look.
			when := p.lastIn + int64(quietClient)
			if when <= p.loop.now {
				when = p.loop.now + int64(quietClient)
			}
			p.at(&p.answeredAt, when)
		}
		return
	}
	switch {
	case p.ackWait == 0:
		p.ackWait = int64(minAckWait)
	case p.ackWait < int64(longAckWait):
		p.ackWait *= 2
	default: // a reader that has stalled; a thousand of them must cost little
		p.ackWait = min(p.ackWait+p.ackWait/8, int64(maxAckWait))
	}
	p.at(&p.ackAt, p.loop.now+p.ackWait)
}

const (
	minAckWait  = time.Millisecond
	longAckWait = 25 * time.Millisecond
	maxAckWait  = 100 * time.Millisecond
)

// brokenBy ends a connection that one side has reset, when what it had sent
// before is delivered.
func (p *pair) brokenBy(g *leg) {
	if g.side == ByBackend && p.out.read == 0 {
		p.service.evidence(p.target, EvidenceReset, p.dialed)
	}
	p.reset(CauseReset, g.side, g.errno.Error())
}

// reset ends a connection at once: a RST to each side that has not sent one.
func (p *pair) reset(cause Cause, by Side, detail string) {
	e := End{Cause: cause, By: by, Detail: detail}
	e.Undelivered = p.undelivered(&p.in, &p.backend) + p.undelivered(&p.out, &p.client)
	e.ToldClient = p.client.reset()
	if p.stage == stageConnecting {
		p.backend.close() // there is nobody yet to be told
	}
	e.ToldBackend = p.backend.reset()
	p.finish(e)
}

func (p *pair) undelivered(f *flow, dst *leg) uint64 {
	if f.passed {
		return 0
	}
	return f.read - f.written + uint64(unacked(dst))
}

// reset closes the leg's socket with a RST if its peer has not sent one.
func (g *leg) reset() Told {
	if g.fd < 0 {
		return ToldNothing
	}
	told := ToldRST
	switch {
	case g.errno != 0 && overBy(g.errno) == overRST:
		told = ToldNothing
	case !g.tcp:
		// A unix socket tells its peer of a reset only by what it left unread.
		if n, _ := sys.Unread(g.fd); n == 0 {
			told = ToldFIN
		}
	}
	g.pair.loop.unwatch(g)
	sys.Reset(g.fd)
	g.fd = -1
	g.gone()
	return told
}

// close closes the leg's socket plainly.
func (g *leg) close() {
	if g.fd < 0 {
		return
	}
	g.pair.loop.unwatch(g)
	sys.Close(g.fd)
	g.fd = -1
	g.gone()
}

// finish closes what is open, gives everything back and reports the end, of
// which e holds what finish cannot know.
func (p *pair) finish(e End) {
	l := p.loop
	open := p.stage == stageOpen
	p.stage = stageOver
	p.client.close()
	p.backend.close()
	p.letGo(&p.in)
	p.letGo(&p.out)
	l.store.drop(p.entry)
	l.timers.remove(p)
	l.pairs.remove(p)
	p.service.pairs[l.number].remove(p)
	l.load.Add(-1)

	e.ID, e.Client, e.Began = p.id, clientName(p.from), p.began
	e.Age = time.Since(p.began)
	e.BytesIn, e.BytesOut, e.Attempts = p.in.read, p.out.read, p.attempts
	p.service.ended(p, e, open)
}

func clientName(from netip.AddrPort) string {
	if !from.IsValid() {
		return "unix"
	}
	return from.String()
}
