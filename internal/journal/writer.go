package journal

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Defaults of [WriterOptions].
const (
	DefaultQueue = 16 << 20
	DefaultRetry = time.Second
	DefaultGrace = 2 * time.Second
)

// WriterOptions configures a [Writer]. The zero value is usable.
type WriterOptions struct {
	// Name says what is written, in errors: "the events file"; "" is "the
	// file" or "the output".
	Name string

	// Queue bounds the bytes that wait to be written; 0: DefaultQueue.
	Queue int

	// Lost makes the line that stands where lines were lost; nil writes "lost N
	// lines: they came faster than they could be written".
	Lost func(lines uint64) []byte

	// Report is called when writing begins to fail, with the reason, and with nil
	// when it works again. It may write to this Writer.
	Report func(error)

	// Retry is how long a failed destination is left alone; 0: DefaultRetry.
	Retry time.Duration

	// Grace bounds how long Run goes on writing after the end of its context; 0:
	// DefaultGrace.
	Grace time.Duration
}

// A Writer takes lines from those who must not wait, event loops and all that
// log, and writes them to what may block or fail. Its methods may be called by
// any goroutine.
type Writer struct {
	options WriterOptions
	path    string // "" where there is no file to reopen

	wake chan struct{} // holds one

	mu      sync.Mutex
	queue   []byte // whole lines
	size    int    // bytes of queue, and of what is being written
	unsaid  uint64 // lines lost since the last line that was queued
	reopen  bool
	to      io.Writer
	own     *os.File // one that the Writer has opened itself, and to is
	stopped bool     // nobody writes any more
	status  WriterStatus
}

// WriterStatus is how a [Writer] fares.
type WriterStatus struct {
	Lost     uint64    // lines that were not written, since the start
	LastLost time.Time // when the last of them was lost
	Err      error     // why nothing is written at present; nil when all is well
	Waiting  int       // bytes
}

// NewWriter makes a Writer to w, which one goroutine at a time will use. Nothing
// is written before Run.
func NewWriter(w io.Writer, o WriterOptions) *Writer {
	if o.Name == "" {
		o.Name = "the output"
	}
	if o.Queue <= 0 {
		o.Queue = DefaultQueue
	}
	if o.Retry <= 0 {
		o.Retry = DefaultRetry
	}
	if o.Grace <= 0 {
		o.Grace = DefaultGrace
	}
	if o.Lost == nil {
		o.Lost = func(n uint64) []byte {
			return fmt.Appendf(nil, "lost %d lines: they came faster than they could be written\n", n)
		}
	}
	return &Writer{options: o, to: w, wake: make(chan struct{}, 1)}
}

// OpenWriter makes a Writer that appends to a file, which is made if it is not
// there, with mode 0640. A FIFO need not have a reader yet: lines wait for one.
func OpenWriter(path string, o WriterOptions) (*Writer, error) {
	f, err := openAppend(path)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "the file"
	}
	w := NewWriter(f, o)
	w.path, w.own = path, f
	return w, nil
}

func openAppend(path string) (*os.File, error) {
	access := os.O_WRONLY
	if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeNamedPipe != 0 {
		access = os.O_RDWR // to open one for writing alone waits for its reader
	}
	return os.OpenFile(path, access|os.O_CREATE|os.O_APPEND, 0o640)
}

// Write takes one line, or several that belong together, each with its end; it
// keeps no reference to them. It never waits and never fails: what does not fit
// is lost as a whole, and counted.
func (w *Writer) Write(lines []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		w.drop(lines)
		return len(lines), nil
	}
	var marker []byte
	if w.unsaid > 0 {
		marker = w.options.Lost(w.unsaid)
	}
	if w.size+len(marker)+len(lines) > w.options.Queue {
		w.drop(lines)
		w.unsaid += count(lines)
		return len(lines), nil
	}
	w.unsaid = 0
	w.queue = append(append(w.queue, marker...), lines...)
	w.size += len(marker) + len(lines)
	w.signal()
	return len(lines), nil
}

// drop counts lines that will not be written. The caller holds mu.
func (w *Writer) drop(lines []byte) {
	w.status.Lost += count(lines)
	w.status.LastLost = time.Now()
}

// count counts lines, the last of which may lack its end.
func count(lines []byte) uint64 {
	n := bytes.Count(lines, []byte("\n"))
	if len(lines) > 0 && lines[len(lines)-1] != '\n' {
		n++
	}
	return uint64(n)
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Status says how it fares.
func (w *Writer) Status() WriterStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	s.Waiting = w.size
	return s
}

// Reopen makes the next lines go to the file that has the path now: what was
// there may have been moved away. Until that can be opened, the old one is
// written. It returns at once; a Writer that was not made with a path goes on as
// it is.
func (w *Writer) Reopen() {
	if w.path == "" {
		return
	}
	w.mu.Lock()
	w.reopen = true
	w.mu.Unlock()
	w.signal()
}

