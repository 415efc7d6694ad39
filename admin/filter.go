package admin

import (
	"fmt"
	"net/netip"
	"strings"
)

// A ClientFilter is the part of a Filter that says which clients. It is
// comparable; the zero value lets every client pass.
type ClientFilter struct {
	Network netip.Prefix // invalid: any address. A single address is a network of its own
	Zone    string       // of a link-local IPv6 address; "" is any
	Port    uint16       // 0 is any
	Unix    bool         // clients of unix sockets, and no other
}

// clientUnix stands for a client of a unix socket, which has no address.
const clientUnix = "unix"

// ParseClient understands an address (10.0.0.9, 2001:db8::9), an address and
// port as listings print them (10.0.0.9:4711, [2001:db8::9]:4711), a network
// (10.0.0.0/8, 2001:db8::/32), "unix", and "", which is every client. An IPv4
// address written as IPv6 is the IPv4 address.
func ParseClient(s string) (ClientFilter, error) {
	switch s {
	case "":
		return ClientFilter{}, nil
	case clientUnix:
		return ClientFilter{Unix: true}, nil
	}
	if strings.Contains(s, "/") {
		n, err := netip.ParsePrefix(s)
		if err != nil {
			return ClientFilter{}, badClient(s)
		}
		if n.Masked() != n {
			return ClientFilter{}, fmt.Errorf("client %q is an address with a length: write %s for the network, or %s for the address alone", s, n.Masked(), n.Addr())
		}
		if n.Addr().Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
		}
		return ClientFilter{Network: n}, nil
	}
	var addr netip.Addr
	var port uint16
	if both, err := netip.ParseAddrPort(s); err == nil {
		if addr, port = both.Addr(), both.Port(); port == 0 {
			return ClientFilter{}, fmt.Errorf("client %q: there is no port 0; leave it out for any port", s)
		}
	} else {
		alone := s
		if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
			alone = strings.TrimSuffix(inner, "]")
		}
		// A bracket in a zone is a mistake elsewhere: ParseAddr takes any text for one.
		if addr, err = netip.ParseAddr(alone); err != nil || strings.ContainsAny(addr.Zone(), "[]") {
			return ClientFilter{}, badClient(s)
		}
	}
	addr = addr.Unmap()
	return ClientFilter{Network: netip.PrefixFrom(addr, addr.BitLen()), Zone: addr.Zone(), Port: port}, nil
}

func badClient(s string) error {
	return fmt.Errorf("client %q is none of these: an address (10.0.0.9, 2001:db8::9), ADDRESS:PORT ([2001:db8::9]:4711), a network (10.0.0.0/8), unix", s)
}

// Any reports whether every client passes.
func (c ClientFilter) Any() bool { return c == ClientFilter{} }

// Match reports whether a client passes: its address and port, as in
// Connection.Client, or "unix".
func (c ClientFilter) Match(client string) bool {
	if c.Any() {
		return true
	}
	if c.Unix || client == clientUnix {
		return c.Unix && client == clientUnix
	}
	at, err := netip.ParseAddrPort(client)
	return err == nil && c.MatchAddr(at)
}

// MatchAddr is Match for a client that has an address.
func (c ClientFilter) MatchAddr(client netip.AddrPort) bool {
	addr := client.Addr().Unmap()
	switch {
	case c.Unix,
		c.Port != 0 && c.Port != client.Port(),
		c.Zone != "" && c.Zone != addr.Zone():
		return false
	}
	return !c.Network.IsValid() || c.Network.Contains(addr.WithZone(""))
}

// String is what ParseClient reads.
func (c ClientFilter) String() string {
	switch {
	case c.Unix:
		return clientUnix
	case !c.Network.IsValid():
		return ""
	case !c.Network.IsSingleIP():
		return c.Network.String()
	case c.Port == 0:
		return c.Network.Addr().WithZone(c.Zone).String()
	default:
		return netip.AddrPortFrom(c.Network.Addr().WithZone(c.Zone), c.Port).String()
	}
}

// A Matcher is a Filter that was understood. The zero value lets everything
// pass. It may be used by several goroutines.
type Matcher struct {
	Service string
	Backend string
	Client  ClientFilter
}

// Matcher understands the filter; what is wrong with it is an *Error with
// CodeInvalid.
func (f Filter) Matcher() (Matcher, error) {
	if f.Limit < 0 {
		return Matcher{}, &Error{Code: CodeInvalid, Text: fmt.Sprintf("limit is %d", f.Limit), Remedy: "use a number from 1, or leave it out for all"}
	}
	c, err := ParseClient(f.Client)
	if err != nil {
		return Matcher{}, &Error{Code: CodeInvalid, Text: err.Error()}
	}
	return Matcher{Service: f.Service, Backend: f.Backend, Client: c}, nil
}

// Connection reports whether a connection passes.
func (m Matcher) Connection(service, backend, client string) bool {
	return (m.Service == "" || m.Service == service) &&
		(m.Backend == "" || m.Backend == backend) &&
		m.Client.Match(client)
}

// Event reports whether an event passes. One of EventLost always does: what is
// missing might have passed.
func (m Matcher) Event(e *Event) bool {
	switch {
	case e.Event == EventLost:
		return true
	case e.ConnectionEnd != nil:
		return m.Connection(e.Service, e.Backend, e.Client)
	}
	return m.Client.Any() && (m.Service == "" || m.Service == e.Service) && (m.Backend == "" || m.Backend == e.Backend)
}
