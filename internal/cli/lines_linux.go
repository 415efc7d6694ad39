package cli

import (
	"context"
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
