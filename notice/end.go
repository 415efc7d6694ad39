package notice

import "time"

// Times of the protocol, in nanoseconds. Instants are of any one clock.
const (
	ms = int64(time.Millisecond)

	// settle is how long an end must stand where it stands before it is reset from here:
	// one that is fed more often than that never is.
	settle = 10 * ms
	// patience is the same for answers that do not prove themselves: the time that
	// one which does would have had.
	patience = 30 * ms
	// again is how long Linux does not answer a bare ACK after it has answered one
	// (tcp_invalid_ratelimit, 500 ms), and a little.
	again = 530 * ms
	// longest bounds what is taken for the time to the end and back.
	longest = 300 * ms
	// finish is how long silence lasts, at least, that ends the telling of an end
	// which had answered.
	finish = 200 * ms
)

// gaps are the times between tickles that are not answered; the last one goes on.
var gaps = [...]int64{3 * ms, 27 * ms, 170 * ms, 400 * ms, 1000 * ms}

// Bounds of what is sent for one connection.
const (
	maxTries  = 70 // the longest Bound has 65
	maxSteps  = 4  // tickles to an end that had answered, and whose numbers stand
	maxResets = 5
)

// end tells one remote end. It is pure: it is told what happened and when, and
// says what to send. The zero end is not valid, see begin.
//
// What it must never do, whatever arrives, is reset an end that somebody still
// feeds, or put a byte into one. So:
//
//   - tickles with data bear numbers below one that the end has acknowledged, as
//     Start knows or as it has answered, never guessed ones;
//   - an answer proves itself by a D-SACK block (RFC 2883) that names the tickle:
//     its sender has seen it. Once one has, others do not count;
//   - a RST bears the number that the end has acknowledged in two answers, the second
//     of which was to a tickle that was sent after the first, or in one that proved
//     itself, and was followed by silence, or before the connection ended (Final).
type end struct {
	start Start
	bound int64
	nonce [2]uint32 // random: what nobody can know who does not see the tickles

	begun   int64 // the first tickle
	due     int64 // when expire is to be called, if nothing is wanted
	heardAt int64 // since when the end acknowledges ack
	rtt     int64 // at most, from the first tickle to the first answer

	ack, seq uint32    // of the end: what it expects next, and what it sends next
	probes   [2]uint32 // numbers of the last tickles with data, before and after the end was heard
	said     [2]uint32 // acknowledgements of the last two tickles, which a RST repeats

	tries  uint8
	step   uint8 // tickles since it was heard
	quiet  uint8 // tickles since the last answer
	resets uint8

	probed  [2]bool
	heard   bool
	proven  bool // by an answer that proves itself
	odd     bool // there were answers with numbers that cannot be
	moved   bool // the end had received something when it was last heard
	ended   bool // a socket here was destroyed: its kernel has sent a RST
	renewed bool // the last RST was for the answer to the last tickle

	wantTickle, wantReset bool

	done      bool
	confirmed bool
	verdict   Verdict
	err       error
}

// begin makes an end whose first tickle is wanted. ended says that the socket at
// the other end was destroyed, so that a RST is on its way.
func begin(start Start, bound time.Duration, nonce [2]uint32, ended bool) end {
	return end{start: start, bound: int64(bound), nonce: nonce, ended: ended, wantTickle: true}
}

// segments gives what is to be sent now, at most two, without the ends' names. It is called
// when there is room to send, and only when something is wanted.
func (e *end) segments(now int64, out *[2]Segment) (n int) {
	if e.done {
		return 0
	}
	if e.tries == 0 {
		e.begun = now
		// Nobody sends for this connection any more, and all that was sent has arrived.
		if s := &e.start; s.Known&(KnownNumbers|Final) == KnownNumbers|Final && s.Acknowledged == s.Next {
			out[n] = Segment{Flags: RST, Seq: s.Acknowledged}
			n++
			e.resets++
		}
	}
	if e.wantReset {
		out[n] = Segment{Flags: RST, Seq: e.ack}
		n++
		e.resets++
		e.wantReset = false
	}
	if e.wantTickle {
		out[n] = e.tickle()
		n++
		e.wantTickle = false
		e.schedule(now)
	}
	return n
}

