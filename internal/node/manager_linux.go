package node

import (
	"context"
	"fmt"
	"time"
)

// How often the service manager hears how things stand, and how much more time
// it is asked for while connections drain.
const (
	tellInterval  = 10 * time.Second
	drainInterval = 5 * time.Second
	drainExtends  = 3 * drainInterval
)

// notified notes that the service manager could not be told: it may draw wrong
// conclusions.
func (n *node) notified(err error) {
	if err != nil {
		n.log.Warn("the service manager could not be told", "err", err)
	}
}

// beat tells the watchdog that the node lives, as long as its event loops and
// checks answer.
func (n *node) beat(ctx context.Context) {
	n.manager.Beat(ctx, n.daemon.Ping, func(err error) { n.log.Error("the watchdog was not fed", "err", err) })
}

// tell tells the service manager how things stand, and asks it for patience
// while connections drain: how long that may take is for drain to say.
func (n *node) tell(ctx context.Context) {
	if n.manager == nil {
		return
	}
	said, stopped := "", n.stopped
	for {
		every := tellInterval
		if n.stopping.Load() {
			every = drainInterval
			n.notified(n.manager.ExtendTimeout(drainExtends))
		}
		if now := n.summary(); now != said {
			n.notified(n.manager.Status(now))
			said = now
		}
		select {
		case <-ctx.Done():
			return
		case <-stopped:
			stopped = nil // once
		case <-time.After(every):
		}
	}
}

// summary is the state in one line.
func (n *node) summary() string {
	s := n.Status()
	up, backends, connections := 0, 0, 0
	for _, service := range s.Services {
		connections += service.Active + service.Inactive
		for _, b := range service.Backends {
			if b.Removed {
				continue
			}
			backends++
			if b.State != "down" {
				up++
			}
		}
	}
	return fmt.Sprintf("%s: services %d, backends up %d of %d, connections %d", s.State, len(s.Services), up, backends, connections)
}
