//go:build linux

package own

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/vrrp"
)

// What a stranger says.
const (
	forgedOwner    = "priority-255"
	forgedFarewell = "priority-0"
)

// ForgedAdverts is the scene of a stranger on the network who says that he owns
// the address, or that its owner gives it up.
func ForgedAdverts() scene.Scene {
	return scene.Scene{
		Name:  "forged-adverts",
		Title: "a stranger on the network sends adverts for the nodes' address: it is reported, and nothing happens",
		Story: `Anybody on a network can send adverts of VRRP: the protocol has no proof of who
speaks. Two nodes with a link between them know each other's addresses by it. A
stranger sends adverts of the highest priority for their address, or adverts that say
that the owner gives up; both nodes count them and say so, and the address stays where
it is.`,
		Variants: []scene.Variant{
			{Fault: forgedOwner, Title: "he says that he owns it"},
			{Fault: forgedFarewell, Title: "he says that the owner gives it up"},
		},
		Patient: true,
		Run:     playForged,
	}
}

func playForged(ctx context.Context, e *scene.Env) (_ *scene.Verdict, err error) {
	const interval = 50 * time.Millisecond
	a, err := newArena(ctx, e, arenaPlan{backends: 1, strangers: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	pair, err := a.startPair(ctx, pairPlan{interval: interval, service: true})
	if err != nil {
		return nil, err
	}
	asker, err := a.ask(ctx, "client1", 50, connectPatience)
	if err != nil {
		return nil, err
	}
	if err := asker.served(ctx, 5); err != nil {
		return nil, err
	}
	sent, err := a.forge(ctx, interval, 2*time.Second)
	if err != nil {
		return nil, err
	}
	e.Say("a stranger has sent %d adverts", sent)
	v := e.Verdict()
	v.Count("forged adverts", sent).AtLeast(1)
	for i, n := range pair {
		// It is a line of a log that somebody reads, and a number that somebody watches.
		if _, err := n.AwaitEvent(ctx, func(ev scene.RelayEvent) bool { return ev.Event == admin.EventAddress && ev.Role == nil }); err != nil {
			v.Fail("no event of %s tells of forged adverts: %v", n.host.Name(), err)
		}
		g, err := n.group(ctx)
		if err != nil {
			return nil, err
		}
		v.Count(fmt.Sprintf("counted as such by %s", n.host.Name()), int(g.Adverts.Forged)).AtLeast(int64(sent) / 2).AsPart()
		want := []string{admin.RoleActive, admin.RoleBackup}[i]
		v.Must(g.Role == want, "%s is %s (%s %s)", n.host.Name(), g.Role, g.Cause, g.Reason)
	}
	a.judgeWire(v, a.watch.Seen(), 0)
	changes := len(pair[1].roles())
	v.Must(changes <= 1, "the roles of %s: %+v", pair[1].host.Name(), pair[1].roles())
	probes := asker.end()
	lost := failures(probes)
	v.Count("new connections", len(probes)).AtLeast(1)
	v.Count("of these failed", lost.connects+lost.exchanges).Exactly(0)
	return v, nil
}

// forge sends adverts from a host that has nothing to do with the address, and
// says how many.
func (a *arena) forge(ctx context.Context, every, for_ time.Duration) (sent int, err error) {
	h := a.lab.Host("client3")
	link := h.Links()[0]
	s, err := link.Sender()
	if err != nil {
		return 0, err
	}
	advert := vrrp.Advert{Family: vrrp.IPv4, ID: routerID, Priority: 255, Interval: every, Addresses: []netip.Addr{a.vip.Addr()}}
	if a.Variant.Fault == forgedFarewell {
		advert.Priority = 0
	}
	from, group := h.Addr(a.Family), vrrp.GroupIPv4
	if a.Family == lab.IPv6 {
		from, group, advert.Family = linkLocal(link.MAC()), vrrp.GroupIPv6, vrrp.IPv6
	}
	msg, err := advert.AppendTo(nil, from, group)
	if err != nil {
		return 0, err
	}
	frame := multicast(link.MAC(), from, group, msg)
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < for_; sent++ {
		if err := s.Send(frame); err != nil {
			return sent, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return sent, ctx.Err()
		}
	}
	return sent, nil
}

// linkLocal is the address that a kernel gives an interface by itself (RFC 4291,
// appendix A).
func linkLocal(mac [6]byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// multicast is a frame with a packet of VRRP to a multicast group.
func multicast(mac [6]byte, from, group netip.Addr, msg []byte) []byte {
	var b []byte
	if group.Is4() {
		g := group.As4()
		b = append(b, 0x01, 0x00, 0x5e, g[1]&0x7f, g[2], g[3])
		b = append(append(b, mac[:]...), 0x08, 0x00)
		ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 255, 112, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(msg)))
		ip = append(append(ip, from.AsSlice()...), g[:]...)
		sum := uint32(0)
		for i := 0; i < len(ip); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(ip[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
		return append(append(b, ip...), msg...)
	}
	g := group.As16()
	b = append(b, 0x33, 0x33, g[12], g[13], g[14], g[15])
	b = append(append(b, mac[:]...), 0x86, 0xdd)
	b = append(b, 0x60, 0, 0, 0, 0, byte(len(msg)), 112, 255)
	return append(append(append(b, from.AsSlice()...), g[:]...), msg...)
}
