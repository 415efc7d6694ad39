package pair

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A world is two nodes with one set between them, their engines, and what is on
// its way. Whatever happens in it is drawn; after each step its law is looked at.
// The nodes speak by the frames of the link.
type world struct {
	draw  func(what string, n int) int // 0 to n-1
	max   int                          // items that an outbox holds
	nodes [2]*simNode
	conns []*simConn
	epoch uint64 // the latest that anybody led with
	value int    // the latest that was put
	story []string

	// What a broken program does after a step of node i; nil for a sound one.
	broken func(r *replica)
}

// simNode is one node: what its daemon has in memory, and what outlives that.
type simNode struct {
	r    *replica
	conn *simConn // the one that it uses

	// The engine: as the leader, what it produces; as the follower, the copy.
	items map[string]simItem
	stale map[string]bool // not put since the beginning of what comes

	known uint64 // the elector outlives the daemon: the latest epoch that it has seen
}

type simItem struct {
	value int
	epoch uint64 // of the leader that told it
}

// simConn is a TCP connection: what was sent arrives in order, or not at all.
// Each end joins and leaves it when it notices.
type simConn struct {
	way  [2]bytes.Buffer // towards each node
	left [2]bool
}

const simMax = 5

func newWorld(draw func(what string, n int) int) *world {
	w := &world{draw: draw, max: simMax}
	for i := range w.nodes {
		w.nodes[i] = &simNode{}
		w.boot(i)
	}
	return w
}

// boot starts a daemon that knows nothing but what the elector has seen.
func (w *world) boot(i int) {
	n := w.nodes[i]
	w.leave(i)
	n.r = newReplica(7, uint8(i+1), false, w.max, 1<<20)
	n.r.fence(n.known)
	n.items, n.stale = make(map[string]simItem), nil
}

func (w *world) leave(i int) {
	n := w.nodes[i]
	if n.conn != nil {
		n.conn.left[i] = true
		n.conn = nil
		n.r.disconnect()
	}
}

// lead has a node lead with what its engine has.
func (w *world) lead(i int, epoch uint64) error {
	n := w.nodes[i]
	if err := n.r.lead(epoch, uint64(w.draw("generation", 1<<20))<<20); err != nil {
		return err
	}
	n.known = max(n.known, epoch)
	for key, item := range n.items {
		n.items[key] = simItem{item.value, epoch}
		if n.r.out.put([]byte(key), []byte(fmt.Sprint(item.value))) != nil {
			delete(n.items, key) // the copy was larger than what is held: not protected any more
		}
	}
	n.stale = nil
	return nil
}

// take does at the follower's engine what it is told.
func (n *simNode) take(i Item) error {
	switch i.Kind {
	case ItemBegin:
		n.stale = make(map[string]bool)
		for key := range n.items {
			n.stale[key] = true
		}
	case ItemPut:
		item := simItem{epoch: i.Epoch}
		if _, err := fmt.Sscan(string(i.Value), &item.value); err != nil {
			return err
		}
		n.items[string(i.Key)] = item
		delete(n.stale, string(i.Key))
	case ItemDelete:
		delete(n.items, string(i.Key))
		delete(n.stale, string(i.Key))
	case ItemEnd:
		for key := range n.stale {
			delete(n.items, key)
		}
		n.stale = nil
	}
	return nil
}

// send puts the next message of a node on its way.
func (w *world) send(i int) bool {
	n := w.nodes[i]
	if n.conn == nil {
		return false
	}
	m, ok := n.r.pop()
	if ok && !n.conn.left[1-i] {
		n.conn.way[1-i].Write(m.appendTo(nil))
	}
	return ok
}

// arrive takes the next message that is on its way to a node. Between hearing
// and doing, and between doing and taking note of it, the daemon may die.
func (w *world) arrive(i int, dies int) (bool, error) {
	n := w.nodes[i]
	if n.conn == nil || n.conn.way[i].Len() == 0 {
		return false, nil
	}
	h, payload, _, err := readFrame(&n.conn.way[i], nil)
	if err != nil {
		return false, err
	}
	m, err := parseMessage(h.kind, payload)
	if err != nil {
		return false, err
	}
	step, err := n.r.receive(m)
	if err != nil {
		return false, err
	}
	if dies == 1 {
		w.boot(i)
		return true, nil
	}
	if step.is {
		if err := n.take(step.item); err != nil {
			return false, err
		}
	}
	n.known = max(n.known, n.r.latest.epoch)
	if dies == 2 {
		w.boot(i)
		return true, nil
	}
	n.r.apply()
	return true, nil
}

