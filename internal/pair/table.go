package pair

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Table is a table that both nodes may change. For each key the later entry
// wins, at both nodes, so that they agree once they have heard of each other.
//
// Later is decided by a stamp: the milliseconds of this node's clock, but always
// more than any stamp that it has seen. So a command follows all that its node
// knew of, however the clocks are set; only between commands that do not know of
// each other (the link is down, or a node has just started) do the clocks decide.
// Its methods may be called by several goroutines.
type Table struct {
	o   TableOptions
	s   *Set
	now func() time.Time

	mu sync.Mutex // after s.deliver, before s.mu
	m  merge
}

// Bounds of a table.
const (
	defaultMaxEntries = 8 << 10
	maxEntryValue     = 4 << 10
)

// NewTable returns a table that is to be given to a link in its [Options].
func NewTable(o TableOptions) (*Table, error) {
	switch {
	case o.ID == 0:
		return nil, fmt.Errorf("table %q: its ID is 0: give it a number of its own", o.Name)
	case o.Node == "" || len(o.Node) > maxName:
		return nil, fmt.Errorf("table %q: Node %q: give this node's name, of at most %d bytes", o.Name, o.Node, maxName)
	case o.MaxEntries < 0:
		return nil, fmt.Errorf("table %q: MaxEntries %d: less than nothing cannot be held", o.Name, o.MaxEntries)
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultMaxEntries
	}
	t := &Table{o: o, now: time.Now, m: merge{node: o.Node, entries: make(map[string]Entry)}}
	var err error
	// The peer may hold as many of its own, of which this node does not know
	// yet: these are not refused.
	t.s, err = NewSet(SetOptions{ID: o.ID, Name: o.Name, OnItem: t.item, MaxItems: 2 * o.MaxEntries, MaxBytes: 2 * o.MaxEntries * (maxKey + maxEntryValue + 2*maxName)})
	if err != nil {
		return nil, err
	}
	t.s.both = true
	t.s.check = func(m message) error {
		if m.kind != kindPut {
			return nil
		}
		_, err := parseEntry(string(m.key), m.value)
		return err
	}
	return t, nil
}

// join gives the table to the link of node self; what is in it already is sent.
func (t *Table) join(self uint8, wake func()) error {
	if err := t.s.join(self, wake); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.s.Lead(0, func(yield func(key, value []byte) bool) {
		for _, e := range t.m.entries {
			if !yield([]byte(e.Key), e.appendTo(nil)) {
				return
			}
		}
	})
}

// Put makes an entry. It fails when the table is full.
func (t *Table) Put(key string, value []byte) error {
	return t.change(Entry{Key: key, Value: bytes.Clone(value)})
}

// Delete makes the memory of a deletion, which wins over earlier entries of the
// peer too.
func (t *Table) Delete(key string) error {
	return t.change(Entry{Key: key, Deleted: true})
}

func (t *Table) change(e Entry) error {
	switch {
	case e.Key == "" || len(e.Key) > maxKey:
		return fmt.Errorf("table %q: a key of %d bytes: give it 1 to %d", t.o.Name, len(e.Key), maxKey)
	case len(e.Value) > maxEntryValue:
		return fmt.Errorf("table %q: a value of %d bytes: at most %d", t.o.Name, len(e.Value), maxEntryValue)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.m.entries[e.Key]; !ok && len(t.m.entries) >= t.o.MaxEntries && !t.makeRoom() {
		return fmt.Errorf("table %q: it has %d entries, which is as many as it may have: delete some first", t.o.Name, len(t.m.entries))
	}
	e = t.m.make(e, uint64(max(t.now().UnixMilli(), 0)))
	return t.send(e)
}

// makeRoom forgets the oldest deletion that the peer knows of.
func (t *Table) makeRoom() bool {
	var oldest Entry
	for _, e := range t.m.entries {
		if e.Deleted && (oldest.Key == "" || e.before(oldest)) && t.s.Protected([]byte(e.Key)) {
			oldest = e
		}
	}
	if oldest.Key == "" {
		return false
	}
	delete(t.m.entries, oldest.Key)
	return t.s.Delete([]byte(oldest.Key)) == nil
}

// send has an entry sent; before there is a link, join does it.
func (t *Table) send(e Entry) error {
	if err := t.s.Put([]byte(e.Key), e.appendTo(nil)); !errors.Is(err, errNoLink) {
		return err
	}
	return nil
}

// Get returns the entry of a key; of one that was deleted it says so.
func (t *Table) Get(key string) (Entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.m.entries[key]
	return e, ok
}

// Entries returns all entries, deletions too, by key.
func (t *Table) Entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Entry, 0, len(t.m.entries))
	for _, e := range t.m.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	return all
}

