package pair

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// twoTables are tables with a line between them that carries what it is told to.
type twoTables struct {
	t      interface{ Fatal(...any) }
	tables [2]*Table
	clocks [2]time.Time
	heard  [2]map[string]Entry // by OnEntry
	way    [2]bytes.Buffer     // towards each
	up     bool
}

func (w *twoTables) boot(i int) {
	w.heard[i] = make(map[string]Entry)
	t, err := NewTable(TableOptions{
		ID: 1, Name: "hands", Node: fmt.Sprintf("lb%d", i+1), MaxEntries: 4,
		OnEntry: func(e Entry) { w.heard[i][e.Key] = e },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	t.now = func() time.Time { return w.clocks[i] }
	if err := t.join(uint8(i+1), func() {}); err != nil {
		w.t.Fatal(err)
	}
	w.tables[i] = t
}

func (w *twoTables) connect() {
	w.cut()
	w.up = true
	for i := range w.tables {
		w.tables[i].s.connect()
	}
}

func (w *twoTables) cut() {
	w.up = false
	for i := range w.tables {
		w.tables[i].s.disconnect()
		w.way[i].Reset()
	}
}

// carry moves frames: what node i has to say, and what has come for it.
func (w *twoTables) carry(i int) (busy bool) {
	if !w.up {
		return false
	}
	b, n := w.tables[i].s.appendNext(nil, 1)
	w.way[1-i].Write(b)
	if w.way[i].Len() == 0 {
		return n > 0
	}
	h, payload, _, err := readFrame(&w.way[i], nil)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := parseMessage(h.kind, payload)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.tables[i].s.receive(m); err != nil {
		w.t.Fatal(err)
	}
	return true
}

// TestTable: whatever both nodes are commanded, however the link behaves, and
// whichever of them starts again, in the end both have the same entries, of each
// key the latest; and what a node is told by OnEntry is what it has.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.UnixMilli(1_700_000_000_000)
		w := &twoTables{t: t, clocks: [2]time.Time{start, start.Add(time.Duration(rapid.IntRange(-1000, 1000).Draw(t, "skew")) * time.Hour)}}
		w.boot(0)
		w.boot(1)
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "node")
			key := fmt.Sprintf("k%d", rapid.IntRange(0, 5).Draw(t, "key"))
			w.clocks[i] = w.clocks[i].Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "time")) * time.Millisecond)
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0, 1:
				before, had := w.tables[i].Get(key)
				count := len(w.tables[i].Entries())
				if err := w.tables[i].Put(key, []byte(fmt.Sprint(w.clocks[i].UnixNano()))); err != nil {
					if had || count < 4 {
						t.Fatalf("%d entries of 4, and no room: %v", count, err)
					}
					break
				}
				if after, _ := w.tables[i].Get(key); had && !before.before(after) {
					t.Fatalf("a command made %+v of %+v, which is later", after, before)
				}
				delete(w.heard[i], key)
			case 2:
				if err := w.tables[i].Delete(key); err == nil {
					delete(w.heard[i], key)
				}
			case 3:
				w.connect()
			case 4:
				w.cut()
				if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
					w.boot(i)
				}
			default:
				for range rapid.IntRange(1, 10).Draw(t, "frames") {
					w.carry(i)
				}
			}
		}
		w.connect()
		for w.carry(0) || w.carry(1) {
		}
		one, two := w.tables[0].Entries(), w.tables[1].Entries()
		// A deletion that both know of may be forgotten, to make room.
		if a, b := living(one), living(two); !maps.Equal(a, b) {
			t.Fatalf("node 1 has\n%v\nnode 2 has\n%v", a, b)
		}
		for i, table := range w.tables {
			if s := table.State().State; s != Synced {
				t.Fatalf("node %d: %s", i+1, s)
			}
			if n := len(table.Entries()); n > 2*4 {
				t.Fatalf("node %d has %d entries", i+1, n)
			}
			for key, e := range w.heard[i] {
				if have, ok := table.Get(key); ok && (have.Stamp != e.Stamp || have.Node != e.Node) {
					t.Fatalf("node %d was told %+v, and has %+v", i+1, e, have)
				}
			}
		}
	})
}

func living(entries []Entry) map[string]string {
	all := make(map[string]string)
	for _, e := range entries {
		if !e.Deleted {
			all[e.Key] = fmt.Sprintf("%s of %s at %d", e.Value, e.Node, e.Stamp)
		}
	}
	return all
}

