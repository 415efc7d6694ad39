package connected

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/internal/socktrace"
)

// Run watches until ctx ends, and returns nil then. It sees the network
// namespace of the calling thread; a caller that has entered one has locked its
// goroutine to that thread. What fails meanwhile is said by [State], and tried
// again. A Roster runs once.
func (r *Roster) Run(ctx context.Context) error {
	if r.ran.Swap(true) {
		return errors.New("roster: it runs, or has run, already: make a new one")
	}
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan struct{})
	go r.teller(ctx, told)
	defer func() {
		cancel()
		<-told
		close(r.done)
	}()

	r.Open()
	r.mu.Lock()
	t, why := r.tracer, r.why
	r.mu.Unlock()
	if t != nil {
		why = r.traced(ctx, t)
	}
	if ctx.Err() == nil {
		r.polled(ctx, why.Error())
	}
	return nil
}

// allowedFailures is how many looks in a row may fail until the numbers are
// given up, as nobody knows how old they are.
const allowedFailures = 4

// traced watches by eBPF until ctx ends, or until that fails.
func (r *Roster) traced(ctx context.Context, t tracer) error {
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go r.follow(ctx, t, failed)
	defer func() {
		cancel()
		r.mu.Lock()
		r.tracer = nil
		r.mu.Unlock()
		_ = t.Close() // it was only read
		for range failed {
			continue // closed when follow has returned
		}
	}()
	for failures := 0; ; {
		var took time.Duration
		var lost uint64
		r.mu.Lock()
		err := t.SetAddresses(r.watched()) // again, if it failed before
		r.mu.Unlock()
		if err == nil {
			err = r.askLost(t)
		}
		if err == nil {
			r.mu.Lock()
			lost = r.lost
			r.mu.Unlock()
			took, err = r.lookOnce(ctx, t.Sockets(), true)
		}
		if err == nil {
			err = r.askLost(t) // what was lost meanwhile the look may have missed
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.mu.Lock()
		r.looked(Traced, "", took, min(max(restOfLook*took, minRefresh), maxRefresh), err)
		r.state.Whole = err == nil && r.lost == lost
		if failures++; err == nil {
			failures = 0
		} else if failures >= allowedFailures {
			r.core.forgetNumbers()
			signal(r.tell)
		}
		refresh := r.state.Refresh
		r.mu.Unlock()
		r.publish()
		if err := r.rest(ctx, refresh, max(restOfPoll*took, minRest), failed); err != nil {
			return err
		}
	}
}

// follow takes changes from the tracer until it fails or is closed.
func (r *Roster) follow(ctx context.Context, t tracer, failed chan<- error) {
	defer close(failed)
	events := make([]socktrace.Event, batch)
	for {
		n, err := t.Read(events)
		wall := r.wallClock()
		r.mu.Lock()
		for _, e := range events[:n] {
			if e.Kind == socktrace.Established {
				r.core.established(observe(e.Socket, true, wall))
			} else {
				r.core.closed(Tuple{e.Local, e.Remote}, e.Cookie)
			}
		}
		r.mu.Unlock()
		if n > 0 {
			signal(r.tell)
		}
		if err == nil {
			err = r.askLost(t)
		}
		if err != nil {
			failed <- err
			return
		}
		// While this one waits the kernel wakes nobody: a crowd of short
		// connections is taken in one piece, and mostly tells nothing.
		if n < len(events) && !pause(ctx, r.o.Gather) {
			return
		}
	}
}

// askLost asks how many changes have been lost so far. If there are more than
// were known, another look is wanted.
func (r *Roster) askLost(t tracer) error {
	lost, err := t.Lost()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if lost > r.lost {
		r.lost = lost
		r.state.Whole = false
		r.state.Resyncs++
		signal(r.look)
	}
	return nil
}

// polled watches by the list of sockets until ctx ends.
func (r *Roster) polled(ctx context.Context, reason string) {
	r.mu.Lock()
	r.core.forgetNumbers() // of a trace that has failed
	r.mu.Unlock()
	signal(r.tell)
	var l lister
	defer func() {
		if l != nil {
			_ = l.Close() // it was only read
		}
	}()
	for {
		var took time.Duration
		var err error
		if l == nil {
			l, err = r.kernel.list()
		}
		if err == nil {
			r.mu.Lock()
			watched := r.watched()
			r.mu.Unlock()
			if took, err = r.lookOnce(ctx, l.sockets(ctx, watched), false); err != nil {
				_ = l.Close() // and open another one: this one may be in the midst of an answer
				l = nil
			}
		} else {
			l = nil
		}
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		r.looked(Polled, reason, took, max(r.o.Poll, restOfPoll*took), err)
		r.state.Whole = err == nil
		refresh := r.state.Refresh
		r.mu.Unlock()
		r.publish()
		if r.rest(ctx, refresh, max(restOfPoll*took, minRest), nil) != nil {
			return
		}
	}
}

// lookOnce takes the list of sockets, with or without their numbers.
func (r *Roster) lookOnce(ctx context.Context, sockets iter.Seq2[socktrace.Socket, error], numbers bool) (took time.Duration, err error) {
	began := r.kernel.boot()
	r.mu.Lock()
	r.core.beginLook()
	r.mu.Unlock()
	wall := r.wallClock()
	var some [batch]observation
	n := 0
	take := func() {
		r.mu.Lock()
		for _, o := range some[:n] {
			r.core.established(o)
		}
		r.mu.Unlock()
		n = 0
	}
	for s, serr := range sockets {
		if serr != nil {
			err = serr
			break
		}
		some[n] = observe(s, numbers, wall)
		if n++; n == batch {
			take()
			signal(r.tell)
			if err = ctx.Err(); err != nil {
				break
			}
		}
	}
	take()
	r.mu.Lock()
	r.core.endLook(began, err == nil)
	r.mu.Unlock()
	signal(r.tell)
	return time.Duration(r.kernel.boot() - began), err
}

// looked notes a look; mu is held.
func (r *Roster) looked(source Source, reason string, took, refresh time.Duration, err error) {
	s := &r.state
	s.Source, s.Reason, s.Refresh, s.Error = source, reason, refresh, ""
	if err != nil {
		s.Error = err.Error()
		return
	}
	s.Looked, s.Took = time.Now(), took
}

// rest waits for the next look, which may come early when one is wanted, but
// not before the least rest. It gives an error when there is none to come.
func (r *Roster) rest(ctx context.Context, until, least time.Duration, failed <-chan error) error {
	soon, late := time.NewTimer(least), time.NewTimer(until)
	defer soon.Stop()
	defer late.Stop()
	var wanted <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			if err == nil {
				err = ctx.Err() // which is why it has returned
			}
			return err
		case a := <-r.asks:
			r.answer(a)
		case <-soon.C:
			wanted = r.look
		case <-wanted:
			return nil
		case <-late.C:
			return nil
		}
	}
}

