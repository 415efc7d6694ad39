//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// Host is a running host: a network namespace and the processes in it.
type Host struct {
	lab   *Lab
	spec  HostSpec
	ns    *netns.NS
	nl    *rtnl.Handle
	links []*Link

	// congestion is the algorithm that routes must name because the
	// namespace's default could not be set; empty = nothing to name.
	congestion string

	mu        sync.Mutex
	processes map[*Process]bool
	dead      bool
}

// congestionControl is the kernel's own default.
const congestionControl = "cubic"

// kernelDefaults are those settings that a new namespace takes over from the
// machine, set back to what the kernel would have chosen, and IPv6 without
// the waiting and the noise: addresses are usable at once, nobody asks for
// routers.
var kernelDefaults = []Sysctl{
	{"net.ipv4.tcp_rmem", "4096 131072 6291456"},
	{"net.ipv4.tcp_wmem", "4096 16384 4194304"},
	{"net.ipv4.conf.all.rp_filter", "0"},
	{"net.ipv4.conf.default.rp_filter", "0"},
	{"net.ipv6.conf.all.disable_ipv6", "0"},
	{"net.ipv6.conf.default.disable_ipv6", "0"},
	{"net.ipv6.conf.default.accept_dad", "0"},
	{"net.ipv6.conf.default.dad_transmits", "0"},
	{"net.ipv6.conf.default.accept_ra", "0"},
	{"net.ipv6.conf.default.autoconf", "0"},
	{"net.ipv6.conf.default.router_solicitations", "0"},
}

func (h *Host) open() (err error) {
	if h.ns, err = netns.New(); err != nil {
		return fmt.Errorf("host %s: %w", h.spec.Name, err)
	}
	err = h.ns.Do(func() (err error) {
		if err := setSysctls(kernelDefaults); err != nil {
			return err
		}
		forward := "0"
		if h.spec.Role != Plain {
			forward = "1"
		}
		if err := setSysctls([]Sysctl{
			{"net.ipv4.ip_forward", forward},
			{"net.ipv6.conf.all.forwarding", forward},
			{"net.ipv6.conf.default.forwarding", forward},
		}); err != nil {
			return err
		}
		if err := h.chooseCongestionControl(); err != nil {
			return err
		}
		if h.nl, err = rtnl.Open(); err != nil {
			return err
		}
		return h.nl.SetUp("lo")
	})
	if err != nil {
		return fmt.Errorf("host %s: %w", h.spec.Name, err)
	}
	return nil
}

// chooseCongestionControl sets the kernel's default algorithm. Where the
// machine's administrator does not allow it to namespaces, routes name it,
// which needs no leave.
func (h *Host) chooseCongestionControl() error {
	now, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil || strings.TrimSpace(string(now)) == congestionControl {
		return err
	}
	available, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if err != nil || !strings.Contains(string(available), congestionControl) {
		return err
	}
	err = setSysctls([]Sysctl{{"net.ipv4.tcp_congestion_control", congestionControl}})
	if errors.Is(err, fs.ErrPermission) {
		h.congestion, err = congestionControl, nil
	}
	return err
}

// setSysctls writes kernel settings of the calling thread's namespace.
func setSysctls(settings []Sysctl) error {
	for _, s := range settings {
		if !strings.HasPrefix(s.Name, "net.") {
			return fmt.Errorf("sysctl %s: only settings below net. belong to a host", s.Name)
		}
		path := "/proc/sys/" + strings.ReplaceAll(s.Name, ".", "/")
		if err := os.WriteFile(path, []byte(s.Value), 0); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", s.Name, s.Value, err)
		}
	}
	return nil
}

// configure gives the host what it needs its links for.
func (h *Host) configure() error {
	for _, k := range h.links {
		for _, a := range k.spec.Addresses {
			// With detection, although it is over at once (accept_dad is 0):
			// awaitLinks sees by it when neighbours can find the address.
			if err := h.addAddress(k.index, rtnl.Address{Prefix: a}); err != nil {
				return err
			}
		}
	}
	for _, r := range h.spec.Routes {
		if err := h.nl.AddRoute(rtnl.Route{To: r.To, Via: r.Via, CongestionControl: h.congestion}); err != nil {
			return err
		}
	}
	if h.spec.Role == Middlebox {
		if err := h.openMiddlebox(); err != nil {
			return err
		}
	}
	return h.ns.Do(func() error { return setSysctls(h.spec.Sysctls) })
}

