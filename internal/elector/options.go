package elector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/holdfast-net/holdfast/vip"
)

// Options configures a [Client].
type Options struct {
	// Program starts an elector: a path and the arguments before those that
	// [Main] reads. Empty: this program, with the argument "elector".
	Program []string

	// Runtime is the directory of the socket and the lock; it must exist, and
	// belong to this daemon alone. Required.
	Runtime string

	// Version is this program's, for logs.
	Version string

	// Settings are in force once Open has returned.
	Settings Settings

	// Logger gets what the client and the elector have to say; nil discards it.
	Logger *slog.Logger

	// OnChange is told what happens to the groups, in order. What happened while
	// no daemon was attached is told first. It must not block.
	OnChange func(vip.Change)

	// OnBeat is given a beat for the peer. It must not block, and not keep it.
	OnBeat func(beat []byte)

	// OnStep does the daemon's part in a move of a group, each on a goroutine of
	// its own. ctx ends when nobody waits any more. nil: nothing is to be done.
	OnStep func(ctx context.Context, e vip.Event) error

	// OnElector is told when the elector is lost, and when one is there again,
	// with why. It must not block.
	OnElector func(there bool, why string)
}

func (o Options) check() (Options, error) {
	var errs []error
	if o.Runtime == "" {
		errs = append(errs, errors.New("elector: Options.Runtime is empty; give the directory for its socket"))
	} else if n := len(socketPath(o.Runtime)); n > maxSocketPath {
		errs = append(errs, fmt.Errorf("elector: Options.Runtime %s is too long: the path of the socket has %d characters, at most %d", o.Runtime, n, maxSocketPath))
	}
	errs = append(errs, o.Settings.Check())
	if len(o.Program) == 0 {
		o.Program = []string{"/proc/self/exe", "elector"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnChange == nil {
		o.OnChange = func(vip.Change) {}
	}
	if o.OnBeat == nil {
		o.OnBeat = func([]byte) {}
	}
	if o.OnElector == nil {
		o.OnElector = func(bool, string) {}
	}
	return o, errors.Join(errs...)
}

// Problem is why the elector is not as it should be.
type Problem struct {
	Lacks bool   // it runs, and lacks something that it should have; else it is not there
	Text  string // what, and what to do
	Since time.Time
}

// ErrDown is what errors match of a call that needs an elector while none is
// there.
var ErrDown = errors.New("no elector is there")

// maxSocketPath is the length of sun_path without its zero byte.
const maxSocketPath = 107

// Names in the runtime directory.
func socketPath(runtime string) string { return filepath.Join(runtime, "elector.sock") }
func lockPath(runtime string) string   { return filepath.Join(runtime, "elector.lock") }
