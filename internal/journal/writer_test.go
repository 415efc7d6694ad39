//go:build linux

package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A destination keeps what is written, fails as long as err is set, and blocks
// as long as gate is there and not closed.
type destination struct {
	mu   sync.Mutex
	text bytes.Buffer
	err  error
	take int // how many bytes it takes before it fails
	gate chan struct{}
}

func (d *destination) Write(p []byte) (int, error) {
	if d.gate != nil {
		<-d.gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		n := min(d.take, len(p))
		d.take -= n
		d.text.Write(p[:n])
		return n, d.err
	}
	return d.text.Write(p)
}

func (d *destination) fail(err error, take int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.take = err, take
}

func (d *destination) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}

func put(t *testing.T, w *Writer, line string) {
	t.Helper()
	if n, err := fmt.Fprintln(w, line); n != len(line)+1 || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

func start(t *testing.T, w *Writer) (end func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

// What does not fit is lost by the line, and a line says how many where they
// are missing; whoever writes never waits.
func TestWriterBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &destination{gate: make(chan struct{})}
		w := NewWriter(to, WriterOptions{Queue: 100, Lost: func(n uint64) []byte { return fmt.Appendf(nil, "lost %d\n", n) }})
		end := start(t, w)
		put(t, w, "first")
		synctest.Wait() // it is being written, and counts as long as it is
		var queued int
		for i := range 30 {
			before := w.Status().Waiting
			put(t, w, fmt.Sprintf("line %02d", i))
			if w.Status().Waiting > before {
				queued++
			}
		}
		if s := w.Status(); queued != 11 || s.Lost != 19 || s.LastLost.IsZero() || s.Waiting > 100 {
			t.Errorf("%d lines were queued: %+v", queued, s)
		}
		if _, err := w.Write([]byte("two\nlines\n" + strings.Repeat("x", 100))); err != nil {
			t.Fatal(err)
		}
		close(to.gate)
		synctest.Wait()
		put(t, w, "after")
		if err := end(); err != nil {
			t.Errorf("Run: %v", err)
		}
		lines := strings.Split(strings.TrimSuffix(to.String(), "\n"), "\n")
		if len(lines) != 14 || lines[0] != "first" || lines[11] != "line 10" || lines[12] != "lost 22" || lines[13] != "after" {
			t.Errorf("written: %q", lines)
		}
		if s := w.Status(); s.Lost != 22 || s.Waiting != 0 {
			t.Errorf("at the end %+v", s)
		}
	})
}

// A loss is told when there is room again, though nothing comes after it.
func TestWriterTellsTheLastLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &destination{}
		w := NewWriter(to, WriterOptions{Queue: 10})
		put(t, w, "12345678")
		put(t, w, "9")
		if err := start(t, w)(); err != nil {
			t.Fatal(err)
		}
		if want := "12345678\nlost 1 lines: they came faster than they could be written\n"; to.String() != want {
			t.Errorf("written: %q", to)
		}
	})
}

// A full disk costs nothing but time, once there is room again: the failure is
// reported once, and so is its end.
func TestWriterHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &destination{}
		var reports []error
		w := NewWriter(to, WriterOptions{Name: "the events file", Report: func(err error) { reports = append(reports, err) }})
		end := start(t, w)
		put(t, w, "one")
		synctest.Wait()
		to.fail(syscall.ENOSPC, 2) // in the middle of a line
		put(t, w, "two")
		time.Sleep(10 * time.Second)
		put(t, w, "three")
		time.Sleep(10 * time.Second)
		if s := w.Status(); !errors.Is(s.Err, syscall.ENOSPC) || len(reports) != 1 || reports[0].Error() != "the events file: no space left on device" {
			t.Errorf("while it fails: %+v, %v", s, reports)
		}
		to.fail(nil, 0)
		time.Sleep(2 * DefaultRetry)
		if s := w.Status(); s.Err != nil || s.Lost != 0 || len(reports) != 2 || reports[1] != nil {
			t.Errorf("when it works again: %+v, %v", s, reports)
		}
		if to.String() != "one\ntwo\nthree\n" {
			t.Errorf("written: %q", to)
		}
		to.fail(syscall.EIO, 0)
		put(t, w, "four")
		synctest.Wait()
		put(t, w, "five")
		began := time.Now()
		err := end()
		if want := "the events file: 2 lines were not written: input/output error"; !errors.Is(err, syscall.EIO) || err.Error() != want {
			t.Errorf("Run: %v, want %s", err, want)
		}
		if took := time.Since(began); took > DefaultGrace {
			t.Errorf("it took %v to give up", took)
		}
		put(t, w, "six")
		if s := w.Status(); s.Lost != 3 {
			t.Errorf("afterwards: %+v", s)
		}
	})
}

// A reader that has stopped reading bounds the end, and what waits in a pipe
// lets go of its goroutine.
func TestWriterEndsThoughBlocked(t *testing.T) {
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer p.Close()
	w := NewWriter(p, WriterOptions{Grace: 20 * time.Millisecond})
	end := start(t, w)
	for range 4096 { // more than a pipe takes
		put(t, w, strings.Repeat("x", 100))
	}
	if err := end(); err == nil || !strings.Contains(err.Error(), "the output did not take its last lines within 20ms") {
		t.Errorf("Run: %v", err)
	}
}

