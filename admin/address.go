package admin

import "time"

// Pair is the link to the other node as it stands.
type Pair struct {
	State   string    `json:"state"`            // "synced", "syncing" or "down"
	Since   time.Time `json:"since"`            // of the state
	Reason  string    `json:"reason,omitempty"` // why it is down, or what failed last
	Listen  string    `json:"listen"`
	Peer    string    `json:"peer"`              // the other node's address
	Node    string    `json:"node,omitempty"`    // its name, once it was heard
	Version string    `json:"version,omitempty"` // of its program
	RTT     Seconds   `json:"rtt"`               // the latest round trip on the link; 0: none yet

	Digest  string   `json:"digest,omitempty"` // of the other node's part of the configuration that must be alike
	Own     string   `json:"own_digest"`       // of this node's
	Differs []string `json:"differs"`          // the parts of the two files that must be alike and are not, as services.redis; empty: none

	Unprotected uint64            `json:"unprotected"` // items that the other node has not acknowledged yet
	Connects    uint64            `json:"connects"`    // how often the link came up
	Strangers   map[string]uint64 `json:"strangers"`   // who was turned away on the link's port, by reason
}

// Elector is the process that owns the addresses as it stands.
type Elector struct {
	State  string    `json:"state"`            // "up" or "down"
	Since  time.Time `json:"since"`            // of the state
	Reason string    `json:"reason,omitempty"` // why it is down
}

// AddressGroup is a group of addresses as it stands.
type AddressGroup struct {
	Name      string    `json:"name"`
	Addresses []string  `json:"addresses"`        // with the length of their network
	Present   []string  `json:"present"`          // those that are on the interface
	Role      string    `json:"role"`             // see Roles
	Since     time.Time `json:"since"`            // of the role
	Epoch     uint64    `json:"epoch"`            // counts the owners of the group; of the last one known
	Cause     string    `json:"cause"`            // of the role, see Causes
	Reason    string    `json:"reason,omitempty"` // the same for a person: which interface, what the command said
	Well      bool      `json:"well"`             // this node could own the group
	Lease     Seconds   `json:"lease"`            // what is left of this node's; 0: none runs
	Owner     string    `json:"owner,omitempty"`  // who is heard as the owner; "": nobody, or this node
	Interface string    `json:"interface"`

	VRRPID   int     `json:"vrrp_id,omitempty"` // 0: the group has no election
	Priority int     `json:"priority,omitempty"`
	Interval Seconds `json:"interval,omitempty"`
	Preempt  bool    `json:"preempt,omitempty"`

	Adverts   Adverts           `json:"adverts"`
	Takeovers map[string]uint64 `json:"takeovers"` // how often this node became the owner, by cause
	Conflicts uint64            `json:"conflicts"` // how often another host answered for an address that is this node's
	Restored  uint64            `json:"restored"`  // addresses put back that somebody had taken away
	Asked     uint64            `json:"asked"`     // how often the owner's kernel was asked whether it lives
	Answered  uint64            `json:"answered"`
	Gate      Gate              `json:"gate"`
	Witness   *Witness          `json:"witness,omitempty"` // left out where none is configured, and in fault, when nobody asks it
	Peer      *PeerGroup        `json:"peer,omitempty"`    // what the other node says of the group; left out without a pair

	Services []string `json:"services"` // that listen on its addresses
	Track    []Track  `json:"track"`    // what must be well
}

// Roles.
const (
	RoleActive = "active" // owns the group, and has a running lease
	RoleBackup = "backup" // could own it
	RoleFault  = "fault"  // cannot: see Reason
)

