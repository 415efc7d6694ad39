//go:build linux

package rtnl

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// Flags of an address that the netlink library does not name.
const (
	flagNoDAD         = 0x02  // IFA_F_NODAD
	flagDADFailed     = 0x08  // IFA_F_DADFAILED
	flagDeprecated    = 0x20  // IFA_F_DEPRECATED
	flagTentative     = 0x40  // IFA_F_TENTATIVE
	flagNoPrefixRoute = 0x200 // IFA_F_NOPREFIXROUTE
)

// Address is an address on a link.
type Address struct {
	Prefix netip.Prefix // the address itself, with the length of its network
	// NoPrefixRoute leaves the route to the address's network to the caller.
	NoPrefixRoute bool
	// NoDAD makes an IPv6 address usable at once, without duplicate address
	// detection. The kernel joins the address's solicited-node group a little
	// later, and does not say when.
	NoDAD bool
	// Valid is how long the kernel keeps the address unless it is replaced, in
	// whole seconds; 0 = for ever. In a list it is what is left, rounded down; 1 ns
	// stands for less than a second.
	Valid time.Duration
	// Preferred is how long the kernel may choose the address as a source by
	// itself, at most Valid; 0 = not at all, unless Valid is 0 too. In a list
	// it is what is left.
	Preferred time.Duration

	// What the kernel says of an address in a list.
	Tentative  bool // duplicate address detection runs, or has failed
	Duplicate  bool // it has failed: another host has the address
	Deprecated bool // not chosen as a source
}

// forEver is the kernel's word for a lifetime without an end, in seconds.
const forEver = math.MaxUint32

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (a Address) toNetlink() (*netlink.Addr, error) {
	addr := &netlink.Addr{IPNet: ipNet(a.Prefix)}
	if a.NoDAD && a.Prefix.Addr().Is6() {
		addr.Flags |= flagNoDAD
	}
	if a.NoPrefixRoute {
		addr.Flags |= flagNoPrefixRoute
	}
	for _, lifetime := range []struct {
		name string
		d    time.Duration
		to   *int
	}{{"valid", a.Valid, &addr.ValidLft}, {"preferred", a.Preferred, &addr.PreferedLft}} {
		s := lifetime.d / time.Second
		if lifetime.d < 0 || lifetime.d%time.Second != 0 || s >= forEver {
			return nil, fmt.Errorf("%s lifetime %s: it must be whole seconds, less than %d", lifetime.name, lifetime.d, uint32(forEver))
		}
		*lifetime.to = int(s)
	}
	if a.Preferred > a.Valid {
		return nil, fmt.Errorf("preferred lifetime %s: it is longer than the valid one, %s", a.Preferred, a.Valid)
	}
	return addr, nil
}

// AddAddress gives a link an address. Of IPv6 the kernel may answer for it, and
// route to it, a moment later: a work queue of its own does that.
func (h *Handle) AddAddress(index int, a Address) error {
	addr, err := a.toNetlink()
	if err == nil {
		err = h.h.AddrAdd(byIndex(index), addr)
	}
	return opErr("add address", a.Prefix.String(), err)
}

// ReplaceAddress gives a link an address, or gives one that it has new
// lifetimes.
func (h *Handle) ReplaceAddress(index int, a Address) error {
	addr, err := a.toNetlink()
	if err == nil {
		err = h.h.AddrReplace(byIndex(index), addr)
	}
	return opErr("replace address", a.Prefix.String(), err)
}

// DeleteAddress takes an address from a link.
func (h *Handle) DeleteAddress(index int, a netip.Prefix) error {
	return opErr("delete address", a.String(), h.h.AddrDel(byIndex(index), &netlink.Addr{IPNet: ipNet(a)}))
}

// Addresses lists the addresses of a link, of both families.
func (h *Handle) Addresses(index int) ([]Address, error) {
	addrs, err := whole(func() ([]netlink.Addr, error) { return h.h.AddrList(byIndex(index), netlink.FAMILY_ALL) })
	if err != nil {
		return nil, opErr("list addresses of link", fmt.Sprint(index), err)
	}
	list := make([]Address, 0, len(addrs))
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue // neither IPv4 nor IPv6
		}
		ones, _ := a.Mask.Size()
		list = append(list, fromKernel(netip.PrefixFrom(ip, ones), uint32(a.Flags), uint32(a.ValidLft), uint32(a.PreferedLft)))
	}
	return list, nil
}

// fromKernel is an address as the kernel tells it, with lifetimes in seconds.
func fromKernel(p netip.Prefix, flags, valid, preferred uint32) Address {
	a := Address{
		Prefix:        p,
		NoPrefixRoute: flags&flagNoPrefixRoute != 0,
		NoDAD:         flags&flagNoDAD != 0,
		Tentative:     flags&flagTentative != 0,
		Duplicate:     flags&flagDADFailed != 0,
		Deprecated:    flags&flagDeprecated != 0,
	}
	if valid != forEver {
		// The kernel counts whole seconds, and says 0 until it takes the address.
		a.Valid = max(time.Duration(valid)*time.Second, 1)
	}
	if preferred != forEver {
		a.Preferred = time.Duration(preferred) * time.Second
	}
	return a
}

// Tentative reports whether the link has an IPv6 address that cannot be used
// yet: neighbours would get no answer for it.
func (h *Handle) Tentative(index int) (bool, error) {
	addrs, err := h.Addresses(index)
	return slices.ContainsFunc(addrs, func(a Address) bool { return a.Tentative && a.Prefix.Addr().Is6() }), err
}

// interrupted is how often a list is asked for again that changed while the
// kernel told it.
const interrupted = 10

// whole asks for a list until it is told in one piece.
func whole[T any](ask func() ([]T, error)) (list []T, err error) {
	for range interrupted {
		if list, err = ask(); !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	return list, err
}
