package pair

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Link is one end of the link between two nodes.
type Link struct {
	o       Options
	tls     *tls.Config
	members []*Set // of sets and tables

	wake  chan struct{}   // holds one: there is something to send
	taken chan *candidate // connections that may become the link

	refreshing sync.Mutex // held while OnState runs; before mu
	mu         sync.Mutex
	listener   *net.TCPListener
	closed     bool
	running    bool
	cancel     context.CancelFunc
	done       chan struct{} // closed when Run has returned
	guard      guard
	digest     []byte
	beats      []beat
	cur        *conn
	changed    chan struct{} // closed when cur is another one, and replaced
	info       bool          // the digest is to be told
	pong       uint64        // to be sent, when ponging
	ponging    bool
	ping       uint64 // the latest that was sent
	pingedAt   time.Time
	state      string
	since      time.Time
	err        string
	failedAt   time.Time // when the log said so last
	rtt        time.Duration
	peer       Peer
	counters   Counters
}

// beat is one that waits for its turn.
type beat struct {
	text []byte
	at   time.Time
}

// maxBeats is how many beats may wait: some turns of the elector, of which each
// makes one or a few for all groups of addresses.
const maxBeats = 64

// candidate is a connection for whoever serves the link; seen is closed once it
// has it.
type candidate struct {
	c    *conn
	seen chan struct{}
}

// Bounds of the times in Options.
const (
	defaultSilence, minSilence, maxSilence = 2 * time.Second, 200 * time.Millisecond, time.Minute
	defaultBeatAge, minBeatAge, maxBeatAge = 100 * time.Millisecond, time.Millisecond, time.Minute
)

// How long to wait between attempts to connect: twice as long after each that
// failed. Node 2 waits before its first, so that the two do not meet.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
	headStart  = 100 * time.Millisecond
)

// New returns one end of a link. Nothing is opened before [Link.Listen] or
// [Link.Run]; the sets and tables belong to the link from here on.
func New(o Options) (*Link, error) {
	o, err := o.filled()
	if err != nil {
		return nil, fmt.Errorf("pair: %w", err)
	}
	l := &Link{
		o:       o,
		tls:     o.Keys.tlsConfig(),
		wake:    make(chan struct{}, 1),
		taken:   make(chan *candidate),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
		guard:   newGuard(o.Peer.Addr()),
		digest:  bytes.Clone(o.Digest),
		state:   Down,
		since:   time.Now(),
	}
	self := uint8(o.Keys.Number)
	l.members = append(l.members, o.Sets...)
	for _, t := range o.Tables {
		l.members = append(l.members, t.s)
	}
	for i, s := range l.members {
		if j := slices.IndexFunc(l.members[:i], func(other *Set) bool { return other.o.ID == s.o.ID }); j >= 0 {
			return nil, fmt.Errorf("pair: %q and %q have the same ID %d: give each a number of its own", l.members[j].o.Name, s.o.Name, s.o.ID)
		}
	}
	for _, s := range o.Sets {
		if err := s.join(self, l.wakeUp); err != nil {
			return nil, fmt.Errorf("pair: %w", err)
		}
	}
	for _, t := range o.Tables {
		if err := t.join(self, l.wakeUp); err != nil {
			return nil, fmt.Errorf("pair: %w", err)
		}
	}
	return l, nil
}

// filled returns the options with their defaults, or what is wrong with them.
func (o Options) filled() (Options, error) {
	between := func(d *time.Duration, name string, def, least, most time.Duration) error {
		if *d == 0 {
			*d = def
		}
		if *d < least || *d > most {
			return fmt.Errorf("%s %v is out of bounds: give %v to %v", name, *d, least, most)
		}
		return nil
	}
	family := func(a netip.Addr) bool { return a.Unmap().Is4() }
	switch {
	case !o.Listen.IsValid():
		return o, errors.New("pair.listen is missing: give this node's address and port for the link")
	case !o.Peer.IsValid() || o.Peer.Addr().IsUnspecified() || o.Peer.Port() == 0:
		return o, fmt.Errorf("pair.peer %v is not where a node can be reached: give the peer's address and port", o.Peer)
	case !o.Listen.Addr().IsUnspecified() && family(o.Listen.Addr()) != family(o.Peer.Addr()):
		return o, fmt.Errorf("pair.listen %v and pair.peer %v are not both IPv4 or both IPv6", o.Listen, o.Peer)
	case o.Listen == o.Peer:
		return o, fmt.Errorf("pair.listen and pair.peer are both %v: the peer is the other node", o.Peer)
	case o.Keys == nil:
		return o, errors.New("there are no keys: make them with `holdfast pair init`")
	case o.Node == "" || len(o.Node) > maxName:
		return o, fmt.Errorf("the name of the node %q has %d bytes: give it 1 to %d", o.Node, len(o.Node), maxName)
	case len(o.Version) > maxName:
		return o, fmt.Errorf("the version has %d bytes: at most %d", len(o.Version), maxName)
	case len(o.Digest) > maxDigest:
		return o, fmt.Errorf("the digest has %d bytes: at most %d", len(o.Digest), maxDigest)
	}
	if err := between(&o.Silence, "Silence", defaultSilence, minSilence, maxSilence); err != nil {
		return o, err
	}
	if err := between(&o.BeatAge, "BeatAge", defaultBeatAge, minBeatAge, maxBeatAge); err != nil {
		return o, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Listen binds the address where the peer connects to. [Link.Run] does it if it
// was not done before.
func (l *Link) Listen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return fmt.Errorf("cannot listen for the peer: %w", net.ErrClosed)
	case l.listener != nil:
		return nil
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // its sockets have no TCP_USER_TIMEOUT of their own
	lc.KeepAliveConfig = l.keepalive()
	lis, err := lc.Listen(context.Background(), network(l.o.Listen.Addr()), l.o.Listen.String())
	if err != nil {
		remedy := ""
		switch {
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			remedy = ": this machine does not have that address (yet)"
		case errors.Is(err, syscall.EADDRINUSE):
			remedy = ": another program listens there; choose another port at both nodes, or end it"
		}
		return fmt.Errorf("cannot listen for the peer (pair.listen %v): %w%s", l.o.Listen, err, remedy)
	}
	l.listener = lis.(*net.TCPListener)
	return nil
}

// keepalive asks a quiet peer within the time of silence, as far as whole
// seconds allow; the life signs are faster. What it adds is that a connection
// ends also while nothing is read.
func (l *Link) keepalive() net.KeepAliveConfig {
	interval := max(l.o.Silence/4, time.Second)
	return net.KeepAliveConfig{Enable: true, Idle: interval, Interval: interval, Count: 4}
}

func network(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "tcp4"
	}
	return "tcp6"
}

