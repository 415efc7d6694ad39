//go:build linux

package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// ClientOptions says where a client connects and what it does there.
type ClientOptions struct {
	Dial    DialFunc // nil: Dial
	Network string   // as for net.Dial; "" is "tcp"
	Address string   // as for net.Dial; required
	ID      ID       // 0: a random one
	Pattern Pattern  // the zero value is Idle

	// Length is how many bytes an upload or a download has. 0: no end, until
	// Finish. The other patterns know no length.
	Length int64

	// Size is the number of bytes of a request (0: 64), a pushed message (0: 16)
	// or a chunk of an upload or download (0: 64 KiB). At most 16 MiB.
	Size int

	// Reply is the number of bytes that answer a request. 0: as Size.
	Reply int

	// Requests ends the connection in order after so many. 0: no limit.
	Requests int

	// Period is the time between requests, messages or chunks. 0: 100 ms for
	// request and push; as fast as it goes for upload, download and zero-window.
	Period time.Duration

	// Pace makes the server of an upload read Size bytes every so often, so that
	// the client is done long before it. 0: as fast as they come.
	Pace time.Duration

	// OneAtATime sends no request while one is unanswered. By default requests
	// are sent on schedule, whatever is unanswered.
	OneAtATime bool
}

// start checks the options and fills in the defaults.
func (o ClientOptions) start() (start, error) {
	s := start{id: uint64(o.ID), pattern: o.Pattern, length: o.Length, size: o.Size, reply: o.Reply, period: o.Period, pace: o.Pace}
	if o.Address == "" {
		return s, errors.New("traffic: Address is empty: say where to connect")
	}
	if o.Requests < 0 {
		return s, fmt.Errorf("traffic: Requests %d is negative", o.Requests)
	}
	if s.id == 0 {
		s.id = newID()
	}
	if o.Length != 0 && o.Pattern != Upload && o.Pattern != Download {
		return s, fmt.Errorf("traffic: Length with pattern %s: only upload and download have one", o.Pattern)
	}
	if o.Pace != 0 && o.Pattern != Upload {
		return s, fmt.Errorf("traffic: Pace with pattern %s: only an upload has one", o.Pattern)
	}
	if s.size == 0 {
		switch o.Pattern {
		case Idle, Request:
			s.size = 64
		case Push:
			s.size = 16
		default:
			s.size = chunkLen
		}
	}
	if s.reply == 0 {
		s.reply = s.size
	}
	if s.period == 0 && (o.Pattern == Request || o.Pattern == Push) {
		s.period = 100 * time.Millisecond
	}
	return s, s.check()
}

// A Client makes one connection and checks every byte on it. Make it with
// NewClient, run it with Run. Its methods may be called from any goroutine.
type Client struct {
	opt      ClientOptions
	start    start
	out, in  stream
	ready    chan struct{} // closed by the greeting
	finish   chan struct{} // closed by Finish
	ended    chan struct{} // closed when Run returns
	progress chan struct{} // the reader has got something; holds one note
	resume   chan struct{} // zero-window: the reader shall read

	finishOnce sync.Once

	mu     sync.Mutex
	report Report
	asked  []Instant // when the unanswered requests were sent, oldest first
}

// NewClient makes a client that is not connected yet. The error names the option that is out of range.
func NewClient(o ClientOptions) (*Client, error) {
	s, err := o.start()
	if err != nil {
		return nil, err
	}
	if o.Dial == nil {
		o.Dial = Dial
	}
	if o.Network == "" {
		o.Network = "tcp"
	}
	return &Client{
		opt: o, start: s, out: newStream(s.id, up), in: newStream(s.id, down),
		ready: make(chan struct{}), finish: make(chan struct{}), ended: make(chan struct{}),
		progress: make(chan struct{}, 1), resume: make(chan struct{}),
		report: Report{ID: ID(s.id), Pattern: s.pattern, Address: o.Address, Length: s.length},
	}, nil
}

