package notice

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// choices are a fuzzer's bytes, or a seed's.
type choices struct {
	data []byte
	rng  *rand.Rand // behind their end; nil: zeros
}

func (c *choices) byte() byte {
	if len(c.data) == 0 {
		if c.rng != nil {
			return byte(c.rng.Uint32())
		}
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return b
}

func (c *choices) one(in int) bool { return int(c.byte())*in < 256 }

func (c *choices) word() uint32 {
	return uint32(c.byte())<<24 | uint32(c.byte())<<16 | uint32(c.byte())<<8 | uint32(c.byte())
}

// far is the other end: what RFC 9293 and RFC 5961 ask of it, as Linux does it
// (tcp_validate_incoming and what follows).
type far struct {
	open    bool
	rcv     uint32 // RCV.NXT
	una     uint32 // SND.UNA
	nxt     uint32 // SND.NXT
	window  uint32
	sack    bool // it answers old data by a D-SACK
	held    bool // it takes no RST
	stealth bool // it answers nothing when it is closed
	sends   bool // it sends between its answers
	limited int64

	acked []uint32 // everything that it has acknowledged
	harm  string   // a byte or an acknowledgement that was nobody's
	reset bool
}

const never = -1 << 60

func (r *far) ack(block bool, seq uint32) []Segment {
	r.acked = append(r.acked, r.rcv)
	if r.sends {
		r.nxt += 1000
	}
	s := Segment{Flags: ACK, Seq: r.nxt, Ack: r.rcv}
	if block && r.sack {
		s.HasBlock, s.Block = true, [2]uint32{seq, seq + 1}
	}
	return []Segment{s}
}

func (r *far) limitedAck(now int64) []Segment {
	if now-r.limited < 500*ms {
		return nil
	}
	r.limited = now
	return r.ack(false, 0)
}

func (r *far) receive(s Segment, now int64) []Segment {
	if !r.open {
		if s.Flags&RST != 0 || r.stealth {
			return nil
		}
		return []Segment{{Flags: RST, Seq: s.Ack}}
	}
	end := s.end()
	old, beyond := int32(end-r.rcv) < 0, int32(end-(r.rcv+r.window)) > 0
	if s.Flags&RST != 0 {
		switch {
		case s.Seq == r.rcv && !r.held:
			r.open, r.reset = false, true
		case !old && !beyond:
			return r.limitedAck(now)
		}
		return nil
	}
	if old || beyond {
		if s.Length > 0 {
			return r.ack(int32(s.Seq-r.rcv) < 0, s.Seq)
		}
		return r.limitedAck(now)
	}
	switch {
	case int32(s.Ack-r.nxt) > 0:
		return nil
	case int32(s.Ack-(r.una-r.window)) < 0:
		return r.limitedAck(now)
	}
	switch {
	case s.Length > 0 && int32(end-r.rcv) > 0:
		r.harm = fmt.Sprintf("a byte at %d is in the window that begins at %d", s.Seq, r.rcv)
	case int32(s.Ack-r.una) > 0:
		r.harm = fmt.Sprintf("an acknowledgement of %d, where %d was acknowledged", s.Ack, r.una)
	}
	return r.ack(true, s.Seq)
}

// delivery is a segment under way.
type delivery struct {
	at     int64
	toFar  bool
	forged bool
	s      Segment
}

// world is one end, the other end, what is between them, and who interferes.
type world struct {
	e       end
	r       far
	c       *choices
	now     int64
	wire    []delivery
	latency int64 // one way, where the network is not rough
	here    bool  // our kernel answers what it has no socket for by a RST
	rough   bool  // the network loses, doubles and delays
	feed    int64 // somebody sends to the far end each so often; 0: nobody
	forging bool
	near    bool // who forges knows the far end's numbers, nearly

	was             bool // open
	forged          Segment
	tickles, resets int
	sent            []uint32 // numbers of our RSTs
}

var delays = [...]int64{50_000, 200_000, ms, 3 * ms, 12 * ms, 40 * ms, 150 * ms, 700 * ms}

func (w *world) post(s Segment, toFar, forged bool) {
	copies, delay := 1, w.latency
	if w.rough && !forged {
		b := w.c.byte()
		delay = delays[b&7]
		switch {
		case b > 220:
			copies = 0
		case b > 200:
			copies = 2
		}
	}
	for range copies {
		w.wire = append(w.wire, delivery{w.now + delay, toFar, forged, s})
		delay += 5 * ms
	}
}

// forge makes what somebody says who does not see the tickles: in the far end's
// name to here, with numbers that are wrong.
func (w *world) forge() {
	s := Segment{Flags: ACK, Seq: w.c.word(), Ack: w.c.word()}
	if w.near {
		// Behind, or further ahead than the end will ever be: who hits where it will be could
		// reset it himself.
		wrong := func(n uint32) uint32 {
			d := 1 + uint32(w.c.byte())<<(w.c.byte()%20)
			if w.c.one(2) {
				return n - d
			}
			return n + 1<<20 + d
		}
		s.Seq, s.Ack = wrong(w.r.nxt), wrong(w.r.rcv)
	}
	switch w.c.byte() % 6 {
	case 5:
		s.Flags = SYN | Flags(w.c.byte())&ACK
	case 0:
		s.Flags = RST
	case 1:
		s.Flags = RST | ACK
	case 2:
		s.HasBlock, s.Block = true, [2]uint32{s.Ack - 4, s.Ack - 3}
	}
	if w.c.one(2) && w.forged.Flags != 0 {
		s = w.forged // who says the same again is believed sooner
	}
	// He guesses no number right that he would have to see.
	if s.Flags&RST != 0 && slices.Contains(w.e.said[:], s.Seq) || s.HasBlock && slices.Contains(w.e.probes[:], s.Block[0]) {
		return
	}
	w.forged = s
	w.post(s, false, true)
}

func newWorld(c *choices) *world {
	flags, more := c.byte(), c.byte()
	w := &world{c: c, here: flags&1 != 0, rough: flags&2 != 0, forging: flags&4 != 0}
	w.r = far{
		open: flags&8 == 0, sack: flags&16 == 0, held: flags&0xe0 == 0xe0, stealth: more&1 != 0, sends: more&128 != 0,
		rcv: c.word(), nxt: c.word(), window: []uint32{0, 1, 65535, 1 << 20, 1 << 30}[c.byte()%5], limited: never,
	}
	w.r.una = w.r.nxt - uint32(c.byte())
	if more&2 != 0 {
		w.feed = []int64{ms / 2, ms, 2 * ms, 10 * ms}[c.byte()%4]
	}
	start := Start{Known: Known(more>>2) & (KnownISN | KnownRemoteISN | KnownNumbers)}
	if w.feed == 0 && more&32 != 0 {
		start.Known |= Final
	}
	start.ISN, start.RemoteISN = w.r.rcv-c.word()>>1, w.r.nxt-c.word()>>2
	start.Acknowledged, start.Receive = w.r.rcv, w.r.nxt
	if start.Known&Final == 0 {
		start.Acknowledged -= uint32(c.byte())
	}
	start.Next = start.Acknowledged
	// Who knows the end's numbers nearly could put bytes into it himself.
	w.near = w.forging && start.Known&(KnownISN|KnownNumbers) != 0 && more&64 != 0
	bound := []time.Duration{MinBound, 100 * time.Millisecond, time.Second, 5 * time.Second}[c.byte()%4]
	w.e = begin(start, bound, [2]uint32{0x9e3779b9 ^ c.word(), 0x7f4a7c15 ^ c.word()}, false)
	w.latency = []int64{50_000, 100_000, ms, 12 * ms}[c.byte()%4]
	w.r.acked = append(w.r.acked, w.r.rcv)
	w.was = w.r.open
	return w
}

// run plays until the end is decided, and gives what must not have been.
func (w *world) run() error {
	w.now = 1000 * ms
	begun := w.now
	nextFeed, nextForge := w.now, w.now
	for steps := 0; !w.e.done; steps++ {
		if steps > 100_000 {
			return fmt.Errorf("no end: %+v", w.e)
		}
		if w.e.wantTickle || w.e.wantReset {
			if err := w.transmit(); err != nil {
				return err
			}
			continue
		}
		// The next thing to happen.
		at := w.e.due
		i := -1
		for j := range w.wire {
			if w.wire[j].at < at {
				at, i = w.wire[j].at, j
			}
		}
		if w.feed > 0 && nextFeed < at {
			w.now, nextFeed = max(w.now, nextFeed), nextFeed+w.feed
			if w.r.open {
				w.r.rcv++
			}
			continue
		}
		if w.forging && nextForge < at {
			w.now, nextForge = max(w.now, nextForge), nextForge+(1+int64(w.c.byte()))*ms/4
			w.forge()
			continue
		}
		w.now = max(w.now, at)
		if i < 0 {
			w.e.expire(w.now)
			if !w.e.done && !w.e.wantTickle && !w.e.wantReset && w.e.due <= w.now {
				return fmt.Errorf("at its time it does nothing: %+v", w.e)
			}
			continue
		}
		d := w.wire[i]
		w.wire = slices.Delete(w.wire, i, i+1)
		if err := w.deliver(d); err != nil {
			return err
		}
	}
	return w.judge(begun)
}

func (w *world) transmit() error {
	if w.rough {
		w.now += int64(w.c.byte()) * ms / 64 // it waits for its turn
	}
	var out [2]Segment
	n := w.e.segments(w.now, &out)
	if n == 0 {
		return fmt.Errorf("it wants to send, and sends nothing: %+v", w.e)
	}
	for _, s := range out[:n] {
		if s.Flags&RST != 0 {
			w.resets++
			w.sent = append(w.sent, s.Seq)
		} else {
			w.tickles++
		}
		w.post(s, true, false)
	}
	return nil
}

func (w *world) deliver(d delivery) error {
	if d.toFar {
		was := w.r.open
		for _, a := range w.r.receive(d.s, w.now) {
			w.post(a, false, false)
		}
		if w.r.harm != "" {
			return fmt.Errorf("harm: %s (%+v)", w.r.harm, d.s)
		}
		if was && !w.r.open && w.feed > 0 {
			return fmt.Errorf("an end that somebody feeds was reset, by %+v", d.s)
		}
		return nil
	}
	w.e.answer(&d.s, w.now)
	// Our kernel, that has no socket, unless somebody else has the address.
	if w.here && w.feed == 0 && d.s.Flags&RST == 0 && !d.forged {
		w.post(Segment{Flags: RST, Seq: d.s.Ack}, true, false)
	}
	return nil
}

func (w *world) judge(begun int64) error {
	e := &w.e
	if w.tickles != int(e.tries) || w.tickles > maxTries || w.resets > maxResets+1 {
		return fmt.Errorf("%d tickles (%d counted) and %d resets", w.tickles, e.tries, w.resets)
	}
	if took := w.now - begun; took > e.bound+2000*ms+400*ms {
		return fmt.Errorf("%v after %v, bound %v", e.verdict, time.Duration(took), time.Duration(e.bound))
	}
	calm := !w.rough && !w.forging && e.bound >= 100*ms
	if e.bare() && w.r.window == 1<<30 {
		calm = false // a bare ACK may lie in a window that is a quarter of all numbers
	}
	switch e.verdict {
	case Told, Gone:
		if (e.confirmed || e.verdict == Gone) && w.r.open {
			return fmt.Errorf("%v, confirmed %v, but the end is open", e.verdict, e.confirmed)
		}
	case Alive:
		if w.feed == 0 && calm {
			return fmt.Errorf("alive, but nobody feeds it")
		}
	case Unreachable:
		if calm && !w.r.stealth {
			return fmt.Errorf("unreachable, but it answers")
		}
	case Refused:
		if calm && !w.r.held && w.feed == 0 {
			return fmt.Errorf("refused: %v", e.err)
		}
	default:
		return fmt.Errorf("verdict %v", e.verdict)
	}
	if calm && w.feed == 0 && !w.r.stealth && !w.r.held && (e.verdict != Told || !e.confirmed) && !(e.verdict == Gone && !w.r.reset) {
		return fmt.Errorf("%v, confirmed %v, in a calm world", e.verdict, e.confirmed)
	}
	// An end that proves its answers, and whose answers arrive, is never sent another number.
	if w.r.sack && !w.rough && w.was && !e.bare() {
		for _, n := range w.sent {
			if !slices.Contains(w.r.acked, n) {
				return fmt.Errorf("a RST with %d, but the end has acknowledged %v", n, w.r.acked)
			}
		}
	}
	return nil
}

// FuzzEnd tells ends that are open, closed, slow, strange or fed by somebody
// else, over a network that loses, doubles and delays, with somebody who forges answers.
// Whatever the numbers are: no byte is put into an end, no end that somebody
// feeds is reset, what is sent is bounded, and verdicts are true.
func FuzzEnd(f *testing.F) {
	for i := range 64 {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		b := make([]byte, 200)
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(&choices{data: data})
		if err := w.run(); err != nil {
			t.Fatalf("%v\n%+v\n%+v", err, w.e, w.r)
		}
	})
}

// The same by many seeds, which need no fuzzer.
func TestEnds(t *testing.T) {
	n := uint64(20_000)
	if testing.Short() {
		n = 2000
	}
	verdicts := make(map[string]int)
	for seed := range n {
		w := newWorld(&choices{rng: rand.New(rand.NewPCG(seed, 2))})
		if err := w.run(); err != nil {
			t.Fatalf("seed %d: %v\n%+v\n%+v", seed, err, w.e, w.r)
		}
		verdicts[fmt.Sprintf("%v %v", w.e.verdict, w.e.confirmed)]++
	}
	t.Log(verdicts)
	for _, v := range []string{"told true", "told false", "gone false", "unreachable false", "alive false", "refused false"} {
		if verdicts[v] == 0 {
			t.Errorf("no world ends with %s", v)
		}
	}
}