// A FIFO that nobody reads yet does not hold up whoever opens it, and its reader
// finds what was written before it came.
func TestWriterToFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := OpenWriter(path, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	end := start(t, w)
	put(t, w, "one")
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines := bufio.NewReader(r)
	for _, want := range []string{"one\n", "two\n"} {
		if line, err := lines.ReadString('\n'); err != nil || line != want {
			t.Errorf("%q, %v; want %q", line, err, want)
		}
		w.Reopen() // what is inside stays
		put(t, w, "two")
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// What logs and what follows may end together: the last lines are written.
func TestWriterFlushesAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &destination{}
		w := NewWriter(to, WriterOptions{})
		log := slog.New(slog.NewTextHandler(w, nil))
		end := start(t, w)
		for i := range 1000 {
			log.Info("line", "n", i)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(to.String(), "\n"); n != 1000 {
			t.Errorf("%d lines were written", n)
		}
	})
}

// await waits until a file has a text.
func await(t *testing.T, path, want string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		text, err := os.ReadFile(path)
		if err == nil && string(text) == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is %q, %v; want %q", path, text, err, want)
		}
	}
}

func TestWriterReopens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	w, err := OpenWriter(path, WriterOptions{Retry: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	end := start(t, w)
	put(t, w, "one")
	await(t, path, "one\n")
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody may read it: %v, %v", fi.Mode(), err)
	}
	w.Reopen() // of the same file: it goes on
	put(t, w, "two")
	await(t, path, "one\ntwo\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	put(t, w, "three") // nobody has told it yet
	await(t, path+".1", "one\ntwo\nthree\n")
	w.Reopen()
	await(t, path, "")
	put(t, w, "four")
	await(t, path, "four\n")

	// Something is in the way: the old file goes on, until it can be opened.
	if err := errors.Join(os.Rename(path, path+".2"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	w.Reopen()
	put(t, w, "five")
	await(t, path+".2", "four\nfive\n")
	if s := w.Status(); !errors.Is(s.Err, syscall.EISDIR) || !strings.HasPrefix(s.Err.Error(), "the file: the old file is still written: open ") {
		t.Errorf("status %+v", s)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for w.Status().Err != nil {
		put(t, w, "x")
		<-tick.C
	}
	put(t, w, "six")
	if err := end(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(text), "six\n") {
		t.Errorf("the new file has %q, %v", text, err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// A line that was cut by a failure does not go on in another file.
func TestWriterReopensInsideALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	w, err := OpenWriter(path, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	o := &output{Writer: w, inside: true, rest: []byte("of a line\nnext\n")}
	w.size = len(o.rest)
	w.Reopen()
	o.reopenWanted()
	if string(o.rest) != "next\n" || o.inside || w.size != 5 || w.Status().Lost != 1 || w.unsaid != 1 {
		t.Errorf("left is %q, %d bytes, %+v", o.rest, w.size, w.Status())
	}
	o.inside, o.rest = true, []byte("of a line\n")
	w.Reopen()
	o.reopenWanted()
	if string(o.rest) != "of a line\n" || !o.inside {
		t.Errorf("of the same file left is %q", o.rest)
	}
	w.Reopen()
	if NewWriter(&bytes.Buffer{}, WriterOptions{}).Reopen(); !w.reopen {
		t.Error("to reopen is forgotten")
	}
}

func TestOpenWriterFails(t *testing.T) {
	_, err := OpenWriter(filepath.Join(t.TempDir(), "missing", "events"), WriterOptions{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenWriter: %v", err)
	}
	w, err := OpenWriter("/dev/full", WriterOptions{Retry: time.Millisecond})
	if err != nil {
		t.Skipf("no /dev/full: %v", err)
	}
	defer w.Close()
	put(t, w, "line")
	if err := start(t, w)(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Run: %v", err)
	}
}

// Everybody at once, for the race detector: whole lines, each once, or counted.
func TestWriterConcurrency(t *testing.T) {
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w := NewWriter(p, WriterOptions{Queue: 4096, Lost: func(n uint64) []byte { return fmt.Appendf(nil, "lost %d\n", n) }})
	end := start(t, w)
	const writers, each = 4, 5000
	var wg, reading sync.WaitGroup
	var seen, lost int
	reading.Go(func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			var n, m int
			if _, err := fmt.Sscanf(s.Text(), "lost %d", &n); err == nil {
				lost += n
			} else if _, err := fmt.Sscanf(s.Text(), "line %d of %d.", &n, &m); err == nil && strings.HasSuffix(s.Text(), ".") {
				seen++
			} else {
				t.Errorf("a line reads %q", s.Text())
			}
		}
	})
	for i := range writers {
		wg.Go(func() {
			for n := range each {
				fmt.Fprintf(w, "line %d of %d.\n", n, i)
			}
		})
	}
	wg.Wait()
	if err := end(); err != nil {
		t.Error(err)
	}
	p.Close()
	reading.Wait()
	if seen+lost != writers*each || uint64(lost) != w.Status().Lost {
		t.Errorf("%d lines were read, %d told as lost, %d counted; of %d", seen, lost, w.Status().Lost, writers*each)
	}
}
