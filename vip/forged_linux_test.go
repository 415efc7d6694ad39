package vip

import (
	"net/netip"
	"testing"

	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/vrrp"
)

// Adverts of a host that is not the peer take nothing from a pair: they are
// counted, and told.
func TestForgedAdverts(t *testing.T) {
	l := oneArm(t, lab.Size{Clients: 1, Nodes: 2})
	p := startPair(t, l, pairOptions{interval: quick})
	active, backup := p.active(t)
	until(t, "beats", func() bool { return active.status().Peer.Linked && backup.status().Peer.Linked })
	mark := active.mark()
	client := l.Host("client1")
	const forged = 20
	if err := client.Do(func() error {
		rt, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		index, err := rt.Index("eth0")
		if err != nil {
			return err
		}
		s, err := sys.OpenVRRPSocket(index, false)
		if err != nil {
			return err
		}
		defer s.Close()
		a := vrrp.Advert{Family: vrrp.IPv4, ID: 51, Priority: 255, Interval: quick, Addresses: []netip.Addr{floating[0].Addr()}}
		from := client.Addr(lab.IPv4)
		b, err := a.AppendTo(nil, from, vrrp.GroupIPv4)
		if err != nil {
			return err
		}
		for range forged {
			if errno := s.Send(b, from, vrrp.GroupIPv4); errno != 0 {
				return errno
			}
			if errno := s.Send(b[:len(b)-1], from, vrrp.GroupIPv4); errno != 0 { // and no advert at all
				return errno
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	active.waitFrom(mark, "word of it", says(KindForged))
	until(t, "that all are counted", func() bool {
		a := active.status().Adverts
		return a.Forged == forged && a.Invalid == forged && a.Received == 0
	})
	if a, b := active.status(), backup.status(); a.Role != Active || b.Role != Backup {
		t.Errorf("roles %v and %v", a.Role, b.Role)
	}
}
