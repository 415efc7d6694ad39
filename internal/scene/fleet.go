//go:build linux

package scene

import (
	"cmp"
	"context"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// GiveUp is when nobody waits any more for somebody to be told.
const GiveUp = 10 * time.Second

// Never is how long a scene goes on waiting for what is overdue, on a machine
// that may be busy, before it says that it does not come. Times have bounds of
// their own.
const Never = 30 * time.Second

// DialFrom dials from a host.
func DialFrom(h *lab.Host) traffic.DialFunc { return traffic.DialWithin(h.Do) }

// A Fleet is one that runs; it is ended before its lab is closed.
type Fleet struct {
	*traffic.Fleet
	stop context.CancelFunc
	done chan struct{}
}

// RunFleet starts a fleet and waits until every client is served.
func RunFleet(ctx context.Context, seed uint64, groups []traffic.Group) (*Fleet, error) {
	f, err := traffic.NewFleet(traffic.FleetOptions{Seed: seed, Groups: groups})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	r := &Fleet{Fleet: f, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		f.Run(ctx)
	}()
	if err := f.Ready(ctx); err != nil {
		r.End()
		return nil, err
	}
	return r, nil
}

// End stops the clients that still run and waits for them.
func (r *Fleet) End() {
	r.stop()
	<-r.done
}

// Done is closed when every client has ended.
func (r *Fleet) Done() <-chan struct{} { return r.done }

// Pause waits, as a story has its pauses; nothing depends on what happens in
// the meantime.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return cmp.Or(context.Cause(ctx), ctx.Err())
	}
}
