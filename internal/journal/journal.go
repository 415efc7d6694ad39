//go:build linux

package journal

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/relay"
)

// Defaults of [Options].
const (
	DefaultConnections = 16384
	DefaultChanges     = 4096
)

// Options says how much a [Journal] remembers. The zero value is usable.
//
// An end takes 168 bytes, and another 100 or so for its texts; a change some
// 300. A text is cut at 1 kB, so that the defaults are 6 MB where texts are as
// usual, and 30 MB whatever they are.
type Options struct {
	Connections int // ends of connections; 0 or less: DefaultConnections
	Changes     int // every other event; 0 or less: DefaultChanges
}

// A Journal remembers the newest events. Its methods may be called by any
// goroutine.
type Journal struct {
	began time.Time

	mu      sync.Mutex
	last    uint64 // sequence number of the newest event
	ends    ring[end]
	changes ring[change]
	waiting []*Follower // to be woken by the next event
}

// end and change are what the rings hold.
type end struct {
	seq uint64
	relay.End
}

type change struct {
	seq uint64
	admin.Event
}

func (e *end) sequence() uint64    { return e.seq }
func (c *change) sequence() uint64 { return c.seq }

// New makes a Journal.
func New(o Options) *Journal {
	if o.Connections <= 0 {
		o.Connections = DefaultConnections
	}
	if o.Changes <= 0 {
		o.Changes = DefaultChanges
	}
	return &Journal{began: time.Now(), ends: newRing[end](o.Connections), changes: newRing[change](o.Changes)}
}

// Began is when the journal was made. Sequence numbers count from there: one of
// another journal, of the node before a restart, means nothing here.
func (j *Journal) Began() time.Time { return j.began }

// Last is the sequence number of the newest event, 0 before the first.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// AddEnd adds the end of a connection. It is for event loops: it copies the
// record, allocates nothing, and waits for no reader.
func (j *Journal) AddEnd(e relay.End) {
	e.Detail = clip(e.Detail)
	j.mu.Lock()
	j.last++
	*j.ends.next() = end{seq: j.last, End: e}
	j.wake()
	j.mu.Unlock()
}

// Add adds any other event; its number is the journal's to give, and its time is
// now unless it says another. It waits for no reader. What it points to belongs
// to the journal from here on.
func (j *Journal) Add(e admin.Event) {
	if e.Change != nil {
		c := *e.Change
		c.Reason = clip(c.Reason)
		e.Change = &c
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	j.last++
	e.Seq = j.last
	*j.changes.next() = change{seq: j.last, Event: e}
	j.wake()
}

// wake wakes the followers that sleep. The caller holds mu.
func (j *Journal) wake() {
	for i, f := range j.waiting {
		f.waits = false
		f.signal()
		j.waiting[i] = nil
	}
	j.waiting = j.waiting[:0]
}

// maxText bounds what one event keeps of a text.
const maxText = 1024

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}

// chunk is how many records are copied while loops may have to wait: some 20 us.
const chunk = 128

// Read returns the events that pass the filter and are newer than the event with
// the number after, the oldest first; with a Limit, the newest of them. 0 is
// before all. What the journal has forgotten since that event is told as lost,
// and a number that it has not given yet is one of another journal: everything
// is new then. What the events point to is shared, and must not be changed.
func (j *Journal) Read(f admin.Filter, after uint64) ([]admin.Event, error) {
	m, err := f.Matcher()
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	from, until, missed, lost := j.begin(after)
	j.mu.Unlock()
	events := j.read(m, from, until, f.Limit)
	if lost {
		events = slices.Insert(events, 0, lostEvent(missed))
	}
	return events, nil
}

// begin says what to read for somebody who knows everything up to the event with
// the number after: the events behind from up to until, and how many are lost
// before them, where some are. The caller holds mu.
func (j *Journal) begin(after uint64) (from, until, missed uint64, lost bool) {
	switch {
	case after == 0: // whoever begins at the beginning has missed nothing
		return 0, j.last, 0, false
	case after > j.last:
		return 0, j.last, 0, true // nobody knows how many
	}
	_, missed = j.place(after)
	return after, j.last, missed, missed > 0
}

