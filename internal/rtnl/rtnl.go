//go:build linux

package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Handle is a netlink socket in one network namespace. It stays there, from
// whichever thread it is used. Its methods may be called at the same time.
type Handle struct {
	h *netlink.Handle
}

// Open opens a handle in the network namespace of the calling thread.
func Open() (*Handle, error) {
	h, err := netlink.NewHandle(syscall.NETLINK_ROUTE, syscall.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Handle{h}, nil
}

// Close closes the socket.
func (h *Handle) Close() { h.h.Close() }

// opErr names what was done to which object; nil stays nil.
func opErr(op, object string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, object, err)
}

func byIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// Index gives the interface index of the link called name.
func (h *Handle) Index(name string) (int, error) {
	l, err := h.h.LinkByName(name)
	if err != nil {
		return 0, opErr("find link", name, err)
	}
	return l.Attrs().Index, nil
}

// Running reports whether the link is up and its other end is too, as far as
// the kernel knows: of a TAP device it does not.
func (h *Handle) Running(index int) (bool, error) {
	l, err := h.h.LinkByIndex(index)
	if err != nil {
		return false, opErr("read link", fmt.Sprint(index), err)
	}
	state := l.Attrs().OperState
	return state == netlink.OperUp || state == netlink.OperUnknown && l.Type() == "tuntap", nil
}

// SetUp sets the link called name up.
func (h *Handle) SetUp(name string) error {
	index, err := h.Index(name)
	if err != nil {
		return err
	}
	return opErr("set up link", name, h.h.LinkSetUp(byIndex(index)))
}

// SetState sets a link up or down.
func (h *Handle) SetState(index int, up bool) error {
	if up {
		return opErr("set up link", fmt.Sprint(index), h.h.LinkSetUp(byIndex(index)))
	}
	return opErr("set down link", fmt.Sprint(index), h.h.LinkSetDown(byIndex(index)))
}

// Delete removes a link.
func (h *Handle) Delete(index int) error {
	return opErr("delete link", fmt.Sprint(index), h.h.LinkDel(byIndex(index)))
}

// SetMTU sets a link's MTU in bytes.
func (h *Handle) SetMTU(index, mtu int) error {
	return opErr("set MTU of link", fmt.Sprint(index), h.h.LinkSetMTU(byIndex(index), mtu))
}

// SetMAC sets a link's hardware address.
func (h *Handle) SetMAC(index int, mac net.HardwareAddr) error {
	return opErr("set hardware address of link", fmt.Sprint(index), h.h.LinkSetHardwareAddr(byIndex(index), mac))
}

// SetMaxSegments bounds how many segments one frame handed to the link may
// hold: 1 turns segmentation offload off.
func (h *Handle) SetMaxSegments(index, n int) error {
	return opErr("set segments of link", fmt.Sprint(index), h.h.LinkSetGSOMaxSegs(byIndex(index), n))
}

// Veth describes a pair of links: one here, its peer in another namespace.
type Veth struct {
	Name     string
	MAC      net.HardwareAddr
	MTU      int // bytes; 0 = the kernel's default
	PeerNS   int // descriptor of the peer's network namespace
	PeerName string
	PeerMAC  net.HardwareAddr
}

// AddVeth makes a pair of links, both down, and gives the index of the one
// here.
func (h *Handle) AddVeth(v Veth) (int, error) {
	link := netlink.NewVeth(netlink.LinkAttrs{Name: v.Name, HardwareAddr: v.MAC, MTU: v.MTU, TxQLen: 1000})
	link.PeerName, link.PeerHardwareAddr, link.PeerNamespace = v.PeerName, v.PeerMAC, netlink.NsFd(v.PeerNS)
	if err := h.h.LinkAdd(link); err != nil {
		return 0, opErr("add link", v.Name, err)
	}
	return h.Index(v.Name)
}

// AddBridge makes a bridge that neither snoops multicast nor speaks the
// spanning tree protocol, sets it up and gives its index.
func (h *Handle) AddBridge(name string, mac net.HardwareAddr) (int, error) {
	off := false
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &off}
	br.Name, br.HardwareAddr = name, mac
	if err := h.h.LinkAdd(br); err != nil {
		return 0, opErr("add bridge", name, err)
	}
	index, err := h.Index(name)
	if err != nil {
		return 0, err
	}
	return index, h.SetState(index, true)
}

// AddPort makes a link a port of a bridge that learns nothing and does not
// get frames for unknown addresses; broadcast and multicast reach it.
func (h *Handle) AddPort(bridge, index int) error {
	port := byIndex(index)
	return opErr("add bridge port", fmt.Sprint(index), errors.Join(
		h.h.LinkSetMasterByIndex(port, bridge),
		h.h.LinkSetLearning(port, false),
		h.h.LinkSetFlood(port, false),
	))
}

func forwarding(index int, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: index, Family: syscall.AF_BRIDGE, HardwareAddr: mac,
		State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER,
	}
}

// AddForwarding sends frames for mac out of the bridge port index, replacing
// what was said for mac before.
func (h *Handle) AddForwarding(index int, mac net.HardwareAddr) error {
	return opErr("add forwarding entry", mac.String(), h.h.NeighSet(forwarding(index, mac)))
}

// Route is an entry of the main routing table.
type Route struct {
	To    netip.Prefix // network
	Via   netip.Addr   // gateway; invalid = the network is on the link
	Index int          // link; 0 = the one on which Via is
	// CongestionControl is the algorithm of TCP connections along this
	// route; empty = the namespace's default.
	CongestionControl string
}

// AddRoute adds a route.
func (h *Handle) AddRoute(r Route) error {
	route := &netlink.Route{Dst: ipNet(r.To.Masked()), LinkIndex: r.Index, Congctl: r.CongestionControl}
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	return opErr("add route", r.To.String(), h.h.RouteAdd(route))
}

// FlushConntrack makes the namespace forget every connection it tracks.
func (h *Handle) FlushConntrack() error {
	return opErr("flush", "conntrack table", h.h.ConntrackTableFlush(netlink.ConntrackTable))
}