// addAddress adds an address, and the route to its network where that has to
// say more than the kernel's own.
func (h *Host) addAddress(index int, a rtnl.Address) error {
	a.NoPrefixRoute = h.congestion != ""
	err := h.nl.AddAddress(index, a)
	if err != nil || h.congestion == "" || a.Prefix.IsSingleIP() {
		return err
	}
	err = h.nl.AddRoute(rtnl.Route{To: a.Prefix.Masked(), Index: index, CongestionControl: h.congestion})
	if errors.Is(err, fs.ErrExist) { // by another address of the same network
		return nil
	}
	return err
}

// Name is the host's name in the topology.
func (h *Host) Name() string { return h.spec.Name }

// Links gives the host's links in the order of the topology.
func (h *Host) Links() []*Link { return append([]*Link(nil), h.links...) }

// Addr gives the first address of the family in the host's part of the
// topology, the invalid one if there is none.
func (h *Host) Addr(f Family) netip.Addr {
	for _, k := range h.links {
		for _, a := range k.spec.Addresses {
			if a.Addr().Is4() == (f == IPv4) {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}

// AddrPort is Addr with a port.
func (h *Host) AddrPort(f Family, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(h.Addr(f), port)
}

// Do runs f on a thread inside the host and returns what f returns. Sockets
// that f makes belong to the host from then on, wherever they are used;
// goroutines that f starts are not inside. f may block, and several may run at
// the same time.
func (h *Host) Do(f func() error) error { return h.ns.Do(f) }

// Dial connects from the host. address is a literal address and port; a
// name is refused, as the host has no resolver. The connection has the
// kernel's defaults: no keepalive, plain TCP.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	if err := literal(network, address); err != nil {
		return nil, fmt.Errorf("lab: dial from %s: %w", h.spec.Name, err)
	}
	d := net.Dialer{KeepAlive: -1}
	d.SetMultipathTCP(false)
	err = h.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: from %s: %w", h.spec.Name, err)
	}
	return c, nil
}

// Listen listens in the host: plain TCP, no keepalive on what it accepts.
// address is as for Dial; an empty host part means every address.
func (h *Host) Listen(ctx context.Context, network, address string) (ln net.Listener, err error) {
	if err := literal(network, address); err != nil {
		return nil, fmt.Errorf("lab: listen in %s: %w", h.spec.Name, err)
	}
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	err = h.Do(func() (err error) {
		ln, err = lc.Listen(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: in %s: %w", h.spec.Name, err)
	}
	return ln, nil
}

// literal refuses what would be looked up by goroutines outside the host.
func literal(network, address string) error {
	if strings.HasPrefix(network, "unix") {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" {
		return nil
	}
	_, err = netip.ParseAddr(host)
	return err
}

// Taps gives the two ends of a link with [LinkSpec.Taps]: what is read from
// host was sent by the host and is to be written to sw, and the other way
// round. One read or write is one Ethernet frame. The files belong to the lab,
// which closes them; it is an error for another link.
func (k *Link) Taps() (host, sw *os.File, err error) {
	if k.taps[0] == nil {
		return nil, nil, fmt.Errorf("lab: link of %s to %s is not made of TAP devices: set LinkSpec.Taps", k.spec.Host, k.spec.Switch)
	}
	return k.taps[0], k.taps[1], nil
}

func (k *Link) makeTaps() error {
	for i, end := range []struct {
		ns    *netns.NS
		nl    *rtnl.Handle
		name  string
		index *int
	}{
		{k.host.ns, k.host.nl, k.spec.Interface, &k.index},
		{k.sw.ns, k.sw.nl, k.portName, &k.port},
	} {
		err := end.ns.Do(func() (err error) {
			k.taps[i], err = sys.OpenTAP(end.name)
			return err
		})
		if err != nil {
			return err
		}
		if *end.index, err = end.nl.Index(end.name); err != nil {
			return err
		}
		if err := end.nl.SetMTU(*end.index, k.spec.MTU); err != nil {
			return err
		}
	}
	return k.host.nl.SetMAC(k.index, k.mac)
}