// Address is where the link listens; the zero AddrPort before it does.
func (l *Link) Address() netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener == nil {
		return netip.AddrPort{}
	}
	return l.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Run keeps the link until ctx ends or it is closed, and cannot be called again.
// Only what cannot be listened on is an error; a peer that is not there is a
// state.
func (l *Link) Run(ctx context.Context) error {
	if err := l.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	if l.closed || l.running {
		defer l.mu.Unlock()
		if l.closed {
			return fmt.Errorf("cannot run the link: %w", net.ErrClosed)
		}
		return errors.New("the link runs already")
	}
	l.running, l.cancel = true, cancel
	l.mu.Unlock()
	defer close(l.done)

	var wg sync.WaitGroup
	wg.Go(func() { l.accept(ctx, &wg) })
	wg.Go(func() { l.dial(ctx) })
	wg.Go(func() { l.serve(ctx) })
	<-ctx.Done()
	l.listener.Close()
	wg.Wait()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	return nil
}

// Close ends Run, tells the peer so, and waits for it. It may be called twice,
// but not by a callback.
func (l *Link) Close() error {
	l.mu.Lock()
	l.closed = true
	running := l.running
	if running {
		l.cancel()
	}
	listener := l.listener
	l.mu.Unlock()
	if running {
		<-l.done
	}
	if listener != nil {
		listener.Close()
	}
	return nil
}

// SendBeat sends a beat over the link as soon as may be, before everything else;
// it never waits. One that has not been sent when it is older than BeatAge, or
// when 64 newer ones wait, is dropped, and so is every one while the link is
// down. At most 16384 bytes.
func (l *Link) SendBeat(text []byte) error {
	if len(text) > maxBeat {
		return fmt.Errorf("pair: a beat of %d bytes: at most %d", len(text), maxBeat)
	}
	l.mu.Lock()
	if l.cur == nil {
		l.counters.BeatsDropped++
		l.mu.Unlock()
		return nil
	}
	if len(l.beats) == maxBeats {
		l.beats = slices.Delete(l.beats, 0, 1)
		l.counters.BeatsDropped++
	}
	l.beats = append(l.beats, beat{bytes.Clone(text), time.Now()})
	l.mu.Unlock()
	l.wakeUp()
	return nil
}

// SetDigest tells the peer that this node's configuration is another one.
func (l *Link) SetDigest(digest []byte) error {
	if len(digest) > maxDigest {
		return fmt.Errorf("pair: a digest of %d bytes: at most %d", len(digest), maxDigest)
	}
	l.mu.Lock()
	l.digest, l.info = bytes.Clone(digest), true
	l.mu.Unlock()
	l.wakeUp()
	return nil
}

// Connected reports whether there is a connection to the peer.
func (l *Link) Connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur != nil
}

