package pair

import (
	"maps"
	"net/netip"
	"time"
)

// Why somebody who connected was turned away.
const (
	AlienCrowd   = "crowd"       // there were too many like him at once, or in a second
	AlienSlow    = "slow"        // he did not prove who he is in time
	AlienGarbage = "garbage"     // what he sent is no TLS 1.3, or no greeting
	AlienNoKey   = "no_key"      // he has no certificate
	AlienKey     = "wrong_key"   // his key is not the peer's
	AlienCluster = "wrong_pair"  // he is a node of another pair
	AlienSelf    = "own_key"     // he has this node's own key: both nodes were given the same directory
	AlienRefuses = "refuses_us"  // he does not take this node for his peer: keys of two pairs, or one directory twice
	AlienName    = "same_name"   // he is the peer, but has this node's name
	AlienVersion = "old_version" // he is the peer, but speaks no version of the protocol that this program does
)

// aliens lists them all, so that counters exist before they count.
var aliens = []string{AlienCrowd, AlienSlow, AlienGarbage, AlienNoKey, AlienKey, AlienCluster, AlienSelf, AlienRefuses, AlienName, AlienVersion}

// What whoever has proved nothing may use. The peer's own address has room of
// its own, so that a crowd of strangers cannot keep the peer out.
const (
	handshakeTime  = 3 * time.Second
	handshakeBytes = 32 << 10
	maxStrangers   = 16 // at once
	strangerRate   = 32 // in a second
	maxFromPeer    = 4  // at once, from the peer's address
	tellAliens     = 10 * time.Second
)

// A guard decides whose handshake is begun, and counts who was turned away. It
// is pure.
type guard struct {
	peer      netip.Addr
	fromPeer  int
	strangers int
	second    time.Time // the beginning of the second that begun counts in
	begun     int
	counts    map[string]uint64
	told      map[string]time.Time
}

func newGuard(peer netip.Addr) guard {
	g := guard{peer: peer.Unmap(), counts: make(map[string]uint64), told: make(map[string]time.Time)}
	for _, reason := range aliens {
		g.counts[reason] = 0
	}
	return g
}

// admit reports whether a handshake may begin; then leave ends it.
func (g *guard) admit(from netip.Addr, now time.Time) bool {
	if from.Unmap() == g.peer {
		if g.fromPeer == maxFromPeer {
			return false
		}
		g.fromPeer++
		return true
	}
	if now.Sub(g.second) >= time.Second || now.Before(g.second) {
		g.second, g.begun = now, 0
	}
	if g.strangers == maxStrangers || g.begun == strangerRate {
		return false
	}
	g.strangers++
	g.begun++
	return true
}

func (g *guard) leave(from netip.Addr) {
	if from.Unmap() == g.peer {
		g.fromPeer--
	} else {
		g.strangers--
	}
}

// alien counts one who was turned away, and reports whether to say so: not more
// often than every tellAliens for each reason.
func (g *guard) alien(reason string, now time.Time) (count uint64, say bool) {
	g.counts[reason]++
	if last, ok := g.told[reason]; ok && now.Sub(last) < tellAliens {
		return g.counts[reason], false
	}
	g.told[reason] = now
	return g.counts[reason], true
}

func (g *guard) counters() map[string]uint64 { return maps.Clone(g.counts) }
