package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// dialsAtOnce bounds the connects in flight of one loop while it sets up, below
// any listen queue a candidate may have.
const dialsAtOnce = 64

// maxErrors is where a loop stops trying: the cell has failed.
const maxErrors = 1000

// A loop drives a share of a client's connections from one epoll instance.
type loop struct {
	role    role
	ep      *sys.Epoll
	conns   []conn
	opened  int // of conns, in order
	settled int // of those: had their first answer, or failed

	// The window, in time since base.
	base       time.Time
	start, end time.Duration

	request, answer []byte
	chunk           []byte

	count      uint64
	latency    histogram
	errors     int
	firstError error
}

type conn struct {
	fd      int
	state   connState
	settled bool          // counted in loop.settled
	got     int           // bytes of the answer so far
	began   time.Duration // when the request, or the connect, began
}

type connState uint8

const (
	closed connState = iota
	connecting
	waiting // for an answer
	holding // idle, or reading a stream
)

// requestBytes is what a request holds: askStream occurs nowhere in it.
func requestBytes() []byte {
	request := make([]byte, messageSize)
	for i := range request {
		request[i] = byte(i)
	}
	return request
}

// generate is a client process: it loads r.Target, measures in the window, and
// prints the outcome. An idle load prints as soon as it holds its connections,
// and holds them until stdin ends.
func generate(r role, stdin io.Reader, stdout io.Writer) error {
	r.Loops = min(r.Loops, r.Connections)
	base := time.Now()
	loops := make([]*loop, r.Loops)
	for i := range loops {
		ep, err := sys.NewEpoll(256)
		if err != nil {
			return err
		}
		share := r.Connections / r.Loops
		if i < r.Connections%r.Loops {
			share++
		}
		loops[i] = &loop{
			role: r, ep: ep, conns: make([]conn, share),
			base: base, start: r.Warmup, end: r.Warmup + r.Window,
			request: requestBytes(), answer: make([]byte, messageSize), chunk: make([]byte, bulkChunk),
		}
		if r.Load == loadBulk {
			loops[i].request[0] = askStream
		}
	}
	var wg sync.WaitGroup
	var cpu, loadCPU time.Duration
	var cpuErr error
	if r.Load != loadIdle { // that has no window, only a time limit
		wg.Go(func() {
			load := []int{os.Getpid(), r.Backend}
			time.Sleep(time.Until(base.Add(r.Warmup)))
			cpu0, err1 := cpuTime(r.PIDs)
			load0, err2 := cpuTime(load)
			time.Sleep(time.Until(base.Add(r.Warmup + r.Window)))
			cpu1, err3 := cpuTime(r.PIDs)
			load1, err4 := cpuTime(load)
			cpu, loadCPU, cpuErr = cpu1-cpu0, load1-load0, errors.Join(err1, err2, err3, err4)
		})
	}
	failures := make([]error, len(loops))
	for i, l := range loops {
		wg.Go(func() { failures[i] = l.run() })
	}
	wg.Wait()
	if err := errors.Join(append(failures, cpuErr)...); err != nil {
		return err
	}
	out := outcome{Seconds: r.Window.Seconds(), CPU: cpu, LoadCPU: loadCPU}
	var latency histogram
	for _, l := range loops {
		out.Count += l.count
		out.Errors += l.errors
		latency.add(&l.latency)
		if out.FirstError == "" && l.firstError != nil {
			out.FirstError = l.firstError.Error()
		}
	}
	out.P50, out.P99 = latency.quantile(0.5), latency.quantile(0.99)
	if err := json.NewEncoder(stdout).Encode(out); err != nil {
		return err
	}
	if r.Load == loadIdle {
		untilParentGone(stdin)
	}
	return nil
}

func (l *loop) now() time.Duration { return time.Since(l.base) }

func (l *loop) run() error {
	defer l.ep.Close()
	var events []sys.Event
	for {
		for l.opened < len(l.conns) && l.opened-l.settled < dialsAtOnce {
			l.open(l.opened)
			l.opened++
		}
		now := l.now()
		if now >= l.end || l.errors >= maxErrors || l.role.Load == loadIdle && l.settled == len(l.conns) {
			return nil
		}
		var err error
		if events, err = l.ep.Wait(events, int((l.end-now)/time.Millisecond)+1); err != nil {
			return err
		}
		for _, ev := range events {
			l.step(int(ev.Key), ev.Bits)
		}
	}
}

