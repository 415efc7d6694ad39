package pair

import "fmt"

// An outbox is what a leader holds for its follower: of each item the latest
// value, in the order of the last changes, and of deletions that they happened.
// What is to be sent is a walk along that order. So nothing is queued twice, a
// slow follower costs no more memory than the items themselves, and whoever puts
// an item never waits.
//
// Deletions are remembered until they are acknowledged, but no more of them than
// there may be items. A follower that needs one that is forgotten gets
// everything from the start.
type outbox struct {
	maxItems, maxBytes int

	term       term
	generation uint64 // of the numbers below; another one for each walk from the start
	seq        uint64 // of the latest change

	records    map[string]*record
	all        chain  // by seq
	gone       chain  // of these, deletions
	live, dead int    // items; deletions
	bytes      int    // of keys and values
	horizon    uint64 // deletions up to here are forgotten
	overflow   bool   // an item found no room: nobody has everything until the next lead
	refused    uint64 // how many did not

	acked     uint64  // the follower has all up to here, of this generation
	unacked   *record // the first after it
	waiting   int     // how many there are after it
	snapshots uint64

	// Of this connection.
	ready  bool    // the follower has said what it has
	begin  bool    // begin is the next to be sent
	from   uint64  // where it begins, with the flag:
	whole  bool    // from the start
	next   *record // the next to be sent after it
	mark   bool    // a mark is to be sent when next is nil
	goal   uint64  // what it said; not known while mark is set
	synced bool    // the follower has said that it has everything up to there
}

// record is an item, or the memory of its deletion.
type record struct {
	key     string
	value   []byte // never changed, but replaced
	seq     uint64
	deleted bool

	inAll, inGone neighbours
}

type neighbours struct{ prev, next *record }

// chain is a list of records, through the neighbours that of gives.
type chain struct {
	head, tail *record
	of         func(*record) *neighbours
}

func inAll(r *record) *neighbours  { return &r.inAll }
func inGone(r *record) *neighbours { return &r.inGone }

func (c *chain) push(r *record) {
	*c.of(r) = neighbours{prev: c.tail}
	if c.tail != nil {
		c.of(c.tail).next = r
	} else {
		c.head = r
	}
	c.tail = r
}

func (c *chain) remove(r *record) {
	n := c.of(r)
	if n.prev != nil {
		c.of(n.prev).next = n.next
	} else {
		c.head = n.next
	}
	if n.next != nil {
		c.of(n.next).prev = n.prev
	} else {
		c.tail = n.prev
	}
	*n = neighbours{}
}

// A FullError says that an item found no room.
type FullError struct {
	What       string // "items" or "bytes"
	Have, Room int
}

func (e *FullError) Error() string {
	return fmt.Sprintf("no room for the item: %d %s are held for the peer, at most %d", e.Have, e.What, e.Room)
}

// clear begins anew without items, in the given term, under the numbers of the
// given generation.
func (o *outbox) clear(t term, generation uint64) {
	connected := o.ready
	*o = outbox{
		maxItems: o.maxItems, maxBytes: o.maxBytes,
		term: t, generation: generation, records: make(map[string]*record),
		all: chain{of: inAll}, gone: chain{of: inGone},
		snapshots: o.snapshots, ready: connected,
	}
}

// restart has everything sent from the start, under new numbers: what the
// follower says of the old ones no longer counts. Deletions need not be sent
// then, and what is forgotten so far is of no importance.
func (o *outbox) restart() {
	for o.gone.head != nil {
		o.forget(o.gone.head)
	}
	o.horizon = 0
	o.generation++
	o.snapshots++
	o.begin, o.from, o.whole = true, 0, true
	o.next = o.all.head
	o.mark, o.synced = true, false
	o.acked, o.unacked, o.waiting = 0, o.all.head, o.live
}

// resume has what changed after seq sent.
func (o *outbox) resume(seq uint64) {
	o.begin, o.from, o.whole = true, seq, false
	o.next, o.waiting = nil, 0
	for r := o.all.tail; r != nil && r.seq > seq; r = r.inAll.prev {
		o.next = r
		o.waiting++
	}
	o.mark, o.synced = true, false
	o.acked, o.unacked = seq, o.next
}