// Causes of a role. They stay the same from one version to the next.
const (
	CauseStart       = "start"       // the node has just started, or the group is new
	CauseAlone       = "alone"       // no other node shares the group
	CauseSilence     = "silence"     // the owner was not heard for too long
	CauseFarewell    = "farewell"    // the owner said that it gives up
	CauseHandover    = "handover"    // a planned takeover
	CausePreempt     = "preempt"     // the larger priority took it back
	CauseOutranked   = "outranked"   // two owned it after a split, and the other one goes before this
	CauseLease       = "lease_ended" // its own lease had run out: it was frozen, or far too late
	CauseWitness     = "witness"     // it reached neither the peer nor the witness
	CauseUnwell      = "unwell"      // an interface, the tracked command, or the daemon
	CauseWell        = "well"        // what was wrong is over
	CauseReleased    = "released"    // by command
	CauseConfigured  = "configured"  // the file changed
	CauseStopped     = "stopped"     // the node ended
	CausePredecessor = "predecessor" // it was this node's before its program was replaced
)

// Adverts is what was sent and heard of a group.
type Adverts struct {
	Sent     uint64  `json:"sent"`
	Received uint64  `json:"received"`  // from routers of the group
	Late     uint64  `json:"late"`      // own ones, later than half an interval
	Failed   uint64  `json:"failed"`    // the kernel refused to send
	Invalid  uint64  `json:"invalid"`   // no adverts, or with a wrong hop limit
	Alien    uint64  `json:"alien"`     // contradicting the file: other addresses, or another interval
	Forged   uint64  `json:"forged"`    // from a host that is not the peer
	MaxGap   Seconds `json:"max_gap"`   // the longest between two own ones
	MaxHeard Seconds `json:"max_heard"` // the longest between two of the owner
}

// Gate is by what the lease is held in the kernel.
type Gate struct {
	InForce bool   `json:"in_force"`         // by a program on the interface; else by the lifetimes of the addresses
	Reason  string `json:"reason,omitempty"` // why not
	Dropped uint64 `json:"dropped"`          // frames that it has stopped
}

// Witness is a third machine that says whether a node is cut off.
type Witness struct {
	Address  string    `json:"address"`
	Answers  bool      `json:"answers"`             // within the time that a takeover takes
	NotAsked bool      `json:"not_asked,omitempty"` // as this node may not take over, such as after a release: answers says nothing
	Asked    uint64    `json:"asked"`
	Answered uint64    `json:"answered"`
	Last     time.Time `json:"last,omitzero"` // answer
}

// PeerGroup is what the other node says of a group.
type PeerGroup struct {
	Linked   bool      `json:"linked"` // it is heard
	Synced   bool      `json:"synced"` // this node has all that it has, and may ask for the addresses
	Role     string    `json:"role"`
	Epoch    uint64    `json:"epoch"`
	Priority int       `json:"priority"`
	Well     bool      `json:"well"`
	Heard    time.Time `json:"heard,omitzero"`
}

// Track is one thing that must be well for a node to own a group.
type Track struct {
	What   string    `json:"what"` // "command" or "engines"
	Well   bool      `json:"well"`
	Since  time.Time `json:"since,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// RoleChange is a change of this node's role for a group of addresses.
type RoleChange struct {
	To        string   `json:"to"`    // see Roles
	From      string   `json:"from"`  // see Roles
	Cause     string   `json:"cause"` // see Causes
	Epoch     uint64   `json:"epoch"`
	Addresses []string `json:"addresses"`
	Reason    string   `json:"reason,omitempty"`  // for a person
	ByHand    string   `json:"by_hand,omitempty"` // who asked for it by command
}

// Addresses is the answer of /v1/addresses.
type Addresses struct {
	Addresses []AddressGroup `json:"addresses"` // in the order of the file
}

// ReleaseResult says what became of a release.
type ReleaseResult struct {
	Groups []Released `json:"groups"` // in the order of the file; of a whole node, those that it owned
}

// Released is what became of one group.
type Released struct {
	Group string  `json:"group"`
	Owner string  `json:"owner,omitempty"` // who took it; "": nobody, it was withdrawn
	Took  Seconds `json:"took"`
	Text  string  `json:"text"` // a sentence for a person
}