// open starts connection i.
func (l *loop) open(i int) {
	c := &l.conns[i]
	*c = conn{fd: -1, state: connecting, settled: c.settled, began: l.now()}
	fd, errno := sys.Socket(l.role.Target.Addr())
	if errno != 0 {
		l.fail(i, os.NewSyscallError("socket", errno))
		return
	}
	c.fd = fd
	_ = sys.SetNoDelay(fd)
	if errno := sys.Connect(fd, l.role.Target, ""); errno != 0 && errno != syscall.EINPROGRESS {
		l.fail(i, os.NewSyscallError("connect", errno))
		return
	}
	if errno := l.ep.Add(fd, sys.EventIn|sys.EventOut|sys.EventPeerEnd|sys.EventEdge, uint64(i)); errno != 0 {
		l.fail(i, os.NewSyscallError("epoll_ctl", errno))
	}
}

// fail counts a connection that broke. A load of new connections tries again
// with the next; any other goes on without it.
func (l *loop) fail(i int, err error) {
	c := &l.conns[i]
	if l.errors++; l.firstError == nil {
		l.firstError = fmt.Errorf("after %v: %w", l.now().Round(time.Millisecond), err)
	}
	if c.fd >= 0 {
		sys.Close(c.fd)
	}
	l.settle(c)
	c.fd, c.state = -1, closed
	if l.role.Load == loadConnects && l.errors < maxErrors {
		l.open(i)
	}
}

// step acts on what happened to connection i.
func (l *loop) step(i int, bits uint32) {
	c := &l.conns[i]
	const over = sys.EventPeerEnd | sys.EventHangup | sys.EventError
	switch c.state {
	case connecting:
		if bits&(sys.EventError|sys.EventHangup) != 0 {
			l.fail(i, os.NewSyscallError("connect", sys.SocketError(c.fd)))
			return
		}
		if bits&sys.EventOut == 0 {
			return
		}
		l.ask(i)
		return
	case waiting:
		if bits&(sys.EventIn|over) != 0 {
			l.receive(i, bits&over != 0)
		}
	case holding:
		switch {
		case l.role.Load == loadBulk:
			l.drain(i)
		case bits&over != 0:
			l.fail(i, errEnded)
		}
	case closed:
	}
}

var errEnded = errors.New("the connection ended")

// ask sends a request on an established connection.
func (l *loop) ask(i int) {
	c := &l.conns[i]
	if l.role.Load != loadConnects { // there the connect counts too
		c.began = l.now()
	}
	if n, errno := sys.Send(c.fd, l.request); errno != 0 || n != len(l.request) {
		l.fail(i, os.NewSyscallError("send", errno))
		return
	}
	c.state, c.got = waiting, 0
	if l.role.Load == loadBulk {
		// Level-triggered from here on, so that no stream starves another.
		_ = l.ep.Delete(c.fd)
		if errno := l.ep.Add(c.fd, sys.EventIn, uint64(i)); errno != 0 {
			l.fail(i, os.NewSyscallError("epoll_ctl", errno))
			return
		}
		c.state = holding
		l.settle(c)
	}
}

// settle notes that the set-up of a connection is over, so that the next may
// begin.
func (l *loop) settle(c *conn) {
	if !c.settled {
		c.settled = true
		l.settled++
	}
}

// receive reads an answer and does what follows from it when it is complete.
func (l *loop) receive(i int, over bool) {
	c := &l.conns[i]
	n, errno := sys.Recv(c.fd, l.answer[c.got:])
	switch {
	case errno == syscall.EAGAIN && !over:
		return
	case errno != 0:
		l.fail(i, os.NewSyscallError("recv", errno))
		return
	case n == 0:
		l.fail(i, errEnded)
		return
	}
	if !bytes.Equal(l.answer[c.got:c.got+n], l.request[c.got:c.got+n]) {
		l.fail(i, errors.New("the answer is not the request"))
		return
	}
	if c.got += n; c.got < messageSize {
		return
	}
	l.settle(c)
	now := l.now()
	if now >= l.start && now < l.end {
		l.count++
		l.latency.record(now - c.began)
	}
	switch l.role.Load {
	case loadRequests:
		if over {
			l.fail(i, errEnded)
			return
		}
		l.ask(i)
	case loadConnects:
		sys.Close(c.fd)
		l.open(i)
	case loadIdle:
		c.state = holding
	}
}

// drain reads a stream: once for each event, which is level-triggered.
func (l *loop) drain(i int) {
	n, errno := sys.Recv(l.conns[i].fd, l.chunk)
	switch {
	case errno == syscall.EAGAIN:
	case errno != 0:
		l.fail(i, os.NewSyscallError("recv", errno))
	case n == 0:
		l.fail(i, errEnded)
	default:
		if now := l.now(); now >= l.start && now < l.end {
			l.count += uint64(n)
		}
	}
}
