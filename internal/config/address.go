package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// maxUnixPath is the longest path that a unix socket's address holds, without
// its final NUL.
const maxUnixPath = 107

// String returns the form that [ParseListen] and [ParseBackendAddress] read; ""
// for the zero Address.
func (a Address) String() string {
	switch {
	case a.Path != "":
		return "unix:" + a.Path
	case a.Host != "":
		return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
	case a.Addr.IsValid():
		return netip.AddrPortFrom(a.Addr, a.Port).String()
	case a.Port != 0:
		return ":" + strconv.Itoa(int(a.Port))
	}
	return ""
}

// IsUnix reports whether a is a unix socket.
func (a Address) IsUnix() bool { return a.Path != "" }

// IsValid reports whether a is an address at all.
func (a Address) IsValid() bool { return a != Address{} }

// AddrPort returns the IP address and port; its address is invalid for a unix
// socket, a host name, and a port alone.
func (a Address) AddrPort() netip.AddrPort { return netip.AddrPortFrom(a.Addr, a.Port) }

// MarshalText returns String.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// ParseListen understands where a service listens: ADDRESS:PORT, [IPv6]:PORT,
// :PORT for every address of the machine, and unix:/path. Port 0 is understood
// with an address. The error begins with s in quotes and says what to write.
func ParseListen(s string) (Address, error) {
	a, host, err := parseAddress(s, true)
	if err != nil {
		return Address{}, err
	}
	switch {
	case host == "" || a.Addr.IsValid():
		if a == (Address{}) {
			return a, fmt.Errorf("%q would be another port for each address family; write 127.0.0.1:0 or [::1]:0", s)
		}
		return a, nil
	case host == "*":
		return Address{}, fmt.Errorf("%q has a *; write :%d for every address", s, a.Port)
	case numeric(host):
		return Address{}, fmt.Errorf("%q: %s is no IP address; an IPv4 address has four numbers from 0 to 255", s, host)
	}
	return Address{}, fmt.Errorf("%q names a host; a service listens on an address: write 127.0.0.1:%d, or :%d for every address", s, a.Port, a.Port)
}

// ParseBackendAddress understands where a backend is reached: ADDRESS:PORT,
// [IPv6]:PORT, NAME:PORT and unix:/path. The error begins with s in quotes and
// says what to write.
func ParseBackendAddress(s string) (Address, error) {
	a, host, err := parseAddress(s, false)
	switch {
	case err != nil:
		return Address{}, err
	case a.IsUnix():
		return a, nil
	case a.Port == 0:
		return Address{}, fmt.Errorf("%q: port 0 cannot be connected to; write a number from 1 to 65535", s)
	case host == "":
		return Address{}, fmt.Errorf("%q has no address; write 127.0.0.1:%d for that port of this host", s, a.Port)
	case a.Addr.IsValid():
		return a, nil
	case numeric(host):
		return Address{}, fmt.Errorf("%q: %s is no IP address; an IPv4 address has four numbers from 0 to 255", s, host)
	}
	if err := checkHost(host); err != nil {
		return Address{}, fmt.Errorf("%q: %w", s, err)
	}
	a.Host = host
	return a, nil
}

