//go:build !linux

package connected

import (
	"errors"
	"net/netip"
)

// system has no sockets that could be watched.
func system() kernel {
	never := errors.New("sockets can only be watched on Linux")
	return kernel{
		trace: func([]netip.Addr) (tracer, error) { return nil, never },
		list:  func() (lister, error) { return nil, never },
		boot:  func() int64 { return 0 },
	}
}
