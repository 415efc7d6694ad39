package connected

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-net/holdfast/internal/pair"
)

// A sim is a machine with a few sockets, a relay, and what is on its way from
// them to a core. What happens is drawn; the law is looked at when all that was
// under way has arrived.
type sim struct {
	draw func(what string, n int) int // 0 to n-1
	core *core
	now  int64

	live    map[Tuple]*simSocket
	legs    map[Tuple]string // owner
	labels  map[Tuple]string // of sockets that are or were a leg's
	cookie  uint64
	changes []simChange // that the kernel has told, and nobody has read
	lossy   bool        // some of them get lost
	lost    bool        // some have been, since the latest look began

	looking bool
	began   int64
	listed  []observation // read from the kernel's list, and not taken yet
	todo    []Tuple       // that the look has still to come to
	looks   int           // whole ones since something was lost

	peer  map[Tuple]Record // what somebody knows who heard every change
	copy  Copy
	story []string
}

type simSocket struct {
	cookie uint64
	at     int64
	isn    uint32
}

type simChange struct {
	observation
	closed bool
}

var simTuples = func() (list []Tuple) {
	for local := range 3 {
		for port := range 3 {
			list = append(list, tuple(fmt.Sprintf("10.0.0.%d:80", 100+local), fmt.Sprintf("10.0.0.7:%d", 1000+port)))
		}
	}
	return list
}()

func newSim(draw func(string, int) int) *sim {
	return &sim{
		draw: draw, core: newCore(1000), live: make(map[Tuple]*simSocket), legs: make(map[Tuple]string),
		labels: make(map[Tuple]string), peer: make(map[Tuple]Record),
	}
}

func (s *sim) say(format string, args ...any) {
	s.story = append(s.story, fmt.Sprintf(format, args...))
}

func (s *sim) observe(t Tuple, k *simSocket, at int64) observation {
	return observation{Tuple: t, cookie: k.cookie, at: at, since: time.Unix(0, k.at).UTC(), numbers: true, isn: k.isn, remote: k.isn + 1}
}

// tell puts a change on its way, unless it is lost. The kernel tells only of
// addresses that are watched.
func (s *sim) tellChange(c simChange) {
	if !s.core.watches(c.Tuple) {
		return
	}
	if s.lossy && s.draw("lose it", 4) == 0 {
		s.lost, s.looks = true, 0
		s.say("  which is lost")
		return
	}
	s.changes = append(s.changes, c)
}

func (s *sim) step() {
	s.now += int64(1 + s.draw("pass", 3))
	t := simTuples[s.draw("tuple", len(simTuples))]
	switch s.draw("step", 10) {
	case 0, 1: // a socket is there, and perhaps a leg with it
		if s.live[t] != nil {
			return
		}
		s.cookie++
		k := &simSocket{cookie: s.cookie, at: s.now, isn: uint32(s.draw("isn", 1<<30))}
		s.live[t] = k
		s.say("%d: socket %d at %s", s.now, k.cookie, t)
		s.tellChange(simChange{observation: s.observe(t, k, s.now)})
	case 2, 3: // it ends
		k := s.live[t]
		if k == nil {
			return
		}
		delete(s.live, t)
		s.say("%d: socket %d ends", s.now, k.cookie)
		s.tellChange(simChange{observation: observation{Tuple: t, cookie: k.cookie, at: s.now}, closed: true})
	case 4: // the relay has it
		owner := fmt.Sprint("service ", s.draw("owner", 2))
		s.say("%d: leg %s of %s", s.now, t, owner)
		s.legs[t] = owner
		s.core.add(Record{Tuple: t, Kind: RelayClient, Owner: owner, Since: time.Unix(0, s.now).UTC()})
	case 5:
		s.say("%d: leg %s ends", s.now, t)
		delete(s.legs, t)
		s.core.remove(t)
	case 6: // what was told is read
		n := s.draw("read", len(s.changes)+1)
		s.read(n)
	case 7: // the look goes on
		s.goOn()
	case 8: // bytes go by
		if k := s.live[t]; k != nil {
			n := uint32(s.draw("bytes", 3)) * (Stride - 1)
			k.isn += n
		}
	case 9:
		s.flush()
	}
}