// Run writes until ctx ends, and then what still waits, for as long as Grace.
// It returns nil when everything was written. A destination that fails is tried
// again and again; one that blocks for ever may keep a goroutine after that,
// until the process ends or what it writes to is closed. It can be called once.
func (w *Writer) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- w.loop(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(w.options.Grace)
	defer grace.Stop()
	select {
	case err := <-done:
		return err
	case <-grace.C:
	}
	w.mu.Lock()
	w.stopped = true
	left := count(w.queue)
	to := w.to
	w.mu.Unlock()
	err := fmt.Errorf("%s did not take its last lines within %s: %d and those before them were not written", w.options.Name, w.options.Grace, left)
	// A pipe or socket lets go of the goroutine.
	if d, ok := to.(interface{ SetWriteDeadline(time.Time) error }); ok && d.SetWriteDeadline(time.Now()) == nil {
		<-done
	}
	return err
}

// Close closes the file that OpenWriter or Reopen opened. It is called after
// Run. Calling it again does nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.own == nil {
		return nil
	}
	own := w.own
	w.own = nil
	return own.Close()
}

// An output is what the goroutine knows that may block.
type output struct {
	*Writer
	rest      []byte // of what is being written
	buffer    []byte // to take the place of the queue
	inside    bool   // of a line: its beginning is written
	reopenErr error
	tried     time.Time // when opening again last failed
}

// loop is the goroutine that may block.
func (w *Writer) loop(ctx context.Context) error {
	o := &output{Writer: w}
	for {
		o.reopenWanted()
		if len(o.rest) == 0 && !o.take() {
			if !o.idle(ctx) {
				return nil
			}
			continue
		}
		err := o.write()
		w.report(cmp.Or(err, o.reopenErr))
		w.mu.Lock()
		stopped := w.stopped
		w.mu.Unlock()
		switch {
		case stopped:
			return w.giveUp(o.rest, cmp.Or(err, context.DeadlineExceeded))
		case err == nil:
			continue
		case ctx.Err() != nil:
			return w.giveUp(o.rest, err)
		}
		retry := time.NewTimer(w.options.Retry)
		select {
		case <-retry.C:
		case <-ctx.Done(): // once more
		}
		retry.Stop()
	}
}

// idle waits for lines, and reports whether there may be some; after the end of
// ctx there are none.
func (o *output) idle(ctx context.Context) bool {
	select {
	case <-o.wake:
		return true
	case <-ctx.Done():
	}
	// What came before the end still goes out.
	select {
	case <-o.wake:
		return true
	default:
		return false
	}
}

// write writes what it can of rest.
func (o *output) write() error {
	n, err := o.to.Write(o.rest)
	if n > 0 {
		o.inside = o.rest[n-1] != '\n'
		o.rest = o.rest[n:]
		o.mu.Lock()
		o.size -= n
		o.mu.Unlock()
	}
	if err == nil && len(o.rest) > 0 {
		err = io.ErrShortWrite
	}
	return err
}

// take takes the queue, or the line that stands for lost ones when nothing came
// after them. It reports whether there is anything.
func (o *output) take() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 && o.unsaid > 0 {
		o.queue = append(o.queue, o.options.Lost(o.unsaid)...)
		o.size += len(o.queue)
		o.unsaid = 0
	}
	const keep = 1 << 20 // after a burst the memory goes back
	if cap(o.buffer) > keep {
		o.buffer = nil
	}
	o.rest, o.queue = o.queue, o.buffer[:0]
	o.buffer = o.rest
	return len(o.rest) > 0
}

// reopenWanted opens the file again where that was asked for.
func (o *output) reopenWanted() {
	o.mu.Lock()
	wanted := o.reopen
	o.reopen = false
	o.mu.Unlock()
	if !wanted && (o.reopenErr == nil || time.Since(o.tried) < o.options.Retry) {
		return
	}
	f, err := openAppend(o.path)
	if err != nil {
		o.tried = time.Now()
		o.reopenErr = fmt.Errorf("the old file is still written: %w", err)
		o.report(o.reopenErr)
		return
	}
	o.reopenErr = nil
	o.mu.Lock()
	old := o.own
	o.to, o.own = f, f
	if o.inside && !sameFile(old, f) {
		// The rest of a line whose beginning is in the other file.
		end := len(o.rest)
		if i := bytes.IndexByte(o.rest, '\n'); i >= 0 {
			end = i + 1
		}
		o.drop(o.rest[:end])
		o.unsaid += count(o.rest[:end])
		o.size -= end
		o.inside, o.rest = false, o.rest[end:]
	}
	o.mu.Unlock()
	old.Close() // errors of what was written were reported as they came
}

func sameFile(a, b *os.File) bool {
	one, err := a.Stat()
	two, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(one, two)
}

// report passes on the first of several failures, and the end of them.
func (w *Writer) report(err error) {
	w.mu.Lock()
	before := w.status.Err
	if err != nil {
		err = fmt.Errorf("%s: %w", w.options.Name, err)
	}
	w.status.Err = err
	w.mu.Unlock()
	if w.options.Report != nil && (before == nil) != (err == nil) {
		w.options.Report(err)
	}
}

// giveUp ends with what was not written.
func (w *Writer) giveUp(rest []byte, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(rest)
	w.drop(w.queue)
	left := count(rest) + count(w.queue)
	w.queue, w.size, w.stopped = nil, 0, true
	return fmt.Errorf("%s: %d lines were not written: %w", w.options.Name, left, err)
}
