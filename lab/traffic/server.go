//go:build linux

package traffic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ServerOptions configures a server. The zero value works.
type ServerOptions struct {
	// Name is what the greeting says, so that a client knows who answered. No
	// spaces, at most 64 bytes; "" is "server".
	Name string

	// OnEvent is called for every event, by several goroutines at a time. nil: no events.
	OnEvent func(Event)

	// Ledger, if not "", is a file that is made (or emptied) and holds the positions of
	// every connection as they are at any moment, whatever kills the server:
	// see ReadLedger.
	Ledger string

	// Progress is the time between two progress events of an upload. 0: 100 ms; negative: none.
	Progress time.Duration
}

// Serve serves connections of l until ctx is over, then closes l and all
// connections and returns nil; any other end of accepting is an error.
func Serve(ctx context.Context, l net.Listener, o ServerOptions) error {
	if o.Name == "" {
		o.Name = "server"
	}
	if len(o.Name) > 64 || strings.ContainsAny(o.Name, " \r\n") {
		return fmt.Errorf("traffic: Name %q: at most 64 bytes, no spaces", o.Name)
	}
	if o.Progress == 0 {
		o.Progress = 100 * time.Millisecond
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	s := &server{opt: o}
	if o.Ledger != "" {
		led, err := createLedger(o.Ledger)
		if err != nil {
			return err
		}
		defer led.f.Close()
		s.ledger = led
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.conns.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	o.OnEvent(Event{Kind: EventReady, At: Now(), Name: o.Name, Address: l.Addr().String(), PID: os.Getpid()})
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if isTemporary(err) { // out of descriptors or memory, or the client was gone before the accept
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
			return fmt.Errorf("traffic: accepting on %s: %w", l.Addr(), err)
		}
		s.conns.Go(func() { s.serve(ctx, c, Now()) })
	}
}

// isTemporary asks what net.Error.Temporary was for: an accept that may succeed next time.
func isTemporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

type server struct {
	opt    ServerOptions
	ledger *ledger
	conns  sync.WaitGroup
}

// served is one connection of a server.
type served struct {
	*link
	start     start
	in, out   stream
	slot      *slot
	remote    string
	accepted  Instant
	received  atomic.Int64
	announced atomic.Int64
	sent      atomic.Int64
	complete  bool
	corrupt   bool
	corruptAt int64
}

func (s *server) serve(ctx context.Context, c net.Conn, at Instant) {
	v := &served{link: newLink(c), accepted: at, remote: c.RemoteAddr().String()}
	defer v.Close()
	stop := context.AfterFunc(ctx, v.Stop)
	defer stop()

	buf := make([]byte, 512)
	rest, err := v.readStart(buf)
	if err != nil {
		return // nobody of ours: a health check, a port scan
	}
	v.in, v.out = newStream(v.start.id, up), newStream(v.start.id, down)
	if s.ledger != nil {
		v.slot = s.ledger.open(v.start)
	}
	s.event(v, EventAccepted)
	if _, err := io.WriteString(v.link, greetingWord+" "+s.opt.Name+"\n"); err == nil {
		s.run(ctx, v, rest)
	}
	s.event(v, EventEnded) // before the deferred Close: who sees our FIN can know that this is written
}

// readStart reads the start line and returns what came after it.
func (v *served) readStart(buf []byte) (rest []byte, err error) {
	n := 0
	for {
		k, err := v.Read(buf[n:])
		n += k
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			v.start, err = parseStart(string(buf[:i]))
			return buf[i+1 : n], err
		}
		if err != nil {
			return nil, err
		}
		if n >= startLineMax {
			return nil, errors.New("traffic: no end of the start line")
		}
	}
}

// run does what the start line asks for and returns when reading and writing are over.
func (s *server) run(ctx context.Context, v *served, rest []byte) {
	switch v.start.pattern {
	case Upload:
		done := make(chan struct{})
		var wg sync.WaitGroup
		if s.opt.Progress > 0 && !v.start.quiet {
			wg.Go(func() { s.reportProgress(v, done) })
		}
		v.receive(ctx, rest, nil)
		close(done)
		wg.Wait()
		v.complete = v.End().Ending == FIN && !v.corrupt && (v.start.length == 0 || v.received.Load() == v.start.length)
	case Download, Push, ZeroWindow:
		stop := make(chan struct{})
		var wg sync.WaitGroup
		finished := false
		wg.Go(func() { finished = v.transmit(ctx, stop) })
		v.receive(ctx, rest, nil)
		close(stop)
		wg.Wait()
		v.complete = finished || v.start.length == 0 && v.End().Ending == FIN && !v.corrupt
	default:
		replies := int64(0)
		finished := false
		v.receive(ctx, rest, func(received int64) bool {
			if finished {
				return true
			}
			due := received/int64(v.start.size) - replies
			if v.start.count > 0 {
				due = min(due, int64(v.start.count)-replies)
			}
			if !v.send(due * int64(v.start.reply)) {
				return false
			}
			replies += due
			if v.start.count > 0 && replies == int64(v.start.count) {
				finished = true
				_, _ = v.HalfClose()
			}
			return true
		})
		v.complete = finished || !v.corrupt && v.End().Ending == FIN && v.received.Load()%int64(v.start.size) == 0
	}
}

