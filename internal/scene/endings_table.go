//go:build linux

package scene

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// How an end ends its connection.
type ending uint8

const (
	byFIN        ending = iota // close, nothing unread
	byHalfClose                // shutdown of its own stream; it reads on
	byRST                      // SO_LINGER 0, close
	byUnread                   // close while bytes are unread
	byKill                     // SIGKILL, nothing unread; the kernel lives
	byKillUnread               // SIGKILL while bytes are unread
	byMute                     // the host is not heard any more
	byDeath                    // the host vanishes
)

var endingNames = [...]string{
	byFIN: "close", byHalfClose: "half-close", byRST: "RST", byUnread: "close, bytes unread",
	byKill: "SIGKILL", byKillUnread: "SIGKILL, bytes unread", byMute: "host mute", byDeath: "host dies",
}

func (e ending) String() string { return endingNames[e] }

func (e ending) silent() bool { return e == byMute || e == byDeath }
func (e ending) unread() bool { return e == byUnread || e == byKillUnread }
func (e ending) killed() bool { return e == byKill || e == byKillUnread }

// When an end ends: what it was doing.
type phase uint8

const (
	beforeAny phase = iota // no byte has been sent
	idling                 // after one exchange
	sending                // it is sending, the other end reads slowly
	receiving              // the other end is sending
	answering              // the other end has ended its stream
)

// name says the phase as seen from the side that ends.
func (p phase) name(by side) string {
	switch {
	case p == beforeAny:
		return "before any byte"
	case p == idling:
		return "idle"
	case p == sending && by == clientSide, p == receiving && by == backendSide:
		return "mid-upload"
	case p == answering && by == clientSide:
		return "backend half-closed"
	case p == answering:
		return "client half-closed"
	}
	return "mid-download"
}

type side uint8

const (
	clientSide side = iota
	backendSide
)

func (s side) String() string { return [...]string{"client", "backend"}[s] }

// A trial is one row of the table: the same played directly and through the
// relay.
type trial struct {
	by     side
	phase  phase
	ending ending
	runs   [2]*play // direct, relayed
}

// A play is one connection of a trial.
type play struct {
	*trial
	relayed bool
	client  *end
	server  *end
	legs    legs

	actor, observer *end
	keeper          *keeper
	writerDone      chan struct{} // closed when the observer stops sending; nil: it does not send
	wrote           string        // what its write returned at last

	ackedBefore int // of the actor's bytes, at the fault
	seen        seen
	after       string // what was wrong afterwards
}

// trials lists the rows: every ending in every phase in which it can be, from
// either side.
func trials() []*trial {
	var all []*trial
	for _, by := range []side{clientSide, backendSide} {
		for p := beforeAny; p <= answering; p++ {
			for e := byFIN; e <= byDeath; e++ {
				if e.unread() && p == beforeAny {
					continue // there is nothing to be unread
				}
				all = append(all, &trial{by: by, phase: p, ending: e})
			}
		}
	}
	return all
}

// A stage is the network that trials are played on.
type stage struct {
	*Env
	lab       *lab.Lab
	timeout   time.Duration
	listeners map[string]net.Listener // by backend host
}

// hostOf is where a trial's client or backend lives: those that fall silent
// have a host of their own.
func (t *trial) hostOf(s side) string {
	n := 1
	if t.by == s {
		switch t.ending {
		case byMute:
			n = 2
		case byDeath:
			n = 3
		}
	}
	return fmt.Sprintf("%v%d", s, n)
}

const (
	smallMessage = 64
	bigMessage   = 64 << 10
	bulkLimit    = 512 << 10
)

