package elector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Times of attaching.
const (
	attachBound  = 15 * time.Second
	startBound   = 5 * time.Second       // until an elector that was started is ready
	answerBound  = 2 * time.Second       // until one that listens answers
	busyBound    = 3 * time.Second       // until one lets go of a daemon that is gone
	retryAfter   = 20 * time.Millisecond // when that is to be tried again
	replaceBound = 3 * time.Second       // until one is another program
)

// attach gets a link to an elector with this program and these settings. One
// that does not answer is frozen, or of a version that cannot be spoken to: it is
// killed, without releasing anything, and another is started. found becomes what
// the elector had been told before.
func (c *Client) attach(ctx context.Context, found *Settings) error {
	ctx, cancel := context.WithTimeout(ctx, attachBound)
	defer cancel()
	replaced := false
	began := time.Now()
	for {
		l, w, err := c.dial(ctx)
		busy, isBusy := errors.AsType[*busyError](err)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = l.conn.Close()
			}
			return errors.Join(fmt.Errorf("elector: no elector within %v", attachBound), err)
		case errors.Is(err, errNobody):
			if err := c.start(ctx); err != nil {
				return err
			}
			continue
		case isBusy:
			if time.Since(began) > busyBound {
				return busy
			}
			wait(ctx, retryAfter)
			continue
		case err != nil && l != nil:
			c.o.Logger.Warn("the elector does not answer, and is replaced", "pid", l.pid, "err", err)
			if err := c.killAndWait(ctx, l); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if w.Build != build() || w.Protocol != protocol {
			if !replaced {
				replaced = true
				c.replace(ctx, l, w)
				continue
			}
			c.o.Logger.Warn("the elector stays another program, and is replaced by a new one", "pid", l.pid, "version", w.Version)
			if err := c.killAndWait(ctx, l); err != nil {
				return err
			}
			continue
		}
		*found = w.Settings
		err = c.take(l, w)
		if err != nil {
			_ = l.conn.Close()
		}
		return err
	}
}

// A busyError says that another daemon is attached.
type busyError struct{ why string }

func (e *busyError) Error() string { return "elector: " + e.why }

// dial connects and says hello. After an error there is a link if somebody
// listens who does not answer as an elector does.
func (c *Client) dial(ctx context.Context) (*link, *welcome, error) {
	var d net.Dialer
	path := socketPath(c.o.Runtime)
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil, errNobody
	}
	if err != nil {
		return nil, nil, fmt.Errorf("elector: %w", err)
	}
	u := conn.(*net.UnixConn) //nolint:forcetypeassert // of this network
	l := &link{conn: u, in: &receiver{conn: u}, out: newOutbox(), over: make(chan struct{})}
	w, err := c.greet(l)
	if err != nil {
		_ = u.Close()
		if l.pid == 0 {
			l = nil
		}
	}
	return l, w, err
}

func (c *Client) greet(l *link) (*welcome, error) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	peer, err := sys.UnixPeer(raw)
	if err != nil {
		return nil, err
	}
	if peer.UID != 0 && int(peer.UID) != os.Geteuid() {
		return nil, fmt.Errorf("elector: %s is user %d's, want one of user %d or root: remove it", socketPath(c.o.Runtime), peer.UID, os.Geteuid())
	}
	l.pid = peer.PID
	b, err := appendFrame(nil, &message{Hello: &hello{Protocol: protocol, Build: build(), Version: c.o.Version}})
	if err != nil {
		return nil, err
	}
	if err := l.conn.SetDeadline(time.Now().Add(answerBound)); err != nil {
		return nil, err
	}
	if _, err := l.conn.Write(b); err != nil {
		return nil, err
	}
	m, err := l.in.first()
	switch {
	case err != nil:
		return nil, err
	case m.Welcome == nil:
		return nil, fmt.Errorf("%w: its first frame is no welcome", errFrame)
	case m.Welcome.Refused != "":
		l.pid = 0
		return nil, &busyError{m.Welcome.Refused}
	}
	return m.Welcome, l.conn.SetDeadline(time.Time{})
}

// take puts the settings into force at a link, where they are not, and makes it
// the client's.
func (c *Client) take(l *link, w *welcome) error {
	c.mu.Lock()
	settings := c.settings
	c.mu.Unlock()
	if !w.Settings.Equal(settings) {
		if err := configureNow(l, settings); err != nil {
			return err
		}
	}
	was, err := c.adopt(l, w, settings)
	if err != nil {
		return err
	}
	c.o.Logger.Info("attached to the elector", "pid", l.pid, "version", w.Version, "started", w.Started)
	if !was.IsZero() {
		c.o.OnElector(true, fmt.Sprintf("one runs again (pid %d)", l.pid))
	}
	return nil
}

