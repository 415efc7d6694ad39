package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// Options configures an [Owner]. The zero value owns nothing until
// [Owner.Configure].
type Options struct {
	// Groups are owned from the start.
	Groups []Group

	// OnChange is told what happens, in order, on a goroutine of its own. If it
	// is slower than what happens, changes of other kinds than KindRole are
	// dropped, and counted in [Owner.Lost].
	OnChange func(Change)

	// OnBeat is given what the other Owner's Deliver is to get, at most MaxBeat
	// bytes; one after the other where the groups have more to say. It runs on
	// the loop: it must not block, must not keep beat, and must not call into
	// the Owner.
	OnBeat func(beat []byte)

	// Steps are done by others in a takeover or a release.
	Steps []Step

	// Resume is what the Owner before this one has returned from [Owner.Hand].
	Resume []byte

	// Logger receives what happens; nil discards it. It is called on the
	// goroutine of OnChange.
	Logger *slog.Logger
}

func (o Options) check() (Options, error) {
	var errs []error
	errs = append(errs, CheckAll(o.Groups))
	o.Steps = slices.Clone(o.Steps)
	for i, s := range o.Steps {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("vip: Options.Steps[%d] (%s): %s", i, s.Name, fmt.Sprintf(format, args...)))
		}
		if s.Do == nil {
			bad("Do is nil; a step does something")
		}
		if s.When < BeforeAddress || s.When > AfterWithdraw {
			bad("When is %v; it must be a place of Order", s.When)
		}
		if s.Bound < 0 || s.Bound > MaxStepBound {
			bad("Bound is %v; it must be 0 to %v", s.Bound, MaxStepBound)
		}
		if s.Bound == 0 {
			o.Steps[i].Bound = DefaultStepBound
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, errors.Join(errs...)
}
