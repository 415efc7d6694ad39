package connected

import (
	"iter"
	"net/netip"
	"time"
)

// core is the whole judgement of a Roster: what was told of sockets by the
// kernel and of connections by the relay becomes changes. It sees no clock, no
// socket and no goroutine.
//
// What the kernel tells comes on two ways at the same time: changes, in order,
// some of which may be lost; and looks, each of which lists every connected
// socket, some time between its beginning and its end. A socket is known by
// its cookie, which no other socket ever has, and the two ways are put together
// so that
//
//   - a socket that ended while a look was under way does not come back by it;
//   - a tuple that is used again belongs to the later socket, whichever way it
//     was heard of first;
//   - a socket is given up only when two looks in a row have not found it, or its
//     end was told: older kernels can miss one in a look.
type core struct {
	max     int
	watched map[netip.Addr]struct{}
	entries map[Tuple]*entry
	dirty   []Tuple // entries that may have to be told

	look    uint64              // the number of the latest look
	looking bool                // it is under way
	ended   map[uint64]struct{} // cookies of sockets that ended while it is

	refused int // sockets and legs that found no room, since the beginning of the latest look
	told    int // entries that are told to be there
	changes uint64
}

// An entry is what is known of one tuple. It is in core.entries as long as it
// has a socket or a leg, or something was told that is no longer so.
type entry struct {
	socket bool // the kernel has one
	cookie uint64
	at     int64  // when it was first seen, of the boot clock
	seen   uint64 // the latest look that found it
	missed uint8  // how many looks in a row did not

	numbers        bool
	fast           bool   // too much went between the latest two looks for the numbers to be of use
	lately, remote uint32 // the last numbers of both ends, as now.isn and now.remote, that were heard
	heard          int64  // when that was, of the boot clock

	leg   bool // the relay has it
	label bool // Kind and Owner are the relay's; they stay as long as the socket does

	isTold bool // told is what the last one who was told has heard
	dirty  bool

	now, told said
}

// said is a Record without its Tuple, in few bytes.
type said struct {
	owner  string
	since  int64 // ns since 1970
	isn    uint32
	remote uint32
	hasISN bool
	kind   Kind
}

func (s said) record(t Tuple) Record {
	return Record{
		Tuple: t, Kind: s.kind, HasISN: s.hasISN, ISN: s.isn, RemoteISN: s.remote,
		Since: time.Unix(0, s.since).UTC(), Owner: s.owner,
	}
}

// An observation is what the kernel told of a connected socket.
type observation struct {
	Tuple
	cookie  uint64
	at      int64     // of the boot clock, in ns
	since   time.Time // the same moment, of the wall clock
	numbers bool
	isn     uint32 // the last number of Local that Remote has acknowledged
	remote  uint32 // and the other way round
}

// missesAllowed is how many looks in a row may not find a socket that is held
// to be there.
const missesAllowed = 1

// outpace is how many bytes in one direction between two looks make a
// connection's numbers useless: at that pace they would be too old before the
// next look.
const outpace = 1 << 30

func newCore(maxEntries int) *core {
	return &core{max: maxEntries, watched: make(map[netip.Addr]struct{}), entries: make(map[Tuple]*entry)}
}

// watch sets the addresses that are watched. Sockets of others are forgotten,
// legs of others are kept, in silence.
func (c *core) watch(addrs map[netip.Addr]struct{}) {
	was := c.watched
	c.watched = addrs
	for t, e := range c.entries {
		_, before := was[t.Local.Addr()]
		_, now := addrs[t.Local.Addr()]
		if before == now {
			continue
		}
		if !now {
			e.socket = false
			e.number(false, 0, 0, 0) // nobody looks after them
		}
		c.touch(t, e)
	}
}

func (c *core) watches(t Tuple) bool {
	_, ok := c.watched[t.Local.Addr()]
	return ok
}

// touch notes that an entry may have to be told.
func (c *core) touch(t Tuple, e *entry) {
	if !e.dirty {
		e.dirty = true
		c.dirty = append(c.dirty, t)
	}
}

// get gives the entry of a tuple, a new one if there is room.
func (c *core) get(t Tuple) *entry {
	if e, ok := c.entries[t]; ok {
		return e
	}
	if len(c.entries) >= c.max {
		c.refused++
		return nil
	}
	e := &entry{now: said{kind: Socket}}
	c.entries[t] = e
	return e
}

// established takes what the kernel told of a connected socket, by a change or
// by the look that is under way.
func (c *core) established(o observation) {
	if !c.watches(o.Tuple) {
		return // it is an echo of what was watched
	}
	if _, ok := c.ended[o.cookie]; ok {
		return
	}
	e := c.get(o.Tuple)
	if e == nil {
		return
	}
	if e.socket && e.cookie == o.cookie {
		c.again(o, e)
		return
	}
	if e.socket && o.at < e.at {
		return // an earlier one, whose end was not told
	}
	if !e.leg {
		e.label = false // it was an earlier one's
	}
	e.socket, e.cookie, e.at = true, o.cookie, o.at
	e.seen, e.missed = c.look, 0
	e.number(o.numbers, o.isn, o.remote, o.at)
	e.now.since = o.since.UnixNano()
	if !e.label {
		e.now.kind, e.now.owner = Socket, ""
	}
	c.touch(o.Tuple, e)
}

