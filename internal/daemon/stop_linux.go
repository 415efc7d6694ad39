package daemon

import (
	"context"
	"os"
	"slices"
	"sync"

	"github.com/holdfast-net/holdfast/relay"
)

// beginStop refuses further changes, and waits for one under way.
func (d *Daemon) beginStop(why string) {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.setStopping()
	d.nodeEvent("stopping", why)
}

// drain lets connections end by themselves, as far as the services say, those of
// removed ones too.
func (d *Daemon) drain(ctx context.Context, signals <-chan os.Signal, sig os.Signal) {
	ctx, now := context.WithCancel(ctx)
	defer now()
	var wg sync.WaitGroup
	d.mu.Lock()
	services := slices.Concat(d.services, d.leaving)
	d.mu.Unlock()
	for _, s := range services {
		attrs := []any{"signal", sig.String(), "service", s.name, "connections", s.relay.Live()}
		bounds := s.file.Relay.Drain
		if bounds == (relay.Drain{}) {
			d.log.Info("stopping: every connection is told at once", attrs...)
			wg.Go(func() { s.relay.Drain(ended()) })
			continue
		}
		d.log.Info("stopping: no new clients; connections may end by themselves, a second signal tells them at once",
			append(attrs, "drain_timeout", bounds.Timeout.String(), "drain_idle", bounds.Idle.String())...)
		wg.Go(func() { s.relay.Drain(ctx) })
	}
	drained := make(chan struct{})
	go func() {
		wg.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case sig := <-signals:
		d.log.Info("second signal: every connection is told now", "signal", sig.String())
		now()
		<-drained
	case <-ctx.Done():
		<-drained
	}
}

// ended is a context that has ended already.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