// connect makes the connection of a play. Connections are made one after the
// other: what the backend accepts next is this one.
func (st *stage) connect(ctx context.Context, p *play) error {
	backend := st.lab.Host(p.hostOf(backendSide))
	to := st.AddrPort(backend)
	if p.relayed {
		to = st.relayOf(backend)
	}
	c, err := st.lab.Host(p.hostOf(clientSide)).Dial(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	if p.client, err = newEnd(c); err != nil {
		return err
	}
	ln := st.listeners[backend.Name()].(*net.TCPListener)
	if err := ln.SetDeadline(time.Now().Add(Never)); err != nil {
		return err
	}
	if c, err = ln.Accept(); err != nil {
		return err
	}
	if p.server, err = newEnd(c); err != nil {
		return err
	}
	p.legs = legs{client: addrOf(p.client.conn.LocalAddr()), backend: addrOf(p.server.conn.RemoteAddr())}
	p.actor, p.observer = p.client, p.server
	if p.by == backendSide {
		p.actor, p.observer = p.server, p.client
	}
	return nil
}

func addrOf(a net.Addr) netip.AddrPort {
	t := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(t.Addr().Unmap(), t.Port())
}

// relayOf is where the relay of a backend listens.
func (st *stage) relayOf(backend *lab.Host) netip.AddrPort {
	n := uint16(backend.Name()[len("backend")] - '0')
	return st.lab.Host("node1").AddrPort(st.Family, servicePort+n)
}

// prepare brings a play into its phase.
func (p *play) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Never)
	defer cancel()
	steps := [...]func(context.Context) error{
		beforeAny: func(context.Context) error { return nil }, idling: p.exchange, sending: p.startSending, receiving: p.startReceiving, answering: p.halfClose,
	}
	if err := steps[p.phase](ctx); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if p.ending.killed() {
		var err error
		if p.keeper, err = p.actor.keep(); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

func (p *play) String() string {
	how := "direct"
	if p.relayed {
		how = "relayed"
	}
	return fmt.Sprintf("%v, %s, %v, %s", p.by, p.phase.name(p.by), p.ending, how)
}

func (p *play) exchange(ctx context.Context) error {
	err := errors.Join(p.client.send(ctx, smallMessage), p.server.receive(ctx, smallMessage),
		p.server.send(ctx, smallMessage), p.client.receive(ctx, smallMessage))
	if err == nil && p.ending.unread() {
		err = errors.Join(p.observer.send(ctx, smallMessage), p.actor.awaitQueued(ctx, smallMessage))
	}
	return err
}

// startSending fills the way to the observer, which has read a little.
func (p *play) startSending(ctx context.Context) error {
	err := errors.Join(p.actor.fill(ctx, bulkLimit), p.observer.receive(ctx, 16<<10))
	if err == nil && p.ending.unread() {
		err = errors.Join(p.observer.send(ctx, smallMessage), p.actor.awaitQueued(ctx, smallMessage))
	}
	return err
}

// startReceiving has the observer send: a block of which half is unread, or a
// stream of small pieces that the actor keeps up with.
func (p *play) startReceiving(ctx context.Context) error {
	if p.ending.unread() {
		return errors.Join(p.observer.send(ctx, bigMessage), p.actor.receive(ctx, bigMessage/2), p.actor.awaitQueued(ctx, bigMessage/4))
	}
	if err := errors.Join(p.observer.send(ctx, bigMessage), p.actor.receive(ctx, bigMessage)); err != nil {
		return err
	}
	p.writerDone = make(chan struct{})
	return nil
}

// halfClose has the observer send and end its stream, with something of the
// actor's unread on its own side.
func (p *play) halfClose(ctx context.Context) error {
	err := errors.Join(p.actor.send(ctx, bigMessage/4), p.observer.send(ctx, bigMessage/4))
	if err == nil {
		err = p.observer.conn.CloseWrite()
	}
	if err != nil {
		return err
	}
	if p.ending.unread() {
		return errors.Join(p.actor.receive(ctx, bigMessage/8), p.actor.awaitQueued(ctx, bigMessage/8))
	}
	return errors.Join(p.actor.receive(ctx, bigMessage/4), p.actor.awaitEOF())
}

// write goes on sending small pieces until an error, as a client in the middle
// of an upload does.
func (p *play) write(ctx context.Context) {
	defer close(p.writerDone)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, errno := p.observer.offer(1024); errno != 0 && n == 0 && errnoName(errno) != "EAGAIN" {
			p.wrote = errnoName(errno)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.wrote = "ok"
			return
		}
	}
}

