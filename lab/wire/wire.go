//go:build linux

package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Device is one end of a wire: each Read and each Write is one Ethernet frame.
// An *os.File of a TAP device is one, also a net.Conn that keeps messages.
type Device interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
}

// Direction is where a frame comes from.
type Direction uint8

// The directions.
const (
	FromA Direction = iota // from the first device to the second
	FromB                  // back
)

// String returns "from A" or "from B".
func (d Direction) String() string {
	switch d {
	case FromA:
		return "from A"
	case FromB:
		return "from B"
	}
	return "direction " + strconv.Itoa(int(d))
}

// Options configures a wire. The zero value is a good cable.
type Options struct {
	Seed         uint64   // makes the chances; 0 is a seed like any other
	FromA, FromB Settings // at the start; see Wire.Set

	// Logger gets a change of settings at level debug and failing devices at level warn. nil: nothing is logged.
	Logger *slog.Logger
}

// Counters is what one direction has done. Frames in = Passed + Lost +
// Partitioned + QueueFull + Overflow + Failed + UnderWay; Duplicated and
// Reordered are of those that passed or are under way.
type Counters struct {
	Frames      uint64 // that came from the device
	Bytes       uint64 // of these
	Passed      uint64 // written to the other device, each counted once
	Lost        uint64 // by Loss
	Partitioned uint64 // by Partition
	QueueFull   uint64 // by Bandwidth and Queue
	Overflow    uint64 // because 64 MiB were under way
	Failed      uint64 // because the other device refused them: it is down, or gone
	UnderWay    uint64 // now
	Duplicated  uint64
	Reordered   uint64
}

// Wire joins two devices. Make it with New, run it with Run. Its methods may be
// called from any goroutine.
type Wire struct {
	log   *slog.Logger
	sides [2]*side
}

// New makes a wire between two devices, which remain the caller's to close:
// after Run has returned.
func New(a, b Device, o Options) (*Wire, error) {
	if a == nil || b == nil {
		return nil, errors.New("wire: a device is nil")
	}
	w := &Wire{log: o.Logger}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	for from, s := range []Settings{o.FromA, o.FromB} {
		if err := s.Validate(); err != nil {
			return nil, fmt.Errorf("%v: %w", Direction(from), err)
		}
		w.sides[from] = &side{settings: s, line: line{seed: o.Seed, from: Direction(from)}, log: w.log.With("direction", Direction(from).String())}
	}
	w.sides[FromA].src, w.sides[FromA].dst = a, b
	w.sides[FromB].src, w.sides[FromB].dst = b, a
	return w, nil
}

// Set changes what a direction does, for the frames that come from now on;
// Partition also stops those under way.
func (w *Wire) Set(from Direction, s Settings) error {
	if from > FromB {
		return fmt.Errorf("wire: no direction %d", from)
	}
	if err := s.Validate(); err != nil {
		return err
	}
	d := w.sides[from]
	d.mu.Lock()
	d.settings = s
	d.mu.Unlock()
	d.log.Debug("wire set", "settings", fmt.Sprintf("%+v", s))
	return nil
}

// SetBoth is Set for both directions.
func (w *Wire) SetBoth(s Settings) error {
	return errors.Join(w.Set(FromA, s), w.Set(FromB, s))
}

// Partition stops all frames of both directions, or lets them pass again as
// the settings say, and returns the instant just before it did.
func (w *Wire) Partition(on bool) time.Time {
	at := time.Now()
	for _, d := range w.sides {
		d.mu.Lock()
		d.settings.Partition = on
		d.mu.Unlock()
	}
	return at
}

// Counters returns what a direction has done until now.
func (w *Wire) Counters(from Direction) Counters {
	d := w.sides[from]
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.counters
	c.UnderWay = uint64(d.pending)
	return c
}

// Run carries frames until ctx is over (then it returns nil) or a device fails
// for good. Frames that are under way then are gone. It is to be called once.
func (w *Wire) Run(ctx context.Context) error {
	for _, d := range w.sides {
		alarm, err := sys.NewAlarm()
		if err != nil {
			return fmt.Errorf("wire: %w", err)
		}
		defer func() { _ = alarm.Close() }() // it has been closed below
		d.alarm = alarm
	}
	over := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		for _, d := range w.sides {
			_ = d.src.SetReadDeadline(time.Unix(1, 0))
			_ = d.alarm.Close()
		}
	})
	defer stop()
	var wg sync.WaitGroup
	for from, d := range w.sides {
		wg.Go(func() {
			if err := d.receive(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("wire: %v: %w", Direction(from), err))
			}
		})
		wg.Go(d.deliver)
	}
	wg.Wait()
	if over.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// underWayMax bounds the memory of frames under way in one direction.
