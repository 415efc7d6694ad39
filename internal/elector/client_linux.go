package elector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/vip"
)

// Times of the daemon's side of the socket.
const (
	aliveInterval  = 100 * time.Millisecond // of life signs, see vip.AliveTimeout
	frozenAfter    = time.Second            // without a status, the elector is a problem
	killAfter      = 30 * time.Second       // and after this long it is replaced: its lease has ended long ago
	configureBound = 10 * time.Second
	firstBackoff   = 50 * time.Millisecond // between tries to start an elector
	lastBackoff    = time.Second           // nobody owns for as long as that, where the other node has none either
	settledAfter   = 10 * time.Second      // an elector that lived this long did not fail at its start
	goodbye        = time.Second           // for what is still to be sent at the end
)

// Info says how the elector's process stands.
type Info struct {
	There    bool
	PID      int // 0: it is not there, or in no PID namespace of ours
	Started  time.Time
	Version  string
	RealTime bool     // it has real-time priority
	Locked   bool     // its memory is locked
	Lacks    []string // of what it should have, a sentence each
	Dropped  uint64   // messages to this daemon that were dropped, as it was too slow
}

// A Client is the daemon's end of the socket. Its methods may be called by any
// goroutine.
type Client struct {
	o Options

	// configuring is held by who changes the settings; it comes before mu.
	configuring sync.Mutex

	mu       sync.Mutex
	settings Settings
	wells    map[string]well
	unsynced bool
	found    Settings // of the elector that Open has attached to
	link     *link    // nil: none
	info     Info
	groups   []vip.Status
	heard    time.Time // the last status
	lost     Problem   // there is no elector; the zero value: there is
	calls    map[uint64]chan error
	lastCall uint64
	stopping bool // the elector is to end
	closed   bool
	children []int // that were started and may have ended
}

// A link is a connection to an elector, after the welcome.
type link struct {
	conn  *net.UnixConn
	in    *receiver
	out   *outbox
	pid   int
	early []*message    // that came before anybody listened
	over  chan struct{} // closed when it has ended
}

// Open attaches to the elector of the runtime directory, or starts one, and puts
// the settings into force. The elector is given life signs from Run on. When Open
// fails, an elector that it has started ends by itself.
func Open(ctx context.Context, o Options) (*Client, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	c := &Client{o: o, settings: o.Settings, wells: make(map[string]well), calls: make(map[uint64]chan error)}
	if err := c.attach(ctx, &c.found); err != nil {
		return nil, err
	}
	return c, nil
}

// Close lets go of the elector, which lives on. It is for a client that is not
// run; Run does so itself. Calling it again does nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	l := c.link
	c.link, c.closed = nil, true
	c.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.conn.Close()
}

// Run speaks with the elector until ctx ends, or Stop has ended the elector. One
// that is lost is replaced at once.
func (c *Client) Run(ctx context.Context) error {
	var pause backoff
	for {
		c.mu.Lock()
		l := c.link
		c.mu.Unlock()
		if l != nil {
			began := time.Now()
			err := c.speak(ctx, l)
			if c.over(ctx) {
				return nil
			}
			c.lose(err)
			pause.lived(time.Since(began))
		}
		if !wait(ctx, pause.next()) {
			return nil
		}
		if err := c.attach(ctx, new(Settings)); err != nil {
			if c.over(ctx) {
				return nil
			}
			c.lose(err)
		}
	}
}

// backoff is how long the next try to start an elector waits: not at all the
// first time, then ever longer, until one has lived for long enough.
type backoff time.Duration

func (b *backoff) next() time.Duration {
	d := time.Duration(*b)
	*b = backoff(min(max(2*d, firstBackoff), lastBackoff))
	return d
}

// lived takes how long an elector was there.
func (b *backoff) lived(d time.Duration) {
	if d >= settledAfter {
		*b = 0
	}
}

