package elector

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// lines is the elector's log: to the daemon while one is attached, else to what
// the process was started with. Who logs never waits.
type lines struct {
	to    *atomic.Pointer[outbox] // nil in it: none is attached
	other *orphanLog
	attrs []slog.Attr
	group string
}

// An orphanLog is what is written while no daemon is attached.
type orphanLog struct {
	handler slog.Handler
	mu      sync.Mutex
	buf     bytes.Buffer // of handler
	queue   chan []byte
}

// newLines makes a log. Run its write.
func newLines(w io.Writer) (_ *lines, write func(context.Context)) {
	o := &orphanLog{queue: make(chan []byte, maxLoss)}
	o.handler = slog.NewTextHandler(&o.buf, nil)
	l := &lines{to: &atomic.Pointer[outbox]{}, other: o}
	return l, func(ctx context.Context) {
		for {
			select {
			case line := <-o.queue:
				_, _ = w.Write(line) // there is nobody to tell
			case <-ctx.Done():
				select {
				case line := <-o.queue:
					_, _ = w.Write(line)
				default:
					return
				}
			}
		}
	}
}

// attach has lines go to a daemon; nil: to nobody.
func (l *lines) attach(to *outbox) { l.to.Store(to) }

// Enabled implements slog.Handler.
func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle implements slog.Handler.
func (l *lines) Handle(ctx context.Context, r slog.Record) error {
	if to := l.to.Load(); to != nil {
		line := &logLine{At: r.Time, Level: int(r.Level), Text: r.Message}
		add := func(a slog.Attr) bool {
			line.Attrs = append(line.Attrs, a.Key, a.Value.Resolve().String())
			return true
		}
		for _, a := range l.attrs {
			add(a)
		}
		r.Attrs(func(a slog.Attr) bool {
			a.Key = l.group + a.Key
			return add(a)
		})
		to.putLossy(&message{Log: line})
		return nil
	}
	o := l.other
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Reset()
	if err := o.handler.WithAttrs(l.attrs).Handle(ctx, r); err != nil {
		return err
	}
	select {
	case o.queue <- bytes.Clone(o.buf.Bytes()):
	default: // who reads it is stuck
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (l *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *l
	next.attrs = slices.Clone(l.attrs)
	for _, a := range attrs {
		a.Key = l.group + a.Key
		next.attrs = append(next.attrs, a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (l *lines) WithGroup(name string) slog.Handler {
	next := *l
	next.group = strings.TrimSuffix(l.group+name, ".") + "."
	return &next
}
