//go:build linux

package relay

import (
	"fmt"
	"net/netip"
	"strings"
)

// An Address is where a service listens or a backend is reached: an IP address
// and port, or the path of a unix socket. It is comparable. The zero Address
// is none.
type Address struct {
	ip   netip.AddrPort
	path string
}

// maxUnixPath is the longest path that fits sockaddr_un with its final NUL.
const maxUnixPath = 107

// ParseAddress understands "10.0.0.1:80", "[2001:db8::1]:80" and
// "unix:/run/app.sock". Host names are the caller's to resolve.
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case path == "":
			return Address{}, fmt.Errorf("address %q: the path of the unix socket is missing", s)
		case len(path) > maxUnixPath:
			return Address{}, fmt.Errorf("address %q: a unix socket's path has at most %d bytes, this one has %d", s, maxUnixPath, len(path))
		case strings.ContainsRune(path, 0):
			return Address{}, fmt.Errorf("address %q: a path cannot contain a NUL byte", s)
		}
		return Address{path: path}, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: want IP:PORT, [IPv6]:PORT or unix:/path", s)
	}
	return AddressFrom(ap), nil
}

// MustParseAddress is [ParseAddress] for constants; it panics on an error.
func MustParseAddress(s string) Address {
	a, err := ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

// AddressFrom makes an Address of an IP address and port.
func AddressFrom(ap netip.AddrPort) Address {
	return Address{ip: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}
}

// IsUnix reports whether a is a unix socket.
func (a Address) IsUnix() bool { return a.path != "" }

// IsValid reports whether a is an address at all.
func (a Address) IsValid() bool { return a.path != "" || a.ip.IsValid() }

// AddrPort returns the IP address and port; the zero value for a unix socket.
func (a Address) AddrPort() netip.AddrPort { return a.ip }

// Path returns the path of a unix socket, "" for an IP address.
func (a Address) Path() string { return a.path }

// Network returns "tcp" or "unix", as package net names them.
func (a Address) Network() string {
	if a.IsUnix() {
		return "unix"
	}
	return "tcp"
}

// String returns the form that [ParseAddress] reads.
func (a Address) String() string {
	switch {
	case a.IsUnix():
		return "unix:" + a.path
	case a.ip.IsValid():
		return a.ip.String()
	}
	return ""
}

// MarshalText is String; UnmarshalText is [ParseAddress].
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText parses b as [ParseAddress] does; an empty text is the zero Address.
func (a *Address) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = Address{}
		return nil
	}
	v, err := ParseAddress(string(b))
	if err == nil {
		*a = v
	}
	return err
}
