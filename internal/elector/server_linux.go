package elector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vip"
)

// Times of the elector's side of the socket.
const (
	helloTimeout   = 2 * time.Second        // for the first frame of who connects
	silenceTimeout = vip.AliveTimeout       // after which another daemon may take the place of one
	stepSilence    = 500 * time.Millisecond // after which nothing waits for a daemon
	statusInterval = 250 * time.Millisecond // of statuses
	orphanTimeout  = time.Minute            // without a daemon, and with nothing to own
	maxVisitors    = 8                      // who have connected and not said hello
)

// errFrozen is of a step that nobody is asked for.
var errFrozen = errors.New("the daemon gives no life sign, and is not waited for")

// An owner is what a server runs: a [vip.Owner].
type owner interface {
	Run(context.Context) error
	Close() error
	Configure([]vip.Group) error
	SetWell(group string, ok bool, why string) error
	Alive()
	Deliver(beat []byte) error
	LinkDown()
	SetSynced(group string, ok bool) error
	Release(ctx context.Context, group string) error
	Hand(context.Context) ([]byte, error)
	Status() []vip.Status
	Lost() uint64
}

// A server is the elector's side of the socket.
type server struct {
	log      *slog.Logger
	lines    *lines
	listener *net.UnixListener
	isOurs   func() bool // the runtime directory
	welcome  welcome     // but for Settings
	owner    owner
	end      context.CancelCauseFunc // of serve
	visitors atomic.Int64
	role     chan struct{} // has an element when a role has changed
	tasks    sync.WaitGroup

	arrived     atomic.Int64 // settings that have come
	configuring sync.Mutex   // one at a time
	taken       int64        // the last of them that is in force; guarded by configuring

	syncing  sync.Mutex // before mu
	unsynced bool       // as a daemon has said last

	mu       sync.Mutex
	settings Settings
	daemon   *session   // nil: none is attached
	pending  []*message // changes while none is
	alone    time.Time  // since when none is
	steps    map[uint64]*waiting
	lastStep uint64
	handed   []byte   // what the owner has left for the next program
	program  *os.File // that is the next
	last     bool     // nobody comes after this
}

// A waiting is a step that the daemon is asked to do.
type waiting struct {
	session *session
	done    chan error
}

// A session is an attached daemon.
type session struct {
	conn  *net.UnixConn
	out   *outbox
	peer  sys.Peer
	heard atomic.Int64 // boot time
	over  chan struct{}
}

// silent is how long a daemon has said nothing.
func (ses *session) silent() time.Duration { return time.Duration(sys.BootTime() - ses.heard.Load()) }

// errStopped and errReplaced end serve.
var (
	errStopped  = errors.New("stopped by command")
	errReplaced = errors.New("another program takes over")
	errLost     = errors.New("its runtime directory was removed or is another's: no daemon can find this elector any more")
	errOrphaned = errors.New("there is no daemon, and nothing to own")
)

func newServer(l *net.UnixListener, isOurs func() bool, w welcome, settings Settings, pending []*message, out *lines) *server {
	return &server{
		log: slog.New(out), lines: out, listener: l, isOurs: isOurs, welcome: w, settings: settings, pending: pending,
		alone: time.Now(), role: make(chan struct{}, 1), steps: make(map[uint64]*waiting),
	}
}

// steps of the owner that the daemon does.
func (s *server) ownerSteps() []vip.Step {
	var list []vip.Step
	for w := vip.BeforeAddress; w <= vip.AfterWithdraw; w++ {
		bound := StepBound + StepBound/4 // the step bounds itself
		if w == vip.Draining {
			bound = vip.MaxStepBound
		}
		list = append(list, vip.Step{Name: "daemon", When: w, Bound: bound, Do: s.do})
	}
	return list
}

// serve runs the owner and the socket until ctx or the owner ends, or a reason
// of the server's own, which it returns.
func (s *server) serve(ctx context.Context, o owner, patience time.Duration) error {
	s.owner = o
	ctx, s.end = context.WithCancelCause(ctx)
	// The daemon is told what happens until the owner has ended.
	accepting, stopAccepting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAccepting()
	s.tasks.Go(func() { s.accept(accepting) })
	s.tasks.Go(func() { s.watch(accepting, patience) })
	err := o.Run(ctx)
	s.mu.Lock()
	s.last = s.program == nil
	s.mu.Unlock()
	stopAccepting()
	s.tasks.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil {
		return cause
	}
	return err
}

// accept takes who connects, until ctx ends.
func (s *server) accept(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		conn, err := s.listener.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			_ = s.listener.SetDeadline(time.Time{})
			return
		case err != nil:
			s.log.Error("the socket of the elector takes nobody", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		case s.visitors.Load() >= maxVisitors:
			_ = conn.Close()
			continue
		}
		s.visitors.Add(1)
		s.tasks.Go(func() { s.visit(ctx, conn) })
	}
}

