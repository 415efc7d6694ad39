//go:build linux

package relay

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// gate decides which clients are let in.
type gate struct {
	live     atomic.Int64           // connections, and clients on their way to a loop
	limit    atomic.Pointer[bound]  // never nil
	closed   atomic.Pointer[string] // why every client is refused; nil: admitted
	fallback int                    // what the descriptors allow

	byLimit, byRefuse, byDescriptors atomic.Uint64
}

// A bound is the largest number of connections, and the sentence for those
// beyond.
type bound struct {
	most   int
	detail string
}

func newBound(most int) *bound {
	return &bound{most: most, detail: fmt.Sprintf("%d connections are there, as many as there may be at one time", most)}
}

// enter lets one client in, or says why not. Loops that ask at the same time
// never let in more than the bound, and never refuse below it.
func (g *gate) enter() (why string) {
	if why := g.closed.Load(); why != nil {
		g.byRefuse.Add(1)
		return *why
	}
	b := g.limit.Load()
	for {
		n := g.live.Load()
		if n >= int64(b.most) {
			g.byLimit.Add(1)
			return b.detail
		}
		if g.live.CompareAndSwap(n, n+1) {
			return ""
		}
	}
}

func (g *gate) leave() { g.live.Add(-1) }

// descriptorReserve is what the default limit leaves for listeners, checks and
// whatever else the program opens: an eighth of the descriptors, at most this.
const descriptorReserve = 64

// connectionsThatFit is how many connections the descriptors allow that are
// left to the process.
func connectionsThatFit(limit uint64) int {
	const forConnection = 2
	open, err := sys.OpenFiles()
	if err != nil {
		open = 0 // no /proc: the reserve has to do
	}
	left := max(int64(min(limit, 1<<31))-int64(open), 0)
	return int(max((left-min(left/8, descriptorReserve))/forConnection, 1))
}

// SetMaxConnections sets how many connections the relay carries at a time, at
// once. Clients beyond are accepted and reset ([CauseResources]); connections
// that are there stay. 0 or less sets what the descriptors allow, as
// Options.MaxConnections does.
func (r *Relay) SetMaxConnections(n int) {
	if n <= 0 {
		n = r.gate.fallback
	}
	r.gate.limit.Store(newBound(n))
}

// MaxConnections returns how many connections the relay carries at most.
func (r *Relay) MaxConnections() int { return r.gate.limit.Load().most }

// Refuse has every new client accepted and reset ([CauseResources], with why as
// the Detail), until Refuse("") admits them again. Connections that are there
// carry on.
func (r *Relay) Refuse(why string) {
	if why == "" {
		r.gate.closed.Store(nil)
		return
	}
	r.gate.closed.Store(&why)
}

// Count returns how many connections there are now, those included that are
// still being made.
func (r *Relay) Count() int { return int(r.gate.live.Load()) }

// Refusals counts clients that were refused because something ran out.
type Refusals struct {
	MaxConnections uint64 // the relay carried as many as it may
	Refuse         uint64 // Refuse was in force
	Descriptors    uint64 // the process had no descriptor left, for the client or its backend
}

// Refusals returns the counts since New.
func (r *Relay) Refusals() Refusals {
	return Refusals{
		MaxConnections: r.gate.byLimit.Load(), Refuse: r.gate.byRefuse.Load(), Descriptors: r.gate.byDescriptors.Load(),
	}
}

// Ping returns nil once every loop has answered. Otherwise the error says which
// have not when ctx ended; one that matches net.ErrClosed is of a relay that
// does not run.
func (r *Relay) Ping(ctx context.Context) error {
	if !r.isRunning() {
		return fmt.Errorf("relay: it does not run: %w", net.ErrClosed)
	}
	answers := make(chan int, len(r.loops))
	for i, l := range r.loops {
		if !l.post(func() { answers <- i }) {
			return fmt.Errorf("relay: loop %d has ended: %w", i+1, net.ErrClosed)
		}
	}
	answered := make([]bool, len(r.loops))
	for range r.loops {
		select {
		case i := <-answers:
			answered[i] = true
		case <-ctx.Done():
			var silent []string
			for i, ok := range answered {
				if !ok {
					silent = append(silent, fmt.Sprint(i+1))
				}
			}
			if len(silent) == 0 {
				return nil
			}
			return fmt.Errorf("relay: no answer from loop %s of %d: %w", strings.Join(silent, ", "), len(r.loops), context.Cause(ctx))
		}
	}
	return nil
}
