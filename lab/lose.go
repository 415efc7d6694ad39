//go:build linux

package lab

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Frames are kinds of frames, to be joined with |.
type Frames uint64

const (
	// Everything is every frame: what a switch does that isolates ports from each other.
	Everything Frames = 1 << iota
	// ARP is every ARP request and answer.
	ARP
	// NeighbourDiscovery is every neighbour solicitation and advertisement of IPv6.
	NeighbourDiscovery
	// Announcements are what nobody has asked for: gratuitous ARP, as request
	// and as reply, and unsolicited neighbour advertisements.
	Announcements
	// Adverts are those of VRRP, in IPv4 and IPv6.
	Adverts
	onPort

	portShift = 32
)

// TCPPort is every TCP segment from or to the port. At most one port can be
// among the frames that are lost between two hosts.
func TCPPort(port uint16) Frames { return onPort | Frames(port)<<portShift }

func (f Frames) String() string {
	if f == 0 {
		return "nothing"
	}
	var names []string
	for i, name := range []string{"everything", "ARP", "neighbour discovery", "announcements", "adverts", fmt.Sprintf("TCP port %d", f>>portShift)} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Lose loses these frames, and no others, on their way from one host to another,
// on every switch that both are on, from the returned instant on; neither
// notices. nil is every host. What was lost between the two before is lost no
// longer: Lose(from, to, 0) heals. Frames that a third host passes on come from
// that one. [Link.Dropped] of the receiver's link counts them.
func (l *Lab) Lose(from, to *Host, what Frames) (time.Time, error) {
	at := time.Now()
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return at, ErrClosed
	}
	for _, out := range l.links {
		for _, in := range l.links {
			if out != in && out.sw == in.sw && (from == nil || out.host == from) && (to == nil || in.host == to) {
				atomic.StoreUint64(&l.words.Words[in.lossWord(out, len(l.links))], uint64(what))
			}
		}
	}
	l.log.Info("fault", "what", "lose", "frames", what.String(), "from", nameOf(from), "to", nameOf(to), "took", time.Since(at))
	return at, nil
}

// Part loses these frames in both directions, see [Lab.Lose].
func (l *Lab) Part(a, b *Host, what Frames) (time.Time, error) {
	at, err := l.Lose(a, b, what)
	if err == nil {
		_, err = l.Lose(b, a, what)
	}
	return at, err
}

func nameOf(h *Host) string {
	if h == nil {
		return "all"
	}
	return h.spec.Name
}