const underWayMax = 64 << 20

// side is one direction: receive reads and decides, and writes what need not
// wait; deliver writes the rest when it is due.
type side struct {
	log      *slog.Logger
	src, dst Device
	alarm    *sys.Alarm

	mu       sync.Mutex
	settings Settings
	line     line
	waiting  frames
	bytes    int // of waiting
	pending  int // waiting, or being written by deliver
	counters Counters
}

// frameMax is the largest frame a TAP device can give: 64 KiB and its header.
const frameMax = 65536 + 64

// receive reads frames until the device fails or its read deadline is set.
func (d *side) receive(ctx context.Context) error {
	buf := make([]byte, frameMax)
	down := false
	for {
		n, err := d.src.Read(buf)
		if err != nil {
			// A TAP device that is down, or not up yet, says so here.
			if ctx.Err() != nil || !isDown(err) {
				return err
			}
			if !down {
				d.log.Warn("wire: device is down", "err", err)
			}
			down = true
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		down = false
		if frame, copies := d.admit(buf[:n]); frame != nil {
			d.write(frame, copies)
		}
	}
}

// isDown tells a device that may come back from one that is gone.
func isDown(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EFAULT) || errors.Is(err, syscall.ENETDOWN)
}

// admit decides about a frame and returns it if it is to be written at once.
func (d *side) admit(frame []byte) (now []byte, copies int) {
	t := sys.MonotonicNanos()
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &d.counters
	c.Frames++
	c.Bytes += uint64(len(frame))
	p := d.line.admit(t, len(frame), d.settings)
	switch p.fate {
	case lost:
		c.Lost++
		return nil, 0
	case partitioned:
		c.Partitioned++
		return nil, 0
	case queueFull:
		c.QueueFull++
		return nil, 0
	case passes:
	}
	if p.at <= t && d.pending == 0 {
		d.count(p.copies, p.late)
		c.Passed++
		return frame, p.copies
	}
	if d.bytes+len(frame) > underWayMax {
		c.Overflow++
		return nil, 0
	}
	d.count(p.copies, p.late)
	f := waiting{at: p.at, n: d.line.n, copies: p.copies, buf: take(len(frame))}
	copy(f.buf.b, frame)
	d.bytes += len(frame)
	d.pending++
	if d.waiting.push(f) {
		_ = d.alarm.Set(f.at) // fails only once closed
	}
	return nil, 0
}

func (d *side) count(copies int, late bool) {
	if copies > 1 {
		d.counters.Duplicated++
	}
	if late {
		d.counters.Reordered++
	}
}

// deliver writes frames when they are due, until the alarm is closed.
func (d *side) deliver() {
	var due []waiting
	for {
		due = d.due(due[:0])
		for _, f := range due {
			if f.cut {
				continue
			}
			d.write(f.buf.b, f.copies)
			give(f.buf)
		}
		d.mu.Lock()
		d.pending -= len(due)
		d.mu.Unlock()
		if len(due) == 0 && d.alarm.Wait() != nil {
			return
		}
	}
}

// due takes out what is due, and sets the alarm for the next one if nothing is.
func (d *side) due(into []waiting) []waiting {
	t := sys.MonotonicNanos()
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.waiting) > 0 && d.waiting[0].at <= t && len(into) < 64 {
		f := d.waiting.pop()
		d.bytes -= len(f.buf.b)
		if d.settings.Partition {
			d.counters.Partitioned++
			give(f.buf)
			f.cut = true
		} else {
			d.counters.Passed++
		}
		into = append(into, f)
	}
	if len(into) == 0 && len(d.waiting) > 0 {
		_ = d.alarm.Set(d.waiting[0].at)
	}
	return into
}

// write gives a frame to the other device.
func (d *side) write(frame []byte, copies int) {
	for i := range copies {
		_, err := d.dst.Write(frame)
		if err == nil {
			continue
		}
		d.mu.Lock()
		if i == 0 {
			d.counters.Passed--
			d.counters.Failed++
		}
		d.mu.Unlock()
		if !isDown(err) && !errors.Is(err, os.ErrClosed) {
			d.log.Warn("wire: writing a frame", "err", err)
		}
		return
	}
}