func (s *sim) read(n int) {
	for _, c := range s.changes[:n] {
		if c.closed {
			s.core.closed(c.Tuple, c.cookie)
		} else {
			s.core.established(c.observation)
		}
	}
	s.changes = slices.Delete(s.changes, 0, n)
}

// goOn does a part of a look.
func (s *sim) goOn() {
	switch {
	case !s.looking:
		s.looking, s.began, s.todo, s.lost = true, s.now, slices.Clone(simTuples), false
		s.core.beginLook()
		s.say("%d: look %d", s.now, s.core.look)
	case len(s.todo) > 0:
		n := 1 + s.draw("list", len(s.todo))
		for _, t := range s.todo[:n] {
			if k := s.live[t]; k != nil && s.core.watches(t) {
				s.listed = append(s.listed, s.observe(t, k, s.now))
				s.say("%d: socket %d is listed", s.now, k.cookie)
			}
		}
		s.todo = s.todo[n:]
	case len(s.listed) > 0:
		n := 1 + s.draw("take", len(s.listed))
		for _, o := range s.listed[:n] {
			s.core.established(o)
		}
		s.listed = s.listed[n:]
	default:
		s.looking = false
		s.core.endLook(s.began, true)
		s.say("%d: look %d has ended", s.now, s.core.look)
		if !s.lost {
			s.looks++
		}
	}
}

func (s *sim) flush() {
	told := make(map[Tuple]bool)
	for _, c := range s.core.flush(nil) {
		if told[c.Record.Tuple] {
			panic("told twice at once: " + c.Record.Tuple.String())
		}
		told[c.Record.Tuple] = true
		key := AppendKey(nil, c.Record.Tuple)
		item := pair.Item{Kind: pair.ItemDelete, Key: key}
		if c.Gone {
			if _, ok := s.peer[c.Record.Tuple]; !ok {
				panic("the end is told of what was not: " + c.Record.Tuple.String())
			}
			delete(s.peer, c.Record.Tuple)
		} else {
			if s.peer[c.Record.Tuple] == c.Record {
				panic("told again: " + c.Record.Tuple.String())
			}
			s.peer[c.Record.Tuple] = c.Record
			item.Kind, item.Value = pair.ItemPut, AppendValue(nil, c.Record)
		}
		if err := s.copy.Apply(item); err != nil {
			panic(err)
		}
	}
}

// settle lets all that is under way arrive.
func (s *sim) settle() {
	s.lossy = false
	s.read(len(s.changes))
	for s.looking {
		s.goOn()
	}
	for range missesAllowed + 1 {
		s.now++
		s.goOn()
		for s.looking {
			s.goOn()
		}
	}
	s.flush()
}

// check holds what is known against what is there.
func (s *sim) check(exact bool) error {
	want := make(map[Tuple]bool)
	for t := range s.live {
		want[t] = s.core.watches(t)
	}
	for t := range s.legs {
		want[t] = s.core.watches(t)
	}
	for _, t := range simTuples {
		r, known := s.peer[t]
		if known != want[t] {
			return fmt.Errorf("%s is known: %v, want %v", t, known, want[t])
		}
		if !known {
			continue
		}
		if owner, ok := s.legs[t]; ok && (r.Kind != RelayClient || r.Owner != owner) {
			return fmt.Errorf("%s is of %s %q, want %q", t, r.Kind, r.Owner, owner)
		}
		k := s.live[t]
		if k == nil {
			continue
		}
		if exact && r.HasISN && (k.isn-r.ISN >= Stride || r.RemoteISN != r.ISN+1) {
			return fmt.Errorf("%s has the number %d, and is at %d", t, r.ISN, k.isn)
		}
	}
	told := make(map[Tuple]Record)
	for r := range s.core.toldSoFar() {
		told[r.Tuple] = r
	}
	if !maps.Equal(told, s.peer) || s.core.told != len(s.peer) {
		return fmt.Errorf("it says that it told %v (%d), and told %v", told, s.core.told, s.peer)
	}
	copied := make(map[Tuple]Record)
	for _, r := range s.copy.Records(nil) {
		copied[r.Tuple] = r
	}
	if !maps.Equal(copied, s.peer) {
		return fmt.Errorf("the copy is %v, and told was %v", copied, s.peer)
	}
	current := 0
	s.core.records(func(Record) bool { current++; return true })
	if current != len(s.peer) {
		return fmt.Errorf("%d records, and %d told", current, len(s.peer))
	}
	for t, e := range s.core.entries {
		if !e.socket && !e.leg {
			return fmt.Errorf("nobody is at %s, and it is remembered", t)
		}
	}
	return nil
}