// end ends the actor's side, unless its whole host is to fall silent, and
// returns when.
func (p *play) end(ctx context.Context) (time.Time, error) {
	if p.writerDone != nil {
		// In the middle of it: the observer has just been sending.
		if err := errors.Join(p.observer.send(ctx, smallMessage), p.actor.receive(ctx, smallMessage)); err != nil {
			return time.Time{}, fmt.Errorf("%s: %w", p, err)
		}
	}
	p.ackedBefore = p.actor.acked()
	at := time.Now()
	var err error
	switch p.ending {
	case byFIN, byUnread:
		err = p.actor.conn.Close()
	case byHalfClose:
		err = p.actor.conn.CloseWrite()
	case byRST:
		err = p.actor.reset()
	case byKill, byKillUnread:
		at, err = p.keeper.kill(p.actor)
	}
	if err != nil {
		return at, fmt.Errorf("%s: %w", p, err)
	}
	return at, nil
}

// slowReader is how long an observer in the middle of receiving goes on
// pausing after the end: the window is full meanwhile.
const slowReader = 200 * time.Millisecond

// watch records what the observer sees.
func (p *play) watch(ctx context.Context, at, deadline time.Time) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.writerDone != nil {
		go p.write(ctx)
	}
	if p.phase == sending && !p.ending.silent() {
		_ = Pause(ctx, slowReader)
	}
	p.seen = p.observer.observe(at, deadline, p.phase != receiving && p.phase != answering)
	if p.writerDone != nil {
		if p.seen.read != "nothing" && p.ending != byHalfClose {
			// What it goes on sending meets nobody.
			select {
			case <-p.writerDone:
			case <-time.After(afterthought):
			}
		}
		cancel()
		<-p.writerDone
		p.seen.write = p.wrote
	}
	if p.ending == byHalfClose && p.seen.read == "EOF" {
		p.after = p.carryOn()
	}
}

// carryOn proves that the other direction outlives a half-close: the observer
// sends on and ends, the actor gets every byte and the end.
func (p *play) carryOn() string {
	ctx, cancel := context.WithTimeout(context.Background(), Never)
	defer cancel()
	if p.phase != answering {
		if err := p.observer.send(ctx, bigMessage); err != nil {
			return "after a half-close: " + err.Error()
		}
		if err := p.observer.conn.CloseWrite(); err != nil {
			return "after a half-close: " + err.Error()
		}
	}
	if missing := p.observer.sentBytes() - p.actor.receivedBytes(); missing > 0 {
		if err := p.actor.receive(ctx, missing); err != nil {
			return fmt.Sprintf("after a half-close, %d bytes were missing: %v", p.observer.sentBytes()-p.actor.receivedBytes(), err)
		}
	}
	if p.phase != answering { // else it was read already
		_ = p.actor.conn.SetReadDeadline(time.Now().Add(Never))
		if err := p.actor.awaitEOF(); err != nil {
			return "after a half-close: " + err.Error()
		}
	}
	if p.actor.wrong {
		return "after a half-close a byte was wrong"
	}
	return ""
}

// close lets go of what is left of a play.
func (p *play) close() {
	for _, e := range []*end{p.client, p.server} {
		if e != nil {
			_ = e.reset() // it may have been closed by the play
		}
	}
}

