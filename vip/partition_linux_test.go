package vip

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
)

// With a witness, at most one of two nodes owns the addresses whatever is cut,
// and one of them does as long as it sees the witness.
func TestWitness(t *testing.T) {
	// A loop that is late for longer than this, or half of it, loses what is
	// rightly its own.
	const interval = 500 * time.Millisecond
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			l := oneArm(t, lab.Size{Clients: 1, Nodes: 2})
			p := startPair(t, l, pairOptions{interval: interval, change: func(_ int, g *Group) { g.Witness = l.Host("client1").Addr(f) }})
			active, backup := p.active(t)
			until(t, "answers of the witness", func() bool {
				a, b := active.status(), backup.status()
				return a.Peer.Linked && b.Peer.Linked && a.Witness.Reachable && b.Witness.Reachable
			})

			// They lose each other, and both see the witness: nothing changes.
			p.broken.Store(true)
			active.owner.LinkDown()
			backup.owner.LinkDown()
			if _, err := l.Part(active.host, backup.host, lab.Everything); err != nil {
				t.Fatal(err)
			}
			parted := time.Now()
			answered := active.status().Witness.Answered
			until(t, "answers of the witness for longer than silence is borne", func() bool {
				return time.Since(parted) > 5*interval && active.status().Witness.Answered > answered+5
			})
			if a, b := active.status(), backup.status(); a.Role != Active || b.Role != Backup {
				t.Errorf("both see the witness: %v and %v", a.Role, b.Role)
			}

			// The owner loses the witness too: it gives up before the other acts.
			marks := [2]int{active.mark(), backup.mark()}
			late := active.status().Adverts.Late
			if _, err := l.Part(active.host, l.Host("client1"), lab.Everything); err != nil {
				t.Fatal(err)
			}
			var ends time.Time // what the gate was told last
			until(t, "loss", func() bool {
				if end, owns := leaseEnd(t, active); owns {
					ends = end
					return false
				}
				return true
			})
			lost := active.waitFrom(marks[0], "loss", func(c Change) bool { return c.Kind == KindRole && c.From == Active })
			taken := backup.waitFrom(marks[1], "takeover", becomes(Active))
			switch {
			case lost.Cause == CauseWitness:
			case lost.Cause == CauseLease && (active.status().Adverts.Late > late || active.wasLate(marks[0])):
				// A loop that gets no processor for an interval loses what is its own
				// before it can tell why; it says that it was late.
				t.Logf("the owner's loop was late, and its lease ended by that")
			default:
				t.Errorf("lost because of %q", lost.Cause)
			}
			if ends.IsZero() || taken.At.Before(ends) {
				t.Errorf("taken over at %v, the lease ended at %v", taken.At, ends)
			}

			// Healed: the new owner stays, the old one is a backup.
			marks = [2]int{active.mark(), backup.mark()}
			if _, err := l.Part(active.host, backup.host, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Part(active.host, l.Host("client1"), 0); err != nil {
				t.Fatal(err)
			}
			p.broken.Store(false)
			until(t, "that both hear each other", func() bool {
				a, b := active.status(), backup.status()
				return a.Peer.Linked && b.Peer.Linked && a.Role == Backup && b.Role == Active && a.Active.IsValid()
			})
			backup.mu.Lock()
			defer backup.mu.Unlock()
			for _, c := range backup.changes[marks[1]:] {
				if c.Kind == KindRole {
					t.Errorf("the owner noticed: %s", c.Text)
				}
			}
		})
	}
}

// wasLate reports whether the loop of a node has said that it was late itself, from
// a mark on.
func (n *node) wasLate(from int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.changes[from:], func(c Change) bool { return c.Kind == KindLate })
}

// leaseEnd gives when the lease of a node ends that owns the only group, or
// shortly before.
func leaseEnd(t *testing.T, n *node) (end time.Time, owns bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.owner.ask(ctx, func(l *loop, done func(error)) {
		for _, g := range l.groups {
			now := time.Now()
			end, owns = now.Add(time.Duration(g.leaseUntil-sys.BootTime())), g.active()
		}
		done(nil)
	}); err != nil {
		t.Fatal(err)
	}
	return end, owns
}

// Adverts are lost and the link lives: that is told, and nothing else happens.
func TestAdvertsLostLinkAlive(t *testing.T) {
	l := oneArm(t, lab.Size{Nodes: 2})
	p := startPair(t, l, pairOptions{interval: quick})
	active, backup := p.active(t)
	until(t, "beats", func() bool { return active.status().Peer.Linked && backup.status().Peer.Linked })
	mark, other := backup.mark(), active.mark()
	if _, err := l.Part(active.host, backup.host, lab.Adverts); err != nil {
		t.Fatal(err)
	}
	backup.waitFrom(mark, "word of it", says(KindAdverts))
	sent := active.status().Adverts.Sent
	until(t, "adverts for two seconds", func() bool { return active.status().Adverts.Sent > sent+uint64(2*time.Second/quick) })
	healed := backup.mark()
	if _, err := l.Part(active.host, backup.host, 0); err != nil {
		t.Fatal(err)
	}
	backup.waitFrom(healed, "word of their return", says(KindAdverts))
	for n, from := range map[*node]int{active: other, backup: mark} {
		n.mu.Lock()
		for _, c := range n.changes[from:] {
			if c.Kind == KindRole {
				t.Errorf("%s: %s", n.host.Name(), c.Text)
			}
		}
		n.mu.Unlock()
	}
}