// visit speaks with who has connected, to the end.
func (s *server) visit(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseRead() })
	defer stop()
	ses, in, err := s.greet(conn)
	s.visitors.Add(-1)
	if err != nil {
		if !errors.Is(err, io.EOF) { // it only looked whether somebody is there
			s.log.Warn("who connected to the elector was cut off", "err", err)
		}
		return
	}
	s.log.Info("a daemon is attached", "pid", ses.peer.PID)
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		// A daemon that does not read holds this up, and nobody else; that it is cut
		// off then is seen by who reads.
		_ = ses.out.drain(conn, ses.over, func(err error) { s.log.Error("a message to the daemon is left out", "err", err) })
	}()
	err = s.listen(ses, in)
	s.detach(ses)
	in.close()
	_ = conn.SetWriteDeadline(time.Now().Add(silenceTimeout))
	<-writer
	if !errors.Is(err, io.EOF) && ctx.Err() == nil {
		s.log.Warn("the daemon was cut off", "pid", ses.peer.PID, "err", err)
	} else {
		s.log.Info("the daemon is gone", "pid", ses.peer.PID)
	}
}

// greet looks who it is, and attaches the daemon.
func (s *server) greet(conn *net.UnixConn) (*session, *receiver, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	peer, err := sys.UnixPeer(raw)
	if err != nil {
		return nil, nil, err
	}
	if peer.UID != 0 && int(peer.UID) != os.Geteuid() {
		return nil, nil, fmt.Errorf("it is user %d, want %d or root", peer.UID, os.Geteuid())
	}
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, nil, err
	}
	in := &receiver{conn: conn}
	m, err := in.first()
	if err != nil {
		return nil, nil, err
	}
	if m.Hello == nil {
		return nil, nil, fmt.Errorf("%w: its first frame is no hello", errFrame)
	}
	ses := &session{conn: conn, out: newOutbox(), peer: peer, over: make(chan struct{})}
	ses.heard.Store(sys.BootTime())
	w := s.welcome
	w.Settings, w.Refused = s.attach(ses)
	b, err := appendFrame(nil, &message{Welcome: &w})
	if err == nil {
		_, err = conn.Write(b)
	}
	if err == nil && w.Refused != "" {
		err = errors.New(w.Refused)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		s.detach(ses)
		return nil, nil, err
	}
	if m.Hello.Protocol != protocol {
		in.lenient = true // all that it can say is replace
	}
	return ses, in, nil
}

// attach makes ses the daemon, or says why not. One that has been silent gives
// way: it is frozen, or was cut off without noticing.
func (s *server) attach(ses *session) (_ Settings, refused string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.daemon; d != nil {
		if d.silent() < silenceTimeout {
			return Settings{}, fmt.Sprintf("another daemon is attached (pid %d)", d.peer.PID)
		}
		_ = d.conn.Close()
		s.leave(d)
	}
	s.daemon = ses
	for _, m := range s.pending {
		ses.out.putLossy(m)
	}
	s.pending = nil
	s.lines.attach(ses.out)
	return s.settings, ""
}

// detach forgets a daemon.
func (s *server) detach(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(ses)
}

// leave forgets a daemon, and answers the steps that it was asked for. The
// caller holds mu.
func (s *server) leave(ses *session) {
	select {
	case <-ses.over:
		return
	default:
		close(ses.over)
	}
	for id, w := range s.steps {
		if w.session == ses {
			w.done <- errors.New("the daemon has gone meanwhile")
			delete(s.steps, id)
		}
	}
	if s.daemon != ses {
		return
	}
	s.daemon, s.alone = nil, time.Now()
	s.lines.attach(nil)
	if s.last {
		return // there is no next daemon: this one gets everything
	}
	for _, m := range ses.out.rest() {
		if m.Change != nil {
			s.pending = append(s.pending, m)
		}
	}
}

// listen acts on what the daemon says until it ends.
func (s *server) listen(ses *session, in *receiver) error {
	for {
		m, err := in.next()
		if err != nil {
			return err
		}
		ses.heard.Store(sys.BootTime())
		if err := s.obey(ses, in, m); err != nil {
			return err
		}
	}
}

