package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/health"
	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/relay"
)

// Bounds of looking host names up: how long all of them may take, and how many
// are asked for at one moment.
const (
	lookupTimeout = 5 * time.Second
	lookups       = 16
)

// Resolve makes of a file's services what a daemon runs: it looks host names up,
// within five seconds, and asks this machine for what the checks need. What is
// wrong is a [config.Errors], with the place in the file.
func Resolve(ctx context.Context, c *config.Config) ([]ServiceOptions, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return resolve(ctx, c, func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	})
}

type lookup func(ctx context.Context, host string) ([]netip.Addr, error)

func resolve(ctx context.Context, c *config.Config, look lookup) ([]ServiceOptions, error) {
	found := lookUpAll(ctx, c, look)
	ipv6 := hasIPv6()
	services := make([]ServiceOptions, len(c.Services))
	var mistakes []config.Mistake
	for i, s := range c.Services {
		path := fmt.Sprintf("services[%d]", i)
		o := serviceOptions(s, ipv6)
		o.Relay.Floating, o.Relay.Groups = floating(c), groups(c)
		for j, b := range s.Backends {
			spec := relay.Backend{
				Name: cmp.Or(b.Name, b.Address.String()), Weight: b.Weight, Backup: b.Backup, MaxConnections: b.MaxConnections,
			}
			if b.Address.Host == "" {
				spec.Address = address(b.Address)
			} else if answer := found[b.Address.Host]; answer.err != nil {
				mistakes = append(mistakes, config.Mistake{
					Path: fmt.Sprintf("%s.backends[%d].address", path, j), What: notFound(b.Address.Host, answer.err),
				})
				continue
			} else {
				h := Host{Name: b.Address.String()}
				for _, ip := range answer.addrs {
					h.Addresses = append(h.Addresses, relay.AddressFrom(netip.AddrPortFrom(ip, b.Address.Port)))
				}
				spec.Address = h.Addresses[0]
				o.Hosts[spec.Name] = h
			}
			o.Relay.Backends = append(o.Relay.Backends, spec)
		}
		// What is wrong with the check of one backend is wrong with all of them.
		if len(o.Relay.Backends) > 0 {
			b := o.Relay.Backends[0]
			if _, err := health.New(health.Options{Name: b.Name, Address: b.Address.String(), Check: o.Check}); err != nil {
				mistakes = append(mistakes, config.Mistake{
					Path: path + ".health", What: strings.ReplaceAll(strings.ReplaceAll(err.Error(), "health: ", ""), "\n", "; "),
				})
			}
		}
		services[i] = o
	}
	if err := c.Errors(mistakes); err != nil {
		return nil, err
	}
	return services, nil
}

// serviceOptions is a service of the file, without its backends.
func serviceOptions(s config.Service, ipv6 bool) ServiceOptions {
	o := relay.ServiceOptions{
		Name: s.Name, Balance: s.Balance, ConnectTimeout: s.ConnectTimeout, IdleTimeout: s.IdleTimeout,
		DeadPeerTimeout: s.DeadPeerTimeout, Drain: relay.Drain{Timeout: s.Drain.Timeout, Idle: s.Drain.Idle}, Allow: s.Allow,
	}
	if s.OnBackendLost == relay.LostDrain.String() {
		o.OnBackendLost = relay.LostDrain
	}
	if o.DeadPeerTimeout == 0 {
		o.DeadPeerTimeout = -1 // none
	}
	for _, a := range s.Listen {
		if a.IsUnix() || a.Addr.IsValid() {
			o.Listen = append(o.Listen, address(a))
			continue
		}
		// A port alone is every address, of both families where there are two.
		o.Listen = append(o.Listen, relay.AddressFrom(netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port)))
		if ipv6 {
			o.Listen = append(o.Listen, relay.AddressFrom(netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port)))
		}
	}
	return ServiceOptions{Relay: o, Check: check(s.Health), Hosts: make(map[string]Host)}
}

