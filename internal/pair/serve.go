package pair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// serve has one connection after the other be the link. The newest one is it:
// whoever makes a new one has lost the one before, though this node may not have
// noticed. Which connection is the newest is for node 1 to say.
func (l *Link) serve(ctx context.Context) {
	var next *candidate
	for {
		if next == nil {
			select {
			case next = <-l.taken:
			case <-ctx.Done():
				return
			}
		}
		next = l.use(ctx, next)
	}
}

// use has a connection be the link until it ends, or a newer one comes, which is
// returned.
func (l *Link) use(ctx context.Context, k *candidate) (next *candidate) {
	c := k.c
	for _, s := range l.members {
		s.connect()
	}
	l.mu.Lock()
	l.setConn(c)
	l.peer, l.err, l.rtt = c.peer, "", 0
	l.counters.Connects++
	l.mu.Unlock()
	close(k.seen)
	if l.o.OnPeer != nil {
		l.o.OnPeer(c.peer)
	}
	l.refresh()
	l.wakeUp()

	read, wrote := make(chan error, 1), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { read <- l.read(c) })
	wg.Go(func() { wrote <- l.write(c) })
	var err error
	select {
	case err = <-read:
		if e, ok := errors.AsType[*frameError](err); ok {
			c.last = bye{byeMalformed, e.Error()}
		} else if e, ok := errors.AsType[*UnknownFrameError](err); ok {
			c.last = bye{byeRefused, e.Error()}
		}
	case err = <-wrote:
		wrote <- nil
		if said := l.lastWord(read); said != nil {
			err = said
		}
	case next = <-l.taken:
		c.last, err = bye{byeReplaced, ""}, errors.New("the peer has made a newer connection")
	case <-ctx.Done():
		c.last, err = bye{byeStopping, ""}, errors.New("this node's program ends")
	}
	_ = c.raw.SetWriteDeadline(time.Now().Add(l.shortly())) // our own last word
	close(c.stop)
	<-wrote
	c.raw.Close()
	wg.Wait()

	for _, s := range l.members {
		s.disconnect()
	}
	l.mu.Lock()
	l.setConn(nil)
	l.err = explainEnd(err, l.o.Silence)
	l.mu.Unlock()
	if e, ok := errors.AsType[*closedError](err); ok && next == nil && e.reason == byeReplaced {
		next = l.successor(ctx) // it is there, or about to be: nobody need hear of a link that is down
	}
	if next == nil {
		l.refresh()
	}
	return next
}

// successor waits for the connection for which node 1 has left another one, no
// longer than for any other sign of life.
func (l *Link) successor(ctx context.Context) *candidate {
	t := time.NewTimer(l.o.Silence)
	defer t.Stop()
	select {
	case k := <-l.taken:
		return k
	case <-t.C:
	case <-ctx.Done():
	}
	return nil
}

// shortly is how long a last word may take.
func (l *Link) shortly() time.Duration { return l.o.Silence / 10 }

// lastWord waits a moment for why the peer does not take what is written; it has
// often said so.
func (l *Link) lastWord(read <-chan error) error {
	t := time.NewTimer(l.shortly())
	defer t.Stop()
	select {
	case err := <-read:
		if e, ok := errors.AsType[*closedError](err); ok {
			return e
		}
	case <-t.C:
	}
	return nil
}

// setConn makes c the link; mu is held.
func (l *Link) setConn(c *conn) {
	l.cur = c
	l.beats, l.ponging, l.ping = nil, false, 0
	l.info = c != nil && !bytes.Equal(c.digest, l.digest)
	close(l.changed)
	l.changed = make(chan struct{})
}

// explainEnd is a sentence about the end of a connection.
func explainEnd(err error, silence time.Duration) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return fmt.Sprintf("nothing came from the peer for %v: it is gone, frozen, or the network between is cut", silence)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Sprintf("the peer's program ended, or its machine dropped the connection: %v", err)
	}
	return err.Error()
}

// pingsInSilence is how many life signs fit into the time after which their
// absence is noticed.
const pingsInSilence = 4

// batch is how much is written at once: a TLS record's worth. What comes in the
// meantime waits no longer than that.
const batch = 16 << 10

