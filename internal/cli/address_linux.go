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

	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/relay"
)

// parseListen understands an address to listen on. A port alone means every
// address of both families, which are two sockets.
func parseListen(s string, ipv6 bool) ([]relay.Address, error) {
	if s == ":0" && !ipv6 {
		return []relay.Address{everywhere(netip.IPv4Unspecified(), 0)}, nil
	}
	a, err := config.ParseListen(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("LISTEN %w", err)
	case a.IsUnix() || a.Addr.IsValid():
		r, err := relayAddress(a)
		if err != nil {
			return nil, fmt.Errorf("LISTEN: %w", err)
		}
		return []relay.Address{r}, nil
	}
	all := []relay.Address{everywhere(netip.IPv4Unspecified(), a.Port)}
	if ipv6 {
		all = append(all, everywhere(netip.IPv6Unspecified(), a.Port))
	}
	return all, nil
}

func everywhere(ip netip.Addr, port uint16) relay.Address {
	return relay.AddressFrom(netip.AddrPortFrom(ip, port))
}

// relayAddress is an address that has no host name, as the relay has it.
func relayAddress(a config.Address) (relay.Address, error) {
	if a.IsUnix() {
		return relay.ParseAddress(a.String())
	}
	return relay.AddressFrom(a.AddrPort()), nil
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
	a, err := config.ParseBackendAddress(where)
	switch {
	case err != nil:
		return b, fmt.Errorf("BACKEND %w", err)
	case a.Host != "":
		b.host, b.port = a.Host, a.Port
	default:
		if b.Address, err = relayAddress(a); err != nil {
			return b, fmt.Errorf("BACKEND: %w", err)
		}
		b.Name = b.Address.String()
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