func (s *sim) watch(n int) {
	set := make(map[netip.Addr]struct{})
	for i := range 3 {
		if n>>i&1 == 1 {
			set[simTuples[3*i].Local.Addr()] = struct{}{}
		}
	}
	s.say("%d: watch %v", s.now, slices.Collect(maps.Keys(set)))
	s.core.watch(set)
}

// Whatever is lost, late, or overtaken by a look: once the kernel was looked at
// often enough, who is known is who is there.
func TestWhoIsKnown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) })
		defer func() {
			if p := recover(); p != nil {
				t.Fatalf("%v\n%v", p, join(s.story))
			}
		}()
		s.watch(7)
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			s.lossy = rapid.Bool().Draw(t, "lossy")
			for range rapid.IntRange(1, 60).Draw(t, "steps") {
				s.step()
			}
			if rapid.IntRange(0, 3).Draw(t, "other addresses") == 0 {
				s.watch(rapid.IntRange(0, 7).Draw(t, "addresses"))
				s.flush()
			}
			s.settle()
			if err := s.check(true); err != nil {
				t.Fatalf("%v\n%s", err, join(s.story))
			}
		}
	})
}

// Where nothing is lost no look is needed, and none does harm.
func TestChangesAreEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) })
		s.watch(7)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			s.step()
		}
		s.read(len(s.changes))
		for s.looking {
			s.goOn()
		}
		s.flush()
		if err := s.check(false); err != nil {
			t.Fatalf("%v\n%s", err, join(s.story))
		}
	})
}

func join(story []string) (text string) {
	for _, line := range story {
		text += line + "\n"
	}
	return text
}

// one is a core that knows one socket, at instant 1.
func one(t *testing.T) (*core, observation) {
	t.Helper()
	c := newCore(10)
	o := observation{Tuple: simTuples[0], cookie: 1, at: 1, since: noon, numbers: true, isn: 100, remote: 200}
	c.watch(map[netip.Addr]struct{}{o.Local.Addr(): {}})
	c.established(o)
	want := Record{Tuple: o.Tuple, Kind: Socket, HasISN: true, ISN: 100, RemoteISN: 200, Since: noon}
	if list := c.flush(nil); len(list) != 1 || list[0] != (Change{Record: want}) {
		t.Fatalf("told %+v, want %+v", list, want)
	}
	return c, o
}

// look lets a core look at the machine, which has these sockets.
func (c *core) lookAt(began int64, sockets ...observation) []Change {
	c.beginLook()
	for _, o := range sockets {
		c.established(o)
	}
	c.endLook(began, true)
	return c.flush(nil)
}

// Numbers are told anew before they are too old, and not at all where they would
// be before anybody could use them.
func TestNumbersGoOn(t *testing.T) {
	for _, here := range []bool{true, false} {
		c, o := one(t)
		number, told := &o.isn, func(r Record) uint32 { return r.ISN }
		if !here {
			number, told = &o.remote, func(r Record) uint32 { return r.RemoteISN }
		}
		first := *number
		step := func(bytes uint32) []Change {
			o.at++
			*number += bytes
			return c.lookAt(o.at, o)
		}
		if list := step(Stride - 1); len(list) != 0 {
			t.Errorf("told %+v, and the numbers are fresh", list)
		}
		if list := step(1); len(list) != 1 || told(list[0].Record) != first+Stride {
			t.Errorf("told %+v, want a number of %d", list, first+Stride)
		}
		if list := step(outpace); len(list) != 1 || list[0].Record.HasISN {
			t.Errorf("told %+v, want no numbers: it is too fast", list)
		}
		if list := step(3 << 30); len(list) != 0 {
			t.Errorf("told %+v: it is as fast as before", list)
		}
		if list := step(10); len(list) != 1 || told(list[0].Record) != *number {
			t.Errorf("told %+v, want a number of %d", list, *number)
		}
		// All of that within a look's time, and through the end of the numbers.
		for range 40 {
			list := step(Stride - 10)
			for _, ch := range list {
				if *number-told(ch.Record) != 0 {
					t.Errorf("told %+v at %d", list, *number)
				}
			}
			if rec := c.entries[o.Tuple].told.record(o.Tuple); *number-told(rec) > Stride {
				t.Fatalf("%d is told, at %d", told(rec), *number)
			}
		}
		// A change that the look has overtaken brings the old numbers.
		o.at, *number = 1, first
		c.established(o)
		if list := c.flush(nil); len(list) != 0 {
			t.Errorf("told %+v, which was long ago", list)
		}
	}
}

