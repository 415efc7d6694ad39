package vip

import (
	"net/netip"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// An owner that is stopped after it has read the clock, and goes on when the
// other one owns, says nothing more: it does not contend with what it hears, and
// the other one stays.
func TestStoppedBehindTheClock(t *testing.T) {
	for _, witness := range []bool{false, true} {
		t.Run(map[bool]string{false: "without a witness", true: "with a witness"}[witness], func(t *testing.T) {
			l := oneArm(t, lab.Size{Clients: 1, Nodes: 2})
			w, err := l.Watch("front", lab.WatchOptions{Addresses: []netip.Addr{floating[0].Addr(), floating[1].Addr()}})
			if err != nil {
				t.Fatal(err)
			}
			p := startPair(t, l, pairOptions{interval: quick, change: func(_ int, g *Group) {
				if witness {
					g.Witness = l.Host("client1").Addr(lab.IPv4)
				}
			}})
			active, backup := p.active(t)
			until(t, "beats", func() bool { return active.status().Peer.Linked && backup.status().Peer.Linked })
			mark, atActive := backup.mark(), active.mark()
			stopped, goOn := make(chan struct{}), make(chan struct{})
			ended := make(chan time.Time, 1)
			active.owner.post(func(l *loop) {
				close(stopped)
				<-goOn
				ended <- time.Now()
				// What has arrived meanwhile is handled in the turn that was
				// stopped, by its clock.
				for _, f := range l.o.requests.take(nil) {
					f(l)
				}
				for _, p := range l.ports {
					l.receive(p)
				}
			})
			<-stopped
			backup.waitFrom(mark, "takeover", becomes(Active))
			until(t, "more adverts and beats of the new owner", func() bool { return backup.status().Adverts.Sent > 3 })
			close(goOn)
			at := <-ended
			active.waitFrom(atActive, "end of its role", becomes(Backup))
			until(t, "adverts of the new owner", func() bool { return active.status().Adverts.Received > 5 })
			if s := backup.status(); s.Role != Active {
				t.Errorf("the new owner is %v (%s)", s.Role, s.Cause)
			}
			backup.mu.Lock()
			for _, c := range backup.changes[mark:] {
				if c.Kind == KindRole && c.Role != Active {
					t.Errorf("the new owner became %v: %s", c.Role, c.Cause)
				}
			}
			backup.mu.Unlock()
			for _, s := range w.Seen() {
				if s.Host == active.host.Name() && s.Time.After(at) && (s.Sort == lab.Advertised && s.Priority > 0 || s.Claims(floating[0].Addr()) || s.Claims(floating[1].Addr())) {
					t.Errorf("after it went on: %v", s)
				}
			}
		})
	}
}