// State is what is known of the table at this moment.
func (t *Table) State() SetState { return t.s.State() }

// item takes an entry of the peer.
func (t *Table) item(i Item) {
	if i.Kind != ItemPut {
		return // an entry that is not there is no deletion: a deletion is an entry
	}
	e, err := parseEntry(string(i.Key), i.Value)
	if err != nil {
		return // the set's check has refused it before
	}
	t.mu.Lock()
	won := t.m.take(e)
	if won {
		// Kept for a peer that starts again and knows nothing. Were there no
		// room, the state would say so.
		_ = t.send(e)
	}
	t.mu.Unlock()
	if won && t.o.OnEntry != nil {
		t.o.OnEntry(e)
	}
}

// merge is the rule by which two tables agree.
type merge struct {
	node    string
	last    uint64 // the latest stamp seen or made
	entries map[string]Entry
}

// maxStamp leaves room for more changes than there will be.
const maxStamp = 1 << 62

// before orders the entries of one key: by stamp, then by node; the same node
// makes no two of the same stamp.
func (e Entry) before(f Entry) bool {
	if e.Stamp != f.Stamp {
		return e.Stamp < f.Stamp
	}
	return e.Node < f.Node
}

// make stamps an entry of this node's, and keeps it.
func (m *merge) make(e Entry, now uint64) Entry {
	m.last = max(m.last+1, min(now, maxStamp/2))
	e.Stamp, e.Node = m.last, m.node
	m.entries[e.Key] = e
	return e
}

// take keeps an entry of the peer if it is later than this node's.
func (m *merge) take(e Entry) (won bool) {
	m.last = max(m.last, e.Stamp)
	if have, ok := m.entries[e.Key]; ok && !have.before(e) {
		return false
	}
	m.entries[e.Key] = e
	return true
}

// The value of an item that is an entry: version 1, whether it is a deletion,
// stamp, node, value.
const entryVersion = 1

func (e Entry) appendTo(b []byte) []byte {
	b = append(b, entryVersion)
	b = appendFlag(b, e.Deleted)
	b = binary.BigEndian.AppendUint64(b, e.Stamp)
	b = appendBytes(b, []byte(e.Node))
	return append(b, e.Value...)
}

func parseEntry(key string, p []byte) (Entry, error) {
	d := decoder{kind: kindPut, b: p}
	e := Entry{Key: key}
	if v := d.uint8("version of the entry"); v != entryVersion {
		d.fail("entry %q is of version %d, and this program knows %d: update holdfast on this node", key, v, entryVersion)
	}
	e.Deleted = d.flag("deletion")
	e.Stamp = d.uint64("stamp")
	e.Node = string(d.bytes("node of the entry", maxName))
	e.Value = bytes.Clone(d.rest("value of the entry", maxEntryValue))
	switch {
	case e.Stamp == 0 || e.Stamp > maxStamp:
		d.fail("entry %q has the stamp %d", key, e.Stamp)
	case e.Node == "":
		d.fail("entry %q is of no node", key)
	case e.Deleted && len(e.Value) > 0:
		d.fail("entry %q is deleted and has a value", key)
	}
	if err := d.end(); err != nil {
		return Entry{}, err
	}
	return e, nil
}
