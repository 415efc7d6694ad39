//go:build linux

package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Instant is a time of CLOCK_MONOTONIC in nanoseconds, the same for all
// processes of a machine. 0 stands for never.
type Instant int64

// Now returns the present instant.
func Now() Instant { return Instant(sys.MonotonicNanos()) }

// InstantOf returns the instant of a time that carries Go's monotonic reading,
// as those of time.Now do.
func InstantOf(t time.Time) Instant { return Now().Add(-time.Since(t)) }

// Sub returns t-u.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// Add returns t+d.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// ID names a connection on both of its ends and keys its bytes. 0 is none.
type ID uint64

// String returns the ID as 16 hexadecimal digits.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText is String: JSON numbers cannot hold 64 bits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *ID) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return fmt.Errorf("traffic: ID: %w", err)
	}
	*id = ID(v)
	return nil
}

// Ending is what an end of a connection was told about its end.
type Ending uint8

// The endings.
const (
	Alive       Ending = iota // it has not ended
	FIN                       // end of stream: the peer says it is done
	RST                       // ECONNRESET, or EPIPE where read itself said so
	TimedOut                  // ETIMEDOUT
	Unreachable               // EHOSTUNREACH, ENETUNREACH
	Refused                   // ECONNREFUSED (while connecting)
	Closed                    // this side ended it, for the reason that its error gives
	Failed                    // any other error
)

var endingNames = [...]string{"alive", "fin", "rst", "timeout", "unreachable", "refused", "closed", "failed"}

// String returns the ending in lower case; TimedOut is "timeout".
func (e Ending) String() string {
	if int(e) < len(endingNames) {
		return endingNames[e]
	}
	return "ending " + strconv.Itoa(int(e))
}

// MarshalText is String.
func (e Ending) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (e *Ending) UnmarshalText(text []byte) error {
	for i, name := range endingNames {
		if string(text) == name {
			*e = Ending(i)
			return nil
		}
	}
	return fmt.Errorf("traffic: no ending %q", text)
}

// End is how a connection ended at one of its ends. The zero value is: not yet.
type End struct {
	Ending Ending  `json:"ending"`
	Errno  string  `json:"errno,omitempty"` // as "ECONNRESET"
	At     Instant `json:"at,omitempty"`    // when this end learned of it
	Read   string  `json:"read,omitempty"`  // what read returned at last: "EOF", an errno's name, or nothing
	Write  string  `json:"write,omitempty"` // what write returned at last
	Poll   string  `json:"poll,omitempty"`  // what poll said when the first of them returned, as "IN|ERR|HUP|RDHUP"
}

// classify says what an error of connect, read or write means for the connection.
func classify(err error) (e Ending, errno string) {
	var no syscall.Errno
	switch {
	case err == nil:
		return Alive, ""
	case errors.Is(err, io.EOF):
		return FIN, "EOF"
	case errors.As(err, &no):
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Closed, ""
	default:
		return Failed, err.Error()
	}
	errno = sys.ErrnoName(no)
	switch no {
	case syscall.ECONNRESET, syscall.EPIPE:
		return RST, errno
	case syscall.ETIMEDOUT:
		return TimedOut, errno
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH:
		return Unreachable, errno
	case syscall.ECONNREFUSED:
		return Refused, errno
	}
	return Failed, errno
}

// longAgo is a deadline that makes every call return at once.
var longAgo = time.Unix(1, 0)

// A link is one end of a connection that one goroutine reads and another
// writes. It finds out how the connection ended from what both of them get: the
// kernel hands its error to whichever asks first, and the other one gets a mere
// end of stream or EPIPE.
type link struct {
	net.Conn
	raw syscall.RawConn // nil if there is no socket below

	mu       sync.Mutex
	at       Instant
	poll     string
	readErr  error
	writeErr error
	early    bool // the peer's end was there before this side half-closed
}

// newLink takes over c and gives it the kernel's own defaults, which Go changes.
func newLink(c net.Conn) *link {
	l := &link{Conn: c}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetKeepAlive(false) // fails only on a socket that is dead already, which read will tell
	}
	if s, ok := c.(syscall.Conn); ok {
		l.raw, _ = s.SyscallConn()
	}
	return l
}

// Read reads, and remembers how reading ended.
func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		l.ended(&l.readErr, err)
	}
	return n, err
}

// Write writes, and remembers how writing ended.
func (l *link) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	if err != nil {
		l.ended(&l.writeErr, err)
	}
	return n, err
}

