//go:build linux

package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// Now is, as the number of an event to follow after, the newest one there is.
const Now = math.MaxUint64

// A Follower reads events as they come. It holds none of its own: it reads
// behind the journal, and one that is so slow that the journal forgets what it
// has not read finds an event of [admin.EventLost] instead, with how many.
type Follower struct {
	j *Journal
	m admin.Matcher

	wakeup chan struct{} // holds one

	// Under Journal.mu.
	at     position
	missed uint64 // to be told
	lost   bool   // to be told, also when missed is 0: nobody knows how many
	waits  bool   // it is in Journal.waiting
	closed bool

	// Only the goroutine in Next.
	backlog []admin.Event
	ends    []end
	changes []change
}

// Follow returns a Follower of what passes the filter, behind the event with the
// number after: 0 begins with the oldest that is remembered, [Now] with what
// comes next. What the journal has forgotten since is told as lost, and a number
// that it has not given yet is one of another journal: everything is new then.
// With a Limit, only the newest of those that are there already are given, for
// Now those before it.
func (j *Journal) Follow(f admin.Filter, after uint64) (*Follower, error) {
	m, err := f.Matcher()
	if err != nil {
		return nil, err
	}
	fl := &Follower{j: j, m: m, wakeup: make(chan struct{}, 1)}
	j.mu.Lock()
	defer j.mu.Unlock()
	from, until := uint64(0), j.last
	if after == Now {
		fl.at, _ = j.place(until)
	} else {
		from, until, fl.missed, fl.lost = j.begin(after)
		fl.at, _ = j.place(from)
	}
	if f.Limit > 0 {
		fl.at, _ = j.place(until)
		j.mu.Unlock()
		fl.backlog = j.read(m, from, until, f.Limit)
		j.mu.Lock()
	}
	return fl, nil
}

// Began is that of the journal.
func (f *Follower) Began() time.Time { return f.j.began }

// Next waits for events and returns them, the oldest first; there is at least
// one. Only when there are none left does a context that has ended end it, with
// the context's error; a closed Follower answers net.ErrClosed. What the events
// point to is shared, and must not be changed. One goroutine at a time may call
// it.
func (f *Follower) Next(ctx context.Context) ([]admin.Event, error) {
	for {
		var events []admin.Event
		f.j.mu.Lock()
		if f.closed {
			f.j.mu.Unlock()
			return nil, net.ErrClosed
		}
		if f.take() {
			events = append(events, lostEvent(f.missed))
			f.missed, f.lost = 0, false
		}
		got := len(f.ends) + len(f.changes)
		if got == 0 && len(events) == 0 && len(f.backlog) == 0 && !f.waits {
			f.waits = true
			f.j.waiting = append(f.j.waiting, f)
		}
		f.j.mu.Unlock()

		events = append(events, f.backlog...)
		f.backlog = nil
		if events = f.merge(events); len(events) > 0 {
			return events, nil
		}
		if got > 0 {
			continue // none of them passed
		}
		select {
		case <-f.wakeup:
		case <-ctx.Done():
			f.j.mu.Lock()
			f.sleepNoMore()
			f.j.mu.Unlock()
			return nil, ctx.Err()
		}
	}
}

// take copies the next records into ends and changes, in the order of their
// numbers, and reports whether a loss is to be told. The caller holds Journal.mu.
func (f *Follower) take() (lost bool) {
	j := f.j
	if first := j.ends.first(); f.at.ends < first {
		f.missed += first - f.at.ends
		f.at.ends = first
	}
	if first := j.changes.first(); f.at.changes < first {
		f.missed += first - f.at.changes
		f.at.changes = first
	}
	f.ends, f.changes = f.ends[:0], f.changes[:0]
	for len(f.ends)+len(f.changes) < chunk {
		hasEnd, hasChange := f.at.ends < j.ends.end, f.at.changes < j.changes.end
		switch {
		case hasEnd && (!hasChange || j.ends.at(f.at.ends).seq < j.changes.at(f.at.changes).seq):
			f.ends = append(f.ends, *j.ends.at(f.at.ends))
			f.at.ends++
		case hasChange:
			f.changes = append(f.changes, *j.changes.at(f.at.changes))
			f.at.changes++
		default:
			return f.missed > 0 || f.lost
		}
	}
	return f.missed > 0 || f.lost
}

// merge appends what passes of ends and changes.
func (f *Follower) merge(events []admin.Event) []admin.Event {
	ends, changes := f.ends, f.changes
	for len(ends)+len(changes) > 0 {
		var e admin.Event
		if len(changes) == 0 || len(ends) > 0 && ends[0].seq < changes[0].seq {
			if e, ends = endEvent(&ends[0]), ends[1:]; !f.m.Event(&e) {
				continue
			}
		} else {
			if e, changes = changes[0].Event, changes[1:]; !f.m.Event(&e) {
				continue
			}
		}
		events = append(events, e)
	}
	return events
}

// signal wakes the goroutine in Next, or the next one to come there.
func (f *Follower) signal() {
	select {
	case f.wakeup <- struct{}{}:
	default:
	}
}

// sleepNoMore takes it out of the list of those to be woken. The caller holds
// Journal.mu.
func (f *Follower) sleepNoMore() {
	if f.waits {
		f.waits = false
		f.j.waiting = slices.DeleteFunc(f.j.waiting, func(other *Follower) bool { return other == f })
	}
}

// Close ends it: a call of Next that waits, and each one after, answers
// net.ErrClosed. Calling it again does nothing.
func (f *Follower) Close() error {
	f.j.mu.Lock()
	defer f.j.mu.Unlock()
	f.closed = true
	f.sleepNoMore()
	f.signal()
	return nil
}

// Lines writes what f reads as JSON, a line each with one Write each, until ctx
// ends and nothing is left, or until writing fails. It does not close f.
func Lines(ctx context.Context, f *Follower, w io.Writer) error {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false) // the arrow in "10.0.0.9:4711->10.0.0.21:80" stays readable
	for {
		events, err := f.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for i := range events {
			line.Reset()
			if err := e.Encode(&events[i]); err != nil {
				return fmt.Errorf("event: %w", err)
			}
			if _, err := w.Write(line.Bytes()); err != nil {
				return fmt.Errorf("writing events: %w", err)
			}
		}
	}
}

// LostLine is the line of a stream of events that stands for n lost ones.
func LostLine(n uint64) []byte {
	line, err := json.Marshal(lostEvent(n))
	if err != nil {
		return nil // a struct of numbers, texts and a time of this century
	}
	return append(line, '\n')
}
