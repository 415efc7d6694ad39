package cli

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/holdfast-net/holdfast/internal/journal"
)

// A lineWriter runs a journal.Writer: whoever logs or reports through it never
// waits for a terminal, a pipe or a disk.
type lineWriter struct {
	*journal.Writer
	stop context.CancelFunc
	done sync.WaitGroup
	err  error
}

func startLines(ctx context.Context, w *journal.Writer) *lineWriter {
	l := &lineWriter{Writer: w}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.done.Go(func() { l.err = w.Run(ctx) })
	return l
}

// end writes what still waits. The error is of lines that could not be written.
func (l *lineWriter) end() error {
	l.stop()
	l.done.Wait()
	return l.err
}

// startEvents writes events to a file, or to out for "-". It returns nil where
// nobody wants them.
func startEvents(ctx context.Context, path string, out io.Writer, log *slog.Logger) (*lineWriter, error) {
	o := journal.WriterOptions{
		Name: "the events", Lost: journal.LostLine,
		Report: func(err error) {
			if err != nil {
				log.Error("events cannot be written; connections carry on", "err", err)
			} else {
				log.Info("events are written again")
			}
		},
	}
	switch path {
	case "":
		return nil, nil
	case "-":
		return startLines(ctx, journal.NewWriter(out, o)), nil
	}
	w, err := journal.OpenWriter(path, o)
	if err != nil {
		return nil, err
	}
	return startLines(ctx, w), nil
}
