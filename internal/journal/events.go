//go:build linux

package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
)

// OpenEvents makes a Writer for the lines of events: to a file, or to out for
// "-"; nil for "". log hears when they begin to be lost, and when that is over.
// The error says what to do.
func OpenEvents(path string, out io.Writer, log *slog.Logger) (*Writer, error) {
	o := WriterOptions{Name: "the events", Lost: LostLine, Report: func(err error) {
		if err != nil {
			log.Error("events are not written; connections carry on", "err", err)
			return
		}
		log.Info("events are written again")
	}}
	switch path {
	case "":
		return nil, nil //nolint:nilnil // nobody wants them
	case "-":
		return NewWriter(out, o), nil
	}
	w, err := OpenWriter(path, o)
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err // the sentence names the path
	}
	if err != nil {
		return nil, fmt.Errorf("--events: %s cannot be written: %w: choose another file, or make its directory", path, err)
	}
	return w, nil
}