// Ready is closed when the server's greeting has arrived.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Ended is closed when Run is over.
func (c *Client) Ended() <-chan struct{} { return c.ended }

// Finish asks for an orderly end: one more checked exchange on the connection,
// where the pattern has any, then the end of both streams. Run returns when that
// is done; it is for Run's context to bound the wait. An upload or a download
// with a Length needs no Finish and is not shortened by one.
func (c *Client) Finish() {
	c.finishOnce.Do(func() {
		c.mu.Lock()
		c.report.FinishedAt = Now()
		c.mu.Unlock()
		close(c.finish)
	})
}

// Report returns what is known now.
func (c *Client) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.report
	r.Unanswered = max(0, r.Requests-r.Replies) // an answer can overtake the counting of its request
	return r
}

// Run connects, runs until the connection has ended, Finish is through or ctx
// is over, and returns the final report. It is to be called once.
func (c *Client) Run(ctx context.Context) Report {
	defer close(c.ended)
	c.mu.Lock()
	c.report.DialedAt = Now()
	c.mu.Unlock()
	conn, err := c.opt.Dial(ctx, c.opt.Network, c.opt.Address)
	if err != nil {
		c.mu.Lock()
		e, errno := classify(err)
		c.report.End = End{Ending: e, Errno: errno, At: Now()}
		c.report.Err = failedTo("connecting to", c.opt.Address, err).Error()
		c.mu.Unlock()
		return c.Report()
	}
	l := newLink(conn)
	defer l.Close()
	c.mu.Lock()
	c.report.ConnectedAt = Now()
	c.report.Local = l.LocalAddr().String()
	c.mu.Unlock()

	stop := context.AfterFunc(ctx, l.Stop)
	defer stop()
	readerDone := make(chan struct{})
	var wg sync.WaitGroup
	if _, err := io.WriteString(l, c.start.line()); err == nil {
		wg.Go(func() { defer close(readerDone); c.read(ctx, l) })
		c.write(ctx, l, readerDone)
	}
	wg.Wait()
	c.settle(ctx, l)
	return c.Report()
}

// settle puts the link's account of the end into the report.
func (c *Client) settle(ctx context.Context, l *link) {
	end := l.End()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.report
	switch {
	case r.Corrupt:
		end.Ending, end.Errno, end.At = Closed, "", Now()
		r.Err = fmt.Sprintf("byte %d of what was received is wrong", r.CorruptAt)
	case end.Ending == Alive && r.Err != "": // this side gave up: the reason is there
		end.Ending, end.At = Closed, Now()
	case end.Ending == Alive && ctx.Err() == nil:
		end.Ending, end.At = Closed, Now()
	case end.Ending == FIN:
		r.EndOfStreamAt = end.At
	}
	r.End = end
	r.Complete = end.Ending == FIN && r.HalfClosedAt != 0 && !r.EndedEarly && r.Requests == r.Replies
	if r.Pattern == Request || r.Pattern == Idle {
		r.Complete = r.Complete && r.Received == r.Replies*int64(c.start.reply)
	}
	if r.Pattern == Download && r.Length > 0 {
		r.Complete = end.Ending == FIN && r.Received == r.Length
	}
	if r.Pattern == Upload && r.Length > 0 {
		r.Complete = r.Complete && r.Sent == r.Length
	}
	if r.Length > 0 || r.Pattern == Upload || r.Pattern == ZeroWindow {
		r.Checked = r.Complete // the end of the stream is the exchange
	}
}

// read reads until the connection ends or a byte is wrong, and judges what it reads.
func (c *Client) read(ctx context.Context, l *link) {
	buf := make([]byte, min(chunkLen, max(512, c.start.size, c.start.reply)))
	if c.start.pattern == Download || c.start.pattern == ZeroWindow {
		chunk := chunks.Get().(*[chunkLen]byte)
		defer chunks.Put(chunk)
		buf = chunk[:]
	}
	rest, err := c.greet(l, buf)
	if err != nil {
		return
	}
	ok := c.take(rest)
	if ok && c.start.pattern == ZeroWindow {
		ok = c.sleep(ctx, l)
	}
	for ok {
		n, err := l.Read(buf)
		ok = c.take(buf[:n]) && err == nil
	}
}