// again takes what a look told of a socket that is known.
func (c *core) again(o observation, e *entry) {
	e.seen, e.missed = c.look, 0
	if !o.numbers {
		return
	}
	if !e.numbers { // it was only known from the list before
		e.number(true, o.isn, o.remote, o.at)
		c.touch(o.Tuple, e)
		return
	}
	if o.at <= e.heard {
		return // the change that a look has overtaken
	}
	fast := o.isn-e.lately >= outpace || o.remote-e.remote >= outpace
	e.lately, e.remote, e.heard = o.isn, o.remote, o.at
	if fast != e.fast || o.isn-e.now.isn >= Stride || o.remote-e.now.remote >= Stride {
		e.fast, e.now.isn, e.now.remote = fast, o.isn, o.remote
		c.touch(o.Tuple, e)
	}
}

// number gives an entry its first numbers, or none.
func (e *entry) number(known bool, isn, remote uint32, at int64) {
	e.numbers, e.fast, e.heard = known, false, at
	e.now.isn, e.now.remote, e.lately, e.remote = isn, remote, isn, remote
}

// forgetNumbers says that nobody looks after the numbers any more.
func (c *core) forgetNumbers() {
	for t, e := range c.entries {
		if e.numbers {
			e.number(false, 0, 0, 0)
			c.touch(t, e)
		}
	}
}

// closed takes the end of a socket.
func (c *core) closed(t Tuple, cookie uint64) {
	if c.looking {
		c.ended[cookie] = struct{}{}
	}
	if e, ok := c.entries[t]; ok && e.socket && e.cookie == cookie {
		e.socket = false
		c.touch(t, e)
	}
}

// add takes a connection of the relay.
func (c *core) add(r Record) {
	e := c.get(r.Tuple)
	if e == nil {
		return
	}
	e.leg, e.label, e.now.kind, e.now.owner = true, true, r.Kind, r.Owner
	if !e.socket {
		e.now.since = r.Since.UnixNano()
		e.number(r.HasISN, r.ISN, r.RemoteISN, 0)
	}
	c.touch(r.Tuple, e)
}

// remove takes the end of a connection of the relay. Its socket may live on for
// a while, until the other end has everything.
func (c *core) remove(t Tuple) {
	e, ok := c.entries[t]
	if !ok || !e.leg {
		return
	}
	e.leg = false
	c.touch(t, e)
}

// beginLook says that a look begins.
func (c *core) beginLook() {
	c.look++
	c.looking, c.ended, c.refused = true, make(map[uint64]struct{}), 0
}

// endLook says that the look has ended; began is when it did, of the boot
// clock. One that is not whole says nothing about whom it did not find.
func (c *core) endLook(began int64, whole bool) {
	c.looking, c.ended = false, nil
	if !whole {
		return
	}
	for t, e := range c.entries {
		if !e.socket || e.seen == c.look || e.at >= began {
			continue
		}
		if e.missed++; e.missed > missesAllowed {
			e.socket = false
			c.touch(t, e)
		}
	}
}

// says is what an entry is to be told as.
func (e *entry) says() said {
	s := e.now
	if s.hasISN = e.numbers && !e.fast; !s.hasISN {
		s.isn, s.remote = 0, 0
	}
	return s
}

// flush appends to list what is to be told since the last call.
func (c *core) flush(list []Change) []Change {
	for _, t := range c.dirty {
		e := c.entries[t]
		e.dirty = false
		there := e.socket || e.leg
		switch visible := there && c.watches(t); {
		case visible:
			if s := e.says(); !e.isTold || e.told != s {
				if !e.isTold {
					c.told++
				}
				e.isTold, e.told = true, s
				list = append(list, Change{Record: s.record(t)})
			}
		case e.isTold:
			c.told--
			e.isTold, e.told = false, said{}
			list = append(list, Change{Record: Record{Tuple: t}, Gone: true})
		}
		if !there {
			delete(c.entries, t)
		}
	}
	c.dirty = c.dirty[:0]
	if cap(c.dirty) > 1<<16 {
		c.dirty = nil // it was a crowd
	}
	return list
}

// records lists who is connected now.
func (c *core) records(yield func(Record) bool) {
	for t, e := range c.entries {
		if (e.socket || e.leg) && c.watches(t) && !yield(e.says().record(t)) {
			return
		}
	}
}

// toldSoFar lists what flush has said, as one who heard all of it would know it.
func (c *core) toldSoFar() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for t, e := range c.entries {
			if e.isTold && !yield(e.told.record(t)) {
				return
			}
		}
	}
}