// law is what must hold after every step.
func (w *world) law() error {
	for i, n := range w.nodes {
		lead := w.nodes[1-i]
		if most := 2*w.max + 1; len(n.r.out.records) > most {
			return fmt.Errorf("node %d remembers %d items and deletions, more than %d", i+1, len(n.r.out.records), most)
		}
		if err := n.r.out.sound(); err != nil {
			return fmt.Errorf("node %d: %w", i+1, err)
		}
		if n.r.leads || !n.r.complete() {
			continue
		}
		if n.r.applied.term.epoch < n.known {
			return fmt.Errorf("node %d calls epoch %d complete, and has seen epoch %d", i+1, n.r.applied.term.epoch, n.known)
		}
		for key, item := range n.items {
			if item.epoch != n.r.applied.term.epoch {
				return fmt.Errorf("node %d is complete for epoch %d, and has %s of epoch %d", i+1, n.r.applied.term.epoch, key, item.epoch)
			}
		}
		if !lead.r.leads || lead.r.out.term != n.r.applied.term {
			continue
		}
		for key, rec := range lead.r.out.records {
			if rec.deleted || rec.seq > lead.r.out.acked {
				continue
			}
			if have, ok := n.items[key]; !ok || fmt.Sprint(have.value) != string(rec.value) {
				return fmt.Errorf("node %d acknowledged %s = %s of epoch %d, calls itself complete, and has %v (%t)", i+1, key, rec.value, lead.r.out.term.epoch, have, ok)
			}
		}
	}
	return nil
}

// sound says whether the lists and counters of an outbox fit together.
func (o *outbox) sound() error {
	live, dead, size, waiting, last := 0, 0, 0, 0, uint64(0)
	for r := o.all.head; r != nil; r = r.inAll.next {
		if r.seq <= last || o.records[r.key] != r {
			return fmt.Errorf("the outbox has %q with number %d after %d", r.key, r.seq, last)
		}
		last = r.seq
		size += len(r.key) + len(r.value)
		if r.deleted {
			dead++
		} else {
			live++
		}
		if r.seq > o.acked {
			waiting++
		}
	}
	gone := 0
	for r := o.gone.head; r != nil; r = r.inGone.next {
		gone++
	}
	if live != o.live || dead != o.dead || gone != dead || size != o.bytes || live+dead != len(o.records) || waiting != o.waiting {
		return fmt.Errorf("the outbox counts %d items, %d deletions, %d bytes, %d not acknowledged; there are %d, %d (%d), %d, %d of %d",
			o.live, o.dead, o.bytes, o.waiting, live, dead, gone, size, waiting, len(o.records))
	}
	return nil
}