// greet reads the server's first line and returns what came after it.
func (c *Client) greet(l *link, buf []byte) (rest []byte, err error) {
	window := buf
	if c.start.pattern == ZeroWindow {
		window = buf[:greetingMax] // leave the rest in the kernel
	}
	n := 0
	for {
		k, err := l.Read(window[n:])
		n += k
		if i := bytes.IndexByte(window[:n], '\n'); i >= 0 {
			word, name, _ := strings.Cut(string(window[:i]), " ")
			if word != greetingWord {
				return nil, c.giveUp(fmt.Errorf("the server answered %.40q, not %s: not a server of this package", window[:i], greetingWord))
			}
			c.mu.Lock()
			c.report.Server, c.report.StartedAt = name, Now()
			c.report.LastByteAt = c.report.StartedAt
			c.mu.Unlock()
			close(c.ready)
			return window[i+1 : n], nil
		}
		if err != nil {
			return nil, err
		}
		if n >= greetingMax {
			return nil, c.giveUp(fmt.Errorf("the server's greeting %.40q has no end: not a server of this package", window[:n]))
		}
	}
}

// giveUp notes why this side ends the connection.
func (c *Client) giveUp(err error) error {
	c.mu.Lock()
	c.report.Err = err.Error()
	c.mu.Unlock()
	return err
}

// sleep keeps a zero-window client from reading until it is resumed, and
// reports whether it was.
func (c *Client) sleep(ctx context.Context, l *link) bool {
	_ = l.AwaitEnd()
	select {
	case <-c.resume:
	default:
		return false
	}
	// The deadline that woke it is lifted here and not where it was set: set and
	// lifted in one go it would wake nobody.
	_ = l.SetReadDeadline(time.Time{})
	if ctx.Err() != nil { // the context's own deadline may have been lifted with it
		l.Stop()
	}
	return true
}

// take checks what was received, counts it, and reports whether all is well.
func (c *Client) take(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	now := Now()
	c.mu.Lock()
	r := &c.report
	wrong := c.in.check(r.Received, p)
	r.Received += int64(len(p))
	if c.start.pattern != Idle && c.start.pattern != ZeroWindow {
		r.WorstSilence = max(r.WorstSilence, now.Sub(r.LastByteAt))
	}
	r.LastByteAt = now
	if wrong >= 0 {
		r.Corrupt, r.CorruptAt, r.Verified = true, wrong, wrong
	} else {
		r.Verified = r.Received
	}
	if c.start.pattern == Request || c.start.pattern == Idle {
		for r.Replies < r.Received/int64(c.start.reply) && len(c.asked) > 0 {
			r.WorstReply = max(r.WorstReply, now.Sub(c.asked[0]))
			c.asked = c.asked[1:]
			r.Replies++
		}
	}
	c.mu.Unlock()
	select {
	case c.progress <- struct{}{}:
	default:
	}
	return wrong < 0
}

// write does what the pattern sends, then the orderly end. It returns when
// there is nothing more to write; the reader goes on.
func (c *Client) write(ctx context.Context, l *link, readerDone <-chan struct{}) {
	select {
	case <-c.ready:
	case <-readerDone:
		return
	}
	switch c.start.pattern {
	case Request:
		if !c.sendRequests(ctx, l, readerDone) {
			return
		}
	case Upload:
		if !c.sendUpload(ctx, l, readerDone) {
			return
		}
	default:
		if c.start.length > 0 {
			<-readerDone // a download with an end; the close after it is our end of stream
			return
		}
		select {
		case <-c.finish:
		case <-readerDone:
			return
		case <-ctx.Done():
			return
		}
	}
	if c.lastExchange(ctx, l, readerDone) {
		at, _ := l.HalfClose() // fails only if the connection is dead, which the reader learns
		c.mu.Lock()
		c.report.HalfClosedAt, c.report.EndedEarly = at, l.Early()
		c.mu.Unlock()
	}
}