// parseAddress takes s apart; what stands before the port is in a.Addr where it
// is an IP address, and as it is in host.
func parseAddress(s string, listen bool) (a Address, host string, err error) {
	if rest, ok := strings.CutPrefix(s, "unix://"); ok {
		return a, "", fmt.Errorf("%q: write it without the two slashes, as unix:/%s", s, printable(strings.TrimLeft(rest, "/")))
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if err := checkUnixPath(path); err != nil {
			return a, "", fmt.Errorf("%q: %w", s, err)
		}
		return Address{Path: path}, "", nil
	}
	if err := notAnAddress(s, listen); err != nil {
		return a, "", err
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return a, "", fmt.Errorf("%q is not ADDRESS:PORT, [IPv6]:PORT or unix:/path", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || port[0] == '+' {
		return a, "", fmt.Errorf("%q: %q is not a port number; write one from 1 to 65535", s, port)
	}
	a.Port = uint16(n)
	ip, err := netip.ParseAddr(host)
	if err == nil {
		a.Addr = ip.Unmap()
		if z := ip.Zone(); len(z) > 15 || strings.ContainsFunc(z, func(c rune) bool { return c <= ' ' || c == '/' || c > '~' }) {
			return a, "", fmt.Errorf("%q: %s is no name of an interface; it has at most 15 characters", s, quote(z))
		}
		if ip.Is6() && !strings.HasPrefix(s, "[") {
			return a, "", fmt.Errorf("%q: an IPv6 address stands in brackets before its port", s)
		}
	} else if strings.HasPrefix(s, "[") || strings.Contains(host, ":") {
		return a, "", fmt.Errorf("%q: %q is no IPv6 address", s, host)
	}
	return a, host, nil
}

// notAnAddress recognises what people write instead of an address.
func notAnAddress(s string, listen bool) error {
	for _, scheme := range []string{"tcp://", "http://", "https://"} {
		if strings.HasPrefix(s, scheme) {
			return fmt.Errorf("%q: write it without %s, as ADDRESS:PORT", s, scheme)
		}
	}
	switch _, err := strconv.ParseUint(s, 10, 16); {
	case s == "":
		return errors.New(`"" is no address; write ADDRESS:PORT, [IPv6]:PORT or unix:/path`)
	case err == nil && !listen:
		return fmt.Errorf("%q is a number; write 127.0.0.1:%s for that port of this host", s, s)
	case err == nil:
		return fmt.Errorf("%q is a number; write :%s for that port on every address", s, s)
	case strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./"):
		return fmt.Errorf("%q is a path; write unix:%s for a unix socket", s, printable(s))
	}
	if i := strings.LastIndexByte(s, ':'); i > 0 && strings.Trim(s[i+1:], "0123456789") == "" && s[i+1:] != "" && s[0] != '[' {
		if ip, err := netip.ParseAddr(s[:i]); err == nil && ip.Is6() {
			return fmt.Errorf("%q: an IPv6 address stands in brackets before its port; write [%s]%s", s, printable(s[:i]), s[i:])
		}
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && !strings.Contains(s, "]:") {
		form := fmt.Sprintf("%v:PORT", ip)
		if ip.Is6() {
			form = fmt.Sprintf("[%v]:PORT", ip)
		}
		return fmt.Errorf("%q has no port; write %s", s, printable(form))
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return fmt.Errorf("%q is a network; write the one address, and its port: %v:PORT", s, p.Addr())
	}
	if !strings.Contains(s, ":") && !numeric(s) && checkHost(s) == nil {
		if listen {
			return fmt.Errorf("%q is no address; write ADDRESS:PORT, or :PORT for every address", s)
		}
		return fmt.Errorf("%q has no port; write %s:PORT", s, printable(s))
	}
	return nil
}

// checkUnixPath says what is wrong with the path of a unix socket, "" for
// nothing. Whether it is absolute is for the caller to judge.
func checkUnixPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path of the unix socket is missing; write unix:/path")
	case len(path) > maxUnixPath:
		return fmt.Errorf("the path of a unix socket has at most %d bytes, this one has %d; choose a shorter one", maxUnixPath, len(path))
	case strings.ContainsFunc(path, control):
		return errors.New("a path has no control characters; leave them out")
	}
	return nil
}

// checkHost says what is wrong with a host name.
func checkHost(host string) error {
	name := strings.TrimSuffix(host, ".")
	if name == "" || len(name) > 253 {
		return fmt.Errorf("%s is no host name; one has 1 to 253 characters", quote(host))
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return fmt.Errorf("%s is no host name; there is nothing between two of its dots", quote(host))
		case len(label) > 63:
			return fmt.Errorf("%s is no host name; there are at most 63 characters between two dots", quote(host))
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("%s is no host name; a part of one does not begin or end with -", quote(host))
		}
		for _, c := range label {
			if !letter(c) && !digit(c) && c != '-' && c != '_' {
				return fmt.Errorf("%s is no host name; %q does not occur in one", quote(host), c)
			}
		}
	}
	return nil
}

// numeric reports whether host looks like an IPv4 address.
func numeric(host string) bool { return host != "" && strings.Trim(host, "0123456789.") == "" }

func letter(c rune) bool  { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func digit(c rune) bool   { return c >= '0' && c <= '9' }
func control(c rune) bool { return c < ' ' || c >= 0x7f && c <= 0x9f }

// covers reports whether a listener on a leaves no room for one on b, another
// address: one of them is every address of the machine.
func (a Address) covers(b Address) bool {
	if a.IsUnix() || b.IsUnix() || a.Port != b.Port {
		return false
	}
	switch {
	case !a.Addr.IsValid():
		return true
	case !a.Addr.IsUnspecified():
		return false
	}
	return b.Addr.IsValid() && a.Addr.Is4() == b.Addr.Is4()
}

// same reports whether a and b are one place.
func (a Address) same(b Address) bool {
	if a.IsUnix() && b.IsUnix() {
		return filepath.Clean(a.Path) == filepath.Clean(b.Path)
	}
	return a == b
}

// reaches reports whether connecting to a surely arrives at a listener on b.
func (a Address) reaches(b Address) bool {
	local := a.Addr.IsLoopback() || a.Host == "localhost"
	switch {
	case a.same(b):
		return true
	case !local || a.IsUnix() || b.IsUnix() || a.Port != b.Port:
		return false
	case a.Host != "":
		return !b.Addr.IsValid() || b.Addr.IsUnspecified() || b.Addr == netip.IPv6Loopback() || b.Addr == netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return b.covers(a)
}

// String returns the mode in octal, as in the file.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// MarshalText returns String.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText understands an octal number of three or four digits.
func (m *Mode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || len(text) < 3 || len(text) > 4 || !digit(rune(text[0])) {
		return fmt.Errorf("%s is no mode; write three or four octal digits, as %q", quote(string(text)), "0660")
	}
	*m = Mode(n)
	return nil
}

// Kind returns the word for the kind of check: tcp, http, exchange, command or
// none.
func (h *Health) Kind() string {
	switch {
	case h.HTTP != nil:
		return "http"
	case h.Exchange != nil:
		return "exchange"
	case h.Command != nil:
		return "command"
	case h.None != nil:
		return "none"
	}
	return "tcp"
}

// Target returns what a tcp, http or exchange check sets besides; nil for the
// other kinds.
func (h *Health) Target() *Target {
	switch {
	case h.HTTP != nil:
		return &h.HTTP.Target
	case h.Exchange != nil:
		return &h.Exchange.Target
	case h.Command != nil || h.None != nil:
		return nil
	case h.TCP != nil:
		return &h.TCP.Target
	}
	return nil
}
