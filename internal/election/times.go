package election

import (
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// Fixed durations.
const (
	// Linger is how long the kernel of a frozen owner answers for an address at
	// most where nothing but its lifetime (2 s) ends it.
	Linger = 2200 * time.Millisecond

	// AloneLease and AloneRenewal are lease and renewal of a group that nobody
	// shares. They bound how long a frozen node holds on, not a takeover.
	AloneLease   = 2 * time.Second
	AloneRenewal = 500 * time.Millisecond

	// MoveAnswer is how long the peer may take to get ready for a planned move.
	MoveAnswer = time.Second

	minSpacing   = 2 * time.Millisecond
	maxSpacing   = 250 * time.Millisecond
	quickSpacing = 5 * time.Millisecond
	minBeat      = 20 * time.Millisecond
	maxBeat      = time.Second
	minGrace     = 500 * time.Millisecond
	someTime     = 200 * time.Millisecond // a busy Go process is late by that much
	asks         = 3                      // that must go unanswered
)

// Times are the durations of a group, all of them derived from the interval I of
// the active node's adverts and the priority of this node.
//
// The inequality, with rho the difference between the rates of two clocks:
//
//	2 I  <  Lease  <  Lease (1+rho) + Slack  <=  Down
//	                  Lease (1+rho) + transit  <=  Bound
//	        Bound + 3 Spacing  <=  Down, or an owner that answers is waited for
//	        Lease (1+rho)  <=  Grace / 2
//
// That is: an owner may miss two adverts in a row without losing its lease; and
// whoever judges by silence acts after that lease has ended, although it passes
// over evidence that is less than Slack newer than the last advert.
type Times struct {
	Interval time.Duration // I

	// Lease is how long an owner may act from the moment of its last evidence:
	// 2.5 I.
	Lease time.Duration

	// Down is how long the active node must have been silent: 3 I + skew, the
	// Active_Down_Interval of RFC 9568.
	Down time.Duration

	// Slack: evidence by beat that is at most so much newer than the last advert
	// says nothing new, as it was made in the same turn: I / 2. It keeps a slow
	// link from delaying a takeover.
	Slack time.Duration

	// Bound is when the lease of an owner has ended that has not extended it
	// since our last evidence: Lease, 1/64 of it for the clocks, I / 16 for
	// transit. A question that is answered later proves that it was extended.
	Bound time.Duration

	// Suspect is how late adverts make a backup ask: 1.5 I.
	Suspect time.Duration

	// Spacing is between two questions, and what an answer may take: I / 8, 2 to
	// 250 ms. Quick is the same after an advert that says that the owner stops.
	Spacing, Quick time.Duration

	// Reflect is between two questions to the witness, each with one on behalf of
	// the peer, and what the peer may take to answer: I / 4, 2 to 250 ms.
	Reflect time.Duration

	// Beat is between two beats: I, 20 ms to 1 s.
	Beat time.Duration

	// Patience is how long beats and answers may fail to come where adverts do
	// not arrive at all: 3 beats and 200 ms, and not less than Down.
	Patience time.Duration

	// Grace is how long who gave the addresses away does not take them back: 6 I,
	// at least 500 ms. They are taken within half of it.
	Grace time.Duration

	// Late is how late the caller may be before what it has heard proves
	// nothing: I.
	Late time.Duration
}

// NewTimes derives the durations.
func NewTimes(priority uint8, interval time.Duration) Times {
	down := vrrp.DownInterval(priority, interval)
	lease := interval * 5 / 2
	beat := min(max(interval, minBeat), maxBeat)
	spacing := min(max(interval/8, minSpacing), maxSpacing)
	return Times{
		Interval: interval,
		Lease:    lease,
		Down:     down,
		Slack:    interval / 2,
		Bound:    lease + lease/64 + interval/16,
		Suspect:  interval * 3 / 2,
		Spacing:  spacing,
		Quick:    min(spacing, quickSpacing),
		Reflect:  min(max(interval/4, minSpacing), maxSpacing),
		Beat:     beat,
		Patience: max(down, 3*beat+someTime),
		Grace:    max(6*interval, minGrace),
		Late:     interval,
	}
}

// Check says which part of the inequality does not hold, for clocks whose rates
// differ by one part in rho.
func (t Times) Check(rho int64) error {
	stretched := t.Lease + t.Lease/time.Duration(rho)
	var errs []error
	must := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("election: with an interval of %v: %s", t.Interval, what))
		}
	}
	must(2*t.Interval < t.Lease, "the lease ends before two adverts are missed")
	must(stretched+t.Slack <= t.Down, "a backup acts before the lease has ended, if a beat said more than the last advert")
	must(stretched < t.Bound, "a question is taken for proof while the old lease runs")
	must(stretched <= t.Grace/2, "who gave the addresses away takes them back while a lease runs")
	must(t.Suspect+(asks+1)*t.Spacing <= t.Down, "there is no time to ask")
	return errors.Join(errs...)
}
