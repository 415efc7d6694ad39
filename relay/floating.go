//go:build linux

package relay

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// onAddress reports whether the client connected to one of the addresses. It
// asks the kernel: a listener on every address does not tell.
func (p *pair) onAddress(addresses []netip.Addr) bool {
	if !p.client.tcp || p.client.fd < 0 {
		return false
	}
	local, err := sys.LocalAddr(p.client.fd)
	return err == nil && slices.Contains(addresses, local.Addr().Unmap().WithZone(""))
}

// CountAddresses counts the connections whose clients connected to one of the
// addresses, which have no zone.
func (r *Relay) CountAddresses(addresses []netip.Addr) int {
	return r.countAddresses(addresses, func(*pair) bool { return true })
}

// DrainAddresses puts the connections whose clients connected to one of the
// addresses under the bounds of their services' Drain, which count from the first
// call. It returns how many there are that have such bounds: whoever waits for
// them asks again, which also finds who came meanwhile.
func (r *Relay) DrainAddresses(addresses []netip.Addr) int {
	return r.countAddresses(addresses, func(p *pair) bool {
		if !p.leaving {
			p.leaving = true
			if p.stage == stageOpen {
				p.bound()
			}
		}
		return p.service.options.Load().Drain != Drain{}
	})
}

// KeepAddresses takes DrainAddresses back for who is left.
func (r *Relay) KeepAddresses(addresses []netip.Addr) {
	r.countAddresses(addresses, func(p *pair) bool {
		if p.leaving {
			p.leaving = false
			if p.stage == stageOpen {
				p.bound()
			}
		}
		return false
	})
}

// countAddresses visits the connections that came to one of the addresses, and
// counts those for which visit says so.
func (r *Relay) countAddresses(addresses []netip.Addr, visit func(*pair) bool) int {
	var n atomic.Int64
	r.walk((*loop).everything, changeStep, func(*loop) func(*pair) {
		return func(p *pair) {
			if p.onAddress(addresses) && visit(p) {
				n.Add(1)
			}
		}
	})
	return int(n.Load())
}

// ResetAddresses ends the connections whose clients connected to one of the
// addresses, which are about to leave this machine or have left it: both ends get
// a RST at once, the client only while its address is still here. Telling comes
// before everything else that the loops have to do. It returns how many there
// were. why is for people.
func (r *Relay) ResetAddresses(addresses []netip.Addr, why string) int {
	var n atomic.Int64
	r.walk((*loop).everything, oneStep, func(*loop) func(*pair) {
		return func(p *pair) {
			if p.onAddress(addresses) {
				p.reset(CauseAddress, ByRelay, why)
				n.Add(1)
			}
		}
	})
	r.lanes.Anew(func(a netip.Addr) bool { return slices.Contains(addresses, a) })
	return int(n.Load())
}