func lostEvent(n uint64) admin.Event {
	return admin.Event{Event: admin.EventLost, Time: time.Now(), Count: n}
}

// read returns what passes m, of the events behind from up to until.
func (j *Journal) read(m admin.Matcher, from, until uint64, limit int) []admin.Event {
	j.mu.Lock()
	ends, changes := search(&j.ends, until), search(&j.changes, until)
	j.mu.Unlock()
	all := slices.Concat(
		newest(j, &j.changes, changes, from, limit, m, func(c *change) admin.Event { return c.Event }),
		newest(j, &j.ends, ends, from, limit, m, endEvent))
	slices.SortFunc(all, func(a, b admin.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	if limit > 0 && len(all) > limit {
		all = slices.Delete(all, 0, len(all)-limit)
	}
	return all
}

// newest goes back through one ring, from before the index end until limit
// events were found, or the one with the number after.
func newest[T any, P record[T]](j *Journal, r *ring[T], end, after uint64, limit int, m admin.Matcher, event func(*T) admin.Event) []admin.Event {
	var found []admin.Event
	records := make([]T, 0, chunk)
	for {
		j.mu.Lock()
		records = records[:0]
		for first := r.first(); len(records) < chunk && end > first; end-- {
			t := r.at(end - 1)
			if P(t).sequence() <= after {
				break
			}
			records = append(records, *t)
		}
		j.mu.Unlock()
		for i := range records {
			if e := event(&records[i]); m.Event(&e) {
				found = append(found, e)
				if len(found) == limit {
					return found
				}
			}
		}
		if len(records) < chunk {
			return found
		}
	}
}

// A position is a place in both rings: the indexes of what comes next.
type position struct{ ends, changes uint64 }

// place returns the position behind the event with a number, and how many that
// came after it are forgotten. The caller holds mu.
func (j *Journal) place(after uint64) (position, uint64) {
	p := position{search(&j.ends, after), search(&j.changes, after)}
	if after >= j.last {
		return p, 0
	}
	// Every number was given once, so what is not held is forgotten.
	return p, j.last - after - (j.ends.end - p.ends) - (j.changes.end - p.changes)
}

// endEvent is how the end of a connection reads.
func endEvent(e *end) admin.Event {
	return admin.Event{
		Seq: e.seq, Event: admin.EventConnection, Time: e.Began.Add(e.Age), Service: e.Service, Backend: e.Backend,
		ConnectionEnd: &admin.ConnectionEnd{
			ID: e.ID, Client: e.Client, Engine: "relay", Cause: e.Cause.String(), By: e.By.String(), Age: admin.Seconds(e.Age),
			BytesIn: e.BytesIn, BytesOut: e.BytesOut, Undelivered: e.Undelivered,
			ToldClient: e.ToldClient.String(), ToldBackend: e.ToldBackend.String(), Attempts: e.Attempts, Detail: e.Detail,
		},
	}
}

// A ring holds the newest records. Each has an index, which counts from 0 and is
// never used again.
type ring[T any] struct {
	records []T
	end     uint64 // index of the next record
}

// record is a pointer to what a ring holds.
type record[T any] interface {
	*T
	sequence() uint64
}

func newRing[T any](n int) ring[T] { return ring[T]{records: make([]T, n)} }

// next returns the place of the next record, where the oldest one was.
func (r *ring[T]) next() *T {
	r.end++
	return r.at(r.end - 1)
}

// first is the index of the oldest record.
func (r *ring[T]) first() uint64 {
	if n := uint64(len(r.records)); r.end > n {
		return r.end - n
	}
	return 0
}

func (r *ring[T]) at(index uint64) *T { return &r.records[index%uint64(len(r.records))] }

// search returns the index of the first record behind a number.
func search[T any, P record[T]](r *ring[T], after uint64) uint64 {
	low, high := r.first(), r.end
	for low < high {
		middle := low + (high-low)/2
		if P(r.at(middle)).sequence() <= after {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}
