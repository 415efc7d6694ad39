//go:build linux

package own

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-net/holdfast/internal/scene"
)

// Death is what came of the death of an owner's host.
type Death struct {
	Claimed time.Duration // until another node said that it has the address
	OnLink  time.Duration // in which no client beside the nodes was served
	Routed  time.Duration // in which no client behind a router was served
}

// MeasureDeath lets the host of an owner lose its power, with adverts every
// interval and a server on every address of both nodes: nodes of Holdfast, or of
// keepalived. installed is false where there is no keepalived.
func MeasureDeath(ctx context.Context, e *scene.Env, interval time.Duration, keepalived bool) (d Death, installed bool, err error) {
	if keepalived {
		r, err := besideKeepalived(ctx, e, interval, 0)
		if err != nil || r == nil {
			return Death{}, false, err
		}
		return Death{r.claimed, r.near, r.far}, true, nil
	}
	a, err := newArena(ctx, e, arenaPlan{})
	if err != nil {
		return Death{}, false, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.serve(ctx); err != nil {
		return Death{}, false, err
	}
	if _, err := a.startPair(ctx, pairPlan{interval: interval}); err != nil {
		return Death{}, false, err
	}
	t, err := a.startTakeover(ctx, probesPerSecond)
	if err != nil {
		return Death{}, false, err
	}
	if err := t.play(ctx, a.nodes[0].Die); err != nil {
		return Death{}, false, err
	}
	return Death{t.claimed, t.near, t.far}, true, nil
}
