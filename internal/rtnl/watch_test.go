//go:build linux

package rtnl

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Whatever a message holds, it is told as something that can be, or not at all.
func FuzzParse(f *testing.F) {
	f.Add(uint16(syscall.RTM_NEWADDR), []byte{2, 24, 0x80, 0, 3, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1, 8, 0, 8, 0, 0, 2, 0, 0})
	f.Add(uint16(syscall.RTM_DELLINK), []byte{0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 9, 0, 3, 0, 'e', 't', 'h', '0', 0})
	f.Add(uint16(syscall.RTM_NEWADDR), []byte{10, 255, 0, 0, 3, 0, 0, 0, 4, 0, 1, 0})
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		c, ok := parse(sys.NetlinkMessage{Type: kind, Body: body})
		switch {
		case !ok:
		case c.Kind == AddressSet || c.Kind == AddressGone:
			if !c.Address.Prefix.IsValid() {
				t.Errorf("told of no address: %+v", c)
			}
		case c.Index != c.Link.Index:
			t.Errorf("two indexes: %+v", c)
		}
	})
}

// An address in its last second is not one that stays for ever.
func TestLastSecond(t *testing.T) {
	p := netip.MustParsePrefix("10.0.0.1/24")
	for left, want := range map[uint32]time.Duration{0: 1, 2: 2 * time.Second, forEver: 0} {
		if a := fromKernel(p, 0, left, left); a.Valid != want {
			t.Errorf("with %d s left it is valid for %v, want %v", left, a.Valid, want)
		}
	}
}
