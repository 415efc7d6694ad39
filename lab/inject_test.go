//go:build linux

package lab

import (
	"errors"
	"net/netip"
	"testing"
)

// A host says what its kernel knows nothing of, and the others hear it.
func TestSender(t *testing.T) {
	l := start(t, oneArm(t, Size{Clients: 1, Nodes: 1}))
	vip := netip.MustParseAddr("10.77.0.100")
	w := must(l.Watch("front", WatchOptions{Addresses: []netip.Addr{vip}}))(t)
	link := l.Host("client1").Links()[0]
	s := must(link.Sender())(t)
	if err := s.Send(arpFrame(2, vip.String(), vip.String())); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Await(bounded(t), func(s Seen) bool { return s.Host == "client1" && s.Claims(vip) && s.Unasked }); err != nil {
		t.Error(err)
	}
	if link.MAC() != [6]byte(link.mac) || link.MAC() == (l.Host("node1").Links()[0].MAC()) {
		t.Errorf("its MAC is %x", link.MAC())
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Send(arpFrame(2, vip.String(), vip.String())); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed sender: %v", err)
	}
}