// ReadAnnounced reads at most what it has announced before: whoever is killed
// between announcing and reading is known to have had just these bytes in its
// kernel. Without a socket below it is Read.
func (l *link) ReadAnnounced(p []byte, announce func(n int)) (n int, err error) {
	if l.raw == nil {
		return l.Read(p)
	}
	rawErr := l.raw.Read(func(fd uintptr) bool {
		queued, qerr := sys.QueuedInput(int(fd))
		if qerr == nil && queued == 0 {
			var peeked int
			if peeked, err = sys.PeekByte(int(fd)); err == nil && peeked == 0 {
				err = io.EOF
			}
			if err != nil {
				return !errors.Is(err, syscall.EAGAIN)
			}
			queued, qerr = sys.QueuedInput(int(fd))
		}
		if err = qerr; err != nil {
			return true
		}
		k := min(queued, len(p))
		announce(k)
		n, err = sys.ReadSocket(int(fd), p[:k])
		return !errors.Is(err, syscall.EAGAIN)
	})
	if rawErr != nil {
		n, err = 0, rawErr
	}
	if err != nil {
		l.ended(&l.readErr, err)
	}
	return n, err
}

// AwaitEnd waits for the end of the connection without reading from it.
func (l *link) AwaitEnd() error {
	if l.raw == nil {
		return fmt.Errorf("traffic: a %T has no socket to wait on", l.Conn)
	}
	var err error
	rawErr := l.raw.Read(func(fd uintptr) bool {
		bits, perr := sys.PollNow(int(fd))
		if perr != nil {
			err = perr
			return true
		}
		if bits&(sys.PollErr|sys.PollHup|sys.PollRdHup) == 0 {
			return false
		}
		l.mu.Lock()
		l.poll = bits.String() // before TakeError makes poll forget it
		l.mu.Unlock()
		if errno := sys.TakeError(int(fd)); errno != 0 {
			err = errno
		} else {
			err = io.EOF
		}
		return true
	})
	if rawErr != nil {
		err = rawErr
	}
	l.ended(&l.readErr, err)
	return err
}

// ended notes the first error of one direction, when it came and what poll says
// to it. The end of reading ends writing too: a writer that the kernel has
// blocked would wait for a peer that is gone.
func (l *link) ended(slot *error, err error) {
	if e, _ := classify(err); e == Closed {
		return
	}
	now := Now()
	l.mu.Lock()
	first := l.at == 0
	if first {
		l.at = now
	}
	if *slot == nil {
		*slot = err
	}
	ask := l.poll == ""
	l.mu.Unlock()
	if ask && l.raw != nil {
		var bits sys.PollBits
		_ = l.raw.Control(func(fd uintptr) { bits, _ = sys.PollNow(int(fd)) })
		l.mu.Lock()
		l.poll = bits.String()
		l.mu.Unlock()
	}
	if slot == &l.readErr {
		_ = l.SetWriteDeadline(longAgo)
	}
}

// HalfClose ends the stream of this side. It looks first whether the peer's
// stream has ended already: such an end answers nothing that came before ours.
func (l *link) HalfClose() (at Instant, err error) {
	var bits sys.PollBits
	if l.raw != nil {
		_ = l.raw.Control(func(fd uintptr) { bits, _ = sys.PollNow(int(fd)) })
	}
	at = Now()
	l.mu.Lock()
	l.early = l.readErr != nil || bits&(sys.PollRdHup|sys.PollHup|sys.PollErr) != 0
	l.mu.Unlock()
	if h, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return at, h.CloseWrite()
	}
	return at, fmt.Errorf("traffic: a %T cannot half-close", l.Conn)
}

// Early reports whether the peer's end was there before this side half-closed.
func (l *link) Early() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.early
}

// Stop makes every read and write return at once.
func (l *link) Stop() { _ = l.SetDeadline(longAgo) }

// End is to be asked when both directions have come to rest.
func (l *link) End() End {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := End{At: l.at, Poll: l.poll}
	rd, rdName := classify(l.readErr)
	wr, wrName := classify(l.writeErr)
	end.Read, end.Write = rdName, wrName
	switch {
	case rd != Alive && rd != FIN: // read took the kernel's error
		end.Ending, end.Errno = rd, rdName
	case wr != Alive && l.writeErr != nil && !errors.Is(l.writeErr, syscall.EPIPE): // write took it
		end.Ending, end.Errno = wr, wrName
	case rd == FIN:
		end.Ending = FIN
	case wr != Alive:
		end.Ending, end.Errno = wr, wrName
	}
	return end
}
