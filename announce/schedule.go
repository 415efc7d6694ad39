package announce

import "time"

// steps is how long after an acquisition the announcements are made. The first
// ones are close together, for what is lost in the moment of a change; the last
// ones reach who was away: a switch whose port was down, a host that slept.
var steps = [...]time.Duration{
	0, 20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second,
}

// Schedule says when the announcements of an address are due, from its
// acquisition on. The zero Schedule has none. Instants are in nanoseconds, on
// any clock that does not go back.
type Schedule struct {
	start int64
	next  int // which of steps
	runs  bool
}

// Start begins anew: the first announcement is due at now.
func (s *Schedule) Start(now int64) { *s = Schedule{start: now, runs: true} }

// Stop ends it: nothing is due any more.
func (s *Schedule) Stop() { *s = Schedule{} }

// Deadline is when Due will say yes; there is none before Start and after the
// last announcement.
func (s *Schedule) Deadline() (at int64, ok bool) {
	if !s.runs {
		return 0, false
	}
	return s.start + int64(steps[s.next]), true
}

// Due says whether to announce now, and counts it as done. Who comes late
// announces once for all that was missed.
func (s *Schedule) Due(now int64) bool {
	due := false
	for s.runs && now >= s.start+int64(steps[s.next]) {
		due = true
		s.next++
		s.runs = s.next < len(steps)
		if !s.runs {
			s.next = 0
		}
	}
	return due
}