// tickle gives the next one. Its byte lies below a number that is known, or that an
// answer which proved itself has acknowledged; where there is none, it has no byte. It
// acknowledges a random number rather than one that did not prove itself, so that a
// RST that repeats it is an answer.
func (e *end) tickle() Segment {
	s := Segment{Flags: ACK, Window: 0xffff, Length: 1, Ack: e.nonce[1]}
	known, which := e.start.Known, 0
	if e.heard {
		which = 1
	}
	// Two back and more, so that the byte is old even where nothing was acknowledged
	// since. How much more nobody knows who does not see it: the answer repeats it. It is
	// little, because firewalls drop what is older than the largest window they saw.
	back := 2 + e.nonce[which]&0x3ff
	switch {
	case e.heard && e.proven:
		s.Seq = e.ack - back
	case known&KnownNumbers != 0:
		s.Seq = e.start.Acknowledged - back
	case known&KnownISN != 0:
		s.Seq = e.start.ISN - back
	default:
		s.Seq, s.Length = e.nonce[0], 0
		if e.tries%4 >= 2 {
			s.Seq ^= 1 << 31 // of the two one at most lies in the window
		}
	}
	if e.tries%2 == 1 {
		s.Ack ^= 1 << 31 // firewalls let pass what looks old, as one of the two does
	}
	switch {
	case e.heard && e.proven:
		s.Ack = e.seq
	case known&KnownNumbers != 0:
		s.Ack = e.start.Receive
	case known&KnownRemoteISN != 0:
		s.Ack = e.start.RemoteISN + 1
	}
	// Some systems drop what has no timestamp on a connection that has them (RFC
	// 7323, section 3.2): each third tickle has one. It need not be right: a wrong one is
	// answered as well.
	if e.tries%3 == 2 {
		s.HasStamp, s.Stamp = true, e.nonce[0]
	}
	if s.Length > 0 {
		e.probes[which], e.probed[which] = s.Seq, true
	}
	switch {
	case e.tries == 0:
		e.said = [2]uint32{s.Ack, s.Ack}
	case e.said[0] != s.Ack:
		e.said = [2]uint32{s.Ack, e.said[0]}
	}
	return s
}

// bare says that tickles have no byte.
func (e *end) bare() bool { return e.start.Known&(KnownNumbers|KnownISN) == 0 }

// schedule sets when the tickle that leaves now is given up.
func (e *end) schedule(now int64) {
	e.tries = min(e.tries+1, maxTries)
	e.quiet = min(e.quiet+1, maxTries)
	e.renewed = false
	if !e.heard {
		e.due = min(now+gaps[min(int(e.tries)-1, len(gaps)-1)], e.begun+e.bound)
		return
	}
	gap := gaps[e.step]
	if e.step == 2 && e.bare() {
		gap = again // all that an end says to a bare ACK after its first answer
	}
	if e.step = min(e.step+1, maxSteps); e.step == maxSteps {
		gap = finish
	}
	e.due = now + max(gap, e.rtt+e.rtt/2)
}

// expire is told that due has come.
func (e *end) expire(now int64) {
	switch {
	case e.done || e.wantTickle || e.wantReset || now < e.due:
	case e.moved && (e.quiet <= 1 || e.bare()) && now-e.begun >= e.bound:
		e.finish(Alive, nil)
	case e.tries >= maxTries, !e.heard && now-e.begun >= e.bound:
		e.conclude()
	case e.heard && e.step >= maxSteps && (!e.moved || e.quiet > 1 && !e.bare() || now-e.begun >= e.bound):
		e.conclude()
	default:
		e.wantTickle = true
		// It has answered once, and not again: the kernel's RST was taken, or has not
		// left. One of ours at the same number does no harm.
		if e.heard && e.proven && e.resets == 0 && e.quiet >= 2 {
			e.wantReset = true
		}
	}
}

