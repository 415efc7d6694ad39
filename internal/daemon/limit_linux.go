package daemon

import (
	"fmt"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// How long a limit must leave clients alone before it counts as no longer
// reached, and how long status tells of it.
const (
	calm   = 10 * time.Second
	recent = time.Minute
)

// A limit is something that can run out, and the story of what that cost: at
// most two events in a span of calm, however many clients it costs. It is a
// pure function of what the watcher sees.
type limit struct {
	name    string
	service string // of an accept queue
	what    string // it costs: "client", "connect"
	became  string // of them: "refused", "dropped"
	why     string // what is reached, and what to do, as of the last look

	total   uint64    // what it has cost so far
	last    time.Time // when it last cost something; zero for never
	reached bool
	began   time.Time // of being reached, this time or the last
	ended   time.Time // of the last time
	before  uint64    // total, before it was reached this time
}

// look takes what the limit has cost so far, and whether it holds now whatever
// it costs. why is what is reached. It reports whether there is an event.
func (l *limit) look(now time.Time, total uint64, pressing bool, why string) (e admin.Event, news bool) {
	more := total > l.total
	if more {
		l.last = now
	}
	before := l.total
	l.why = why
	l.total = total
	switch {
	case !l.reached && (more || pressing):
		l.reached, l.began, l.before = true, now, before
		return l.event(now, "reached: "+why), true
	case l.reached && !pressing && now.Sub(l.last) >= calm:
		l.reached, l.ended = false, now
		return l.event(now, fmt.Sprintf("no longer reached: %s in %v", l.price(), now.Sub(l.began).Round(time.Second))), true
	}
	return admin.Event{}, false
}

// price is what it has cost since it was reached.
func (l *limit) price() string {
	n := l.total - l.before
	if n == 0 {
		return "no " + l.what + " " + l.became
	}
	return plural(int(n), l.what) + " " + l.became
}

func (l *limit) event(at time.Time, reason string) admin.Event {
	return admin.Event{
		Event: admin.EventLimit, Time: at, Service: l.service, Count: l.total - l.before,
		Change: &admin.Change{State: l.name, Reason: reason},
	}
}

// problem is what status says of it while it is reached, and for a minute after
// it last cost or pressed.
func (l *limit) problem(now time.Time, code, why string) (admin.Problem, bool) {
	if !l.reached && (l.ended.IsZero() || now.Sub(l.ended) >= recent-calm) {
		return admin.Problem{}, false
	}
	return admin.Problem{Code: code, Service: l.service, Text: l.price() + ": " + why, Since: l.began}, true
}