// step has something happen.
func (w *world) step() error {
	i := w.draw("node", 2)
	n := w.nodes[i]
	key := fmt.Sprintf("k%d", w.draw("key", simMax+2))
	tell := func(format string, args ...any) {
		w.story = append(w.story, fmt.Sprintf("node %d ", i+1)+fmt.Sprintf(format, args...))
	}
	switch what := w.draw("event", 14); what {
	case 0, 1, 2:
		if !n.r.leads {
			break
		}
		w.value++
		tell("puts %s = %d", key, w.value)
		n.items[key] = simItem{w.value, n.r.out.term.epoch}
		var full *FullError
		if err := n.r.out.put([]byte(key), []byte(fmt.Sprint(w.value))); errors.As(err, &full) {
			delete(n.items, key) // it runs without protection, and is no part of what is promised
		} else if err != nil {
			return err
		}
	case 3:
		if n.r.leads {
			tell("deletes %s", key)
			delete(n.items, key)
			n.r.out.delete([]byte(key))
		}
	case 4, 5, 6:
		for range 1 + w.draw("so many", 4) {
			if w.send(i) {
				tell("sends")
			}
		}
	case 7, 8, 9:
		for range 1 + w.draw("so many", 4) {
			dies := w.draw("dies", 200)
			if heard, err := w.arrive(i, dies); err != nil {
				return err
			} else if heard {
				tell("hears (%d)", dies)
			}
		}
	case 10, 11: // a connection is made; the other end joins when it likes
		if len(w.conns) == 0 || w.conns[len(w.conns)-1].left[i] || what == 11 && w.draw("another", 10) == 0 {
			w.conns = append(w.conns, &simConn{})
		}
		c := w.conns[len(w.conns)-1]
		if c == n.conn {
			break
		}
		w.leave(i)
		tell("joins connection %d", len(w.conns))
		n.conn = c
		n.r.connect()
	case 12:
		if how := w.draw("loss or restart", 5); how < 3 {
			tell("loses its connection")
			w.leave(i)
			break
		} else if how == 3 {
			break
		}
		epoch, items, led := n.r.out.term.epoch, n.items, n.r.leads
		tell("starts again")
		w.boot(i)
		if led && epoch == w.epoch { // the engine's state is not the daemon's, and the lease runs on
			n.items = items
			if err := w.lead(i, epoch); err != nil {
				return err
			}
		}
	case 13: // it takes over; the other one may not notice for a while
		if w.epoch > 0 && w.draw("really", 6) > 0 {
			break
		}
		w.epoch++
		tell("takes over with epoch %d", w.epoch)
		if err := w.lead(i, w.epoch); err != nil {
			return err
		}
	}
	if w.broken != nil {
		w.broken(n.r)
	}
	return w.law()
}

// settle lets everything arrive; then the copy must be what the leader has.
func (w *world) settle() error {
	c := &simConn{}
	for i := range w.nodes {
		w.leave(i)
		w.nodes[i].conn = c
		w.nodes[i].r.connect()
	}
	for busy := true; busy; {
		busy = false
		for i := range w.nodes {
			for w.send(i) {
				busy = true
			}
			for {
				heard, err := w.arrive(i, 0)
				if err != nil {
					return err
				}
				if !heard {
					break
				}
				busy = true
				if w.broken != nil {
					w.broken(w.nodes[i].r)
				}
				if err := w.law(); err != nil {
					return err
				}
			}
		}
	}
	for i, lead := range w.nodes {
		follow := w.nodes[1-i]
		if !lead.r.leads {
			continue
		}
		if follow.r.leads {
			return errors.New("both lead, and have told each other")
		}
		if lead.r.out.overflow {
			if s := lead.r.state(); s != Syncing {
				return fmt.Errorf("an item found no room, and the set is %s", s)
			}
			continue
		}
		if a, b := lead.r.state(), follow.r.state(); a != Synced || b != Synced {
			return fmt.Errorf("all has arrived, and the leader says %s, the follower %s", a, b)
		}
		if !maps.Equal(lead.items, follow.items) {
			return fmt.Errorf("the leader has %v, the follower %v", lead.items, follow.items)
		}
	}
	return nil
}

func (w *world) play(steps int) error {
	for range steps {
		if err := w.step(); err != nil {
			return err
		}
	}
	return w.settle()
}

// TestReplica: after any interleaving of puts, deletions, loss of the
// connection, delay, restarts and takeovers, a follower that calls itself
// complete has every item that was acknowledged to it and none of another epoch,
// and the memory of both is bounded.
func TestReplica(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) })
		if err := w.play(rapid.IntRange(1, 200).Draw(t, "steps")); err != nil {
			t.Fatalf("%v\n%s", err, strings.Join(w.story, "\n"))
		}
	})
}

// chance plays a world by drawn numbers.
func chance(seed uint64, broken func(*replica)) error {
	r := rand.New(rand.NewPCG(seed, 4))
	w := newWorld(func(_ string, n int) int { return r.IntN(n) })
	w.broken = broken
	return w.play(300)
}