// wait waits, unless ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// over reports whether nobody wants an elector any more.
func (c *Client) over(ctx context.Context) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ctx.Err() != nil || c.stopping || c.closed
}

// lose notes that there is no elector, and tells, the first time.
func (c *Client) lose(err error) {
	why := "it has ended"
	if err != nil && !errors.Is(err, io.EOF) {
		why = err.Error()
	}
	c.reap()
	c.mu.Lock()
	first := c.lost.Since.IsZero()
	if first {
		c.lost.Since = time.Now()
	}
	c.lost.Text = "the elector is not there, and this node owns no address: " + why + "; it is started again"
	c.info = Info{}
	c.mu.Unlock()
	if first {
		c.o.Logger.Error("the elector is lost, and is started again", "why", why)
		c.o.OnElector(false, why)
	} else {
		c.o.Logger.Error("the elector could not be started; it is tried again", "why", why)
	}
}

// speak serves a link until it ends, and says why.
func (c *Client) speak(ctx context.Context, l *link) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	var writeErr error
	tasks.Go(func() { writeErr = l.out.drain(l.conn, l.over, nil) })
	tasks.Go(func() { c.live(ctx, l) })
	stop := context.AfterFunc(ctx, func() { _ = l.conn.CloseRead() })
	defer stop()
	steps := &steps{ctx: ctx, running: make(map[uint64]context.CancelFunc)}
	err := c.listen(l, steps)
	cancel()
	c.mu.Lock()
	c.link = nil
	for id, done := range c.calls {
		done <- ErrDown
		delete(c.calls, id)
	}
	c.mu.Unlock()
	steps.tasks.Wait()
	close(l.over)
	_ = l.conn.SetWriteDeadline(time.Now().Add(goodbye))
	tasks.Wait()
	_ = l.conn.Close()
	return errors.Join(err, writeErr)
}

// live gives life signs, and looks for those of the elector.
func (c *Client) live(ctx context.Context, l *link) {
	ticker := time.NewTicker(aliveInterval)
	defer ticker.Stop()
	looked := time.Now()
	for n := 0; ; n++ {
		l.out.putAlive()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if n%10 == 0 {
			c.reap()
		}
		// Who was late himself has not looked for what has come meanwhile.
		late := time.Since(looked) > frozenAfter
		looked = time.Now()
		c.mu.Lock()
		if late {
			c.heard = looked
		}
		silent := looked.Sub(c.heard)
		c.mu.Unlock()
		if silent > killAfter {
			c.o.Logger.Error("the elector has been silent for too long, and is replaced", "pid", l.pid, "silent", silent.Round(time.Second).String())
			kill(l.pid)
			_ = l.conn.CloseRead()
			return
		}
	}
}

// listen acts on what the elector says until it ends.
func (c *Client) listen(l *link, steps *steps) error {
	for {
		var m *message
		var err error
		if len(l.early) > 0 {
			m, l.early = l.early[0], l.early[1:]
		} else if m, err = l.in.next(); err != nil {
			return err
		}
		switch {
		case m.Status != nil:
			c.mu.Lock()
			c.groups, c.heard, c.info.Dropped = m.Status.Groups, time.Now(), m.Status.Dropped
			c.mu.Unlock()
		case m.Change != nil:
			c.note(m.Change)
			c.o.OnChange(*m.Change)
		case m.Beat != nil:
			c.o.OnBeat(m.Beat.Data)
		case m.Step != nil:
			steps.begin(c.o.OnStep, m.Step, l.out)
		case m.StepEnd != nil:
			steps.end(m.StepEnd.ID)
		case m.Result != nil:
			c.answered(m.Result)
		case m.Log != nil:
			c.log(m.Log)
		default:
			return fmt.Errorf("%w: an elector does not say this", errFrame)
		}
	}
}

