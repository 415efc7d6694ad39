package admin

import "time"

// Pair is the link to the other node as it stands.
type Pair struct {
	State   string    `json:"state"`            // "synced", "syncing" or "down"
	Since   time.Time `json:"since"`            // of the state
	Reason  string    `json:"reason,omitempty"` // why it is down, or what it waits for
	Listen  string    `json:"listen"`
	Peer    string    `json:"peer"`              // the other node's address
	Node    string    `json:"node,omitempty"`    // its name, once it was heard
	Version string    `json:"version,omitempty"` // of its program
	RTT     Seconds   `json:"rtt"`               // a round trip on the link; 0: not measured yet

	Digest  string   `json:"digest,omitempty"` // of the other node's file
	Differs []string `json:"differs"`          // the parts of the two files that must be alike and are not, as services.redis; empty: none

	Unprotected uint64    `json:"unprotected"`        // connections that the other node does not know yet
	Strangers   uint64    `json:"strangers"`          // who was refused on the link's port: no key, a wrong one, or no pair's word
	Stranger    string    `json:"stranger,omitempty"` // the last one: where from, and why it was refused
	Seen        time.Time `json:"seen,omitzero"`      // when that was

	Witness *Witness `json:"witness,omitempty"` // left out where none is configured
}

// Witness is a third machine that says whether a node is cut off.
type Witness struct {
	Address  string    `json:"address"`
	Answers  bool      `json:"answers"`           // it answered within the time that a takeover takes
	Answered time.Time `json:"answered,omitzero"` // last
	Asked    uint64    `json:"asked"`
	Missing  uint64    `json:"missing"` // asks that were not answered
}

// Elector is the process that owns the addresses as it stands.
type Elector struct {
	PID      int       `json:"pid"` // 0: it is not there
	Started  time.Time `json:"started,omitzero"`
	State    string    `json:"state"`            // "well", "degraded" or "down"
	Gate     string    `json:"gate"`             // how the lease is held: "ebpf", or "lifetime" where the kernel takes no program
	Reason   string    `json:"reason,omitempty"` // why the gate is not ebpf
	RealTime bool      `json:"real_time"`        // it has a real-time priority
	Locked   bool      `json:"locked"`           // its memory is locked
	Late     uint64    `json:"late"`             // how often its loop ran later than one advert interval
	MaxLate  Seconds   `json:"max_late"`         // the latest, since it started
}

// AddressGroup is a group of addresses as it stands.
type AddressGroup struct {
	Name      string    `json:"name"`
	Addresses []string  `json:"addresses"`        // with the length of their network
	Role      string    `json:"role"`             // "active", "backup" or "fault"
	Since     time.Time `json:"since"`            // of the role
	Epoch     uint64    `json:"epoch"`            // counts the owners of the group; of the last one known
	Cause     string    `json:"cause"`            // why it has this role, see Causes
	Detail    string    `json:"detail,omitempty"` // the same for a person: which interface, what the command said

	Interface string  `json:"interface"`
	VRRPID    int     `json:"vrrp_id,omitempty"` // 0: the group has no election
	Priority  int     `json:"priority,omitempty"`
	Interval  Seconds `json:"interval,omitempty"`
	Preempt   bool    `json:"preempt,omitempty"`

	Owner     string  `json:"owner,omitempty"` // who is heard as the owner: a node's name or an address; "" for nobody
	Lease     Seconds `json:"lease"`           // what is left of this node's; 0: none
	Gate      string  `json:"gate"`            // what the kernel lets pass: "own", "closed", "taking", "handing", "passing", or "lifetime" without a program
	Dropped   uint64  `json:"dropped"`         // frames that the gate has stopped
	Releasing bool    `json:"releasing,omitempty"`
	Released  bool    `json:"released,omitempty"` // by command, and nobody took it

	Sent      uint64            `json:"adverts_sent"`
	Received  uint64            `json:"adverts_received"` // from the owner
	Late      uint64            `json:"adverts_late"`     // intervals in which one was due and did not come
	Forged    uint64            `json:"adverts_forged"`   // from who is not the peer, or contradicting
	MaxGap    Seconds           `json:"max_gap"`          // the longest between two own adverts in this role
	Asked     uint64            `json:"asked"`            // asks by ARP or neighbour solicitation whether the owner lives
	Answered  uint64            `json:"answered"`
	Takeovers map[string]uint64 `json:"takeovers"` // how often this node became the owner, by cause
	Releases  map[string]uint64 `json:"releases"`  // how often it ceased to be, by cause

	Services []string `json:"services"` // that listen on its addresses
	Track    []Track  `json:"track"`    // what must be well
}

// Roles.
const (
	RoleActive = "active" // owns the group, and has a running lease
	RoleBackup = "backup" // could own it
	RoleFault  = "fault"  // cannot: see Cause
)

// Causes of a role.
const (
	CauseStart     = "start"     // the node has just started
	CauseSilence   = "silence"   // nothing more was heard of the owner
	CausePlanned   = "planned"   // the owner handed it over
	CauseCommand   = "command"   // it was released by command
	CauseStop      = "stop"      // the node stops, or was stopped
	CausePreempt   = "preempt"   // this node has the larger priority, and takes it back
	CausePriority  = "priority"  // two owned it after a split; the other one has the larger priority or address
	CauseLease     = "lease"     // its own lease had run out: it was frozen, or far too late
	CauseWitness   = "witness"   // it reached neither the peer nor the witness
	CauseInterface = "interface" // the group's interface, or a tracked one, is gone or has no carrier
	CauseTrack     = "track"     // the tracked command failed
	CauseEngines   = "engines"   // the daemon did not answer
	CauseConflict  = "conflict"  // the address could not be added, or another machine has it
	CauseReload    = "reload"    // the file changed
	CauseWell      = "well"      // what was wrong is over
)

// Track is one thing that must be well for a node to own a group.
type Track struct {
	What   string    `json:"what"` // "interface eth1", "command" or "engines"
	Well   bool      `json:"well"`
	Since  time.Time `json:"since,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// RoleChange is a change of this node's role for a group of addresses.
type RoleChange struct {
	To        string   `json:"to"`    // see Roles
	From      string   `json:"from"`  // see Roles; "" at the start
	Cause     string   `json:"cause"` // see Causes
	Epoch     uint64   `json:"epoch"`
	Addresses []string `json:"addresses,omitempty"`
	Detail    string   `json:"detail,omitempty"`  // for a person
	By        string   `json:"by,omitempty"`      // who asked for it by command
	Silence   Seconds  `json:"silence,omitempty"` // how long nothing had been heard of the owner before
	Took      Seconds  `json:"took,omitempty"`    // from the decision to the last step
	Steps     []Step   `json:"steps,omitempty"`   // what it took, in order
	Told      uint64   `json:"told,omitempty"`    // connections whose ends were told
}

// Step is one step of a takeover or a release.
type Step struct {
	Name  string  `json:"name"`
	Took  Seconds `json:"took"`
	Error string  `json:"error,omitempty"`
}

// Addresses is the answer of /v1/addresses.
type Addresses struct {
	Addresses []AddressGroup `json:"addresses"` // in the order of the file
}

// ReleaseResult says what became of a release.
type ReleaseResult struct {
	Groups []Released `json:"groups"` // in the order of the file; those that this node did not own are left out
}

// Released is what became of one group.
type Released struct {
	Group string  `json:"group"`
	To    string  `json:"to,omitempty"` // who owns it now; "" for nobody: it was withdrawn
	Told  uint64  `json:"told"`         // connections whose ends were told
	Took  Seconds `json:"took"`
	Text  string  `json:"text"` // a sentence for a person
}
