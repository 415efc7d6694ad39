package vip

import (
	"fmt"
	"net/netip"
	"time"
)

// Role is what this node is for a group.
type Role uint8

const (
	// Backup: another node owns the addresses, or will be asked first.
	Backup Role = iota
	// Active: this node owns the addresses; its lease runs.
	Active
	// Fault: this node cannot own the addresses; Status.Why says why.
	Fault
)

var roleNames = [...]string{Backup: "backup", Active: "active", Fault: "fault"}

// String returns "backup", "active" or "fault".
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("Role(%d)", r)
}

// MarshalText returns the role's word.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText understands what MarshalText writes.
func (r *Role) UnmarshalText(text []byte) error {
	for i, name := range roleNames {
		if string(text) == name {
			*r = Role(i)
			return nil
		}
	}
	return fmt.Errorf("role %q: want backup, active or fault", text)
}

// Cause is why a role changed, in one or two words that stay the same from one
// version to the next.
type Cause string

const (
	CauseStart       Cause = "start"       // the Owner began, or the group is new
	CauseAlone       Cause = "alone"       // no other router shares the group
	CauseSilence     Cause = "silence"     // the active router was not heard from for too long
	CauseFarewell    Cause = "farewell"    // the active router said that it gives up
	CauseHandover    Cause = "handover"    // planned, between two Owners
	CausePreempt     Cause = "preempt"     // the higher priority took over
	CauseOutranked   Cause = "outranked"   // another active router goes before this one
	CauseLease       Cause = "lease_ended" // it could not be renewed in time
	CauseWitness     Cause = "witness"     // neither peer nor witness were heard from
	CauseUnwell      Cause = "unwell"      // a link, the track command or the daemon
	CauseWell        Cause = "well"        // it is well again
	CauseReleased    Cause = "released"    // by command
	CauseConfigured  Cause = "configured"  // the group was changed or removed
	CauseStopped     Cause = "stopped"     // the Owner ended
	CausePredecessor Cause = "predecessor" // its lease runs on here
)

// Kind is what a [Change] tells.
type Kind string

const (
	KindRole     Kind = "role"     // this node's role changed
	KindConflict Kind = "conflict" // another host answers for an address that is ours now
	KindAddress  Kind = "address"  // somebody else took away or added an address
	KindLink     Kind = "link"     // a link went, came back, or has another hardware address
	KindForged   Kind = "forged"   // adverts for the group from a host that is not the peer
	KindAdverts  Kind = "adverts"  // they do not arrive although the peer lives, or arrive again
	KindWitness  Kind = "witness"  // it answers no longer, or again
	KindStranger Kind = "stranger" // a host that is neither node answers for an address that we do not own
	KindStep     Kind = "step"     // a step failed or took too long
	KindGate     Kind = "gate"     // it came into force, or cannot
	KindLate     Kind = "late"     // the loop itself was late
	KindRefused  Kind = "refused"  // a planned move did not come about
)

// Change is something that happened to a group.
type Change struct {
	Group string
	Kind  Kind
	At    time.Time
	// Role is the role now, From the one before; they differ for KindRole.
	Role, From Role
	Epoch      uint64
	Cause      Cause
	// Over says that what an earlier Change of the kind told is over.
	Over bool
	// Text says what happened, on which object and what to do, for people. Of
	// KindRole it says why the group is not well, and is empty where Role, From
	// and Cause say all.
	Text string
}

// Timing is the distribution of a duration since the group began.
type Timing struct {
	Count    uint64
	Max      time.Duration
	P50, P99 time.Duration // upper edges of the bucket they fall in
}

// AdvertStatus counts adverts.
type AdvertStatus struct {
	Sent     uint64
	Received uint64 // from routers of the group
	Late     uint64 // own ones, later than half an interval
	Failed   uint64 // the kernel refused to send
	Invalid  uint64 // not an advert, or a wrong hop limit
	Alien    uint64 // an advert of the group that contradicts it: other addresses or interval
	Forged   uint64 // from a host that is not the peer
	Lateness Timing // of own adverts against their time
	Gaps     Timing // between own adverts, as sent
	Heard    Timing // between the active router's adverts, as received
}

// WitnessStatus is what is known of the witness.
type WitnessStatus struct {
	Address   netip.Addr // invalid: none is configured
	Reachable bool
	Idle      bool // it is not asked, as this node may not take over: Reachable says nothing
	Asked     uint64
	Answered  uint64
	Last      time.Time // of the last answer; zero: none yet
}

// AskStatus is what the peer's kernel was asked (ARP or neighbour solicitation
// for the group's own address).
type AskStatus struct {
	Asking   bool // adverts are late, so it is being asked
	Asked    uint64
	Answered uint64
	Last     time.Time // of the last answer; zero: none yet
}

// GateStatus says by what the lease is enforced.
type GateStatus struct {
	InForce bool   // by a program on the link
	Why     string // why not: then by the addresses' lifetimes
	Dropped uint64 // frames that it silenced
}

// PeerStatus is what beats say of the other Owner.
type PeerStatus struct {
	Linked   bool // beats arrive
	Synced   bool // this node has all that the peer has: see SetSynced
	Role     Role
	Epoch    uint64
	Priority uint8
	Well     bool
	Heard    time.Time // of the last beat; zero: none yet
}

// Status is a group as it stands.
type Status struct {
	Group     string
	Interface string
	Addresses []netip.Prefix
	// Present are those of Addresses that are on the interface.
	Present []netip.Addr

	Role  Role
	Since time.Time
	Epoch uint64
	Cause Cause  // of the last change of role
	Why   string // why it is not well, or what an active one lacks
	Well  bool

	// Lease is what is left of it; 0: none runs.
	Lease    time.Duration
	Priority uint8         // 0 without VRRP
	Interval time.Duration // of adverts; 0 without VRRP
	// Active is the router that owns the addresses as far as its adverts say;
	// invalid: not known, or this node.
	Active netip.Addr

	Adverts   AdvertStatus
	Takeovers map[Cause]uint64 // times that this node became active
	Conflicts uint64
	Restored  uint64 // addresses put back that somebody had taken away
	Witness   WitnessStatus
	Ask       AskStatus
	Gate      GateStatus
	Peer      PeerStatus
}