func TestReplicaByChance(t *testing.T) {
	for seed := range uint64(3000) {
		if err := chance(seed, nil); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestReplicaCanFail breaks the protocol, one rule at a time: each time the law
// notices.
func TestReplicaCanFail(t *testing.T) {
	for name, broken := range map[string]func(*replica){
		"what was sent counts as acknowledged": func(r *replica) {
			for r.out.unacked != nil && r.out.unacked.seq <= r.out.sent() {
				r.out.acked = r.out.unacked.seq
				r.out.unacked = r.out.unacked.inAll.next
				r.out.waiting--
			}
		},
		"the follower is complete before the end": func(r *replica) {
			r.at.whole, r.applied.whole = true, true
		},
		"old terms are forgotten": func(r *replica) {
			if !r.leads {
				r.latest = term{}
			}
		},
		"all generations are one": func(r *replica) {
			r.out.generation, r.at.generation, r.applied.generation = 1, 1, 1
		},
		"what was not sent again is not missed": func(r *replica) {
			if r.out.begin && r.out.whole {
				r.out.next = nil
			}
		},
		"forgotten deletions are not missed": func(r *replica) {
			r.out.horizon = 0
			for r.out.gone.head != nil {
				r.out.forget(r.out.gone.head)
			}
			r.out.horizon = 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3000) {
				if err := chance(seed, broken); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("nobody noticed")
		})
	}
}

// TestReplicaRefuses: what no peer says ends the connection.
func TestReplicaRefuses(t *testing.T) {
	lead := term{epoch: 3, leader: 2}
	begin := message{kind: kindBegin, term: lead, generation: 5, whole: true}
	put := func(seq uint64) message { return message{kind: kindPut, term: lead, seq: seq, key: []byte("k")} }
	for name, messages := range map[string][]message{
		"a put before the beginning":       {put(1)},
		"a mark before the beginning":      {{kind: kindMark, term: lead, seq: 1}},
		"a number twice":                   {begin, put(1), put(1)},
		"a number that was before":         {begin, put(2), put(1)},
		"a mark that was before":           {begin, put(2), {kind: kindMark, term: lead, seq: 1}},
		"a beginning from somewhere else":  {{kind: kindBegin, term: lead, generation: 5, seq: 7}},
		"a term that nobody began":         {begin, {kind: kindPut, term: term{4, 2}, seq: 1, key: []byte("k")}},
		"this node's own term":             {{kind: kindBegin, term: term{9, 1}, whole: true}},
		"this node's own term in an item":  {begin, {kind: kindDelete, term: term{3, 1}, seq: 9, key: []byte("k")}},
		"a generation that is another one": {begin, put(1), {kind: kindBegin, term: lead, generation: 6, seq: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplica(1, 1, false, 10, 100)
			r.connect()
			for i, m := range messages {
				_, err := r.receive(m)
				r.apply()
				if last := i == len(messages)-1; last != (err != nil) {
					t.Fatalf("message %d (%+v): %v", i+1, m, err)
				}
			}
		})
	}
}

// TestReplicaTells: what a follower hears, in order.
func TestReplicaTells(t *testing.T) {
	leader, follower := newReplica(1, 1, false, 10, 1000), newReplica(1, 2, false, 10, 1000)
	var heard []string
	run := func() {
		t.Helper()
		for busy := true; busy; {
			busy = false
			for _, way := range [][2]*replica{{leader, follower}, {follower, leader}} {
				for {
					m, ok := way[0].pop()
					if !ok {
						break
					}
					busy = true
					step, err := way[1].receive(m)
					if err != nil {
						t.Fatal(err)
					}
					if step.is {
						heard = append(heard, fmt.Sprintf("%s %s%s", [...]string{"", "begin", "put", "delete", "end"}[step.item.Kind], step.item.Key, step.item.Value))
					}
					way[1].apply()
				}
			}
		}
	}
	expect := func(want ...string) {
		t.Helper()
		run()
		if !slices.Equal(heard, want) {
			t.Fatalf("heard %q, want %q", heard, want)
		}
		heard = nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	connect := func() { leader.connect(); follower.connect() }
	loss := func() { leader.disconnect(); follower.disconnect() }

	must(leader.lead(1, 100))
	must(leader.out.put([]byte("a"), []byte("1")))
	must(leader.out.put([]byte("b"), []byte("1")))
	connect()
	expect("begin ", "put a1", "put b1", "end ")
	must(leader.out.put([]byte("a"), []byte("2")))
	must(leader.out.put([]byte("a"), []byte("3")))
	leader.out.delete([]byte("b"))
	leader.out.delete([]byte("c"))
	expect("put a3", "delete b") // what was never there, and what was overtaken, is not told
	if !leader.out.protects([]byte("a")) || leader.out.dead != 0 {
		t.Error("what is acknowledged is not protected, or its deletions are still remembered")
	}

	loss()
	must(leader.out.put([]byte("d"), []byte("1")))
	leader.out.delete([]byte("a"))
	connect()
	expect("put d1", "delete a") // after a break only what changed
	if follower.state() != Synced || leader.state() != Synced {
		t.Error("not synced after a break")
	}
	loss()
	connect()
	expect() // and nothing when nothing did
	if follower.state() != Synced || leader.state() != Synced {
		t.Error("not synced after a break in which nothing happened")
	}

	// The follower starts again.
	loss()
	follower = newReplica(1, 2, false, 10, 1000)
	connect()
	expect("begin ", "put d1", "end ")

	// The follower takes over, while the old leader goes on.
	must(follower.lead(2, 200))
	must(follower.out.put([]byte("n"), []byte("1")))
	must(leader.out.put([]byte("o"), []byte("1")))
	expect("begin ", "put n1", "end ")
	if leader.leads || leader.state() != Synced || follower.state() != Synced {
		t.Errorf("after a takeover: %t %s %s", leader.leads, leader.state(), follower.state())
	}
	if err := leader.lead(1, 300); err == nil {
		t.Error("an epoch that is over can be led")
	}
	if s := leader.fence(7); s.superseded {
		t.Error("a follower was superseded")
	}
	if follower.fence(7).superseded != true || follower.leads || leader.complete() {
		t.Error("an epoch before the fence goes on")
	}
}

// TestOutboxOverflow: what finds no room is refused, the follower does not keep
// an old value of it, and nobody calls the set synced until it is led anew.
func TestOutboxOverflow(t *testing.T) {
	var o outbox
	o.maxItems, o.maxBytes = 3, 30
	o.clear(term{1, 1}, 1)
	for i := range 3 {
		if err := o.put([]byte{'a' + byte(i)}, []byte("12345")); err != nil {
			t.Fatal(err)
		}
	}
	var full *FullError
	if err := o.put([]byte("d"), nil); !errors.As(err, &full) || full.What != "items" {
		t.Errorf("a fourth of three items: %v", err)
	}
	if err := o.put([]byte("a"), make([]byte, 30)); !errors.As(err, &full) || full.What != "bytes" {
		t.Errorf("30 bytes more than there is room for: %v", err)
	}
	if r := o.records["a"]; r == nil || !r.deleted {
		t.Error("the follower keeps an old value of what was refused")
	}
	if o.refused != 2 || !o.overflow {
		t.Errorf("%d refused, overflow %t", o.refused, o.overflow)
	}
	o.have(message{kind: kindHave})
	for {
		m, ok := o.pop()
		if !ok {
			break
		}
		if m.kind == kindMark && m.whole {
			t.Error("the follower is told that it has everything")
		}
	}
	if err := o.sound(); err != nil {
		t.Error(err)
	}
}

// TestOutboxLongAbsence: deletions of an absent peer do not pile up.
func TestOutboxLongAbsence(t *testing.T) {
	var o outbox
	o.maxItems, o.maxBytes = 10, 1000
	o.clear(term{1, 1}, 1)
	for i := range 100_000 {
		key := fmt.Appendf(nil, "%d", i)
		if err := o.put(key, key); err != nil {
			t.Fatal(err)
		}
		o.delete(key)
	}
	if len(o.records) > 10 {
		t.Errorf("%d records for no items", len(o.records))
	}
	if err := o.sound(); err != nil {
		t.Error(err)
	}
}