// teller tells changes until ctx ends.
func (r *Roster) teller(ctx context.Context, ended chan<- struct{}) {
	defer close(ended)
	var list []Change
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.tell:
		}
		r.mu.Lock()
		r.takeLegs()
		news := len(r.core.dirty) > 0
		list = r.core.flush(list[:0])
		r.core.changes += uint64(len(list))
		r.mu.Unlock()
		if len(list) > 0 && r.o.OnChange != nil {
			r.o.OnChange(list)
		}
		if cap(list) > 1<<16 {
			list = nil // it was a crowd
		}
		clear(list)
		if news && !pause(ctx, r.o.Gather) {
			return
		}
	}
}

// pause waits; it says no when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// publish tells of the state if it is another one.
func (r *Roster) publish() {
	r.mu.Lock()
	s := r.now()
	was := r.published
	r.published = s
	r.mu.Unlock()
	if s.Source == was.Source && s.Reason == was.Reason && s.Error == was.Error && s.Whole == was.Whole && s.Lost == was.Lost {
		return
	}
	log := r.o.Logger
	switch {
	case s.Error != "":
		log.Warn("who is connected cannot be read; it is tried again", "error", s.Error, "again", s.Refresh)
	case s.Source != was.Source && s.Source == Polled:
		log.Warn("who is connected is read from the list of sockets, without sequence numbers", "every", s.Refresh, "reason", s.Reason)
	case s.Source != was.Source:
		log.Info("who is connected is told by the kernel", "connections", s.Connections)
	case s.Lost != was.Lost:
		log.Warn("more connections began and ended than could be told of; all were listed anew", "lost", s.Lost-was.Lost, "connections", s.Connections)
	case !s.Whole && s.Refused > 0:
		log.Warn("more are connected than there is room for: who finds none is unprotected", "refused", s.Refused, "most", r.o.Max)
	}
	if r.o.OnState != nil {
		r.o.OnState(s)
	}
}

// watched lists the addresses; mu is held.
func (r *Roster) watched() []netip.Addr {
	list := make([]netip.Addr, 0, len(r.core.watched))
	for a := range r.core.watched {
		list = append(list, a)
	}
	return slices.Clip(list)
}

// wallClock gives moments of the boot clock by the wall clock as it is now.
func (r *Roster) wallClock() func(int64) time.Time {
	now, boot := time.Now().Round(0).UTC(), r.kernel.boot()
	return func(at int64) time.Time { return now.Add(time.Duration(at - boot)) }
}

func observe(s socktrace.Socket, numbers bool, wall func(int64) time.Time) observation {
	o := observation{Tuple: Tuple{s.Local, s.Remote}, cookie: s.Cookie, at: s.At, since: wall(s.At), numbers: numbers}
	if numbers {
		o.isn, o.remote = s.Acknowledged-1, s.NextReceive-1
	}
	return o
}