// note has Groups know a role before the next status does.
func (c *Client) note(change *vip.Change) {
	if change.Kind != vip.KindRole {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.groups {
		if g := &c.groups[i]; g.Group == change.Group && change.At.After(g.Since) {
			g.Role, g.Since, g.Epoch, g.Cause, g.Why = change.Role, change.At, change.Epoch, change.Cause, change.Text
		}
	}
}

func (c *Client) log(line *logLine) {
	attrs := make([]slog.Attr, 0, len(line.Attrs)/2+1)
	for pair := range slices.Chunk(line.Attrs, 2) {
		if len(pair) == 2 {
			attrs = append(attrs, slog.String(pair[0], pair[1]))
		}
	}
	if age := time.Since(line.At); age > time.Second {
		attrs = append(attrs, slog.Time("at", line.At))
	}
	c.o.Logger.LogAttrs(context.Background(), slog.Level(line.Level), line.Text, attrs...)
}

// steps are what the elector has asked for.
type steps struct {
	ctx     context.Context
	tasks   sync.WaitGroup
	mu      sync.Mutex
	running map[uint64]context.CancelFunc
}

func (s *steps) begin(do func(context.Context, vip.Event) error, m *step, out *outbox) {
	if do == nil {
		out.put(&message{Stepped: &stepped{ID: m.ID}})
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, m.Bound)
	s.mu.Lock()
	s.running[m.ID] = cancel
	s.mu.Unlock()
	s.tasks.Go(func() {
		defer s.end(m.ID)
		done := &stepped{ID: m.ID}
		if err := do(ctx, m.Event); err != nil {
			done.Error = err.Error()
		}
		out.put(&message{Stepped: done})
	})
}

func (s *steps) end(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.running[id]; cancel != nil {
		cancel()
		delete(s.running, id)
	}
}

// call sends a request and waits for its result.
func (c *Client) call(ctx context.Context, l *link, request func(id uint64) *message) error {
	done := make(chan error, 1)
	c.mu.Lock()
	if c.link != l || l == nil {
		c.mu.Unlock()
		return ErrDown
	}
	c.lastCall++
	id := c.lastCall
	c.calls[id] = done
	c.mu.Unlock()
	if !l.out.put(request(id)) {
		_ = l.conn.CloseRead()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
		return ctx.Err()
	}
}

func (c *Client) answered(r *result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.calls[r.ID]
	if done == nil {
		return // nobody waits any more
	}
	delete(c.calls, r.ID)
	if r.Error != "" {
		done <- errors.New(r.Error)
		return
	}
	done <- nil
}

// current is the link that there is; nil for none.
func (c *Client) current() *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

// Configure puts settings into force; it needs Run. Without an elector they are
// kept for the one that is being started.
func (c *Client) Configure(ctx context.Context, s Settings) error {
	if err := s.Check(); err != nil {
		return err
	}
	c.configuring.Lock()
	defer c.configuring.Unlock()
	c.mu.Lock()
	was, l := c.settings, c.link
	c.settings = s
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, configureBound)
	defer cancel()
	err := c.call(ctx, l, func(id uint64) *message { return &message{Configure: &configure{ID: id, Settings: s}} })
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && !errors.Is(err, ErrDown) {
		c.settings = was
		return err
	}
	for name := range c.wells {
		if !slices.ContainsFunc(s.Groups, func(g Group) bool { return g.Name == name }) {
			delete(c.wells, name)
		}
	}
	return nil
}

// Groups says how the groups stand, in the order of the settings; where no
// elector is there, all are in fault.
func (c *Client) Groups() []vip.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]vip.Status, 0, len(c.settings.Groups))
	for _, g := range c.settings.Groups {
		i := slices.IndexFunc(c.groups, func(st vip.Status) bool { return st.Group == g.Name })
		st := vip.Status{Group: g.Name, Interface: g.Interface, Addresses: g.Addresses}
		if i >= 0 {
			st = c.groups[i]
		}
		switch silent := time.Since(c.heard); {
		case !c.lost.Since.IsZero():
			st.Role, st.Since, st.Why, st.Lease, st.Present, st.Well = vip.Fault, c.lost.Since, c.lost.Text, 0, nil, false
		case silent > frozenAfter && i >= 0:
			st.Lease = max(0, st.Lease-silent)
		}
		list = append(list, st)
	}
	return list
}