// adopt makes a link with these settings the client's, and says since when there
// was none.
func (c *Client) adopt(l *link, w *welcome, settings Settings) (since time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return since, net.ErrClosed
	}
	// Configure and SetWell wait for mu: what they say comes behind this.
	for _, w := range c.wells {
		l.send(&message{Well: &w})
	}
	if c.unsynced {
		l.send(&message{Synced: &synced{}})
	}
	if !c.settings.Equal(settings) {
		l.send(&message{Configure: &configure{Settings: c.settings}})
	}
	if c.stopping { // it was asked for when there was none
		l.send(&message{Stop: &stop{By: "the daemon stops"}})
	}
	since = c.lost.Since
	c.link, c.lost, c.heard = l, Problem{}, time.Now()
	c.info = Info{
		There: true, PID: l.pid, Started: w.Started, Version: w.Version, RealTime: w.RealTime, Locked: w.Locked, Lacks: w.Lacks,
	}
	return since, nil
}

// configureNow puts settings into force on a link that nobody else uses yet.
// What else comes is kept for later.
func configureNow(l *link, s Settings) error {
	b, err := appendFrame(nil, &message{Configure: &configure{Settings: s}})
	if err != nil {
		return err
	}
	if err := l.conn.SetDeadline(time.Now().Add(configureBound)); err != nil {
		return err
	}
	if _, err := l.conn.Write(b); err != nil {
		return fmt.Errorf("elector: configure it: %w", err)
	}
	for {
		m, err := l.in.next()
		switch {
		case err != nil:
			return fmt.Errorf("elector: configure it: %w", err)
		case m.Result != nil && m.Result.Error != "":
			return errors.New(m.Result.Error)
		case m.Result != nil:
			return l.conn.SetDeadline(time.Time{})
		default:
			l.early = append(l.early, m)
		}
	}
}

// replace has the elector go on as this program, and waits until it does, or has
// ended, or enough time has passed.
func (c *Client) replace(ctx context.Context, l *link, w *welcome) {
	defer l.conn.Close()
	c.o.Logger.Info("the elector becomes this program", "pid", l.pid, "was", w.Version, "is", c.o.Version)
	err := func() error {
		program, err := os.Open("/proc/self/exe")
		if err != nil {
			return err
		}
		defer program.Close()
		b, err := appendFrame(nil, &message{Replace: &replace{}})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, replaceBound)
		defer cancel()
		defer context.AfterFunc(ctx, func() { _ = l.conn.CloseRead() })()
		if err := sys.WriteWithFile(l.conn, b, program); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, l.conn) // it closes the connection by executing the program
		return err
	}()
	if err != nil {
		c.o.Logger.Warn("the elector was asked to become this program", "err", err)
	}
}

// start starts an elector and waits until it is ready.
func (c *Client) start(ctx context.Context) error {
	program := c.o.Program
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("elector: start it: %w", err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(fmt.Errorf("elector: start it: %w", err), w.Close())
	}
	a := arguments{runtime: c.o.Runtime, ready: 3, lock: none, listen: none, state: none}
	// What a garbage collector and a panic need to know before the program runs.
	env := []string{fmt.Sprintf("GOMAXPROCS=%d", goProcessors), "GOTRACEBACK=all"}
	p, err := sys.StartDetached(program[0], slices.Concat(program, a.list()), env, []uintptr{null.Fd(), null.Fd(), 2, w.Fd()})
	err = errors.Join(err, null.Close(), w.Close())
	if err != nil {
		return fmt.Errorf("elector: start it: %w", err)
	}
	c.mu.Lock()
	c.children = append(c.children, p.Pid)
	c.mu.Unlock()
	c.o.Logger.Info("elector started", "pid", p.Pid)
	_ = p.Release() // it is reaped by its number
	deadline := time.Now().Add(startBound)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })()
	if err := r.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("elector: start it: %w", err)
	}
	said, err := io.ReadAll(io.LimitReader(r, 64<<10))
	switch text := strings.TrimSpace(string(said)); {
	case string(said) == ready:
		return nil
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		kill(p.Pid)
		return fmt.Errorf("elector: it was not ready within %v: %w", startBound, err)
	case text != "":
		return errors.New(text)
	}
	return errors.New("elector: it ended at its start, and said nothing")
}

// reap frees what is left of electors that have ended.
func (c *Client) reap() {
	c.mu.Lock()
	children := slices.Clone(c.children)
	c.mu.Unlock()
	for _, pid := range children {
		sys.ReapEnded(pid)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.children = slices.DeleteFunc(c.children, func(pid int) bool { return sys.Signal(pid, 0) != nil })
}

// kill ends an elector without a word; its lease ends by itself, or is taken up by
// the next one.
func kill(pid int) {
	if pid > 1 {
		_ = sys.Signal(pid, syscall.SIGKILL)
	}
}

// killAndWait kills the elector behind a link, and waits until it is gone.
func (c *Client) killAndWait(ctx context.Context, l *link) error {
	_ = l.conn.Close()
	if l.pid <= 1 {
		return fmt.Errorf("elector: the one that listens at %s does not answer, and is in another PID namespace: end it there", socketPath(c.o.Runtime))
	}
	if err := sys.Signal(l.pid, syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("elector: the one with pid %d does not answer, and cannot be ended: %w", l.pid, err)
	}
	for sys.Signal(l.pid, 0) == nil {
		sys.ReapEnded(l.pid)
		if !wait(ctx, retryAfter) {
			return ctx.Err()
		}
	}
	return nil
}
