package pair

import "fmt"

// A replica is one node's part of one set: the leader's outbox, or what the
// follower has. It is pure: it sees no clock and no connection, but is told what
// came, and asked what is to be sent.
//
// A set of one leader is its whose term is the latest. In a set of two leaders
// (both is true), which a table is, each node leads towards the other one and
// follows it, and terms are only names.
type replica struct {
	id   uint16
	self uint8 // 1 or 2
	both bool

	latest term // nothing of an earlier one is taken
	leads  bool
	out    outbox

	at        position // what this node, as the follower, was given
	applied   position // and what of it is done with
	connected bool
	begun     bool // the leader said on this connection what comes
	caught    bool // and then that nothing is missing

	tell   bool // applied is to be sent
	owed   bool // and that also if it is what was sent before: the leader has asked
	refuse bool // the peer is to be told which term is the latest
}

// position is how far a follower is.
type position struct {
	term       term
	generation uint64
	seq        uint64
	whole      bool // nothing is missing, and nothing older is left
}

// A step is what a message leads to: the items are for whoever follows.
type step struct {
	item       Item
	is         bool // there is an item
	superseded bool // this node leads no longer, since
	epoch      uint64
}

func newReplica(id uint16, self uint8, both bool, maxItems, maxBytes int) *replica {
	r := &replica{id: id, self: self, both: both}
	r.out.maxItems, r.out.maxBytes = maxItems, maxBytes
	r.out.clear(term{}, 0)
	return r
}

// lead makes this node the one that produces, from the given epoch on, with no
// items; generation is drawn by chance. What it followed is over.
func (r *replica) lead(epoch, generation uint64) error {
	t := term{epoch: epoch, leader: r.self}
	if t.before(r.latest) {
		return &EpochError{Epoch: epoch, Latest: r.latest.epoch}
	}
	r.latest, r.leads = t, true
	r.out.clear(t, generation)
	if !r.both {
		r.at = position{term: t}
		r.applied = r.at
		r.begun, r.caught = false, false
	}
	if r.out.ready {
		r.out.restart()
	}
	return nil
}

// An EpochError says that somebody leads with a later epoch.
type EpochError struct {
	Epoch, Latest uint64
}

func (e *EpochError) Error() string {
	return fmt.Sprintf("cannot lead with epoch %d: epoch %d has begun already", e.Epoch, e.Latest)
}

// fence refuses everything before the epoch; a leader of an earlier one leads no
// longer.
func (r *replica) fence(epoch uint64) step {
	return r.see(term{epoch: epoch})
}

// see takes note of a term.
func (r *replica) see(t term) step {
	if r.both || !r.latest.before(t) {
		return step{}
	}
	r.latest = t
	if !r.leads {
		return step{}
	}
	r.leads = false
	r.out.clear(term{}, 0)
	return step{superseded: true, epoch: t.epoch}
}

func (r *replica) connect() {
	r.connected, r.tell = true, true
	r.apply()
}

// apply takes note that what was received is done with: now it may be
// acknowledged.
func (r *replica) apply() {
	if r.applied != r.at || r.owed {
		r.applied, r.tell, r.owed = r.at, true, false
	}
}

func (r *replica) disconnect() {
	r.out.disconnect()
	r.connected, r.begun, r.caught, r.tell, r.owed, r.refuse = false, false, false, false, false, false
}

// receive takes a message of the peer. An error means that the peer does what no
// peer can: the connection must end.
func (r *replica) receive(m message) (step, error) {
	switch m.kind {
	case kindHave:
		s := r.see(m.term)
		if r.leads {
			r.out.have(m)
		} else {
			r.out.ready = true
		}
		return s, nil
	case kindRefuse:
		return r.see(m.term), nil
	}
	if m.term.leader == r.self {
		return step{}, r.broken(m, "it is of this node's own term")
	}
	if !r.both && m.term.before(r.latest) {
		r.refuse = r.refuse || m.kind == kindBegin
		return step{}, nil
	}
	if m.kind == kindBegin {
		return r.begins(m)
	}
	if !r.begun || m.term != r.at.term {
		return step{}, r.broken(m, "nothing has begun")
	}
	if m.seq < r.at.seq || m.seq == r.at.seq && m.kind != kindMark {
		return step{}, r.broken(m, fmt.Sprintf("it comes after %d", r.at.seq))
	}
	r.at.seq = m.seq
	s := step{item: Item{Epoch: m.term.epoch, Key: m.key, Value: m.value}, is: true}
	switch m.kind {
	case kindPut:
		s.item.Kind = ItemPut
	case kindDelete:
		s.item.Kind = ItemDelete
	case kindMark:
		s.item.Kind, s.is = ItemEnd, m.whole && !r.at.whole
		r.at.whole, r.caught, r.owed = m.whole, m.whole, true
	}
	return s, nil
}

// begins takes the beginning of what the leader sends on this connection.
func (r *replica) begins(m message) (step, error) {
	s := r.see(m.term)
	switch {
	case m.whole:
		r.at = position{term: m.term, generation: m.generation}
		s.item, s.is = Item{Kind: ItemBegin, Epoch: m.term.epoch}, true
	case m.term != r.at.term || m.generation != r.at.generation || m.seq != r.at.seq:
		return step{}, r.broken(m, fmt.Sprintf("what it goes on from is not here, which is %d", r.at.seq))
	}
	r.begun, r.caught = true, false
	return s, nil
}

func (r *replica) broken(m message, why string) error {
	return &frameError{m.kind, fmt.Sprintf("set %d, epoch %d, number %d: %s", m.set, m.term.epoch, m.seq, why)}
}

// pop returns the next message to send.
func (r *replica) pop() (m message, ok bool) {
	switch {
	case !r.connected:
	case r.refuse:
		r.refuse = false
		return message{kind: kindRefuse, set: r.id, term: r.latest}, true
	case r.tell:
		r.tell = false
		a := r.applied
		return message{kind: kindHave, set: r.id, term: a.term, generation: a.generation, seq: a.seq, whole: a.whole}, true
	case r.leads:
		m, ok = r.out.pop()
		m.set = r.id
	}
	return m, ok
}

// complete reports whether this node, as a follower, has everything that it has
// acknowledged, and nothing older.
func (r *replica) complete() bool {
	return r.applied.whole && (r.both || !r.applied.term.before(r.latest))
}

// state is that of a set, as its leader or its follower sees it.
func (r *replica) state() string {
	switch {
	case !r.connected:
		return Down
	case r.leads && !r.out.synced, (r.both || !r.leads) && !(r.caught && r.complete()):
		return Syncing
	}
	return Synced
}
