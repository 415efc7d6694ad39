package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/holdfast-net/holdfast/internal/config"
)

// A logSwitch is what a reload changes of the log.
type logSwitch struct {
	level slog.LevelVar
	json  atomic.Bool
}

// newLogger makes a logger whose level and format can be changed.
func newLogger(w io.Writer) (*slog.Logger, *logSwitch) {
	s := &logSwitch{}
	o := &slog.HandlerOptions{Level: &s.level}
	return slog.New(&logHandler{s, slog.NewTextHandler(w, o), slog.NewJSONHandler(w, o)}), s
}

// prepare does what can fail of taking what the file says; turn does the rest.
func (s *logSwitch) prepare(l config.Log) (turn func(), err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	return func() {
		s.level.Set(level)
		s.json.Store(l.Format == "json")
	}, nil
}

// set takes what the file says.
func (s *logSwitch) set(l config.Log) error {
	turn, err := s.prepare(l)
	if err == nil {
		turn()
	}
	return err
}

// A logHandler writes lines in the format that the switch says. What was added
// to a logger is kept in both, as the switch may be turned at any time.
type logHandler struct {
	*logSwitch
	text, structured slog.Handler
}

func (h *logHandler) now() slog.Handler {
	if h.json.Load() {
		return h.structured
	}
	return h.text
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error { return h.now().Handle(ctx, r) }

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.logSwitch, h.text.WithAttrs(attrs), h.structured.WithAttrs(attrs)}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.logSwitch, h.text.WithGroup(name), h.structured.WithGroup(name)}
}