// floating are the addresses that come to this node and leave it again.
func floating(c *config.Config) (list []netip.Addr) {
	for _, g := range c.Addresses {
		for _, p := range g.Addresses {
			list = append(list, p.Addr())
		}
	}
	return list
}

// groups are the addresses that another node of ours may take over, and then tells
// the backends.
func groups(c *config.Config) (list [][]netip.Addr) {
	if c.Pair == nil {
		return nil
	}
	for i := range c.Addresses {
		g := &c.Addresses[i]
		if g.VRRP == nil {
			continue
		}
		var group []netip.Addr
		for _, p := range g.Addresses {
			if !p.Addr().IsLinkLocalUnicast() || p.Addr().Is4() { // those are for neighbours
				group = append(group, p.Addr())
			}
		}
		list = append(list, group)
	}
	return list
}

// address is one without a host name. The file was checked: it has no path that
// a relay does not take.
func address(a config.Address) relay.Address {
	if a.IsUnix() {
		r, err := relay.ParseAddress(a.String())
		if err != nil {
			return relay.Address{} // which Configure names
		}
		return r
	}
	return relay.AddressFrom(a.AddrPort())
}

// check is how the file has backends checked.
func check(h config.Health) health.Check {
	c := health.Check{Interval: h.Interval, Timeout: h.Timeout, Fall: h.Fall, Rise: h.Rise}
	switch {
	case h.HTTP != nil:
		c.Kind = health.HTTP
		c.HTTP = health.HTTPCheck{Path: h.HTTP.Path, Host: h.HTTP.Host, Status: h.HTTP.Status}
	case h.Exchange != nil:
		c.Kind = health.Exchange
		c.Exchange = health.ExchangeCheck{Send: h.Exchange.Send, Expect: h.Exchange.Expect}
	case h.Command != nil:
		c.Kind = health.Command
		c.Command = health.CommandCheck{Argv: slices.Clone(h.Command.Argv), User: h.Command.User}
	case h.None != nil:
		c.Kind = health.None
	}
	if t := h.Target(); t != nil {
		c.Address, c.Port = t.Address, t.Port
		if t.TLS != nil {
			c.TLS = health.TLS{Enabled: true, ServerName: t.TLS.ServerName, Insecure: t.TLS.Insecure}
		}
	}
	return c
}

// An answer is what became of looking a name up.
type answer struct {
	addrs []netip.Addr // at least one, unless there is an error
	err   error
}

// lookUpAll looks up every host name of the file, each once.
func lookUpAll(ctx context.Context, c *config.Config, look lookup) map[string]answer {
	var hosts []string
	for _, s := range c.Services {
		for _, b := range s.Backends {
			if b.Address.Host != "" {
				hosts = append(hosts, b.Address.Host)
			}
		}
	}
	slices.Sort(hosts)
	found := make(map[string]answer)
	var mu sync.Mutex
	var wg sync.WaitGroup
	free := make(chan struct{}, lookups)
	for _, host := range slices.Compact(hosts) {
		free <- struct{}{}
		wg.Go(func() {
			addrs, err := look(ctx, host)
			if err == nil && len(addrs) == 0 {
				err = errors.New("the name has no address")
			}
			mu.Lock()
			found[host] = answer{addrs, err}
			mu.Unlock()
			<-free
		})
	}
	wg.Wait()
	return found
}

// notFound says why a name could not be looked up, and what to do.
func notFound(host string, err error) string {
	why := err.Error()
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		why = dns.Err
		if dns.IsTimeout {
			why = fmt.Sprintf("the name servers did not answer within %v", lookupTimeout)
		}
	} else if errors.Is(err, context.DeadlineExceeded) {
		why = fmt.Sprintf("the name servers did not answer within %v", lookupTimeout)
	}
	return fmt.Sprintf("host name %q cannot be looked up: %s; correct it, or write an IP address", host, why)
}

// hasIPv6 reports whether the kernel speaks IPv6 at all.
func hasIPv6() bool {
	fd, errno := sys.Socket(netip.IPv6Unspecified())
	if errno != 0 {
		return false
	}
	sys.Close(fd)
	return true
}
