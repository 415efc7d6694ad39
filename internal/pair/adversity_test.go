package pair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// replicaSet is a set in a test, with the copy that the follower makes.
type replicaSet struct {
	set  *Set
	gate chan struct{} // not nil: OnItem waits for it before each item

	mu         sync.Mutex
	items      map[string]string
	stale      map[string]bool
	begun      int
	superseded uint64
}

func newReplicaSet(t *testing.T, gate chan struct{}) *replicaSet {
	t.Helper()
	r := &replicaSet{items: make(map[string]string), gate: gate}
	var err error
	r.set, err = NewSet(SetOptions{ID: 9, Name: "flows", OnItem: r.item, OnSuperseded: func(epoch uint64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.superseded = epoch
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *replicaSet) item(i Item) {
	if r.gate != nil {
		<-r.gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch i.Kind {
	case ItemBegin:
		r.begun++
		r.stale = make(map[string]bool)
		for key := range r.items {
			r.stale[key] = true
		}
	case ItemPut:
		r.items[string(i.Key)] = string(i.Value)
		delete(r.stale, string(i.Key))
	case ItemDelete:
		delete(r.items, string(i.Key))
	case ItemEnd:
		for key := range r.stale {
			delete(r.items, key)
		}
	}
}

func (r *replicaSet) copied() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.items)
}

func (r *replicaSet) begins() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun
}

func put(t *testing.T, s *Set, key, value string) {
	t.Helper()
	if err := s.Put([]byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// TestSets: what the leader has, the follower has; after the loss of a
// connection only what changed is sent; after a restart everything.
func TestSets(t *testing.T) {
	inFamilies(t, func(t *testing.T, one, two, _ netip.Addr) {
		o := pairOptions(t, one, two)
		tap := startWire(t, one, o[0].Listen)
		o[1].Peer = tap.address()
		o[0].Peer = freePort(t, two)
		lead, follow := newReplicaSet(t, nil), newReplicaSet(t, nil)
		o[0].Sets, o[1].Sets = []*Set{lead.set}, []*Set{follow.set}
		n := [2]*testNode{startNode(t, o[0]), startNode(t, o[1])}
		if err := lead.set.Lead(1, func(yield func(key, value []byte) bool) {
			_ = yield([]byte("first"), []byte("1")) && yield([]byte("second"), []byte("1"))
		}); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"first": "1", "second": "1"}
		same := func() {
			t.Helper()
			eventually(t, "the copy is another one", func() bool { return maps.Equal(follow.copied(), want) })
			for key := range want {
				eventually(t, key+" is not protected", func() bool { return lead.set.Protected([]byte(key)) })
			}
			n[0].wait(Synced)
			n[1].wait(Synced)
			if !follow.set.Complete() {
				t.Error("the follower does not call itself complete")
			}
		}
		same()

		put(t, lead.set, "first", "2")
		if err := lead.set.Delete([]byte("second")); err != nil {
			t.Fatal(err)
		}
		want = map[string]string{"first": "2"}
		same()

		tap.cut()
		put(t, lead.set, "third", "1")
		want["third"] = "1"
		eventually(t, "the cut is not noticed", func() bool { return n[0].link.State().Counters.Connects == 2 })
		same()
		if follow.begins() != 1 || lead.set.State().Snapshots != 1 {
			t.Errorf("everything was sent %d times, and no node was away", follow.begins())
		}

		// The follower starts again: it knows nothing.
		n[1].stop()
		n[0].wait(Down)
		if lead.set.Protected([]byte("first")) {
			t.Error("without a peer, an item is protected")
		}
		put(t, lead.set, "fourth", "1")
		want["fourth"] = "1"
		follow = newReplicaSet(t, nil)
		o[1].Sets = []*Set{follow.set}
		n[1] = startNode(t, o[1])
		same()

		// It takes over.
		if err := follow.set.Lead(2, func(yield func(key, value []byte) bool) {
			for key, value := range want {
				if !yield([]byte(key), []byte(value)) {
					return
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		put(t, follow.set, "fifth", "1")
		want["fifth"] = "1"
		lead, follow = follow, lead
		same()
		follow.mu.Lock()
		if follow.superseded != 2 {
			t.Errorf("the old leader was told of epoch %d", follow.superseded)
		}
		follow.mu.Unlock()
		if err := follow.set.Put([]byte("late"), nil); err == nil {
			t.Error("the old leader goes on")
		}
	})
}

// TestSlowReader: a follower that is slow, or does not read at all, costs the
// producer nothing; when it reads again, it gets everything.
func TestSlowReader(t *testing.T) {
	o := pairOptions(t, families[0].one, families[0].two)
	o[0].Silence, o[1].Silence = 500*time.Millisecond, 500*time.Millisecond
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open) // before the nodes are stopped
	lead, follow := newReplicaSet(t, nil), newReplicaSet(t, gate)
	o[0].Sets, o[1].Sets = []*Set{lead.set}, []*Set{follow.set}
	n := [2]*testNode{startNode(t, o[0]), startNode(t, o[1])}
	t.Cleanup(open)
	if err := lead.set.Lead(1, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the nodes are not connected", n[0].link.Connected)

	// Far more than socket buffers hold, and nobody reads: Put returns all the
	// same. Each key is held once.
	const keys, rounds = 500, 100
	value := strings.Repeat("v", 1000)
	began := time.Now()
	for round := range rounds {
		for key := range keys {
			put(t, lead.set, fmt.Sprint(key), fmt.Sprint(value, round))
		}
	}
	t.Logf("%d puts, %d MB, took %v", keys*rounds, keys*rounds*len(value)>>20, time.Since(began))
	if s := lead.set.State(); s.Items != keys || s.Unacknowledged != keys || s.State == Synced {
		t.Errorf("%+v", s)
	}
	// The link gives up whoever does not read, and says so.
	eventually(t, "the leader does not notice", func() bool { return n[0].link.State().State == Down })

	open()
	eventually(t, "the copy is not complete", func() bool { return len(follow.copied()) == keys && lead.set.State().State == Synced })
	for key, v := range follow.copied() {
		if want := fmt.Sprint(value, rounds-1); v != want {
			t.Fatalf("%s is an old value", key)
		}
	}
}

// TestBeatsPass: beats do not wait behind a large set.
func TestBeatsPass(t *testing.T) {
	o := pairOptions(t, families[0].one, families[0].two)
	for i := range o {
		o[i].BeatAge = time.Minute
	}
	var order []string // as it came at the follower
	var mu sync.Mutex
	set, err := NewSet(SetOptions{ID: 3, Name: "large", OnItem: func(i Item) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, "item")
	}})
	if err != nil {
		t.Fatal(err)
	}
	leadSet, err := NewSet(SetOptions{ID: 3, Name: "large"})
	if err != nil {
		t.Fatal(err)
	}
	o[0].Sets, o[1].Sets = []*Set{leadSet}, []*Set{set}
	n := [2]*testNode{startNode(t, o[0]), startNode(t, o[1])}
	n[0].wait(Syncing) // nobody leads
	n[1].wait(Syncing)
	// The producer and the beats in one go: everything is there before the
	// first beat is.
	const items = 5000
	if err := leadSet.Lead(1, func(yield func(key, value []byte) bool) {
		for i := range items {
			if !yield(fmt.Appendf(nil, "%d", i), make([]byte, 4000)) {
				return
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := n[0].link.SendBeat([]byte("beat")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no beat", func() bool { return len(n[1].gotBeats()) == 1 })
	mu.Lock()
	before := len(order)
	mu.Unlock()
	if before > items*9/10 {
		t.Errorf("the beat came after %d of %d items", before, items)
	}
	n[0].wait(Synced)
}

// TestBeatsAreFresh: what is too old, or overtaken by too many, is dropped.
func TestBeatsAreFresh(t *testing.T) {
	o := pairOptions(t, families[0].one, families[0].two)
	l, err := New(o[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SendBeat([]byte("nobody hears")); err != nil {
		t.Fatal(err)
	}
	if c := l.State().Counters; c.BeatsDropped != 1 {
		t.Errorf("without a peer: %+v", c)
	}
	l.cur = &conn{} // as if there were one
	for i := range maxBeats + 3 {
		if err := l.SendBeat(fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if c := l.State().Counters; c.BeatsDropped != 1+3 {
		t.Errorf("%d beats: %+v", maxBeats+3, c)
	}
	for i := range 10 {
		l.beats[i].at = time.Now().Add(-time.Hour)
	}
	b := l.fill(nil, false, 0)
	if got, want := bytes.Count(b, []byte{byte(kindBeat), 1, 0, 0}), maxBeats-10; got != want {
		t.Errorf("%d beats are sent, want %d", got, want)
	}
	if c := l.State().Counters; c.BeatsDropped != 1+3+10 || c.BeatsSent != maxBeats-10 {
		t.Errorf("%+v", c)
	}
	if l.SendBeat(make([]byte, maxBeat+1)) == nil {
		t.Error("a beat that is too long was taken")
	}
	if l.SetDigest(make([]byte, maxDigest+1)) == nil {
		t.Error("a digest that is too long was taken")
	}
}

// TestPartition: silence is noticed in its time at both ends, without a word
// from the kernel; afterwards the link comes back by itself.
func TestPartition(t *testing.T) {
	inFamilies(t, func(t *testing.T, one, two, _ netip.Addr) {
		o := pairOptions(t, one, two)
		var wires [2]*wire
		for i := range o {
			o[i].Silence = 400 * time.Millisecond
			wires[i] = startWire(t, [2]netip.Addr{one, two}[i], o[i].Listen)
		}
		o[0].Peer, o[1].Peer = wires[1].address(), wires[0].address()
		n := startPair(t, o)
		for range 2 {
			for _, w := range wires {
				w.freeze(true)
			}
			began := time.Now()
			n[0].wait(Down)
			n[1].wait(Down)
			t.Logf("noticed after %v", time.Since(began))
			if s := n[0].link.State(); !strings.Contains(s.Error, "nothing came from the peer") && !strings.Contains(s.Error, "connect") {
				t.Errorf("the reason: %q", s.Error)
			}
			for _, w := range wires {
				w.cut() // what was on its way is lost
				w.freeze(false)
			}
			n[0].wait(Synced)
			n[1].wait(Synced)
		}
	})
}

// TestRestarts: either node ends and begins again, and the tables of both agree
// afterwards, with what was commanded meanwhile.
func TestRestarts(t *testing.T) {
	inFamilies(t, func(t *testing.T, one, two, _ netip.Addr) {
		o := pairOptions(t, one, two)
		var tables [2]*Table
		boot := func(i int) *testNode {
			t.Helper()
			var err error
			if tables[i], err = NewTable(TableOptions{ID: 1, Name: "hands", Node: o[i].Node}); err != nil {
				t.Fatal(err)
			}
			o[i].Tables = []*Table{tables[i]}
			return startNode(t, o[i])
		}
		n := [2]*testNode{boot(0), boot(1)}
		for round := range 6 {
			i := round % 2
			n[0].wait(Synced)
			n[1].wait(Synced)
			n[i].stop()
			if err := tables[1-i].Put(fmt.Sprintf("alone %d", round), []byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := tables[1-i].Put("both", fmt.Appendf(nil, "%d", round)); err != nil {
				t.Fatal(err)
			}
			n[i] = boot(i)
			if err := tables[i].Put(fmt.Sprintf("new %d", round), []byte("x")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the tables differ", func() bool {
				a, b := tables[0].Entries(), tables[1].Entries()
				return len(a) == 2*(round+1)+1 && maps.Equal(living(a), living(b))
			})
			if e, _ := tables[i].Get("both"); string(e.Value) != fmt.Sprint(round) {
				t.Errorf("round %d: %q", round, e.Value)
			}
		}
	})
}

// TestBothCall: however the nodes start, one connection is left, the same at
// both, and it stays.
func TestBothCall(t *testing.T) {
	inFamilies(t, func(t *testing.T, one, two, _ netip.Addr) {
		for range 10 {
			o := pairOptions(t, one, two)
			n := startPair(t, o)
			// Beats in both directions show that it is one connection: what one
			// sends on another one would not be heard.
			for i := range n {
				eventually(t, "no beat", func() bool {
					if err := n[i].link.SendBeat([]byte("b")); err != nil {
						t.Fatal(err)
					}
					return len(n[1-i].gotBeats()) > 0
				})
			}
			a, b := n[0].link.State().Counters.Connects, n[1].link.State().Counters.Connects
			if a > 3 || b > 3 {
				t.Errorf("%d and %d connections were the link", a, b)
			}
			n[1].stop()
			n[0].stop()
		}
	})
}

// TestNewestWins: a connection that the peer makes anew takes the place of one
// that this node believes in.
func TestNewestWins(t *testing.T) {
	o := pairOptions(t, families[0].one, families[0].two)
	tap := startWire(t, families[0].one, o[0].Listen)
	o[1].Peer = tap.address()
	o[0].Peer = freePort(t, families[0].two)
	o[0].Silence = time.Minute // node 1 notices nothing
	o[1].Silence = 300 * time.Millisecond
	n := startPair(t, o)
	tap.freeze(true)
	n[1].wait(Down)
	if !n[0].link.Connected() {
		t.Fatal("node 1 noticed")
	}
	// Old bytes are held for ever, new connections are not: another wire.
	n[1].stop()
	o[1].Peer = o[0].Listen
	n[1] = startNode(t, o[1])
	n[1].wait(Synced)
	eventually(t, "node 1 keeps the old connection", func() bool { return n[0].link.State().Counters.Connects == 2 })
	n[0].wait(Synced)
	tap.freeze(false)
}

// TestMalformed: a peer that has the key and sends what cannot be loses the
// link, is told why, and nothing else happens.
func TestMalformed(t *testing.T) {
	for name, tt := range map[string]struct {
		frame []byte
		want  string
	}{
		"a frame that is too long":      {[]byte{0xff, 0, 0, 0, byte(kindBeat), 1, 0, 0}, "bytes of payload"},
		"a required kind of the future": {[]byte{0, 0, 0, 0, 200, 1, flagRequired, 0}, "update holdfast"},
		"a put before the beginning":    {message{kind: kindPut, set: 9, term: term{1, 2}, seq: 1, key: []byte("k")}.appendTo(nil), "nothing has begun"},
		"a second hello":                {hello{oldest: 1, latest: 1, number: 2, node: "x"}.appendTo(nil), "it comes once"},
		"a broken ping":                 {[]byte{0, 0, 0, 1, byte(kindPing), 1, 1, 0, 7}, "needs 8 bytes"},
		"a broken entry":                {message{kind: kindPut, set: 1, term: term{0, 2}, seq: 1, key: []byte("k")}.appendTo(nil), "version of the entry"},
	} {
		t.Run(name, func(t *testing.T) {
			o := pairOptions(t, families[0].one, families[0].two)
			o[0].Peer = freePort(t, families[0].two)
			set := newReplicaSet(t, nil)
			table, err := NewTable(TableOptions{ID: 1, Name: "hands", Node: o[0].Node})
			if err != nil {
				t.Fatal(err)
			}
			o[0].Sets, o[0].Tables = []*Set{set.set}, []*Table{table}
			n := startNode(t, o[0])
			peer, err := New(o[1])
			if err != nil {
				t.Fatal(err)
			}
			raw := dialFrom(t, families[0].two, o[0].Listen).(*net.TCPConn)
			c, err := peer.establish(context.Background(), raw, true)
			if err != nil {
				t.Fatal(err)
			}
			defer c.raw.Close()
			if _, err := c.tls.Write(tt.frame); err != nil {
				t.Fatal(err)
			}
			for {
				h, payload, _, err := readFrame(c.r, nil)
				if err != nil {
					t.Fatalf("it ends without a reason: %v", err)
				}
				if h.kind != kindBye {
					continue
				}
				if m, err := parseBye(payload); err != nil || !strings.Contains(m.text, tt.want) {
					t.Errorf("%+v, %v; want %q", m, err, tt.want)
				}
				break
			}
			n.wait(Down)
			if s := n.link.State(); !strings.Contains(s.Error, tt.want) && !strings.Contains(s.Error, "cannot connect") {
				t.Errorf("the state says %q", s.Error)
			}
		})
	}
}

// TestFuture: what a newer peer sends and does not require is passed over, a set
// that only it has too.
func TestFuture(t *testing.T) {
	o := pairOptions(t, families[0].one, families[0].two)
	only := newReplicaSet(t, nil)
	o[0].Sets = []*Set{only.set}
	n := [2]*testNode{startNode(t, o[0]), startNode(t, o[1])}
	n[1].wait(Synced) // it has nothing to wait for
	if err := only.set.Lead(1, nil); err != nil {
		t.Fatal(err)
	}
	put(t, only.set, "k", "v")
	eventually(t, "the nodes do not speak", func() bool {
		if err := n[0].link.SendBeat([]byte("b")); err != nil {
			t.Fatal(err)
		}
		return len(n[1].gotBeats()) > 0
	})
	if s := n[0].link.State(); s.State != Syncing {
		t.Errorf("%s, and the peer has no such set", s.State)
	}
}

// TestLife: New opens nothing, Run runs once, Close ends and may come twice.
func TestLife(t *testing.T) {
	o := pairOptions(t, families[0].one, families[0].two)
	l, err := New(o[0])
	if err != nil {
		t.Fatal(err)
	}
	if l.Address().IsValid() || l.State().State != Down || l.Connected() {
		t.Errorf("before Run: %v %+v", l.Address(), l.State())
	}
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	if l.Address() != o[0].Listen {
		t.Errorf("listens on %v, want %v", l.Address(), o[0].Listen)
	}
	taken, err := New(Options{Listen: o[0].Listen, Peer: o[0].Peer, Keys: o[0].Keys, Node: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := taken.Run(t.Context()); err == nil || !strings.Contains(err.Error(), o[0].Listen.String()) {
		t.Errorf("an address in use: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run(context.Background()) }()
	eventually(t, "it does not run", func() bool { return l.State().Error != "" })
	if err := l.Run(t.Context()); err == nil {
		t.Error("it runs twice")
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := l.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	unused, err := New(o[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := unused.Listen(); err != nil {
		t.Fatal(err)
	}
	if err := unused.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.DialTimeout("tcp", o[1].Listen.String(), patience); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

func TestOptionsRefused(t *testing.T) {
	good := pairOptions(t, families[0].one, families[0].two)[0]
	for name, tt := range map[string]struct {
		want  string
		spoil func(o *Options)
	}{
		"no listen":        {"pair.listen", func(o *Options) { o.Listen = netip.AddrPort{} }},
		"no peer":          {"pair.peer", func(o *Options) { o.Peer = netip.AddrPort{} }},
		"peer of no host":  {"pair.peer", func(o *Options) { o.Peer = netip.MustParseAddrPort("0.0.0.0:7420") }},
		"peer of no port":  {"pair.peer", func(o *Options) { o.Peer = netip.MustParseAddrPort("192.0.2.1:0") }},
		"two families":     {"both IPv4 or both IPv6", func(o *Options) { o.Peer = netip.MustParseAddrPort("[::1]:7420") }},
		"itself":           {"the other node", func(o *Options) { o.Peer = o.Listen }},
		"no keys":          {"pair init", func(o *Options) { o.Keys = nil }},
		"no name":          {"name", func(o *Options) { o.Node = "" }},
		"a long name":      {"name", func(o *Options) { o.Node = strings.Repeat("n", 256) }},
		"a long version":   {"version", func(o *Options) { o.Version = strings.Repeat("n", 256) }},
		"a long digest":    {"digest", func(o *Options) { o.Digest = make([]byte, 65) }},
		"too little time":  {"Silence", func(o *Options) { o.Silence = time.Millisecond }},
		"too old beats":    {"BeatAge", func(o *Options) { o.BeatAge = time.Hour }},
		"a number twice":   {"same ID", func(o *Options) { o.Sets = []*Set{newReplicaSet(t, nil).set, newReplicaSet(t, nil).set} }},
		"negative silence": {"Silence", func(o *Options) { o.Silence = -time.Second }},
	} {
		o := good
		tt.spoil(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a sentence with %q", name, err, tt.want)
		}
	}
	set := newReplicaSet(t, nil)
	good.Sets = []*Set{set.set}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	if _, err := New(good); err == nil || !strings.Contains(err.Error(), "another link") {
		t.Errorf("one set for two links: %v", err)
	}
	anywhere := good
	anywhere.Sets, anywhere.Listen = nil, netip.MustParseAddrPort("[::]:7420")
	if _, err := New(anywhere); err != nil {
		t.Errorf("every address of this node: %v", err)
	}
}
