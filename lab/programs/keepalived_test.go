//go:build linux

package programs

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// TestKeepalived lets two of them have an address between them: the second takes
// it over when the first ends, by multicast and by unicast.
func TestKeepalived(t *testing.T) {
	top, err := lab.OneArm(lab.Size{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Supported(top); err != nil {
		t.Skip(err)
	}
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		for _, unicast := range []bool{false, true} {
			t.Run(family.String()+map[bool]string{false: "/multicast", true: "/unicast"}[unicast], func(t *testing.T) {
				ctx := bounded(t)
				l, err := lab.Start(ctx, top, lab.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := l.Close(); err != nil {
						t.Error(err)
					}
				}()
				vip := lab.Address(family, 100)
				watch, err := l.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{vip.Addr()}})
				if err != nil {
					t.Fatal(err)
				}
				var pair []*Keepalived
				for i, name := range []string{"node1", "node2"} {
					h, other := l.Host(name), l.Host([]string{"node2", "node1"}[i])
					dir := filepath.Join(t.TempDir(), name)
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					v := VRRPInstance{
						Name: "front", Interface: "eth0", ID: 51, Priority: uint8(200 - i), Interval: 50 * time.Millisecond, Addresses: []netip.Prefix{vip},
					}
					if unicast {
						v.Source, v.Peers = h.Addr(family), []netip.Addr{other.Addr(family)}
					}
					k, err := StartKeepalived(ctx, Options{Dir: dir, Start: func(c Command) (Process, error) {
						return h.Start(lab.Command{Argv: c.Argv, Dir: c.Dir, User: c.User})
					}}, KeepalivedConfig(v), "front")
					if errors.Is(err, exec.ErrNotFound) {
						t.Skip(err)
					}
					if err != nil {
						t.Fatal(err)
					}
					pair = append(pair, k)
					if err := pair[0].Await(ctx, "front", KeepalivedMaster); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := watch.Await(ctx, func(s lab.Seen) bool { return s.Host == "node1" && s.Claims(vip.Addr()) }); err != nil {
					t.Error(err)
				}
				advert, err := watch.Await(ctx, func(s lab.Seen) bool { return s.Sort == lab.Advertised })
				if err != nil || advert.ID != 51 || advert.Priority != 200 || advert.Interval != 50*time.Millisecond || advert.Destination.IsMulticast() == unicast {
					t.Errorf("the advert is %v, %v", advert, err)
				}
				if err := pair[0].Close(); err != nil {
					t.Error(err)
				}
				if err := pair[1].Await(ctx, "front", KeepalivedMaster); err != nil {
					t.Error(err)
				}
				if _, err := watch.Await(ctx, func(s lab.Seen) bool { return s.Host == "node2" && s.Claims(vip.Addr()) }); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