// State is what is known of the link at this moment.
func (l *Link) State() State {
	var sets []SetState
	for _, s := range l.members {
		sets = append(sets, s.State())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := State{State: l.state, Since: l.since, Error: l.err, RTT: l.rtt, Peer: l.peer, Sets: sets, Counters: l.counters}
	s.Counters.Strangers = l.guard.counters()
	return s
}

// refresh looks whether the state is another one, and tells it.
func (l *Link) refresh() {
	l.refreshing.Lock()
	defer l.refreshing.Unlock()
	l.mu.Lock()
	state := Down
	if l.cur != nil {
		state = Synced
	}
	l.mu.Unlock()
	if state == Synced && slices.ContainsFunc(l.members, func(s *Set) bool { return s.state() != Synced }) {
		state = Syncing
	}
	l.mu.Lock()
	before, why := l.state, l.err
	if before != state {
		l.state, l.since = state, time.Now()
	}
	peer := l.peer
	l.mu.Unlock()
	if before == state {
		return
	}
	l.o.Logger.Debug("pair: the link", "state", state, "peer", peer.Node, "address", peer.Address, "error", why)
	if l.o.OnState != nil {
		l.o.OnState(l.State())
	}
}

func (l *Link) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// accept takes connections, and has each begin a handshake for which there is
// room.
func (l *Link) accept(ctx context.Context, wg *sync.WaitGroup) {
	for {
		raw, err := l.listener.AcceptTCP()
		if ctx.Err() != nil {
			if err == nil {
				raw.Close()
			}
			return
		}
		if err != nil { // no descriptors, no memory: later, perhaps
			l.failed(fmt.Errorf("cannot accept the peer: %w", err))
			pause(ctx, maxBackoff)
			continue
		}
		from := raw.RemoteAddr().(*net.TCPAddr).AddrPort()
		l.mu.Lock()
		admitted := l.guard.admit(from.Addr(), time.Now())
		l.mu.Unlock()
		if !admitted {
			_ = raw.SetLinger(0) // nothing is kept of him
			raw.Close()
			l.alien(from, &alienError{AlienCrowd, errors.New("too many have not proved who they are")})
			continue
		}
		wg.Go(func() { l.welcome(ctx, raw, from) })
	}
}

// welcome finds out whether somebody who connected is the peer.
func (l *Link) welcome(ctx context.Context, raw *net.TCPConn, from netip.AddrPort) {
	c, err := l.establish(ctx, raw, false)
	l.mu.Lock()
	l.guard.leave(from.Addr())
	l.mu.Unlock()
	if err != nil {
		if a, ok := errors.AsType[*alienError](err); ok && ctx.Err() == nil {
			l.alien(from, a)
		}
		return
	}
	l.offer(ctx, c)
}

// alien counts a stranger, and says so from time to time.
func (l *Link) alien(from netip.AddrPort, e *alienError) {
	l.mu.Lock()
	count, say := l.guard.alien(e.reason, time.Now())
	l.mu.Unlock()
	if !say {
		return
	}
	l.o.Logger.Warn("pair: a stranger was turned away", "address", from, "reason", e.reason, "error", e.err, "count", count)
	if l.o.OnAlien != nil {
		l.o.OnAlien(from, e.reason)
	}
}

// offer gives a connection to whoever serves the link, and waits until he has it.
func (l *Link) offer(ctx context.Context, c *conn) {
	k := &candidate{c, make(chan struct{})}
	select {
	case l.taken <- k:
		<-k.seen
	case <-ctx.Done():
		c.raw.Close()
	}
}

// failed remembers why the link is down.
func (l *Link) failed(err error) {
	l.mu.Lock()
	now := time.Now()
	say := l.err != err.Error() && now.Sub(l.failedAt) >= tellAliens
	l.err = err.Error()
	if say {
		l.failedAt = now
	}
	l.mu.Unlock()
	if say {
		l.o.Logger.Info("pair: no connection to the peer", "error", err)
	}
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// down waits until there is no connection to the peer.
func (l *Link) down(ctx context.Context) {
	for {
		l.mu.Lock()
		up, changed := l.cur != nil, l.changed
		l.mu.Unlock()
		if !up {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// dial connects to the peer whenever there is no connection.
func (l *Link) dial(ctx context.Context) {
	wait := time.Duration(0)
	for {
		l.down(ctx)
		if l.o.Keys.Number == 2 && wait == 0 {
			wait = headStart
		}
		if wait > 0 {
			pause(ctx, wait*9/10+rand.N(wait/5))
		}
		if ctx.Err() != nil {
			return
		}
		if l.Connected() {
			wait = 0
			continue
		}
		began := time.Now()
		if err := l.connect(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			if !l.Connected() {
				l.failed(err)
			}
			wait = min(max(2*wait, minBackoff), maxBackoff)
			continue
		}
		l.down(ctx)
		if wait = min(max(2*wait, minBackoff), maxBackoff); time.Since(began) >= maxBackoff {
			wait = 0
		}
	}
}

// connect makes one attempt.
func (l *Link) connect(ctx context.Context) error {
	d := net.Dialer{Timeout: handshakeTime, KeepAliveConfig: l.keepalive()}
	d.SetMultipathTCP(false)
	if a := l.o.Listen.Addr(); !a.IsUnspecified() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
	}
	raw, err := d.DialContext(ctx, network(l.o.Peer.Addr()), l.o.Peer.String())
	if err != nil {
		return fmt.Errorf("cannot connect to the peer (pair.peer %v): %w", l.o.Peer, err)
	}
	c, err := l.establish(ctx, raw.(*net.TCPConn), true)
	if errors.Is(err, errFaster) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("what answers at pair.peer %v is not the peer, or does not take this node for its own: %w", l.o.Peer, err)
	}
	l.offer(ctx, c)
	return nil
}