// TestMerge: the order in which entries come does not matter.
func TestMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Entry {
			e := Entry{Key: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key"), Stamp: uint64(rapid.IntRange(1, 4).Draw(t, "stamp")), Node: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "node")}
			e.Value = []byte(e.Node + fmt.Sprint(e.Stamp)) // a node makes no two of the same stamp
			return e
		}), 0, 10).Draw(t, "entries")
		want := make(map[string]string)
		for _, e := range entries {
			if v := fmt.Sprintf("%d%s", e.Stamp, e.Node); v > want[e.Key] {
				want[e.Key] = v
			}
		}
		m := merge{entries: make(map[string]Entry)}
		for _, e := range rapid.Permutation(entries).Draw(t, "order") {
			m.take(e)
		}
		got := make(map[string]string)
		for key, e := range m.entries {
			got[key] = fmt.Sprintf("%d%s", e.Stamp, e.Node)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// TestTableRoom: what is full says so, and deletions that the peer knows of make
// room.
func TestTableRoom(t *testing.T) {
	w := &twoTables{t: t, clocks: [2]time.Time{time.UnixMilli(1), time.UnixMilli(1)}}
	w.boot(0)
	w.boot(1)
	for i := range 4 {
		if err := w.tables[0].Put(fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.tables[0].Put("more", nil); err == nil || !strings.Contains(err.Error(), "delete some first") {
		t.Fatalf("a fifth of four: %v", err)
	}
	if err := w.tables[0].Delete("2"); err != nil {
		t.Fatal(err)
	}
	if err := w.tables[0].Put("more", nil); err == nil {
		t.Fatal("a deletion that the peer does not know of was forgotten")
	}
	w.connect()
	for w.carry(0) || w.carry(1) {
	}
	if err := w.tables[0].Put("more", nil); err != nil {
		t.Fatal(err)
	}
	for w.carry(0) || w.carry(1) {
	}
	if a, b := living(w.tables[0].Entries()), living(w.tables[1].Entries()); !maps.Equal(a, b) || len(a) != 4 {
		t.Fatalf("%v, %v", a, b)
	}
}

func TestTableRefuses(t *testing.T) {
	for name, o := range map[string]TableOptions{
		"no ID":              {Node: "a"},
		"no node":            {ID: 1},
		"a long node":        {ID: 1, Node: strings.Repeat("x", 256)},
		"less than no entry": {ID: 1, Node: "a", MaxEntries: -1},
	} {
		if _, err := NewTable(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	table, err := NewTable(TableOptions{ID: 1, Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if table.Put("", nil) == nil || table.Put(strings.Repeat("k", maxKey+1), nil) == nil || table.Put("k", make([]byte, maxEntryValue+1)) == nil {
		t.Error("a key or a value is out of bounds and was taken")
	}
	if err := table.Put("k", []byte("v")); err != nil {
		t.Errorf("before there is a link: %v", err)
	}
	if err := table.join(1, func() {}); err != nil {
		t.Fatal(err)
	}
	if n := table.State().Items; n != 1 {
		t.Errorf("%d items are sent, of one that was there before the link", n)
	}
	if table.join(1, func() {}) == nil {
		t.Error("one table for two links")
	}
}

// TestSetRefuses: what cannot be held, and when.
func TestSetRefuses(t *testing.T) {
	if _, err := NewSet(SetOptions{Name: "x"}); err == nil {
		t.Error("a set without an ID")
	}
	if _, err := NewSet(SetOptions{ID: 1, MaxItems: -1}); err == nil {
		t.Error("a set with less than no room")
	}
	s, err := NewSet(SetOptions{ID: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(s.Put([]byte("k"), nil), errNoLink) || !errors.Is(s.Lead(1, nil), errNoLink) || !errors.Is(s.Fence(1), errNoLink) || !errors.Is(s.Delete([]byte("k")), errNoLink) {
		t.Error("a set without a link can be used")
	}
	if s.State().State != Down || s.Complete() || s.Protected([]byte("k")) {
		t.Error("a set without a link knows something")
	}
	if err := s.join(1, func() {}); err != nil {
		t.Fatal(err)
	}
	if s.Put([]byte("k"), nil) == nil || s.Delete([]byte("k")) == nil {
		t.Error("a follower can put and delete")
	}
	if err := s.Lead(3, nil); err != nil {
		t.Fatal(err)
	}
	if s.Put(nil, nil) == nil || s.Put(make([]byte, maxKey+1), nil) == nil || s.Put([]byte("k"), make([]byte, maxValue+1)) == nil {
		t.Error("a key or a value is out of bounds and was taken")
	}
	var old *EpochError
	if err := s.Lead(2, nil); !errors.As(err, &old) || old.Latest != 3 {
		t.Errorf("an older epoch: %v", err)
	}
	full := s.Lead(4, func(yield func(key, value []byte) bool) {
		for range slices.Repeat([]int{0}, 3) {
			if !yield([]byte("k"), []byte("v")) {
				return
			}
		}
	})
	if full != nil || s.State().Items != 1 || !s.State().Leads || s.State().Epoch != 4 {
		t.Errorf("%v %+v", full, s.State())
	}
}
