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

// DrainAddresses lets the connections that came to one of the addresses end by
// themselves, within the bounds of their services' drain, and waits until none is
// left that has such bounds: a moment at least, until ctx ends at most. Then the
// bounds are lifted again from those that are left. New ones go to another node
// already.
func (d *Daemon) DrainAddresses(ctx context.Context, addresses []netip.Addr) {
	defer d.relay.KeepAddresses(addresses)
	began := time.Now()
	ticker := time.NewTicker(drainLook)
	defer ticker.Stop()
	for {
		left := d.relay.DrainAddresses(addresses)
		if left == 0 && time.Since(began) >= drainAtLeast {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// ResetAddresses tells both ends of the connections that came to one of the
// addresses, because of why, and returns how many there were.
func (d *Daemon) ResetAddresses(addresses []netip.Addr, why string) int {
	return d.relay.ResetAddresses(addresses, why)
}