// Info says how the elector's process stands.
func (c *Client) Info() Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info
}

// SetWell says whether a group is well as far as this daemon knows: until it says
// so, it is. It holds for electors that are started later, too.
func (c *Client) SetWell(group string, ok bool, why string) {
	w := well{Group: group, OK: ok, Why: why}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wells[group] = w
	if c.link != nil {
		c.link.send(&message{Well: &w})
	}
}

// send queues what must arrive.
func (l *link) send(m *message) {
	if !l.out.put(m) {
		_ = l.conn.CloseRead() // it has not read for so long that there is no point
	}
}

// Deliver gives the elector a beat of the peer's.
func (c *Client) Deliver(beat []byte) {
	if l := c.current(); l != nil {
		l.out.putBeat(beat)
	}
}

// LinkDown tells the elector that beats do not reach the peer.
func (c *Client) LinkDown() {
	if l := c.current(); l != nil {
		l.send(&message{LinkDown: &linkDown{}})
	}
}

// SetSynced says whether this node has everything that the peer has; until it says
// so, it has. It holds for electors that are started later, too.
func (c *Client) SetSynced(ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsynced = !ok
	if c.link != nil {
		c.link.send(&message{Synced: &synced{OK: ok}})
	}
}

// Found is what the elector had been told before, that Open has attached to; empty
// where it has started one.
func (c *Client) Found() Settings { return c.found }

// Release gives a group up, to the peer where one lives. by says who asked for
// it. It needs Run. An elector that is frozen is not waited for.
func (c *Client) Release(ctx context.Context, group, by string) error {
	if silent, pid := c.silence(); silent > frozenAfter {
		return fmt.Errorf("elector: it (pid %d) has said nothing for %v: it is frozen, and no longer owns what it owned; let it continue, or kill it, and another one is started",
			pid, silent.Round(time.Second))
	}
	return c.call(ctx, c.current(), func(id uint64) *message {
		return &message{Release: &release{ID: id, Group: group, By: by}}
	})
}

// silence is for how long an elector that is there has said nothing.
func (c *Client) silence() (silent time.Duration, pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return 0, 0
	}
	return time.Since(c.heard), c.link.pid
}

// Stop gives every group up, to the peer where one lives, and ends the elector;
// then Run returns. When ctx ends first, the elector is left to itself: it gives
// up what needs this daemon. The error is about what could not be given up in
// order.
func (c *Client) Stop(ctx context.Context, by string) error {
	c.mu.Lock()
	l := c.link
	c.stopping = true
	c.mu.Unlock()
	err := c.call(ctx, l, func(id uint64) *message { return &message{Stop: &stop{ID: id, By: by}} })
	if errors.Is(err, ErrDown) {
		return nil // what is not there owns nothing
	}
	select {
	case <-l.over: // it has withdrawn everything
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	return err
}

// Problems says why the elector is not as it should be; none when it is.
func (c *Client) Problems() []Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Problem
	switch silent := time.Since(c.heard); {
	case c.stopping:
	case !c.lost.Since.IsZero():
		list = append(list, c.lost)
	case silent > frozenAfter:
		list = append(list, Problem{
			Text: fmt.Sprintf("the elector (pid %d) says nothing: it is frozen, and so are its addresses; let it continue, or kill it, and another one is started (by itself after %v)",
				c.info.PID, killAfter),
			Since: c.heard,
		})
	}
	for _, l := range c.info.Lacks {
		list = append(list, Problem{Lacks: true, Text: "the elector has no " + l, Since: c.info.Started})
	}
	return list
}

// errNobody is what [dial] returns when no elector listens.
var errNobody = fmt.Errorf("no elector listens: %w", os.ErrNotExist)