// obey does what a message asks for. What takes time goes its own way, so that
// life signs behind it are seen.
func (s *server) obey(ses *session, in *receiver, m *message) error {
	switch {
	case m.Alive != nil:
		s.owner.Alive()
	case m.Beat != nil:
		// A beat that is not one is the peer's doing, which vip counts.
		_ = s.owner.Deliver(m.Beat.Data)
	case m.LinkDown != nil:
		s.owner.LinkDown()
	case m.Well != nil:
		if err := s.owner.SetWell(m.Well.Group, m.Well.OK, m.Well.Why); err != nil {
			s.log.Warn("a group's state was not taken", "group", m.Well.Group, "err", err)
		}
	case m.Synced != nil:
		s.synced(m.Synced.OK)
	case m.Configure != nil:
		turn := s.arrived.Add(1)
		s.tasks.Go(func() { s.configure(ses, m.Configure, turn) })
	case m.Release != nil:
		s.tasks.Go(func() { s.release(ses, m.Release) })
	case m.Stop != nil:
		s.tasks.Go(func() { s.stop(ses, m.Stop) })
	case m.Stepped != nil:
		s.stepped(m.Stepped)
	case m.Replace != nil:
		f := in.file()
		if f == nil {
			return fmt.Errorf("%w: replace comes without the program", errFrame)
		}
		s.tasks.Go(func() { s.replace(f) })
	default:
		return fmt.Errorf("%w: a daemon does not say this", errFrame)
	}
	return nil
}

// synced holds for every group, also for those that come later.
func (s *server) synced(ok bool) {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.unsynced = !ok
	s.tellSynced()
}

// tellSynced tells every group. The caller holds syncing.
func (s *server) tellSynced() {
	s.mu.Lock()
	groups := s.settings.Groups
	s.mu.Unlock()
	for _, g := range groups {
		if err := s.owner.SetSynced(g.Name, !s.unsynced); err != nil {
			s.log.Warn("a group's state was not taken", "group", g.Name, "err", err)
		}
	}
}

func (ses *session) answer(id uint64, err error) {
	r := &result{ID: id}
	if err != nil {
		r.Error = err.Error()
	}
	if !ses.out.put(&message{Result: r}) {
		_ = ses.conn.Close()
	}
}

// errOvertaken is of settings after which others came that are in force.
var errOvertaken = errors.New("newer settings were put into force meanwhile")

// configure puts settings into force. turn is their place in the order in which
// they came: of two that wait for each other the later one wins.
func (s *server) configure(ses *session, c *configure, turn int64) {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	if turn < s.taken {
		ses.answer(c.ID, errOvertaken)
		return
	}
	err := c.Settings.Check()
	if err == nil {
		s.mu.Lock()
		was := s.settings
		s.settings = c.Settings // before, for the steps of what it brings about
		s.mu.Unlock()
		if err = s.owner.Configure(c.Settings.groups()); err != nil {
			s.mu.Lock()
			s.settings = was
			s.mu.Unlock()
		}
	}
	if err == nil {
		s.taken = turn
	}
	s.syncing.Lock()
	if s.unsynced {
		s.tellSynced() // groups that are new, too
	}
	s.syncing.Unlock()
	ses.answer(c.ID, err)
}

func (s *server) release(ses *session, r *release) {
	s.log.Info("a release was asked for", "group", r.Group, "by", r.By)
	ctx, cancel := s.while(ses)
	defer cancel()
	ses.answer(r.ID, s.owner.Release(ctx, r.Group))
}

// while is a context for what a daemon has asked for: it ends with the session.
func (s *server) while(ses *session) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-ses.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// stop releases what is owned, to the peer where one lives, and ends the elector.
func (s *server) stop(ses *session, m *stop) {
	s.log.Info("told to stop", "by", m.By)
	ctx, cancel := s.while(ses)
	defer cancel()
	err := s.releaseAll(ctx)
	ses.answer(m.ID, err)
	s.end(errStopped)
}

