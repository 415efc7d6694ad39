package node

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/daemon"
	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
)

// TestAnnounceOn has the backends of services behind other links than the clients:
// a group's addresses are announced there too, and nowhere else.
func TestAnnounceOn(t *testing.T) {
	ns, far := netnstest.New(t), netnstest.New(t)
	err := ns.Do(func() error {
		h, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		for i := range 3 {
			v := rtnl.Veth{
				Name: fmt.Sprintf("eth%d", i), MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)},
				PeerName: fmt.Sprintf("eth%d", i), PeerMAC: net.HardwareAddr{2, 0, 0, 0, 1, byte(i)},
			}
			var index int
			if err := far.WithFD(func(fd int) (err error) {
				v.PeerNS = fd
				index, err = h.AddVeth(v)
				return err
			}); err != nil {
				return err
			}
			if err := h.SetState(index, true); err != nil {
				return err
			}
			for _, p := range []string{fmt.Sprintf("10.0.%d.1/24", i), fmt.Sprintf("fd00:%d::1/64", i)} {
				if err := h.AddAddress(index, rtnl.Address{Prefix: netip.MustParsePrefix(p), NoDAD: true}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		backends string
		want     []string
	}{
		{`{address: "10.0.0.7:80"}`, nil},                                                      // the group's own link
		{`{address: "10.0.1.7:80"}`, []string{"eth1"}},                                         // IPv4
		{`{address: "[fd00:2::7]:80"}`, []string{"eth2"}},                                      // IPv6
		{`{address: "10.0.2.7:80"}, {address: "[fd00:1::7]:80"}`, []string{"eth1", "eth2"}},    // in one order
		{`{address: "10.0.1.7:80"}, {address: "10.0.1.8:80"}`, []string{"eth1"}},               // once
		{`{address: "127.0.0.1:80"}, {address: "10.0.1.1:80"}, {address: "unix:/run/a"}`, nil}, // this machine
		{`{address: "192.0.2.1:80"}`, nil},                                                     // no way
	} {
		file, err := config.Parse("test", []byte(`addresses:
  - {name: front, interface: eth0, addresses: [10.0.0.100/24]}
  - {name: bare, interface: eth0, addresses: [10.0.0.101/24]}
services: [{name: web, listen: "10.0.0.100:80", backends: [`+c.backends+`]}]
`))
		if err != nil {
			t.Fatal(err)
		}
		services, err := daemon.Resolve(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		err = ns.Do(func() error {
			s := n.settings(file, services)
			if got := s.Groups[0].AnnounceOn; !slices.Equal(got, c.want) {
				t.Errorf("backends %s: announced on %q, want %q", c.backends, got, c.want)
			}
			if got := s.Groups[1].AnnounceOn; got != nil {
				t.Errorf("a group without a service is announced on %q", got)
			}
			return s.Check()
		})
		if err != nil {
			t.Error(err)
		}
	}
}
