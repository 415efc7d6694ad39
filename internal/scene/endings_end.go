//go:build linux

package scene

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// An end is one end of a connection that the scene plays by hand, with the bare
// system calls, to see just what they return. One goroutine may read while
// another writes.
type end struct {
	conn *net.TCPConn
	raw  syscall.RawConn

	mu       sync.Mutex
	sent     int // bytes that the kernel has taken
	received int
	wrong    bool // a byte received was not the one sent
}

func newEnd(c net.Conn) (*end, error) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("a %T is no TCP connection", c)
	}
	raw, err := t.SyscallConn()
	return &end{conn: t, raw: raw}, err
}

// octet is the byte at a position of every stream here.
func octet(pos int) byte { return byte(pos ^ pos>>8 ^ pos>>15) }

// send writes n bytes and waits for the kernel to take them.
func (e *end) send(ctx context.Context, n int) error {
	for n > 0 {
		stop := context.AfterFunc(ctx, func() { _ = e.conn.SetWriteDeadline(time.Unix(1, 0)) })
		var errno syscall.Errno
		var k int
		err := e.raw.Write(func(uintptr) bool {
			k, errno = e.offer(n)
			return errno != syscall.EAGAIN
		})
		stop()
		if err == nil && errno != 0 {
			err = errno
		}
		if err != nil {
			return fmt.Errorf("sending %d bytes: %w", n, err)
		}
		n -= k
	}
	return nil
}

// offer writes at most n bytes, as many as the kernel takes at once.
func (e *end) offer(n int) (int, syscall.Errno) {
	var buf [16 << 10]byte
	b := buf[:min(n, len(buf))]
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range b {
		b[i] = octet(e.sent + i)
	}
	k, errno := 0, syscall.EBADF
	if err := e.raw.Control(func(fd uintptr) { k, errno = sys.Send(int(fd), b) }); err != nil {
		return 0, syscall.EBADF
	}
	e.sent += k
	return k, errno
}

// fill writes until the kernel has taken no more for a while, or limit bytes.
func (e *end) fill(ctx context.Context, limit int) error {
	for idle := 0; idle < 10 && e.sentBytes() < limit; {
		_, errno := e.offer(limit - e.sentBytes())
		switch errno {
		case 0:
			idle = 0
		case syscall.EAGAIN:
			idle++
			if err := Pause(ctx, 2*time.Millisecond); err != nil {
				return err
			}
		default:
			return fmt.Errorf("filling: %w", errno)
		}
	}
	return nil
}

func (e *end) sentBytes() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sent
}

func (e *end) receivedBytes() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.received
}

// read reads once, at most max bytes, and waits for something to read until the
// conn's read deadline. poll is what poll said right before read returned.
func (e *end) read(limit int) (n int, errno syscall.Errno, poll sys.PollBits, err error) {
	buf := make([]byte, min(limit, 64<<10))
	err = e.raw.Read(func(fd uintptr) bool {
		poll, _ = sys.PollNow(int(fd))
		n, errno = sys.Recv(int(fd), buf)
		return errno != syscall.EAGAIN && errno != syscall.EINTR
	})
	if n > 0 {
		e.mu.Lock()
		for i, b := range buf[:n] {
			if b != octet(e.received+i) {
				e.wrong = true
			}
		}
		e.received += n
		e.mu.Unlock()
	}
	return n, errno, poll, err
}

// receive reads n bytes.
func (e *end) receive(ctx context.Context, n int) error {
	stop := context.AfterFunc(ctx, func() { _ = e.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for want := e.receivedBytes() + n; e.receivedBytes() < want; {
		k, errno, _, err := e.read(want - e.receivedBytes())
		switch {
		case err != nil:
			return err
		case errno != 0:
			return fmt.Errorf("receiving: %w", errno)
		case k == 0:
			return errors.New("receiving: end of stream")
		}
	}
	return nil
}

// awaitEOF reads the end of the stream, behind everything.
func (e *end) awaitEOF() error {
	k, errno, _, err := e.read(1)
	if err == nil && errno != 0 {
		err = errno
	}
	if err == nil && k != 0 {
		err = errors.New("bytes where the end of the stream was due")
	}
	return err
}

// awaitQueued waits until at least n bytes lie unread in the kernel.
func (e *end) awaitQueued(ctx context.Context, n int) error {
	for {
		var queued int
		var err error
		if cerr := e.raw.Control(func(fd uintptr) { queued, err = sys.QueuedInput(int(fd)) }); cerr != nil || err != nil {
			return errors.Join(cerr, err)
		}
		if queued >= n {
			return nil
		}
		if err := Pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d bytes are queued: %w", queued, n, err)
		}
	}
}

// acked is how many of the bytes sent the other kernel has acknowledged.
func (e *end) acked() int {
	unacked := 0
	_ = e.raw.Control(func(fd uintptr) {
		if n, errno := sys.Unacked(int(fd)); errno == 0 {
			unacked = n
		}
	})
	return e.sentBytes() - unacked
}

// reset closes with a RST.
func (e *end) reset() error {
	return errors.Join(e.conn.SetLinger(0), e.conn.Close())
}

// A keeper is a process that does nothing but hold an end, so that killing it
// ends the connection as the kernel does for a killed program.
type keeper struct{ process *os.Process }

func (e *end) keep() (*keeper, error) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	k := &keeper{}
	cerr := e.raw.Control(func(fd uintptr) {
		k.process, err = sys.StartHolding(sleep, []string{"sleep", "120"}, []uintptr{null.Fd(), null.Fd(), null.Fd(), fd})
	})
	return k, errors.Join(cerr, err)
}

