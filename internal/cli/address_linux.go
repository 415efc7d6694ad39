package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/holdfast-net/holdfast/relay"
)

// parseListen understands an address to listen on. A port alone means every
// address of both families, which are two sockets.
func parseListen(s string, ipv6 bool) ([]relay.Address, error) {
	port, ok := strings.CutPrefix(s, ":")
	if !ok || strings.Contains(port, ":") {
		a, err := relay.ParseAddress(s)
		if err != nil {
			return nil, listenHint(s, err)
		}
		return []relay.Address{a}, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("LISTEN %q: %q is not a port number", s, port)
	}
	if n == 0 && ipv6 {
		return nil, fmt.Errorf("LISTEN %q: port 0 would be another one for each address family; write 127.0.0.1:0 or [::1]:0", s)
	}
	all := []relay.Address{relay.AddressFrom(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)))}
	if ipv6 {
		all = append(all, relay.AddressFrom(netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n))))
	}
	return all, nil
}

func listenHint(s string, err error) error {
	if _, perr := strconv.ParseUint(s, 10, 16); perr == nil {
		return fmt.Errorf("LISTEN %q is a number; write :%s for that port on every address", s, s)
	}
	if strings.HasPrefix(s, "/") {
		return fmt.Errorf("LISTEN %q is a path; write unix:%s for a unix socket", s, s)
	}
	if host, port, splitErr := net.SplitHostPort(s); splitErr == nil && !strings.HasPrefix(s, "unix:") {
		if _, perr := netip.ParseAddr(host); perr != nil {
			return fmt.Errorf("LISTEN %q: a service listens on an address, not on a host name; write 127.0.0.1:%s, or :%s for every address", s, port, port)
		}
		return fmt.Errorf("LISTEN %q: %q is not a port number", s, port)
	}
	if _, perr := netip.ParseAddr(s); perr == nil {
		return fmt.Errorf("LISTEN %q has no port", s)
	}
	return fmt.Errorf("LISTEN: %w", err)
}

// A backendArg is one BACKEND of the command line; its host may be a name.
type backendArg struct {
	relay.Backend
	host string // "" where Address is set
	port uint16
}

// defaultWeight leaves room on both sides, as in the configuration.
const defaultWeight = 100

// parseBackend understands ADDR:PORT or unix:/path, followed by settings.
func parseBackend(s string) (backendArg, error) {
	where, rest, more := strings.Cut(s, ",")
	b := backendArg{Backend: relay.Backend{Name: where, Weight: defaultWeight}}
	a, err := relay.ParseAddress(where)
	switch {
	case err == nil:
		b.Address = a
		b.Name = a.String()
		if !a.IsUnix() && a.AddrPort().Port() == 0 {
			return b, fmt.Errorf("BACKEND %q: port 0 cannot be connected to", s)
		}
	case strings.HasPrefix(where, "unix:"):
		return b, fmt.Errorf("BACKEND: %w", err)
	default:
		if b.host, b.port, err = splitName(s, where); err != nil {
			return b, err
		}
	}
	seen := make(map[string]bool)
	for more {
		var setting string
		setting, rest, more = strings.Cut(rest, ",")
		key, value, hasValue := strings.Cut(setting, "=")
		if seen[key] {
			return b, fmt.Errorf("BACKEND %q: %s is given twice", s, key)
		}
		seen[key] = true
		if err := b.set(key, value, hasValue); err != nil {
			return b, fmt.Errorf("BACKEND %q: %w", s, err)
		}
	}
	return b, nil
}

// where is the backend's address, or the name that becomes one.
func (b *backendArg) where() string {
	if b.host != "" {
		return net.JoinHostPort(b.host, strconv.Itoa(int(b.port)))
	}
	return b.Address.String()
}

func (b *backendArg) set(key, value string, hasValue bool) error {
	number := func(most int) (int, error) {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > most {
			return 0, fmt.Errorf("%s=%s is not a number from 0 to %d", key, value, most)
		}
		return n, nil
	}
	var err error
	switch {
	case key == "backup" && !hasValue:
		b.Backup = true
	case key == "backup":
		return errors.New("backup takes no value: its presence says yes")
	case key != "name" && key != "weight" && key != "max_connections":
		return fmt.Errorf("there is no setting %q; a backend has name=, weight=, max_connections= and backup", key)
	case value == "":
		return fmt.Errorf("%s= has no value", key)
	case key == "name":
		b.Name = value
	case key == "weight":
		b.Weight, err = number(65535)
	default:
		b.MaxConnections, err = number(1 << 30)
	}
	return err
}

// splitName takes HOST:PORT apart whose host is not an address.
func splitName(s, where string) (host string, port uint16, err error) {
	if _, err := strconv.ParseUint(where, 10, 16); err == nil {
		return "", 0, fmt.Errorf("BACKEND %q is a number; write 127.0.0.1:%s for that port of this host", s, where)
	}
	if strings.HasPrefix(where, "/") {
		return "", 0, fmt.Errorf("BACKEND %q is a path; write unix:%s for a unix socket", s, where)
	}
	if _, err := netip.ParseAddr(where); err == nil {
		return "", 0, fmt.Errorf("BACKEND %q has no port", s)
	}
	host, text, err := net.SplitHostPort(where)
	if err != nil {
		return "", 0, fmt.Errorf("BACKEND %q is not ADDRESS:PORT or unix:/path", s)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	switch {
	case err != nil || n == 0:
		return "", 0, fmt.Errorf("BACKEND %q: %q is not a port number", s, text)
	case host == "":
		return "", 0, fmt.Errorf("BACKEND %q has no address; write 127.0.0.1:%d for that port of this host", s, n)
	case strings.ContainsAny(host, ":/ ") || strings.Trim(host, "0123456789.") == "":
		return "", 0, fmt.Errorf("BACKEND %q: %q is neither an address nor a host name", s, host)
	}
	return host, uint16(n), nil
}

// resolve looks the backend's host name up, once: what it is later is for a
// restart to find out. The first of several addresses is taken; others are
// returned, to be told about.
func (b *backendArg) resolve(ctx context.Context, r *net.Resolver) (others []netip.Addr, err error) {
	if b.host == "" {
		return nil, nil
	}
	addrs, err := r.LookupNetIP(ctx, "ip", b.host)
	if err != nil {
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			return nil, fmt.Errorf("backend %s: host name %q: %s", b.Name, b.host, dns.Err)
		}
		return nil, fmt.Errorf("backend %s: host name %q: %w", b.Name, b.host, err)
	}
	b.Address = relay.AddressFrom(netip.AddrPortFrom(addrs[0], b.port))
	return addrs[1:], nil
}

// hasIPv6 reports whether the kernel speaks IPv6 at all.
func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}
