package sourceport

import (
	"fmt"
	"net/netip"
)

// Origins says for each address of some groups where connections to backends come
// from, for who has come to that address. It does not change.
type Origins map[netip.Addr]origin

// An origin is an address for backends of each family; the zero Addr is none.
type origin struct{ v4, v6 netip.Addr }

// NewOrigins takes groups of addresses that move as one. The error says which is
// none, as [0][1], and why.
func NewOrigins(groups [][]netip.Addr) (Origins, error) {
	all := make(Origins)
	for i, group := range groups {
		var first origin
		for j, a := range group {
			switch _, known := all[a]; {
			case !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.Is6() && a.IsLinkLocalUnicast():
				return nil, fmt.Errorf("[%d][%d] is %v; it must be an address that is the same on every link", i, j, a)
			case known:
				return nil, fmt.Errorf("[%d][%d]: %v is there twice", i, j, a)
			case a.Is4() && !first.v4.IsValid():
				first.v4 = a
			case a.Is6() && !first.v6.IsValid():
				first.v6 = a
			}
			all[a] = origin{}
		}
		for _, a := range group {
			o := first
			if a.Is4() {
				o.v4 = a
			} else {
				o.v6 = a
			}
			all[a] = o
		}
	}
	return all, nil
}

// Has reports whether an address is in one of the groups.
func (all Origins) Has(a netip.Addr) bool {
	_, ok := all[a]
	return ok
}

// Of is where a connection to a backend comes from, for who has come to an address:
// from that one, or from the first of the backend's family in its group. The zero
// Addr: from none of them.
func (all Origins) Of(local, backend netip.Addr) netip.Addr {
	o := all[local]
	switch {
	case !backend.IsValid() || backend.IsLoopback() || backend.Is6() && backend.IsLinkLocalUnicast():
		return netip.Addr{}
	case backend.Is4():
		return o.v4
	}
	return o.v6
}