// One look may miss a socket, two in a row do not, and one that failed proves nothing.
func TestMissedByLooks(t *testing.T) {
	c, o := one(t)
	if list := c.lookAt(2); len(list) != 0 {
		t.Errorf("told %+v after one look", list)
	}
	if list := c.lookAt(3, o); len(list) != 0 {
		t.Errorf("told %+v, and it is there", list)
	}
	c.lookAt(4)
	c.beginLook()
	c.endLook(5, false)
	if list := c.flush(nil); len(list) != 0 {
		t.Errorf("told %+v after a look that was not whole", list)
	}
	// What came after the look began was not for it to find.
	later := o
	later.Tuple, later.cookie, later.at = simTuples[1], 2, 6
	c.established(later)
	c.flush(nil)
	want := Change{Record: Record{Tuple: o.Tuple}, Gone: true}
	if list := c.lookAt(6); len(list) != 1 || list[0] != want {
		t.Errorf("told %+v, want %+v", list, want)
	}
	if list := c.lookAt(7); len(list) != 0 {
		t.Errorf("told %+v after the first look that had to find it", list)
	}
}

// Two sockets with the same ends, the end of the first one lost: the later one
// counts, however one hears of it, and is not the relay's because the first one was.
func TestEndsUsedAgain(t *testing.T) {
	c, first := one(t)
	c.add(Record{Tuple: first.Tuple, Kind: RelayClient, Owner: "web"})
	c.remove(first.Tuple)
	second := first
	second.cookie, second.at, second.isn = 2, 5, 7000
	c.established(second)
	want := Record{Tuple: first.Tuple, Kind: Socket, HasISN: true, ISN: 7000, RemoteISN: 200, Since: noon}
	if list := c.flush(nil); len(list) != 1 || list[0].Record != want {
		t.Errorf("told %+v, want %+v", list, want)
	}
	// Also where all of it happens between two tellings.
	c.add(Record{Tuple: first.Tuple, Kind: RelayClient, Owner: "web"})
	c.remove(first.Tuple)
	c.closed(second.Tuple, second.cookie)
	second.cookie, second.at = 3, 6
	c.established(second)
	if list := c.flush(nil); len(list) != 0 {
		t.Errorf("told %+v; the relay had the one before", list)
	}
	// A look has read the first one, a moment before it ended.
	first.at = 4
	c.established(first)
	if list := c.flush(nil); len(list) != 0 {
		t.Errorf("told %+v, which is gone", list)
	}
}

// What is not watched takes no room, unless the relay has it.
func TestNotWatched(t *testing.T) {
	c, o := one(t)
	leg := Record{Tuple: simTuples[1], Kind: RelayBackend, Owner: "web", Since: noon}
	c.add(leg)
	c.flush(nil)
	c.watch(nil)
	if list := c.flush(nil); len(list) != 2 || !list[0].Gone || !list[1].Gone || len(c.entries) != 1 {
		t.Errorf("told %+v, and %d entries", list, len(c.entries))
	}
	c.established(o) // it was on its way
	if list := c.flush(nil); len(list) != 0 || len(c.entries) != 1 {
		t.Errorf("told %+v, and %d entries", list, len(c.entries))
	}
	c.watch(map[netip.Addr]struct{}{o.Local.Addr(): {}})
	if list := c.flush(nil); len(list) != 1 || list[0].Record != leg {
		t.Errorf("told %+v, want %+v", list, leg)
	}
	// A leg whose numbers were not looked after meanwhile has none.
	c.established(observation{Tuple: leg.Tuple, cookie: 9, at: 9, since: noon, numbers: true, isn: 1, remote: 2})
	c.flush(nil)
	c.watch(nil)
	c.watch(map[netip.Addr]struct{}{o.Local.Addr(): {}})
	if list := c.flush(nil); len(list) != 1 || list[0].Record.HasISN {
		t.Errorf("told %+v, want no numbers", list)
	}
}