func (s *server) releaseAll(ctx context.Context) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, st := range s.owner.Status() {
		if st.Role != vip.Active {
			continue
		}
		wg.Go(func() {
			if err := s.owner.Release(ctx, st.Group); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("group %s: %w", st.Group, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// replace ends the owner in a way that the next program goes on from.
func (s *server) replace(f *os.File) {
	s.mu.Lock()
	if s.program != nil {
		s.mu.Unlock()
		_ = f.Close()
		return
	}
	s.program = f
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), silenceTimeout)
	defer cancel()
	data, err := s.owner.Hand(ctx)
	if err != nil {
		s.log.Error("the elector stays the program that it is", "err", err)
		s.mu.Lock()
		s.program = nil
		s.mu.Unlock()
		_ = f.Close()
		return
	}
	s.mu.Lock()
	s.handed = data
	s.mu.Unlock()
	s.end(errReplaced)
}

// do is a step of the owner: it has the daemon do it.
func (s *server) do(ctx context.Context, e vip.Event) error {
	s.mu.Lock()
	bound := StepBound
	asked := false
	for _, g := range s.settings.Groups {
		if g.Name == e.Group {
			asked = g.Steps
			if e.When == vip.Draining {
				bound = max(g.Drain, drainMoment)
			}
		}
	}
	ses := s.daemon
	if !asked || ses == nil { // whom it would have told died with it
		s.mu.Unlock()
		return nil
	}
	if ses.silent() > stepSilence {
		s.mu.Unlock()
		return errFrozen
	}
	s.lastStep++
	id := s.lastStep
	w := &waiting{session: ses, done: make(chan error, 1)}
	s.steps[id] = w
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if !ses.out.put(&message{Step: &step{ID: id, Event: e, Bound: bound}}) {
		_ = ses.conn.Close() // which answers all its steps
	}
	ticker := time.NewTicker(stepSilence / 4)
	defer ticker.Stop()
	frozen := false
	for !frozen && ctx.Err() == nil {
		select {
		case err := <-w.done:
			return err
		case <-ctx.Done():
		case <-ticker.C:
			frozen = ses.silent() > stepSilence
		}
	}
	s.mu.Lock()
	delete(s.steps, id)
	s.mu.Unlock()
	ses.out.put(&message{StepEnd: &stepEnd{ID: id}})
	if frozen {
		return errFrozen
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && e.When != vip.Draining {
		return fmt.Errorf("the daemon did not finish it within %v", bound)
	}
	return nil
}

func (s *server) stepped(m *stepped) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.steps[m.ID]
	if w == nil {
		return // it came too late
	}
	delete(s.steps, m.ID)
	if m.Error != "" {
		w.done <- errors.New(m.Error)
		return
	}
	w.done <- nil
}

// changed has the daemon, or the next one, know. It runs on a goroutine of the
// owner.
func (s *server) changed(c vip.Change) {
	if c.Kind == vip.KindRole {
		defer func() {
			select {
			case s.role <- struct{}{}:
			default:
			}
		}()
	}
	m := &message{Change: &c}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.daemon != nil {
		s.daemon.out.putLossy(m)
		return
	}
	if s.pending = append(s.pending, m); len(s.pending) > maxLoss {
		s.pending = s.pending[1:]
	}
}

// beat runs on the owner's loop: mu is held by nobody for long.
func (s *server) beat(data []byte) {
	s.mu.Lock()
	ses := s.daemon
	s.mu.Unlock()
	if ses != nil {
		ses.out.putBeat(data)
	}
}

// watch sends statuses, and ends the elector when nobody needs it.
func (s *server) watch(ctx context.Context, patience time.Duration) {
	ticker := time.NewTicker(statusInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.role:
		case <-ticker.C:
		}
		s.mu.Lock()
		ses, alone := s.daemon, s.alone
		s.mu.Unlock()
		if ses != nil {
			ses.out.putStatus(&message{Status: &status{Groups: s.owner.Status(), Dropped: ses.out.lost() + s.owner.Lost()}})
			continue
		}
		if !s.isOurs() {
			s.end(errLost)
			return
		}
		if time.Since(alone) >= patience && !s.owns() {
			s.end(errOrphaned)
			return
		}
	}
}

// owns reports whether any group is this node's.
func (s *server) owns() bool {
	for _, st := range s.owner.Status() {
		if st.Role == vip.Active {
			return true
		}
	}
	return false
}

// A receiver reads messages, and the descriptors that come with them.
type receiver struct {
	conn    *net.UnixConn
	lenient bool // of another version
	buf     []byte
	files   []*os.File
}

// Read reads what the next frame needs, never more: a descriptor is then in the
// hands of who reads the frame that it came with.
func (r *receiver) Read(p []byte) (int, error) {
	n, files, err := sys.ReadWithFiles(r.conn, p)
	r.files = append(r.files, files...)
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

func (r *receiver) first() (*message, error) {
	text, err := readFrame(r, r.buf)
	if err != nil {
		return nil, err
	}
	r.buf = text
	return decodeFirst(text)
}

// next reads a message. Descriptors of one before that nobody took are closed.
func (r *receiver) next() (*message, error) {
	r.close()
	text, err := readFrame(r, r.buf)
	if err != nil {
		return nil, err
	}
	r.buf = text
	if r.lenient {
		return decodeFirst(text)
	}
	return decode(text)
}

// file takes the descriptor that came with the message; nil if none did.
func (r *receiver) file() *os.File {
	if len(r.files) == 0 {
		return nil
	}
	f := r.files[0]
	r.files = r.files[1:]
	return f
}

func (r *receiver) close() {
	for _, f := range r.files {
		_ = f.Close()
	}
	r.files = nil
}