// sendRequests sends requests on schedule until Finish or the last one.
func (c *Client) sendRequests(ctx context.Context, l *link, readerDone <-chan struct{}) bool {
	tick := time.NewTicker(c.start.period)
	defer tick.Stop()
	for n := 0; c.opt.Requests == 0 || n < c.opt.Requests; {
		if !c.opt.OneAtATime || c.Report().Unanswered == 0 {
			if !c.request(l) {
				return false
			}
			n++
		}
		select {
		case <-tick.C:
		case <-c.finish:
			return true
		case <-readerDone:
			return false
		case <-ctx.Done():
			return false
		}
	}
	c.Finish()
	return true
}

// request sends one request.
func (c *Client) request(l *link) bool {
	c.mu.Lock()
	c.asked = append(c.asked, Now())
	c.mu.Unlock()
	if !c.send(l, c.start.size) {
		return false
	}
	c.mu.Lock()
	c.report.Requests++
	c.mu.Unlock()
	return true
}

// send writes the stream's next n bytes.
func (c *Client) send(l *link, n int) bool {
	c.mu.Lock()
	pos := c.report.Sent
	c.mu.Unlock()
	for n > 0 {
		k, err := l.Write(c.out.at(pos, n))
		pos, n = pos+int64(k), n-k
		c.mu.Lock()
		c.report.Sent = pos
		c.mu.Unlock()
		if err != nil {
			return false
		}
	}
	return true
}

// sendUpload sends until the length is reached, or until Finish if there is none.
func (c *Client) sendUpload(ctx context.Context, l *link, readerDone <-chan struct{}) bool {
	var tick <-chan time.Time
	if c.start.period > 0 {
		t := time.NewTicker(c.start.period)
		defer t.Stop()
		tick = t.C
	}
	finish := c.finish
	if c.start.length > 0 {
		finish = nil
	}
	for sent := int64(0); c.start.length == 0 || sent < c.start.length; {
		n := c.start.size
		if c.start.length > 0 {
			n = int(min(int64(n), c.start.length-sent))
		}
		if !c.send(l, n) {
			return false
		}
		sent += int64(n)
		if tick == nil {
			select {
			case <-finish:
				return true
			default:
			}
		} else {
			select {
			case <-tick:
			case <-finish:
				return true
			case <-readerDone:
				return false
			case <-ctx.Done():
				return false
			}
		}
	}
	return true
}

// lastExchange proves that the connection still carries bytes, as far as the
// pattern allows, and reports whether the connection is fit for an orderly end.
func (c *Client) lastExchange(ctx context.Context, l *link, readerDone <-chan struct{}) bool {
	switch c.start.pattern {
	case Upload:
		return true // the server's end of stream will be the proof
	case Idle, Request:
		if c.opt.Requests == 0 && !c.request(l) {
			return false
		}
		if !c.await(ctx, readerDone, func(r Report) bool { return r.Unanswered == 0 }) {
			return false
		}
	case ZeroWindow:
		close(c.resume)
		_ = l.SetReadDeadline(longAgo) // wakes the reader
		fallthrough
	default:
		before := c.Report().Received
		if !c.await(ctx, readerDone, func(r Report) bool { return r.Received > before }) {
			return false
		}
	}
	c.mu.Lock()
	c.report.Checked = true
	c.mu.Unlock()
	return true
}

// await waits until the reader has brought about what done wants to see.
func (c *Client) await(ctx context.Context, readerDone <-chan struct{}, done func(Report) bool) bool {
	for !done(c.Report()) {
		select {
		case <-c.progress:
		case <-readerDone:
			return done(c.Report())
		case <-ctx.Done():
			return false
		}
	}
	return true
}