// A leg's socket lives a little longer than the leg, and is the leg's until its end.
func TestLegAndSocket(t *testing.T) {
	c, o := one(t)
	c.add(Record{Tuple: o.Tuple, Kind: RelayClient, Owner: "web", Since: noon.Add(time.Second)})
	want := Record{Tuple: o.Tuple, Kind: RelayClient, Owner: "web", HasISN: true, ISN: 100, RemoteISN: 200, Since: noon}
	if list := c.flush(nil); len(list) != 1 || list[0].Record != want {
		t.Errorf("told %+v, want %+v", list, want)
	}
	c.remove(o.Tuple)
	if list := c.flush(nil); len(list) != 0 {
		t.Errorf("told %+v; its socket is there still", list)
	}
	c.closed(o.Tuple, 77)
	if list := c.flush(nil); len(list) != 0 {
		t.Errorf("told %+v; that was another socket", list)
	}
	c.closed(o.Tuple, o.cookie)
	if list := c.flush(nil); len(list) != 1 || !list[0].Gone {
		t.Errorf("told %+v, want its end", list)
	}
	// The next one with these ends is nobody's, until somebody says so.
	o.cookie, o.at = 2, 9
	c.established(o)
	if list := c.flush(nil); len(list) != 1 || list[0].Record.Kind != Socket || list[0].Record.Owner != "" {
		t.Errorf("told %+v", list)
	}
	// What comes and goes between is not told.
	o.Tuple, o.cookie = simTuples[1], 3
	c.established(o)
	c.closed(o.Tuple, 3)
	c.add(Record{Tuple: simTuples[2]})
	c.remove(simTuples[2])
	if list := c.flush(nil); len(list) != 0 || len(c.entries) != 1 {
		t.Errorf("told %+v, and %d entries", list, len(c.entries))
	}
}

// Who finds no room is counted, and has some when there is.
func TestRoom(t *testing.T) {
	c, o := one(t)
	c.max = 1
	other := o
	other.Tuple, other.cookie = simTuples[1], 2
	c.established(other)
	c.add(Record{Tuple: simTuples[2]})
	if list := c.flush(nil); len(list) != 0 || c.refused != 2 {
		t.Errorf("told %+v, refused %d", list, c.refused)
	}
	c.closed(o.Tuple, o.cookie)
	c.flush(nil)
	if list := c.lookAt(5, other); len(list) != 1 || list[0].Record.Tuple != other.Tuple || c.refused != 0 {
		t.Errorf("told %+v, refused %d", list, c.refused)
	}
}

func TestTuples(t *testing.T) {
	for _, c := range []struct{ local, remote, want string }{
		{"[::ffff:10.0.0.100]:1", "10.0.0.7:2", "10.0.0.100:1 to 10.0.0.7:2"},
		{"[fe80::1%eth0]:1", "[fe80::2%3]:2", "[fe80::1]:1 to [fe80::2]:2"},
		{"10.0.0.1:1", "[::1]:2", ""},
	} {
		n, err := tuple(c.local, c.remote).normal()
		if (err == nil) != (c.want != "") || err == nil && n.String() != c.want {
			t.Errorf("%s to %s: %s, %v; want %q", c.local, c.remote, n, err, c.want)
		}
	}
	if _, err := (Tuple{}).normal(); err == nil {
		t.Error("the empty tuple is one")
	}
	if Socket.String() != "socket" || RelayClient.String() != "relay client" || RelayBackend.String() != "relay backend" || Kind(9).String() != "Kind(9)" {
		t.Error("kinds have other names")
	}
}
