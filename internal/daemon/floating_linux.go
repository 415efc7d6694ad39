package daemon

import (
	"context"
	"net/netip"
	"time"
)

// How a daemon lets the connections of an address end that moves.
const (
	drainLook    = 20 * time.Millisecond // how often it is looked whether any is left
	drainAtLeast = 50 * time.Millisecond // until clients know where the address is
)

// CountAddresses counts the connections that came to one of the addresses.
func (d *Daemon) CountAddresses(addresses []netip.Addr) int { return d.relay.CountAddresses(addresses) }

// DrainAddresses waits until no connection that came to one of the addresses is
// left, a moment at least, or until ctx ends. New ones go to another node
// already.
func (d *Daemon) DrainAddresses(ctx context.Context, addresses []netip.Addr) {
	began := time.Now()
	ticker := time.NewTicker(drainLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if time.Since(began) >= drainAtLeast && d.relay.CountAddresses(addresses) == 0 {
			return
		}
	}
}

// ResetAddresses tells both ends of the connections that came to one of the
// addresses, because of why, and returns how many there were.
func (d *Daemon) ResetAddresses(addresses []netip.Addr, why string) int {
	return d.relay.ResetAddresses(addresses, why)
}
