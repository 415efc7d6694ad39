//go:build linux

package own

import (
	"context"
	"time"

	"github.com/holdfast-net/holdfast/announce"
)

// asks lets a host ask all others, again and again, who has the address, as a
// neighbour does that has never heard of it: a kernel that answers is seen. end
// ends it.
func (a *arena) asks(ctx context.Context, host string, every time.Duration) (end func(), err error) {
	h := a.lab.Host(host)
	link := h.Links()[0]
	s, err := link.Sender()
	if err != nil {
		return nil, err
	}
	frame := announce.Ask(nil, link.MAC(), h.Addr(a.Family), a.vip.Addr())
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if s.Send(frame) != nil {
					return // the lab is closing
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		stop()
		<-done
		_ = s.Close()
	}, nil
}
