//go:build linux

package own

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
)

// probesPerSecond is how often each client connects around a takeover: a gap is
// known to 2 ms.
const probesPerSecond = 500

// A takeover is what clients and the wire see of one.
type takeover struct {
	*arena
	onLink, routed *asker

	at      time.Time
	claimed time.Duration // from the fault until another node says that it has the address
	near    time.Duration // the longest time after the fault in which no client beside the nodes was served
	far     time.Duration // the same for those behind the router
}

// startTakeover lets clients connect, each so often a second, and waits until they are served.
func (a *arena) startTakeover(ctx context.Context, perSecond int) (*takeover, error) {
	t := &takeover{arena: a}
	var err error
	if t.onLink, err = a.ask(ctx, "client1", perSecond, connectPatience); err != nil {
		return nil, err
	}
	if t.routed, err = a.ask(ctx, "far1", perSecond, connectPatience); err != nil {
		return nil, err
	}
	for _, k := range []*asker{t.onLink, t.routed} {
		if err := k.served(ctx, 10); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// connectPatience is how long a client waits: a SYN that was lost is sent again
// after 1 s and 3 s.
const connectPatience = 5 * time.Second

// play breaks the owner, at a moment that the seed decides, and waits until the
// other node has the address and everybody is served again.
func (t *takeover) play(ctx context.Context, fault func() (time.Time, error)) error {
	if err := scene.Pause(ctx, time.Duration(t.Rand().Int64N(int64(50*time.Millisecond)))); err != nil {
		return err
	}
	if owner := t.owner(); owner != t.nodes[0].Name() {
		return fmt.Errorf("%s owns the address before anything was done: the machine has made its owner look dead", owner)
	}
	var err error
	if t.at, err = fault(); err != nil {
		return err
	}
	return t.await(ctx)
}

// owner is whose advert was the last one on the wire.
func (a *arena) owner() string {
	seen := a.watch.Seen()
	for i := len(seen) - 1; i >= 0; i-- {
		if seen[i].Sort == lab.Advertised && seen[i].Priority > 0 {
			return seen[i].Host
		}
	}
	return "nobody"
}

// await waits for the takeover after the fault.
func (t *takeover) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, scene.Never)
	defer cancel()
	owner, vip := t.nodes[0].Name(), t.vip.Addr()
	first, err := t.watch.Await(ctx, func(s lab.Seen) bool { return s.Host != owner && s.Time.After(t.at) && s.Claims(vip) })
	if err != nil {
		return fmt.Errorf("nobody has taken the address: %w", err)
	}
	t.claimed = first.Time.Sub(t.at)
	for _, k := range []struct {
		*asker
		took *time.Duration
	}{{t.onLink, &t.near}, {t.routed, &t.far}} {
		if err := until(ctx, k.name+" is served after the takeover", func() (served bool, err error) {
			*k.took, served = gap(k.all(), t.at, first.Time)
			return served, nil
		}); err != nil {
			return err
		}
	}
	return nil
}
