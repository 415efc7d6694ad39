package notice

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

const (
	burst = 64 // segments in one call
	// slack is how much time of a pause in sending is made up for afterwards.
	slack = int64(time.Millisecond)
	// linger is how long the Teller listens on when there is nothing to do: to stop
	// takes the kernel milliseconds, in which a call would wait.
	linger = int64(10 * time.Second)
	// rounds bounds how many batches are received in one turn.
	rounds = 4
)

// ends names a connection in the loop. The addresses have no zone.
type ends struct{ local, remote netip.AddrPort }

// entry is a connection that is being told.
type entry struct {
	end
	ends
	link       int    // by which its answers come; before, that of a link-local address
	zone       string // its name
	generation uint32 // counts the uses of this place
	used       bool
	queued     [queues]bool
	timed      int64 // the last timer
	sending    error // of the last segment

	owner  waiter   // who gave it
	others []waiter // who gave it as well
}

// waiter is who is given a result: connection number i of a task.
type waiter struct {
	task *task
	i    int
}

// The queues of those who want to send: the first to be served first.
const (
	queueResets = iota
	queueFirst
	queueAgain
	queues
)

// ref names an entry as long as it is used for the same connection.
type ref struct {
	index      int32
	generation uint32
}

// loop is what the goroutine of Run works with.
type loop struct {
	*Teller
	now     int64
	entries []entry
	free    []int32
	table   map[ends]int32
	used    int
	queues  [queues]fifo
	timers  timers

	batch    *sys.Batch
	boxes    [2]*sys.Outbox
	boxed    [2][burst]ref
	events   []sys.Event
	next     int64 // when the next segment may leave
	interval int64 // between two, in nanoseconds

	inquiry inquiry
	turn    []ref // whose turn it is,
	asked   []*entry
	lives   []bool // and whether somebody has the connection

	filtered [2]map[netip.Addr]bool // what the receivers admit
	hearing  [2]bool
	idle     int64 // since when there is nothing to do
}

func newLoop(t *Teller) *loop {
	l := &loop{
		Teller:   t,
		table:    make(map[ends]int32),
		batch:    sys.NewBatch(burst, snap),
		boxes:    [2]*sys.Outbox{sys.NewOutbox(false, burst, MaxPacket+1), sys.NewOutbox(true, burst, MaxPacket+1)},
		events:   make([]sys.Event, 0, 8),
		inquiry:  inquiry{conn: t.here},
		interval: int64(time.Second) / int64(t.options.Rate),
	}
	for i := range l.filtered {
		l.filtered[i] = make(map[netip.Addr]bool)
	}
	return l
}

// run turns until the Teller is closed.
func (l *loop) run() error {
	for {
		l.now = sys.BootTime()
		tasks, stopped, closed := l.handed()
		for _, k := range tasks {
			l.accept(k)
		}
		for _, k := range stopped {
			l.abandon(func(w waiter) (bool, error) { return w.task == k, k.why })
		}
		if closed {
			l.abandon(func(waiter) (bool, error) { return true, ErrClosed })
			return nil
		}
		more := l.receive()
		l.expire()
		l.send()
		if err := l.wait(more); err != nil {
			l.abandon(func(waiter) (bool, error) { return true, err })
			return err
		}
	}
}

// handed takes what the callers have left.
func (l *loop) handed() (tasks, stopped []*task, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks, stopped = l.tasks, l.stopped
	l.tasks, l.stopped = nil, nil
	return tasks, stopped, l.closed
}

// accept begins a task.
func (l *loop) accept(k *task) {
	var fresh [2]bool
	for i := range k.connections {
		given := k.connections[i]
		c, err := given.normal()
		w := waiter{k, i}
		if err != nil {
			w.put(Result{Connection: given, Verdict: Refused, Err: err, Took: l.since(k)})
			continue
		}
		zone := c.Remote.Addr().Zone()
		if zone == "" {
			zone = c.Local.Addr().Zone()
		}
		n := ends{bare(c.Local), bare(c.Remote)}
		if j, known := l.table[n]; known {
			l.entries[j].others = append(l.entries[j].others, w)
			continue
		}
		r := l.allocate()
		e := &l.entries[r.index]
		*e = entry{end: begin(c.Start, l.options.Bound, random(), k.ended != nil && k.ended[i]), ends: n, zone: zone, link: linkOf(zone), generation: r.generation, used: true, owner: w}
		l.table[n] = r.index
		l.push(queueFirst, r)
		which := family(n.local)
		if !l.filtered[which][n.local.Addr()] {
			l.filtered[which][n.local.Addr()], fresh[which] = true, true
		}
	}
	for which, news := range fresh {
		if news || l.used > 0 && !l.hearing[which] && len(l.filtered[which]) > 0 {
			if err := l.hear(which); err != nil {
				l.abandon(func(waiter) (bool, error) { return true, err })
			}
		}
	}
}

