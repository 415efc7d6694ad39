//go:build linux

package rtnl_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
)

// A handle stays in the namespace where it was opened.
func TestHandle(t *testing.T) {
	ns, peer := netnstest.New(t), netnstest.New(t)
	var h *rtnl.Handle
	if err := ns.Do(func() (err error) { h, err = rtnl.Open(); return err }); err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	bridge, err := h.AddBridge("br", mac)
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if err := peer.WithFD(func(fd int) (err error) {
		port, err = h.AddVeth(rtnl.Veth{Name: "port", PeerNS: fd, PeerName: "eth0", PeerMAC: mac, MTU: 1400})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"port":    h.AddPort(bridge, port),
		"forward": h.AddForwarding(port, mac),
		"again":   h.AddForwarding(port, mac), // replaces
		"up":      h.SetState(port, true),
		"lo":      h.SetUp("lo"),
		"mtu":     h.SetMTU(port, 1300),
		"gso":     h.SetMaxSegments(port, 1),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, a := range []string{"10.0.0.1/24", "fd00::1/64"} {
		p := netip.MustParsePrefix(a)
		if err := h.AddAddress(bridge, rtnl.Address{Prefix: p, NoDAD: true}); err != nil {
			t.Error(err)
		}
		if err := h.AddAddress(bridge, rtnl.Address{Prefix: p}); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), a) {
			t.Errorf("the same address again: %v", err)
		}
	}
	for _, r := range []rtnl.Route{
		{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.0.0.2")},
		{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00::2")},
		{To: netip.MustParsePrefix("10.8.0.0/16"), Index: bridge, CongestionControl: "reno"},
	} {
		if err := h.AddRoute(r); err != nil {
			t.Error(err)
		}
	}
	if up, err := h.Running(port); err != nil || up {
		t.Errorf("the port runs although its peer is down: %v, %v", up, err)
	}
	if err := peer.Do(func() error {
		h, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		return h.SetUp("eth0") // it has arrived there
	}); err != nil {
		t.Error(err)
	}
	if err := h.DeleteAddress(bridge, netip.MustParsePrefix("fd00::1/64")); err != nil {
		t.Error(err)
	}
	if err := h.DeleteAddress(bridge, netip.MustParsePrefix("fd00::1/64")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("deleting it again: %v", err)
	}
	if err := h.Delete(port); err != nil {
		t.Error(err)
	}
	if _, err := h.Index("port"); err == nil {
		t.Error("a deleted link has an index")
	}
}