// write sends what there is to send, and life signs, until c.stop.
func (l *Link) write(c *conn) error {
	tick := time.NewTicker(l.o.Silence / pingsInSilence)
	defer tick.Stop()
	var buf []byte
	if c.adopt {
		buf = appendAdopt(buf)
	}
	ping := true
	for first := 0; ; first++ {
		buf = l.fill(buf, ping, first)
		ping = false
		if len(buf) > 0 {
			select {
			case <-c.stop:
			default:
				if err := l.send(c, buf); err != nil {
					return err
				}
				buf = buf[:0]
				l.refresh()
				select {
				case <-tick.C:
					ping = true
				default:
				}
				continue
			}
		}
		select {
		case <-c.stop:
			if c.last.reason == 0 {
				return nil
			}
			_, err := c.tls.Write(c.last.appendTo(nil))
			return err
		case <-tick.C:
			ping = true
		case <-l.wake:
		}
	}
}

func (l *Link) send(c *conn, b []byte) error {
	if err := c.raw.SetWriteDeadline(time.Now().Add(l.o.Silence)); err != nil {
		return err
	}
	n, err := c.tls.Write(b)
	l.mu.Lock()
	l.counters.BytesSent += uint64(n)
	l.mu.Unlock()
	return err
}

// fill appends what is to be sent next: beats first, then what answers, then
// items, of each set in its turn.
func (l *Link) fill(b []byte, ping bool, first int) []byte {
	now := time.Now()
	frames := uint64(0)
	l.mu.Lock()
	for len(l.beats) > 0 && len(b) < batch {
		next := l.beats[0]
		l.beats = l.beats[1:]
		if now.Sub(next.at) > l.o.BeatAge {
			l.counters.BeatsDropped++
			continue
		}
		b = appendBeat(b, next.text)
		l.counters.BeatsSent++
		frames++
	}
	if l.ponging {
		b = appendPing(b, kindPong, l.pong)
		l.ponging = false
		frames++
	}
	if ping {
		l.ping++
		l.pingedAt = now
		b = appendPing(b, kindPing, l.ping)
		frames++
	}
	if l.info {
		b = appendInfo(b, l.digest)
		l.info = false
		frames++
	}
	l.mu.Unlock()
	for i := range l.members {
		if len(b) >= batch {
			break
		}
		left := len(l.members) - i
		var n int
		b, n = l.members[(first+i)%len(l.members)].appendNext(b, len(b)+(batch-len(b)+left-1)/left)
		frames += uint64(n)
	}
	l.mu.Lock()
	l.counters.FramesSent += frames
	l.mu.Unlock()
	return b
}

// read takes what comes until the connection ends.
func (l *Link) read(c *conn) error {
	var buf []byte
	for {
		h, payload, b, err := readFrame(c.r, buf)
		if err != nil {
			return err
		}
		buf = b
		l.mu.Lock()
		l.counters.FramesReceived++
		l.counters.BytesReceived += uint64(headerSize + len(payload))
		l.mu.Unlock()
		if err := l.take(h.kind, payload); err != nil {
			return err
		}
	}
}

// take does what a frame asks for.
func (l *Link) take(k kind, payload []byte) error {
	switch k {
	case kindBeat:
		text, err := parseBeat(payload)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.counters.BeatsReceived++
		l.mu.Unlock()
		if l.o.OnBeat != nil {
			l.o.OnBeat(text)
		}
		return nil
	case kindPing, kindPong:
		id, err := parsePing(k, payload)
		if err != nil {
			return err
		}
		l.mu.Lock()
		if k == kindPing {
			l.pong, l.ponging = id, true
		} else if id == l.ping {
			l.rtt = time.Since(l.pingedAt)
		}
		l.mu.Unlock()
		if k == kindPing {
			l.wakeUp()
		}
		return nil
	case kindInfo:
		digest, err := parseInfo(payload)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.peer.Digest = digest
		peer := l.peer
		l.mu.Unlock()
		if l.o.OnPeer != nil {
			l.o.OnPeer(peer)
		}
		return nil
	case kindBye:
		return byeError(payload)
	case kindHello, kindAdopt:
		return &frameError{k, "it comes once, and has come"}
	}
	m, err := parseMessage(k, payload)
	if err != nil {
		return err
	}
	for _, s := range l.members {
		if s.o.ID != m.set {
			continue
		}
		if err := s.receive(m); err != nil {
			return err
		}
		l.wakeUp()
		if k != kindPut && k != kindDelete {
			l.refresh()
		}
		return nil
	}
	return nil // a set that only the peer has; it hears nothing of it, and sends nothing
}