// hear makes the receiver of a family admit answers to all its addresses.
func (l *loop) hear(which int) error {
	var to []netip.Addr
	for a := range l.filtered[which] {
		to = append(to, a)
	}
	if err := l.in[which].SetFilter(answers(which == 1, to)); err != nil {
		return err
	}
	if l.hearing[which] {
		return nil
	}
	l.hearing[which] = true
	return l.in[which].Listen(true)
}

// deafen stops listening.
func (l *loop) deafen() {
	for which := range l.in {
		if l.hearing[which] {
			// What it refuses to do costs only time.
			_ = l.in[which].SetFilter(answers(which == 1, nil))
			_ = l.in[which].Listen(false)
			l.hearing[which] = false
		}
		clear(l.filtered[which])
	}
}

func (l *loop) allocate() ref {
	l.used++
	if n := len(l.free); n > 0 {
		i := l.free[n-1]
		l.free = l.free[:n-1]
		return ref{i, l.entries[i].generation + 1}
	}
	l.entries = append(l.entries, entry{})
	return ref{int32(len(l.entries) - 1), 1}
}

// at gives the entry, nil if it is no more.
func (l *loop) at(r ref) *entry {
	if int(r.index) >= len(l.entries) || !l.entries[r.index].used || l.entries[r.index].generation != r.generation {
		return nil
	}
	return &l.entries[r.index]
}

// push queues an entry that wants to send.
func (l *loop) push(queue int, r ref) {
	e := &l.entries[r.index]
	if !e.queued[queue] {
		e.queued[queue] = true
		l.queues[queue].push(r)
	}
}

// settle does what an event has made of an entry.
func (l *loop) settle(r ref) {
	e := &l.entries[r.index]
	switch {
	case e.done:
		l.report(r)
	case e.wantReset:
		l.push(queueResets, r)
	case e.wantTickle:
		l.push(queueAgain, r)
	case e.timed != e.due:
		e.timed = e.due
		l.timers.push(timer{e.due, r}) // an earlier one is found out of date
	}
}

// report gives out the result of an entry and frees it.
func (l *loop) report(r ref) {
	e := &l.entries[r.index]
	result := Result{Verdict: e.verdict, Confirmed: e.confirmed, Tries: int(e.tries), Err: e.err}
	if result.Err == nil && e.verdict == Unreachable {
		result.Err = e.sending
	}
	e.owner.give(result, l)
	for _, w := range e.others {
		w.give(result, l)
	}
	delete(l.table, e.ends)
	*e = entry{generation: e.generation}
	l.free = append(l.free, r.index)
	if l.used--; l.used == 0 {
		l.idle = l.now
		l.entries, l.free = l.entries[:0:0], l.free[:0:0]
		l.timers.clear()
		for i := range l.queues {
			l.queues[i].clear()
		}
	}
}

// give hands a result to who waits for it.
func (w waiter) give(r Result, l *loop) {
	r.Connection, r.Took = w.task.connections[w.i], l.since(w.task)
	w.put(r)
}

func (w waiter) put(r Result) { w.task.put(r) }

func (l *loop) since(k *task) time.Duration { return time.Duration(l.now - k.begun) }

// abandon ends those whose waiter is named, without a verdict.
func (l *loop) abandon(named func(waiter) (bool, error)) {
	for i := range l.entries {
		e := &l.entries[i]
		if !e.used {
			continue
		}
		var others []waiter
		for _, w := range e.others {
			if yes, why := named(w); yes {
				w.give(Result{Err: why}, l)
			} else {
				others = append(others, w)
			}
		}
		e.others = others
		yes, why := named(e.owner)
		if !yes {
			continue
		}
		if len(e.others) > 0 {
			e.owner.give(Result{Err: why, Tries: int(e.tries)}, l)
			e.owner, e.others = e.others[0], e.others[1:]
			continue
		}
		e.finish(Undecided, why)
		l.report(ref{int32(i), e.generation})
		if l.used == 0 {
			return // the entries are gone
		}
	}
}

// receive reads what may be answers; more says that there is more of it.
func (l *loop) receive() (more bool) {
	for _, r := range l.in {
		for i := 0; ; i++ {
			if i == rounds {
				more = true
				break
			}
			if _, errno := r.Receive(l.batch); errno != 0 {
				break // nothing, or a link that went down: its answers are missing, as any may
			}
			for j := range l.batch.Len() {
				l.heard(l.batch.Bytes(j), l.batch.Link(j))
			}
			if !l.batch.Full() {
				break
			}
		}
	}
	return more
}

// heard is told of a packet that came in by a link.
func (l *loop) heard(packet []byte, link int) {
	s, ok := ParseSegment(packet)
	if !ok {
		return
	}
	i, ok := l.table[ends{s.To, s.From}]
	if !ok {
		return
	}
	e := &l.entries[i]
	e.link = link // a socket that is bound to it is found only by it
	e.answer(&s, l.now)
	l.settle(ref{i, e.generation})
}

