package vip

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/programs"
)

// A group of both families beside a keepalived, which has an instance for each:
// the Owner is active while it lives, says that it ends, comes back as a backup,
// and takes over when keepalived ends.
func TestKeepalived(t *testing.T) {
	const interval = 2 * quick // two programs that are not real-time
	for _, unicast := range []bool{false, true} {
		t.Run(map[bool]string{false: "multicast", true: "unicast"}[unicast], func(t *testing.T) {
			l := oneArm(t, lab.Size{Clients: 1, Nodes: 2})
			us, him := l.Host("node1"), l.Host("node2")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			w, err := l.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{floating[0].Addr(), floating[1].Addr()}})
			if err != nil {
				t.Fatal(err)
			}
			spec := Group{Name: "front", Interface: "eth0", Addresses: floating, VRRP: &VRRP{ID: 51, Priority: 200, Interval: interval}}
			instances := []programs.VRRPInstance{
				{Name: "four", Addresses: floating[:1], Interface: "eth0", ID: 51, Priority: 100, Interval: interval, NoPreempt: true},
				{Name: "six", Addresses: floating[1:], Interface: "eth0", ID: 51, Priority: 100, Interval: interval, NoPreempt: true},
			}
			if unicast {
				for i, f := range []lab.Family{lab.IPv4, lab.IPv6} {
					spec.VRRP.Peers = append(spec.VRRP.Peers, him.Addr(f))
					instances[i].Source, instances[i].Peers = him.Addr(f), []netip.Addr{us.Addr(f)}
				}
			}
			first := startNode(t, us, Options{Groups: []Group{spec}})
			first.wait("active", becomes(Active))

			k, err := programs.StartKeepalived(ctx, programs.Options{Dir: t.TempDir(), Start: func(c programs.Command) (programs.Process, error) {
				return him.Start(lab.Command{Argv: c.Argv, Dir: c.Dir, User: c.User})
			}}, programs.KeepalivedConfig(instances...), "four", "six")
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			all := func(state string) {
				t.Helper()
				for _, name := range []string{"four", "six"} {
					if err := k.Await(ctx, name, state); err != nil {
						t.Fatal(err)
					}
				}
			}
			owner := func(host string) {
				t.Helper()
				for _, f := range floating {
					reach(t, l.Host("client1"), f.Addr())
				}
				// The one that claims it last is the owner.
				for _, f := range floating {
					until(t, f.Addr().String()+" is at "+host, func() bool {
						spans := lab.Speakers(w.Seen(), func(s lab.Seen) bool { return s.Claims(f.Addr()) })
						return len(spans) > 0 && spans[len(spans)-1].Host == host
					})
				}
			}
			owner("node1")

			// The end of the Owner is told, and keepalived follows at once.
			first.close()
			all(programs.KeepalivedMaster)
			owner("node2")

			// The Owner that comes back hears keepalived, and lets it be.
			second := startNode(t, us, Options{Groups: []Group{spec}})
			until(t, "a backup that has heard 20 adverts", func() bool {
				s := second.status()
				return s.Role == Backup && s.Adverts.Received >= 20
			})
			if s := second.status(); s.Adverts.Invalid+s.Adverts.Alien+s.Adverts.Forged > 0 {
				t.Errorf("keepalived's adverts are not what is expected: %+v", s.Adverts)
			}
			mark := second.mark()
			if err := k.Close(); err != nil {
				t.Error(err)
			}
			second.waitFrom(mark, "active", becomes(Active))
			owner("node1")
		})
	}
}
