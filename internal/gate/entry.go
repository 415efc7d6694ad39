package gate

import (
	"fmt"
	"time"
)

// A Mode is what the gate lets an address do. Every mode has an end
// ([Entry.Until]); after it the address is closed, whatever the mode was.
type Mode uint8

const (
	// Closed: nothing to the address and nothing from it. Nobody who asks for
	// it by ARP or neighbour discovery is answered.
	Closed Mode = iota
	// Own: everything, while the lease runs.
	Own
	// Handing: as Own, but TCP segments to the address go on to the peer unless
	// this machine's kernel has their connection: new connections begin there.
	Handing
	// Taking: to the address only what the peer has sent on, from the address
	// only IP. Nobody learns of it by ARP or neighbour discovery: neighbours
	// are asked without naming the address.
	Taking
	// Passing: IP frames to the address go on to the peer, nothing leaves it.
	Passing
)

// String returns the mode's name in lower case.
func (m Mode) String() string {
	switch m {
	case Closed:
		return "closed"
	case Own:
		return "own"
	case Handing:
		return "handing"
	case Taking:
		return "taking"
	case Passing:
		return "passing"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// Grace is how long after its end an entry still closes its address. Then the
// address is open, as if there were no entry: whoever renewed it is gone, and
// an operator who adds the address by hand must not find it dead.
const Grace = 60 * time.Second

// An Entry is what the gate knows of one address.
type Entry struct {
	Mode Mode
	// Until is when the mode ends, in nanoseconds of CLOCK_BOOTTIME. For Own
	// and Handing it is the end of the lease. It is kept to 8 ns, rounded down.
	Until int64
	// Peer is the Ethernet address of the other node: Handing, Taking and
	// Passing need it.
	Peer [6]byte
}

// Counters say how many frames the gate has not left alone, and why. They
// count from when the programs were first attached.
type Counters struct {
	ClosedIn    uint64 `json:"closed_in"`     // IP frames to an address that was not ours: dropped
	ClosedOut   uint64 `json:"closed_out"`    // IP frames from an address that was not ours: dropped
	AsksIn      uint64 `json:"asks_in"`       // ARP requests and neighbour solicitations for one: dropped
	ClaimsOut   uint64 `json:"claims_out"`    // ARP and neighbour discovery that would have claimed one: dropped
	NotFromPeer uint64 `json:"not_from_peer"` // Taking: frames that the peer did not send on: dropped
	Unnamed     uint64 `json:"unnamed"`       // Taking: questions for a neighbour, sent without naming the address
	Handed      uint64 `json:"handed"`        // Handing: segments of other connections than ours, sent on to the peer
	PassedOn    uint64 `json:"passed_on"`     // Passing: IP frames sent on to the peer
}