// expire tells those whose time has come.
func (l *loop) expire() {
	for {
		t, ok := l.timers.first()
		if !ok || t.at > l.now {
			return
		}
		l.timers.pop()
		e := l.at(t.ref)
		if e == nil || e.due != t.at {
			continue
		}
		e.timed = 0
		e.expire(l.now)
		l.settle(t.ref)
	}
}

// send lets leave what may leave now.
func (l *loop) send() {
	l.next = max(l.next, l.now-slack)
	for l.next <= l.now && l.fill() {
		for which := range l.boxes {
			l.next += int64(l.boxes[which].Len()) * l.interval
			l.flush(which)
		}
	}
}

// fill lays segments of the next entries into the boxes, a burst at most. It says
// whether there was one.
func (l *loop) fill() bool {
	l.turn, l.asked, l.lives = l.turn[:0], l.asked[:0], l.lives[:0]
	for n := 0; n < burst-1; {
		r, ok := l.pop()
		if !ok {
			break
		}
		e := &l.entries[r.index]
		if !e.wantReset && !e.wantTickle {
			continue
		}
		n++
		if e.wantReset || e.tries == 0 && e.start.Known&Final != 0 {
			n++
		}
		l.turn, l.asked = append(l.turn, r), append(l.asked, e)
		l.lives = append(l.lives, l.options.Alive != nil && l.options.Alive(e.local, e.remote))
	}
	if len(l.turn) == 0 {
		return false
	}
	err := l.inquiry.ask(l.asked, l.lives)
	for i, r := range l.turn {
		// Reporting frees places, and never moves those of others.
		e := l.at(r)
		switch {
		case err != nil:
			e.finish(Refused, fmt.Errorf("notice: whether a socket of this machine has it: %w", err))
		case l.lives[i]:
			e.alive()
		default:
			l.lay(r, e)
		}
		l.settle(r)
	}
	return true
}

// lay lays the segments of an entry into the box of its family.
func (l *loop) lay(r ref, e *entry) {
	var out [2]Segment
	which := family(e.local)
	box := l.boxes[which]
	for _, s := range out[:e.segments(l.now, &out)] {
		s.From, s.To = e.local, e.remote
		packet, err := s.AppendTo(box.Next())
		if err != nil {
			continue // both of one family, by normal
		}
		to := e.remote.Addr()
		if e.zone != "" {
			to = to.WithZone(e.zone)
		}
		l.boxed[which][box.Len()] = r
		box.Add(packet, e.local.Addr(), to)
	}
}

// pop takes the next entry from the queues.
func (l *loop) pop() (ref, bool) {
	for i := range l.queues {
		for {
			r, ok := l.queues[i].pop()
			if !ok {
				break
			}
			if e := l.at(r); e != nil {
				e.queued[i] = false
				return r, true
			}
		}
	}
	return ref{}, false
}

// flush sends what lies in a box.
func (l *loop) flush(which int) {
	box := l.boxes[which]
	for first := 0; first < box.Len(); {
		n, errno := l.out.Send(box, first)
		for i := first; i < first+n; i++ {
			if e := l.at(l.boxed[which][i]); e != nil {
				e.sending = nil
				e.owner.task.segments++
			}
		}
		first += n
		if errno == 0 && n > 0 {
			continue
		}
		// It counts as lost: its turn comes again.
		if e := l.at(l.boxed[which][first]); e != nil {
			e.sending = fmt.Errorf("notice: send to %v: %w", e.remote, errno)
		}
		first++
	}
	box.Clear()
}

// wait sleeps until there is something to do.
func (l *loop) wait(more bool) error {
	var at int64 // 0: nothing to come
	if t, ok := l.timers.first(); ok {
		at = t.at
	}
	for i := range l.queues {
		if l.queues[i].len() > 0 && (at == 0 || l.next < at) {
			at = l.next
		}
	}
	if l.used == 0 && (l.hearing[0] || l.hearing[1]) {
		if l.now-l.idle >= linger {
			l.deafen()
		} else {
			at = l.idle + linger
		}
	}
	timeout := -1
	if more || at != 0 && at <= l.now {
		timeout = 0
	} else if err := l.alarm.Set(at); err != nil {
		return fmt.Errorf("notice: %w", err)
	}
	var err error
	if l.events, err = l.epoll.Wait(l.events, timeout); err != nil {
		return fmt.Errorf("notice: %w", err)
	}
	for _, ev := range l.events {
		switch ev.Key {
		case keyWaker:
			l.waker.Clear()
		case keyAlarm:
			l.alarm.Clear()
		}
	}
	return nil
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return 0
	}
	return 1
}

func bare(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// linkOf gives the index of the link that a zone names, 0 for none.
func linkOf(zone string) int {
	if zone == "" {
		return 0
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return i.Index
	}
	n, _ := strconv.Atoi(zone)
	return n
}