// judge compares what was seen through the relay with what was seen directly.
// ok is false for an untruth.
func (t *trial) judge() (verdict string, ok bool) {
	direct, relayed := t.runs[0].seen, t.runs[1].seen
	switch {
	case direct.wrong || relayed.wrong:
		return "a byte was wrong", false
	case t.runs[0].after != "" || t.runs[1].after != "":
		return t.runs[0].after + t.runs[1].after, false
	case relayed.bytes < t.runs[1].ackedBefore && !t.ending.silent():
		return fmt.Sprintf("only %d bytes of %d that were acknowledged", relayed.bytes, t.runs[1].ackedBefore), false
	}
	was, is := direct.told(), relayed.told()
	switch {
	case t.ending.silent():
		switch {
		case is == traffic.RST:
			return "told", true // the figure of the times says whether in time
		case is == traffic.FIN:
			return "a silent host became a clean end", false
		}
		return "not told", false
	case is == traffic.FIN && relayed.bytes != t.runs[1].actor.sentBytes():
		return fmt.Sprintf("a clean end after %d of %d bytes", relayed.bytes, t.runs[1].actor.sentBytes()), false
	case was == traffic.FIN && is == traffic.FIN && direct.write == "ok" && relayed.write != "ok" && t.ending == byHalfClose:
		return "a half-close became a full one", false
	case was == is:
		return "same", true
	case is == traffic.RST && was == traffic.FIN && t.phase == receiving:
		return "stricter: what it sent is lost, and it is told so", true
	case is == traffic.FIN && was == traffic.RST && t.phase == receiving && !t.ending.unread() && t.ending != byRST && relayed.write == "EPIPE":
		// A reader that closes in the middle of a stream sends a FIN or a RST,
		// as it happens to have bytes unread at that instant; writing tells.
		return "same", true
	case is == traffic.FIN:
		return "a clean end where there was none", false
	}
	return fmt.Sprintf("%v instead of %v", is, was), false
}

// playAll plays every trial, all at once, and fills in what was seen.
func (st *stage) playAll(ctx context.Context, all []*trial, limit time.Duration) error {
	var plays []*play
	defer func() {
		for _, p := range plays {
			p.close()
		}
	}()
	for _, t := range all {
		for i := range t.runs {
			t.runs[i] = &play{trial: t, relayed: i == 1}
			plays = append(plays, t.runs[i])
			if err := st.connect(ctx, t.runs[i]); err != nil {
				return fmt.Errorf("%s: connecting: %w", t.runs[i], err)
			}
		}
	}
	st.Say("%d connections are up: every ending in every phase from both sides, directly and through the relay", len(plays))
	if err := together(plays, func(p *play) error { return p.prepare(ctx) }); err != nil {
		return err
	}
	st.Say("now they end")
	// The hosts fall silent first, since that takes longest to be noticed.
	ends := map[*play]time.Time{}
	for _, s := range []side{clientSide, backendSide} {
		for n, fall := range []func(*lab.Host) (time.Time, error){2: (*lab.Host).Mute, 3: (*lab.Host).Die} {
			if fall == nil || !slices.ContainsFunc(all, func(t *trial) bool { return t.ending.silent() }) {
				continue
			}
			at, err := fall(st.lab.Host(fmt.Sprintf("%v%d", s, n)))
			if err != nil {
				return err
			}
			for _, p := range plays {
				if p.by == s && (n == 2 && p.ending == byMute || n == 3 && p.ending == byDeath) {
					ends[p] = at
				}
			}
		}
	}
	var mu sync.Mutex
	return together(plays, func(p *play) error {
		mu.Lock()
		at, silent := ends[p]
		mu.Unlock()
		deadline := at.Add(limit + Never)
		if silent && !p.relayed {
			deadline = at.Add(limit)
		}
		if !silent {
			var err error
			if at, err = p.end(ctx); err != nil {
				return err
			}
			deadline = at.Add(Never)
		}
		p.watch(ctx, at, deadline)
		return nil
	})
}

// together runs f for every play at the same time and joins the errors.
func together(plays []*play, f func(*play) error) error {
	errs := make([]error, len(plays))
	var wg sync.WaitGroup
	for i, p := range plays {
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