// receive reads and checks until the stream ends, and calls each after every read.
func (v *served) receive(ctx context.Context, rest []byte, each func(received int64) bool) {
	buf := make([]byte, min(chunkLen, max(512, v.start.size)))
	var tick <-chan time.Time
	if v.start.pace > 0 {
		t := time.NewTicker(v.start.pace)
		defer t.Stop()
		tick = t.C
		buf = buf[:min(len(buf), v.start.size)]
	} else if v.start.pattern == Upload {
		chunk := chunks.Get().(*[chunkLen]byte)
		defer chunks.Put(chunk)
		buf = chunk[:]
	}
	v.announce(len(rest))
	if !v.take(rest, each) {
		return
	}
	for {
		var n int
		var err error
		if tick != nil {
			select {
			case <-tick:
			case <-ctx.Done():
			}
		}
		if v.slot != nil && v.start.pattern == Upload {
			n, err = v.ReadAnnounced(buf, v.announce)
		} else {
			n, err = v.Read(buf)
		}
		if !v.take(buf[:n], each) || err != nil {
			return
		}
	}
}

// announce notes that n more bytes are in the kernel and about to be read.
func (v *served) announce(n int) {
	v.announced.Store(v.received.Load() + int64(n))
	v.slot.put(slotAnnounced, v.announced.Load())
}

func (v *served) take(p []byte, each func(received int64) bool) bool {
	if len(p) == 0 {
		return true
	}
	pos := v.received.Load()
	if wrong := v.in.check(pos, p); wrong >= 0 {
		v.corrupt, v.corruptAt = true, wrong
		v.slot.put(slotCorruptAt, wrong+1)
		if t, ok := v.Conn.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // the client shall get a reset, not a clean end
		}
		return false
	}
	v.received.Store(pos + int64(len(p)))
	v.slot.put(slotIn, v.received.Load())
	return each == nil || each(v.received.Load())
}

// transmit sends what the pattern wants and reports whether it sent all of an
// agreed length. It ends the stream if so.
func (v *served) transmit(ctx context.Context, stop <-chan struct{}) (finished bool) {
	var tick <-chan time.Time
	if v.start.period > 0 {
		t := time.NewTicker(v.start.period)
		defer t.Stop()
		tick = t.C
	}
	for sent := int64(0); v.start.length == 0 || sent < v.start.length; {
		n := int64(v.start.size)
		if v.start.length > 0 {
			n = min(n, v.start.length-sent)
		}
		if !v.send(n) {
			return false
		}
		sent += n
		if tick != nil {
			select {
			case <-tick:
			case <-stop:
				return false
			case <-ctx.Done():
				return false
			}
		}
	}
	_, _ = v.HalfClose()
	return true
}

// send writes the stream's next n bytes.
func (v *served) send(n int64) bool {
	pos := v.sent.Load()
	for n > 0 {
		k, err := v.Write(v.out.at(pos, int(min(n, chunkLen))))
		pos, n = pos+int64(k), n-int64(k)
		v.sent.Store(pos)
		v.slot.put(slotOut, pos)
		if err != nil {
			return false
		}
	}
	return true
}

// reportProgress reports an upload's position whenever it has changed.
func (s *server) reportProgress(v *served, done <-chan struct{}) {
	t := time.NewTicker(s.opt.Progress)
	defer t.Stop()
	last := int64(-1)
	for {
		select {
		case <-t.C:
			if now := v.received.Load(); now != last {
				last = now
				s.opt.OnEvent(Event{Kind: EventProgress, At: Now(), Name: s.opt.Name, ServerFacts: ServerFacts{
					ID: ID(v.start.id), Pattern: v.start.pattern, In: now, Announced: v.announced.Load(), Out: v.sent.Load()}})
			}
		case <-done:
			return
		}
	}
}

// event reports about v. A quiet connection is worth a word only if it failed.
func (s *server) event(v *served, kind EventKind) {
	if v.start.quiet && (kind == EventAccepted || v.complete) {
		return
	}
	e := Event{Kind: kind, At: Now(), Name: s.opt.Name, Remote: v.remote, AcceptedAt: v.accepted, ServerFacts: ServerFacts{
		ID: ID(v.start.id), Pattern: v.start.pattern, In: v.received.Load(), Announced: v.announced.Load(), Out: v.sent.Load(),
		Complete: v.complete, Corrupt: v.corrupt, CorruptAt: v.corruptAt, End: v.End(),
	}}
	if kind == EventEnded {
		if e.End.Ending == Alive {
			e.End.Ending, e.End.At = Closed, e.At
		}
		v.slot.put(slotEnded, int64(e.End.At))
		if e.Complete {
			v.slot.put(slotComplete, 1)
		}
	}
	s.opt.OnEvent(e)
}

// ServerMain is a server as a process of its own: it listens, serves until ctx
// is over, and writes each Event to stdout as a line of JSON, the first one
// when it is ready. A program offers it as a hidden command, so that a scene can
// run it on some host and kill it there.
//
//	-listen ADDRESS    default 127.0.0.1:0
//	-network NETWORK   tcp, tcp4, tcp6 or unix; default tcp
//	-name NAME         what the greeting says
//	-ledger FILE       see ServerOptions.Ledger
//	-progress TIME     see ServerOptions.Progress
func ServerMain(ctx context.Context, args []string, stdout io.Writer) error {
	var o ServerOptions
	flags := flag.NewFlagSet("traffic server", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	address := flags.String("listen", "127.0.0.1:0", "address to listen on")
	network := flags.String("network", "tcp", "tcp, tcp4, tcp6 or unix")
	flags.StringVar(&o.Name, "name", "", "what the greeting says")
	flags.StringVar(&o.Ledger, "ledger", "", "file that holds the positions")
	flags.DurationVar(&o.Progress, "progress", 0, "time between two reports of an upload")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("traffic server: %w", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("traffic server: argument %q: only flags are taken", flags.Arg(0))
	}
	var mu sync.Mutex
	out := json.NewEncoder(stdout)
	o.OnEvent = func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(e) // nobody listens any more: serving goes on
	}
	l, err := Listen(*network, *address)
	if err != nil {
		return fmt.Errorf("traffic server: %w", err)
	}
	return Serve(ctx, l, o)
}
