//go:build linux

package traffic

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// FleetOptions says which clients a fleet has.
type FleetOptions struct {
	// Seed makes the clients' IDs, which key their bytes. 0: random ones.
	Seed uint64

	// Groups are the kinds of clients; at least one.
	Groups []Group
}

// Group is a number of clients that do the same.
type Group struct {
	Count  int           // at least 1
	Client ClientOptions // its ID must be 0
}

// A Fleet runs many clients side by side. Make it with NewFleet, run it with
// Run. Its methods may be called from any goroutine.
type Fleet struct {
	clients []*Client
}

// NewFleet makes a fleet that is not connected yet. The error names the group and the option.
func NewFleet(o FleetOptions) (*Fleet, error) {
	f := &Fleet{}
	for i, g := range o.Groups {
		if g.Count < 1 {
			return nil, fmt.Errorf("traffic: Groups[%d]: Count %d is not positive", i, g.Count)
		}
		if g.Client.ID != 0 {
			return nil, fmt.Errorf("traffic: Groups[%d]: ID is set: the fleet's Seed makes the IDs", i)
		}
		for range g.Count {
			opt := g.Client
			if o.Seed != 0 {
				opt.ID = ID(derive(o.Seed, len(f.clients)))
			}
			c, err := NewClient(opt)
			if err != nil {
				return nil, fmt.Errorf("traffic: Groups[%d]: %w", i, err)
			}
			f.clients = append(f.clients, c)
		}
	}
	if len(f.clients) == 0 {
		return nil, errors.New("traffic: Groups is empty: a fleet needs clients")
	}
	return f, nil
}

// Clients returns the fleet's clients, in the order of the groups.
func (f *Fleet) Clients() []*Client { return f.clients }

// Run runs all clients until each has ended or ctx is over, and returns their reports.
func (f *Fleet) Run(ctx context.Context) []Report {
	var wg sync.WaitGroup
	for _, c := range f.clients {
		wg.Go(func() { c.Run(ctx) })
	}
	wg.Wait()
	return f.Reports()
}

// Ready waits until every client has the server's greeting. It fails if one
// ends before, or ctx is over.
func (f *Fleet) Ready(ctx context.Context) error {
	for _, c := range f.clients {
		select {
		case <-c.Ready():
			continue
		default:
		}
		select {
		case <-c.Ready():
		case <-c.Ended():
			select {
			case <-c.Ready(): // both: it was ready first
			default:
				return fmt.Errorf("traffic: a client ended before it was ready: %s", c.Report())
			}
		case <-ctx.Done():
			return fmt.Errorf("traffic: a client is not ready: %s: %w", c.Report(), ctx.Err())
		}
	}
	return nil
}

// Finish asks every client for an orderly end; see Client.Finish.
func (f *Fleet) Finish() {
	for _, c := range f.clients {
		c.Finish()
	}
}

// Reports returns what all clients know now, in the order of the groups.
func (f *Fleet) Reports() []Report {
	reports := make([]Report, len(f.clients))
	for i, c := range f.clients {
		reports[i] = c.Report()
	}
	return reports
}
