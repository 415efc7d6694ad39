package elector

import (
	"net"
	"sync"
)

// Bounds of an [outbox].
const (
	maxOrdered = 1024 // what must not be lost: beyond it, the peer is given up
	maxBeats   = 64   // beyond it, the oldest is dropped
	maxLoss    = 256  // changes and lines: beyond it, the oldest is dropped
)

// An outbox holds what is to be sent to a peer that may be slow, or frozen. Who
// puts something in never waits.
type outbox struct {
	ready chan struct{} // has an element when there may be something to take

	mu      sync.Mutex
	ordered []*message // requests and answers
	beats   []*message
	lossy   []*message // changes and lines of the log
	status  *message   // the newest
	alive   *message
	full    bool   // something ordered could not be put in
	dropped uint64 // beats, changes, lines and statuses that were not sent
}

func newOutbox() *outbox { return &outbox{ready: make(chan struct{}, 1)} }

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// put adds what must arrive. It reports false when there is no room for it, now
// and for all time.
func (o *outbox) put(m *message) bool {
	o.mu.Lock()
	if len(o.ordered) >= maxOrdered {
		o.full = true
	}
	ok := !o.full
	if ok {
		o.ordered = append(o.ordered, m)
	}
	o.mu.Unlock()
	o.wake()
	return ok
}

// putBeat adds a beat.
func (o *outbox) putBeat(data []byte) {
	m := &message{Beat: &beat{Data: append([]byte(nil), data...)}}
	o.mu.Lock()
	o.beats = o.bounded(append(o.beats, m), maxBeats)
	o.mu.Unlock()
	o.wake()
}

// putLossy adds a change or a line.
func (o *outbox) putLossy(m *message) {
	o.mu.Lock()
	o.lossy = o.bounded(append(o.lossy, m), maxLoss)
	o.mu.Unlock()
	o.wake()
}

// putStatus takes the place of the one before, if that was not sent yet.
func (o *outbox) putStatus(m *message) {
	o.mu.Lock()
	if o.status != nil {
		o.dropped++
	}
	o.status = m
	o.mu.Unlock()
	o.wake()
}

func (o *outbox) putAlive() {
	o.mu.Lock()
	o.alive = &message{Alive: &alive{}}
	o.mu.Unlock()
	o.wake()
}

// bounded drops the oldest. The caller holds mu.
func (o *outbox) bounded(list []*message, most int) []*message {
	if over := len(list) - most; over > 0 {
		o.dropped += uint64(over)
		list = append(list[:0], list[over:]...)
	}
	return list
}

// take takes the next to be sent; nil where there is nothing.
func (o *outbox) take() *message {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := func(list *[]*message) *message {
		m := (*list)[0]
		(*list)[0] = nil
		if *list = (*list)[1:]; len(*list) == 0 {
			*list = nil
		}
		return m
	}
	switch {
	case len(o.ordered) > 0: // before a life sign: what is not well is known by then
		return first(&o.ordered)
	case o.alive != nil:
		m := o.alive
		o.alive = nil
		return m
	case len(o.beats) > 0:
		return first(&o.beats)
	case len(o.lossy) > 0:
		return first(&o.lossy)
	case o.status != nil:
		m := o.status
		o.status = nil
		return m
	}
	return nil
}

// drain sends what is put in until over is closed, and what is left even then. A
// message that cannot be encoded is left out where leftOut is there to be told,
// and otherwise ends it, as a failure to write does: who reads conn notices then.
func (o *outbox) drain(conn *net.UnixConn, over <-chan struct{}, leftOut func(error)) error {
	var b []byte
	for {
		m := o.take()
		if m == nil {
			select {
			case <-o.ready:
				continue
			case <-over:
				if m = o.take(); m == nil {
					return nil
				}
			}
		}
		var err error
		if b, err = appendFrame(b[:0], m); err != nil && leftOut != nil {
			leftOut(err)
			continue
		}
		if err == nil {
			_, err = conn.Write(b)
		}
		if err != nil {
			_ = conn.CloseRead()
			return err
		}
	}
}

// lost counts what was dropped.
func (o *outbox) lost() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

// rest takes the changes and lines that were not sent, for the next peer.
func (o *outbox) rest() []*message {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.lossy
	o.lossy = nil
	return list
}
