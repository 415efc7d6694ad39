package election

import (
	"net/netip"
	"time"
)

// Status is a group as its machine sees it.
type Status struct {
	Role  Role
	Since Instant // of this role
	Cause Cause   // of this role
	Epoch uint64
	Well  bool
	Held  bool // withdrawn by command, until another node takes the addresses or the group is configured anew

	// Lease is until when the addresses may speak; 0 if this node is not active.
	Lease Instant

	// Interval is the active node's, Down what a backup waits.
	Interval, Down time.Duration
	// Heard is when the active node was last known to live, Advert when its last
	// advert came; 0: never. Active is where that came from.
	Heard, Advert Instant
	Active        netip.Addr
	// Missing says that its adverts do not arrive although it lives.
	Missing bool

	Asking          bool // adverts are late, so the peer's kernel is asked
	Asked, Answered uint64
	LastAnswer      Instant

	Witness struct {
		Asked, Answered uint64
		Last            Instant // of the last answer; 0: none
		Reachable       bool
		// Idle says that it is not asked, as this node may not take over:
		// Reachable then says nothing.
		Idle bool
		// Reflected is when the witness's answer to a question of the peer's on
		// our behalf came last; 0: never. Only a partition needs it.
		Reflected Instant
	}

	Peer struct {
		Linked bool    // beats arrive
		Last   Instant // of the last beat; 0: none
		Beat   Beat    // the last one
	}

	// Phase is this node's part in a planned move.
	Phase Phase
}