// conclude ends what nothing more is expected of.
func (e *end) conclude() {
	switch {
	case !e.heard && e.odd:
		e.finish(Refused, ErrNumbers)
	case e.heard && e.quiet == 0 && e.resets > 0:
		e.finish(Refused, ErrHeld)
	case e.heard && (e.resets > 0 || e.ended):
		e.finish(Told, nil)
	default:
		e.finish(Unreachable, nil)
	}
}

func (e *end) finish(v Verdict, err error) {
	e.done, e.verdict, e.err = true, v, err
	e.wantTickle, e.wantReset = false, false
}

// alive is told that somebody has the connection.
func (e *end) alive() {
	if !e.done {
		e.finish(Alive, nil)
	}
}

// answer is told of a segment from the end.
func (e *end) answer(s *Segment, now int64) {
	switch {
	case e.done || e.tries == 0:
		return
	case s.Flags&RST != 0:
		// It repeats what the tickle acknowledged, or is what the end would have sent next.
		if s.Seq != e.said[0] && s.Seq != e.said[1] {
			return
		}
		if e.heard || e.resets > 0 || e.ended {
			e.confirmed = true
			e.finish(Told, nil)
		} else {
			e.finish(Gone, nil)
		}
		return
	case s.Flags&(SYN|ACK) != ACK:
		return // it begins another one: that one is the kernel's
	case !e.fits(s):
		e.odd = true
		return
	}
	first, confirm := e.proves(s)
	if (first || confirm) && !e.proven {
		e.proven = true
		if e.heard && e.ack != s.Ack {
			e.heard = false // what was heard did not prove itself
		}
	}
	if e.proven && !first && !confirm {
		return
	}
	e.quiet = 0
	if !e.heard {
		e.news(s, now)
		e.rtt = min(now-e.begun, longest)
		e.wantTickle = true
		return
	}
	switch d := int32(s.Ack - e.ack); {
	case d < 0 && e.proven:
		return // late
	case d != 0: // if it does not prove itself, either of the two may be forged
		e.moved = true
		e.news(s, now)
		return
	}
	if int32(s.end()-e.seq) > 0 {
		e.seq = s.end()
	}
	e.agrees(confirm, now)
}

// news notes where the end stands.
func (e *end) news(s *Segment, now int64) {
	e.heard, e.heardAt = true, now
	e.ack, e.seq = s.Ack, s.end()
}

// agrees is told that the end stands where it stood.
func (e *end) agrees(confirm bool, now int64) {
	since := now - e.heardAt
	switch {
	case e.wantReset || e.renewed:
		return
	case !confirm && (e.proven || since < max(patience, e.rtt)):
		return // to a tickle that left before the end was first heard, for all we know
	case since < settle:
		e.due = e.heardAt + settle
		return
	}
	e.moved = false
	if e.resets >= maxResets {
		e.finish(Refused, ErrHeld)
		return
	}
	e.wantReset, e.renewed = true, true
	if e.resets == 0 {
		e.wantTickle = true // to hear at once that it was taken
	}
}

// proves says whether the answer names a tickle: one that left before the end
// was heard, or after.
func (e *end) proves(s *Segment) (first, confirm bool) {
	if !s.HasBlock || s.Block[1] != s.Block[0]+1 {
		return false, false
	}
	return e.probed[0] && s.Block[0] == e.probes[0], e.probed[1] && s.Block[0] == e.probes[1]
}

// fits says whether the numbers can be those of the connection, as far as it is
// known.
func (e *end) fits(s *Segment) bool {
	within := func(n, low, span uint32) bool { return n-low <= span }
	const gigabyte = 1 << 30 // the largest window (RFC 7323, section 2.3)
	k := &e.start
	switch {
	case k.Known&KnownNumbers != 0:
		span := uint32(1 << 31)
		if k.Known&Final != 0 {
			span = k.Next - k.Acknowledged
		}
		return within(s.Ack, k.Acknowledged, span) && within(s.Seq, k.Receive-gigabyte, 3*gigabyte)
	case k.Known&KnownISN != 0 && !within(s.Ack, k.ISN, 1<<31):
		return false
	}
	return k.Known&KnownRemoteISN == 0 || within(s.Seq, k.RemoteISN-gigabyte, 3*gigabyte)
}
