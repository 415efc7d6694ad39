package sys

import (
	"net"
	"strconv"
)

// zoneName and zoneID translate the scope of a link-local IPv6 address. They
// look the interface up each time: link-local clients are rare, and a cache
// would outlive a renamed interface.

func zoneName(id uint32) string {
	if ifi, err := net.InterfaceByIndex(int(id)); err == nil {
		return ifi.Name
	}
	return strconv.FormatUint(uint64(id), 10)
}

func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}