// kill kills the keeper, after this process has let go of the end.
func (k *keeper) kill(e *end) (time.Time, error) {
	err := e.conn.Close()
	at := time.Now()
	err = errors.Join(err, k.process.Kill())
	_, werr := k.process.Wait()
	return at, errors.Join(err, werr)
}

// What an end has seen of the other one's end.
type seen struct {
	read  string        // what read returned at last: "EOF", an errno, or "nothing"
	poll  string        // what poll said then
	after time.Duration // the fault
	bytes int           // received in all
	wrong bool          // of these, one was not what was sent
	write string        // what write returned then, and a moment later if that was different
}

// told is the seen end in one word. The kernel gives its error to whichever
// call asks first, and read says EOF then: an ECONNRESET that write has got was
// a RST. One that met an end of stream instead makes write say EPIPE.
func (s seen) told() traffic.Ending {
	switch {
	case s.read == "ECONNRESET", s.read == "EOF" && s.write == "ECONNRESET":
		return traffic.RST
	case s.read == "EOF":
		return traffic.FIN
	case s.read == "nothing":
		return traffic.Alive
	case s.read == "ETIMEDOUT":
		return traffic.TimedOut
	}
	return traffic.Failed
}

func (s seen) String() string {
	text := s.read
	switch {
	case s.read == "nothing":
		return text
	case s.read == "EOF" && s.told() == traffic.RST:
		text = "write ECONNRESET, then read EOF"
	case s.write != "":
		text += "; write " + s.write
	}
	return fmt.Sprintf("%s; poll %s; %d bytes; %s", text, s.poll, s.bytes, Milliseconds(s.after))
}

// brief is String for a narrow table.
func (s seen) brief() string {
	if s.read == "nothing" {
		return "nothing after " + Milliseconds(s.after)
	}
	word := map[traffic.Ending]string{traffic.FIN: "end of stream", traffic.RST: "ECONNRESET"}[s.told()]
	if word == "" {
		word = s.read
	}
	return word + " after " + Milliseconds(s.after)
}

func errnoName(errno syscall.Errno) string {
	for name, no := range map[string]syscall.Errno{
		"ok": 0, "ECONNRESET": syscall.ECONNRESET, "EPIPE": syscall.EPIPE, "ETIMEDOUT": syscall.ETIMEDOUT,
		"EHOSTUNREACH": syscall.EHOSTUNREACH, "EAGAIN": syscall.EAGAIN, "EBADF": syscall.EBADF,
	} {
		if no == errno {
			return name
		}
	}
	return fmt.Sprintf("errno %d", int(errno))
}

// observe reads to the end of the stream, at most until deadline, and then
// tries to write, unless this end has ended its own stream, or another
// goroutine is writing.
func (e *end) observe(fault, deadline time.Time, mayWrite bool) seen {
	s := seen{read: "nothing"}
	_ = e.conn.SetReadDeadline(deadline)
	for {
		n, errno, poll, err := e.read(64 << 10)
		if err != nil {
			break // the deadline
		}
		if n > 0 {
			continue
		}
		s.after, s.poll, s.read = time.Since(fault), poll.String(), "EOF"
		if errno != 0 {
			s.read = errnoName(errno)
		}
		break
	}
	if s.read == "nothing" {
		s.after = time.Since(fault)
	}
	if mayWrite && s.read != "nothing" {
		s.write = e.tryWrite()
	}
	e.mu.Lock()
	s.bytes, s.wrong = e.received, e.wrong
	e.mu.Unlock()
	return s
}

// afterthought is how long the answer to a byte written after the end may take
// to come back.
const afterthought = 300 * time.Millisecond

// tryWrite writes a byte, and another one when the first has had time to be
// answered.
func (e *end) tryWrite() string {
	_, first := e.offer(1)
	if first != 0 {
		return errnoName(first)
	}
	for until := time.Now().Add(afterthought); time.Now().Before(until); {
		var poll sys.PollBits
		_ = e.raw.Control(func(fd uintptr) { poll, _ = sys.PollNow(int(fd)) })
		if poll&(sys.PollErr|sys.PollHup) != 0 {
			break
		}
		_ = Pause(context.Background(), 2*time.Millisecond)
	}
	if _, second := e.offer(1); second != 0 {
		return "ok, then " + errnoName(second)
	}
	return "ok"
}
