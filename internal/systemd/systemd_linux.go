package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// A Notifier sends what the service manager wants to know. A nil Notifier
// belongs to a program that nobody asks: its methods do nothing. Its methods may
// be called from any goroutine.
type Notifier struct {
	address  *net.UnixAddr
	watchdog time.Duration

	mu     sync.Mutex
	conn   *net.UnixConn // kept, so that a process without free descriptors can still say that it lives
	closed bool
}

// sendWithin bounds a message: the manager's queue may be full, and nothing here
// is worth waiting for it.
const sendWithin = time.Second

// New makes a Notifier of what the environment says (NOTIFY_SOCKET,
// WATCHDOG_USEC, WATCHDOG_PID), and takes it from there, so that no child of
// this process speaks in its name. It is nil, without an error, where the
// environment names no socket.
func New() (*Notifier, error) {
	socket, usec, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, fmt.Errorf("systemd: %w", err)
		}
	}
	if socket == "" {
		return nil, nil //nolint:nilnil // a nil Notifier is one that works
	}
	// The net package writes an abstract address as this variable does, with an @
	// in place of the zero byte.
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
		return nil, fmt.Errorf("systemd: NOTIFY_SOCKET %q is neither a path nor an abstract socket (@name)", socket)
	}
	n := &Notifier{address: &net.UnixAddr{Name: socket, Net: "unixgram"}}
	if usec != "" {
		us, err := strconv.ParseUint(usec, 10, 63)
		if err != nil || us == 0 || us > uint64(1<<63-1)/1000 {
			return nil, fmt.Errorf("systemd: WATCHDOG_USEC %q is no number of microseconds", usec)
		}
		if pid == "" || pid == strconv.Itoa(os.Getpid()) {
			n.watchdog = time.Duration(us) * time.Microsecond
		}
	}
	return n, nil
}

// Close frees the socket. Messages after it are errors. Calling it again does
// nothing.
func (n *Notifier) Close() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.conn == nil {
		return nil
	}
	c := n.conn
	n.conn = nil
	return c.Close()
}

// Ready says that the start, or a reload, is complete, and in one line how
// things stand.
func (n *Notifier) Ready(status string) error { return n.send("READY=1", "STATUS="+line(status)) }

// Reloading says that the configuration is being taken anew; Ready ends it, also
// where it was refused.
func (n *Notifier) Reloading() error {
	// systemd drops one without the time at which it was sent: it could not tell
	// which Ready comes after it.
	return n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(sys.MonotonicNanos()/1000, 10))
}

// Stopping says that the program is about to end.
func (n *Notifier) Stopping(status string) error {
	return n.send("STOPPING=1", "STATUS="+line(status))
}

// Status says in one line how things stand: systemctl status shows it.
func (n *Notifier) Status(status string) error { return n.send("STATUS=" + line(status)) }

// ExtendTimeout asks for d more time from now on, to start or to stop, before
// the manager gives up and kills the program.
func (n *Notifier) ExtendTimeout(d time.Duration) error {
	return n.send("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(max(d.Microseconds(), 1), 10))
}

// Watchdog returns within which time the manager wants to hear that the program
// lives; 0: it does not ask.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Beat tells the watchdog that the program lives, twice as often as it wants,
// for as long as alive returns nil in time, until ctx is over. What alive
// returned instead, and that the manager could not be told, goes to failed,
// which is called for the first of several in a row.
func (n *Notifier) Beat(ctx context.Context, alive func(context.Context) error, failed func(error)) {
	period := n.Watchdog() / 2
	if period == 0 {
		return
	}
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for well := true; ; {
		// Ready has just been heard: whoever is asked now may not have begun.
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := n.beat(ctx, period, alive)
		if err != nil && well && ctx.Err() == nil {
			failed(err)
		}
		well = err == nil
	}
}

func (n *Notifier) beat(ctx context.Context, within time.Duration, alive func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := alive(ctx); err != nil {
		return fmt.Errorf("the watchdog is not told that this program lives: %w", err)
	}
	return n.send("WATCHDOG=1")
}

// send sends one message of several variables.
func (n *Notifier) send(variables ...string) error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return fmt.Errorf("systemd: %w", net.ErrClosed)
	}
	text := []byte(strings.Join(variables, "\n"))
	if n.conn != nil {
		err := write(n.conn, text)
		if err == nil {
			return nil
		}
		n.conn.Close()
		n.conn = nil
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("systemd: %w", err)
		}
		// The manager was executed anew, and has a new socket at the old place.
	}
	c, err := net.DialUnix("unixgram", nil, n.address)
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	n.conn = c
	if err := write(c, text); err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	return nil
}

func write(c *net.UnixConn, text []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(sendWithin)); err != nil {
		return err
	}
	_, err := c.Write(text)
	return err
}

// line makes one line of a text: a second one would be another variable.
func line(s string) string { return strings.Join(strings.Fields(s), " ") }
