package vip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vrrp"
)

// adverts are a group's, made once for each of its meanings.
type adverts struct {
	own [2]vrrp.Advert    // by family; no addresses: none is sent
	to  [2][]netip.Addr   // where they go
	as  [2]announcedBytes // what was last received, so that the same is not read again
}

// announcedBytes is an advert as it came: the next one of the same router has
// the same bytes, nearly always.
type announcedBytes struct {
	raw    []byte
	from   netip.Addr
	to     netip.Addr
	advert vrrp.Advert
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// moving are the addresses that move with a group: those that it names, and
// between Owners in IPv6 the link-local one that leads their adverts, if it names
// none. Another router has to be told the very list that it has itself:
// keepalived refuses one of another length.
func (g Group) moving() []netip.Prefix {
	all := slices.Clone(g.Addresses)
	six := func(p netip.Prefix) bool { return p.Addr().Is6() }
	local := func(p netip.Prefix) bool { return six(p) && p.Addr().IsLinkLocalUnicast() }
	if g.VRRP != nil && g.Peered && slices.ContainsFunc(all, six) && !slices.ContainsFunc(all, local) {
		all = append(all, netip.PrefixFrom(vrrp.LinkLocal(g.VRRP.ID), 64))
	}
	return all
}

func newAdverts(g Group) (a adverts) {
	if g.VRRP == nil {
		return a
	}
	for i, f := range [2]vrrp.Family{vrrp.IPv4, vrrp.IPv6} {
		var addrs []netip.Addr
		for _, p := range g.moving() {
			if family(p.Addr()) == i {
				addrs = append(addrs, p.Addr())
			}
		}
		if len(addrs) == 0 {
			continue
		}
		if f == vrrp.IPv6 { // the first one is link-local
			slices.SortStableFunc(addrs, func(x, y netip.Addr) int {
				return cmp.Compare(btoi(y.IsLinkLocalUnicast()), btoi(x.IsLinkLocalUnicast()))
			})
		}
		a.own[i] = vrrp.Advert{Family: f, ID: g.VRRP.ID, Priority: g.VRRP.Priority, Interval: g.VRRP.Interval, Addresses: addrs}
		for _, p := range g.VRRP.Peers {
			if family(p) == i {
				a.to[i] = append(a.to[i], p)
			}
		}
		if len(a.to[i]) == 0 {
			a.to[i] = []netip.Addr{[2]netip.Addr{vrrp.GroupIPv4, vrrp.GroupIPv6}[i]}
		}
	}
	return a
}

// sendAdvert sends an advert of each family. It allocates nothing.
func (g *group) sendAdvert(priority uint8, interval time.Duration) {
	s := &g.counts
	sent := false
	for i := range g.adverts.own {
		ad := &g.adverts.own[i]
		socket, from := g.port.sockets.adverts[i], g.port.source[i]
		if len(ad.Addresses) == 0 || socket == nil || !from.IsValid() {
			continue
		}
		for _, to := range g.adverts.to[i] {
			if !to.IsMulticast() {
				from = g.port.from(to) // by which the peer knows this node
			}
			out := *ad
			out.Priority, out.Interval = priority, interval
			b, err := out.AppendTo(g.loop.out[:0], from, to)
			if err != nil {
				s.failed++
				continue
			}
			if errno := socket.Send(b, from, to); errno != 0 {
				s.failed++
				continue
			}
			sent = true
		}
	}
	if !sent {
		return
	}
	s.sent++
	if last := g.lastSent; last != 0 && priority > 0 {
		s.gaps.add(g.loop.now - last)
	}
	g.lastSent = g.loop.now
	if priority == 0 {
		g.lastSent = 0
	}
}

// sendFrame sends what append makes of an empty frame on a port.
func (l *loop) sendFrame(p *port, b []byte) bool {
	return p.sockets.neighbour != nil && p.sockets.neighbour.Send(b) == 0
}

// ask asks who has target, on behalf of as at asMAC; nobody's own address
// (unspecified) makes it a probe.
func (g *group) ask(target netip.Addr, as netip.Addr, asMAC announce.MAC) bool {
	b := announce.AskFor(g.loop.out[:0], g.port.mac(), asMAC, as, target)
	return g.loop.sendFrame(g.port, b)
}

// announceNow tells, on every link of the group, where its addresses are; not
// if it was stopped on the way here and the lease has ended.
func (g *group) announceNow() {
	if sys.BootTime() >= g.leaseUntil {
		return
	}
	for i := -1; i < len(g.further); i++ {
		p := g.port
		if i >= 0 {
			p = g.further[i]
		}
		if !p.up() {
			continue
		}
		for _, addr := range g.addrs {
			g.loop.sendFrame(p, announce.Announce(g.loop.out[:0], p.mac(), addr, false))
			if addr.Is4() {
				g.loop.sendFrame(p, announce.GratuitousARP(g.loop.out[:0], p.mac(), addr, true))
			}
		}
	}
}

// maxTold is how many neighbours are told one by one: more of them would hold
// up the next advert.
const maxTold = 128

// tellNeighbours asks each host that this node's kernel knows on the group's
// link whether it still is where it was, in the name of each address. Who is
// asked learns from the question where the address is, also where announcements
// are lost on their way, or not believed; and whoever has talked with an address
// since it came here is known.
func (g *group) tellNeighbours() {
	var six, four bool
	for _, a := range g.addrs {
		four, six = four || a.Is4(), six || a.Is6()
	}
	index := g.port.link.Index
	var known []rtnl.Neighbour
	g.loop.hands.do(func() {
		for _, family := range [2]struct{ wanted, six bool }{{four, false}, {six, true}} {
			if family.wanted {
				// Without it only who hears no announcement is left to find out by himself.
				list, _ := g.loop.rt.Neighbours(index, family.six)
				known = append(known, list...)
			}
		}
	}, func() {
		if !g.active() || !g.port.up() {
			return
		}
		for _, n := range known[:min(len(known), maxTold)] {
			for _, a := range g.addrs {
				if a.Is4() != n.Addr.Is4() || a.IsLinkLocalUnicast() != n.Addr.IsLinkLocalUnicast() || slices.Contains(g.addrs, n.Addr) || sys.BootTime() >= g.leaseUntil {
					continue
				}
				g.loop.sendFrame(g.port, announce.AskHost(g.loop.out[:0], g.port.mac(), a, n.Addr, n.MAC))
			}
		}
	})
}

// contradiction says what another router tells of the group that this one does
// not, "" if it tells the same.
func (g *group) contradiction(a vrrp.Advert) string {
	own := g.adverts.own[0]
	if a.Family == vrrp.IPv6 {
		own = g.adverts.own[1]
	}
	if len(own.Addresses) == 0 {
		return fmt.Sprintf("it speaks for %v addresses, the group has none", a.Family)
	}
	if c := own.Contradicts(a); c != 0 {
		return c.String()
	}
	return ""
}
