//go:build linux

package rtnl

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
)

// lowerUp is the flag of a link whose carrier is there (IFF_LOWER_UP).
const lowerUp = 1 << 16

// Link is a link as it stands.
type Link struct {
	Index   int
	Name    string
	MAC     [6]byte // zero for a link without Ethernet
	MTU     int     // bytes
	Up      bool    // set up by somebody
	Carrier bool    // the cable is in, or what stands for it
}

func fromAttrs(a *netlink.LinkAttrs) Link {
	l := Link{Index: a.Index, Name: a.Name, MTU: a.MTU}
	l.setFlags(a.RawFlags)
	if len(a.HardwareAddr) == len(l.MAC) {
		l.MAC = [6]byte(a.HardwareAddr)
	}
	return l
}

func (l *Link) setFlags(flags uint32) {
	l.Up, l.Carrier = flags&syscall.IFF_UP != 0, flags&lowerUp != 0
}

// Link tells how a link stands.
func (h *Handle) Link(index int) (Link, error) {
	l, err := h.h.LinkByIndex(index)
	if err != nil {
		return Link{}, opErr("read link", fmt.Sprint(index), err)
	}
	return fromAttrs(l.Attrs()), nil
}

// Links lists the namespace's links.
func (h *Handle) Links() ([]Link, error) {
	links, err := whole(h.h.LinkList)
	if err != nil {
		return nil, opErr("list", "links", err)
	}
	list := make([]Link, len(links))
	for i, l := range links {
		list[i] = fromAttrs(l.Attrs())
	}
	return list, nil
}

// valid are the states in which the kernel uses a neighbour's hardware address
// (NUD_VALID).
const valid = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE |
	netlink.NUD_PROBE | netlink.NUD_STALE | netlink.NUD_DELAY

// Neighbour tells which hardware address the kernel uses for a neighbour on a
// link; ok is false if it knows none. It asks nobody.
func (h *Handle) Neighbour(index int, addr netip.Addr) (mac [6]byte, ok bool, err error) {
	family := netlink.FAMILY_V6
	if addr = addr.Unmap().WithZone(""); addr.Is4() {
		family = netlink.FAMILY_V4
	}
	list, err := whole(func() ([]netlink.Neigh, error) { return h.h.NeighList(index, family) })
	if err != nil {
		return mac, false, opErr("look up neighbour", addr.String(), err)
	}
	for _, n := range list {
		if n.State&valid != 0 && len(n.HardwareAddr) == len(mac) && bytes.Equal(n.IP, addr.AsSlice()) {
			return [6]byte(n.HardwareAddr), true, nil
		}
	}
	return mac, false, nil
}

// Neighbour is a host on a link whose MAC the kernel knows.
type Neighbour struct {
	Addr netip.Addr
	MAC  [6]byte
}

// Neighbours lists those of one family that the kernel knows on a link: whom it
// has talked to lately, by that address.
func (h *Handle) Neighbours(index int, six bool) ([]Neighbour, error) {
	family := netlink.FAMILY_V4
	if six {
		family = netlink.FAMILY_V6
	}
	list, err := whole(func() ([]netlink.Neigh, error) { return h.h.NeighList(index, family) })
	if err != nil {
		return nil, opErr("list neighbours on link", fmt.Sprint(index), err)
	}
	var all []Neighbour
	for _, n := range list {
		addr, ok := netip.AddrFromSlice(n.IP)
		if ok && n.State&valid != 0 && len(n.HardwareAddr) == 6 && !addr.IsMulticast() {
			all = append(all, Neighbour{addr, [6]byte(n.HardwareAddr)})
		}
	}
	return all, nil
}

// Path is the way that the kernel would take to an address.
type Path struct {
	Index  int        // link
	Via    netip.Addr // gateway; invalid = the address is on the link
	Source netip.Addr // the source address that the kernel would choose
}

// ErrNoPath says that no route leads to an address.
var ErrNoPath = errors.New("no route leads there")

// PathTo asks the kernel how it would reach an address.
func (h *Handle) PathTo(addr netip.Addr) (Path, error) {
	routes, err := h.h.RouteGet(addr.Unmap().AsSlice())
	switch {
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), err == nil && len(routes) == 0:
		err = ErrNoPath
	case err == nil:
		p := Path{Index: routes[0].LinkIndex}
		if via, ok := netip.AddrFromSlice(routes[0].Gw); ok {
			p.Via = via.Unmap()
		}
		if src, ok := netip.AddrFromSlice(routes[0].Src); ok {
			p.Source = src.Unmap()
		}
		return p, nil
	}
	return Path{}, opErr("find the way to", addr.String(), err)
}