// put gives an item its value. The error is a *FullError: the item is not held,
// and the follower loses it if it has it.
func (o *outbox) put(key, value []byte) error {
	r, ok := o.records[string(key)]
	items, bytes := o.live+1, o.bytes+len(key)+len(value)
	if ok {
		bytes -= len(r.key) + len(r.value)
		if !r.deleted {
			items--
		}
	}
	var full error
	switch {
	case items > o.maxItems:
		full = &FullError{"items", o.live, o.maxItems}
	case bytes > o.maxBytes:
		full = &FullError{"bytes", o.bytes, o.maxBytes}
	}
	if full != nil {
		o.refused++
		o.delete(key) // an old value is worse than none
		if !o.overflow {
			o.overflow = true
			o.mark, o.synced = true, false // it must hear that it does not have everything
		}
		return full
	}
	if !ok {
		r = &record{key: string(key)}
		o.records[r.key] = r
	} else {
		o.unlink(r)
	}
	o.bytes = bytes
	r.deleted, r.value = false, append([]byte(nil), value...)
	o.link(r)
	return nil
}

// delete removes an item; it may be one that is not there.
func (o *outbox) delete(key []byte) {
	r, ok := o.records[string(key)]
	if !ok || r.deleted {
		return
	}
	o.unlink(r)
	o.bytes -= len(r.value)
	r.deleted, r.value = true, nil
	o.link(r)
	for o.dead > o.maxItems {
		o.forget(o.gone.head)
	}
	if o.ready && !(o.begin && o.whole) && o.horizon > o.sent() {
		o.restart() // it would miss a deletion that nobody remembers
	}
}

// sent is the number up to which everything is on its way.
func (o *outbox) sent() uint64 {
	if o.next != nil {
		return o.next.seq - 1
	}
	return o.seq
}

// link makes r the latest change.
func (o *outbox) link(r *record) {
	o.seq++
	r.seq = o.seq
	o.all.push(r)
	if r.deleted {
		o.gone.push(r)
		o.dead++
	} else {
		o.live++
	}
	if o.next == nil && o.ready {
		o.next = r
	}
	if o.unacked == nil {
		o.unacked = r
	}
	o.waiting++
}

// unlink is its contrary.
func (o *outbox) unlink(r *record) {
	if o.next == r {
		o.next = r.inAll.next
	}
	if o.unacked == r {
		o.unacked = r.inAll.next
	}
	if r.seq > o.acked {
		o.waiting--
	}
	o.all.remove(r)
	if r.deleted {
		o.gone.remove(r)
		o.dead--
	} else {
		o.live--
	}
}

// forget forgets a deletion.
func (o *outbox) forget(r *record) {
	o.unlink(r)
	delete(o.records, r.key)
	o.bytes -= len(r.key)
	o.horizon = max(o.horizon, r.seq)
}

// have is what the follower says that it has: first where to begin, and then
// acknowledgements.
func (o *outbox) have(m message) {
	ours := m.term == o.term && m.generation == o.generation && m.seq <= o.seq
	switch {
	case !o.ready && ours && m.seq >= o.horizon:
		o.ready = true
		o.resume(m.seq)
	case !o.ready:
		o.ready = true
		o.restart()
	case ours && m.seq >= o.acked: // others are of a generation before, and were on their way
		o.acked = m.seq
		for o.unacked != nil && o.unacked.seq <= o.acked {
			o.unacked = o.unacked.inAll.next
			o.waiting--
		}
		for o.gone.head != nil && o.gone.head.seq <= o.acked {
			o.forget(o.gone.head) // nobody will ask for it
		}
		o.synced = m.whole && !o.begin && !o.mark && m.seq >= o.goal
	}
}

// disconnect forgets what belongs to the connection.
func (o *outbox) disconnect() {
	o.ready, o.begin, o.mark, o.synced, o.next = false, false, false, false, nil
}

// pop returns the next message to send.
func (o *outbox) pop() (m message, ok bool) {
	switch {
	case o.begin:
		o.begin = false
		return message{kind: kindBegin, term: o.term, generation: o.generation, seq: o.from, whole: o.whole}, true
	case o.next != nil:
		r := o.next
		o.next = r.inAll.next
		m = message{kind: kindPut, term: o.term, seq: r.seq, key: []byte(r.key), value: r.value}
		if r.deleted {
			m.kind = kindDelete
		}
		return m, true
	case o.mark && o.ready:
		o.mark, o.goal = false, o.seq
		return message{kind: kindMark, term: o.term, seq: o.seq, whole: !o.overflow}, true
	}
	return message{}, false
}

// protects reports whether the follower has the item as it is now.
func (o *outbox) protects(key []byte) bool {
	r, ok := o.records[string(key)]
	return ok && !r.deleted && o.synced && r.seq <= o.acked
}
