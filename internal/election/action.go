package election

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// Instant is a point in time on CLOCK_BOOTTIME, in nanoseconds.
type Instant = vrrp.Instant

// MAC is an Ethernet address.
type MAC = [6]byte

// Role is what a node is for a group.
type Role uint8

// The roles.
const (
	Backup Role = iota // listens, and takes over when it must
	Active             // owns the addresses
	Fault              // is not well, or does not run: neither owns nor takes over
)

func (r Role) String() string { return name(r, "Role", "backup", "active", "fault") }

// Cause is why a role changed.
type Cause uint8

// Why a role changes. The words are those of the API.
const (
	ByStart       Cause = iota // the machine began
	ByAlone                    // nobody else shares the group
	BySilence                  // the active node was not heard from for too long
	ByFarewell                 // the active node said that it gives up
	ByHandover                 // a planned move
	ByPreempt                  // a planned move, because of the higher priority
	ByRank                     // another active node goes before this one
	ByLease                    // the lease could not be extended in time
	ByWitness                  // the same, as neither peer nor witness were heard from
	ByUnwell                   // the node is not well
	ByWell                     // the node is well again
	ByRelease                  // by command
	ByStop                     // the machine ends
	ByPredecessor              // a lease of the process before this one runs on
)

func (c Cause) String() string {
	return name(c, "Cause", "start", "alone", "silence", "farewell", "handover", "preempt", "outranked", "lease_ended",
		"witness", "unwell", "well", "released", "stopped", "predecessor")
}

// Do is what the caller is to do.
type Do uint8

// What there is to do, with the fields of [Action] that belong to it.
//
// The order of a takeover is SendAdvert, Lease, Own: the peer's evidence leaves
// before the lease that it allows. So it is at every renewal: SendAdvert, then
// Lease. The order at the end is Withdraw (which closes the lease before the
// addresses go), then SendAdvert of priority 0. SendBeat is the last of a call.
//
// An action with a Deadline is what an owner does. It is done only if the clock,
// read now that the actions before it are done, shows less: the process may have
// been stopped on the way here, and somebody else be the owner. Else it is left
// out, with all that this call has still to do, and [Machine.Lapsed] says what to
// do instead.
const (
	_ Do = iota

	// SendAdvert sends an advert of Priority that announces Interval, in each
	// family of the group. It has a Deadline unless Priority is 0.
	SendAdvert

	// SendBeat sends what [Machine.Beat] gives, over the link. That of an owner
	// has a Deadline.
	SendBeat

	// Lease lets the addresses speak before Until, and not from Until on. It may
	// also shorten the lease. It has a Deadline.
	Lease

	// Own makes the addresses this node's, under Epoch: open the gate (until the
	// lease, whose action came before), add the addresses, announce them. Cause
	// says why. Addresses that Prepare has added are there already.
	Own

	// Announce tells the neighbours again where the addresses are.
	Announce

	// Ask asks who has Target, from the address From: an ARP request, or a
	// neighbour solicitation. From is the unspecified address in a probe
	// (RFC 5227: ARP sender 0.0.0.0; in IPv6 a solicitation from ::, without a
	// source link-layer option).
	Ask

	// Reflect asks who has Target on behalf of the peer, so that the answer goes
	// there: the sender inside the frame is From at MAC, the Ethernet source is
	// our own. MAC is the broadcast address where the peer's is not known.
	Reflect

	// Prepare makes ready for a planned move to this node: the addresses are
	// added, silent for all but MAC. Answer with [Machine.Prepared].
	Prepare

	// Undo takes back Prepare.
	Undo

	// Hand begins to give the addresses to the peer at MAC: new connections go
	// there from now on.
	Hand

	// Keep takes back Hand, and ends a Drain: the addresses stay here.
	Keep

	// Drain ends what serves the addresses: AtLeast this long, AtMost this long,
	// then everybody is told. Answer with [Machine.Drained].
	Drain

	// Withdraw closes the lease, then takes the addresses away. Frames that
	// still come for them are passed on to MAC for some seconds, if it is not
	// zero. It ends Hand and Drain. Cause says why.
	Withdraw

	// Report says what has happened, for logs, events and status: What, and the
	// fields named there.
	Report
)

func (d Do) String() string {
	return name(d, "Do", "nothing", "advert", "beat", "lease", "own", "announce", "ask", "reflect", "prepare", "undo", "hand",
		"keep", "drain", "withdraw", "report")
}

// What is what a Report says.
type What uint8

// What a Report can say.
const (
	_ What = iota

	RoleChanged    // Role, Before, Cause, Epoch
	AdvertsMissing // the peer lives (beats or answers say so), but its adverts do not arrive
	AdvertsBack    // they arrive again
	Forged         // an advert for the group From a host that is not the peer, or that the peer's beats deny; not heeded
	Strange        // a host at MAC that is neither node answers for Target
	Conflict       // a host at MAC answers for Target, which this node owns
	Contended      // the peer is active too; this node goes before it
	Superseded     // Epoch replaces one that the peer has had as well
	WitnessLost    // it no longer answers
	WitnessBack    // it answers again
	Late           // the caller was late by By: what was heard until now proves nothing
	MoveRefused    // a planned move did not come about: Why
	Moved          // a planned move is done: the peer owns the addresses under Epoch
	Released       // the addresses are withdrawn, nobody is known to have taken them over
	Stopped        // the machine has ended
)

func (w What) String() string {
	return name(w, "What", "nothing", "role", "adverts missing", "adverts back", "forged", "strange", "conflict", "contended",
		"superseded", "witness lost", "witness back", "late", "move refused", "moved", "released", "stopped")
}

// Why is why a planned move did not come about.
type Why uint8

// Why a planned move does not come about.
const (
	_           Why = iota
	NoAnswer        // the peer did not say in time that it is ready
	PeerRefused     // the peer said no: it is not well, or could not prepare
	PeerLost        // the peer fell silent while it was in progress
	NotTaken        // the peer was given the addresses, and did not take them over in time
)

func (w Why) String() string {
	return name(w, "Why", "nothing", "no answer", "the peer refused", "the peer was lost", "not taken over")
}

// Action is one thing to do; its fields belong to Do as told there. It is a
// plain value.
type Action struct {
	Do Do

	Priority        uint8
	Interval        time.Duration
	Until, Deadline Instant
	Epoch           uint64
	Cause           Cause
	Target, From    netip.Addr
	MAC             MAC
	AtLeast, AtMost time.Duration

	What         What
	Role, Before Role
	Why          Why
	By           time.Duration
}

// String shows an action in one line, as transcripts do.
func (a Action) String() string {
	switch a.Do {
	case SendAdvert:
		return fmt.Sprintf("advert priority %d", a.Priority)
	case Lease:
		return fmt.Sprintf("lease until %v", time.Duration(a.Until))
	case Own:
		return fmt.Sprintf("own epoch %d, %v", a.Epoch, a.Cause)
	case Ask:
		if a.From.IsUnspecified() {
			return fmt.Sprintf("ask %v, probe", a.Target)
		}
		return fmt.Sprintf("ask %v from %v", a.Target, a.From)
	case Reflect:
		return fmt.Sprintf("ask %v for the peer", a.Target)
	case Prepare:
		return fmt.Sprintf("prepare epoch %d", a.Epoch)
	case Drain:
		return fmt.Sprintf("drain %v to %v", a.AtLeast, a.AtMost)
	case Withdraw:
		if a.MAC != (MAC{}) {
			return fmt.Sprintf("withdraw, %v, pass on", a.Cause)
		}
		return fmt.Sprintf("withdraw, %v", a.Cause)
	case Report:
		return a.report()
	}
	return a.Do.String()
}

func (a Action) report() string {
	switch a.What {
	case RoleChanged:
		return fmt.Sprintf("report %v -> %v, %v, epoch %d", a.Before, a.Role, a.Cause, a.Epoch)
	case MoveRefused:
		return fmt.Sprintf("report %v: %v", a.What, a.Why)
	case Late:
		return fmt.Sprintf("report late by %v", a.By)
	case Forged:
		return fmt.Sprintf("report forged advert from %v", a.From)
	case Strange, Conflict:
		return fmt.Sprintf("report %v: %v", a.What, a.Target)
	case Superseded, Moved:
		return fmt.Sprintf("report %v, epoch %d", a.What, a.Epoch)
	}
	return "report " + a.What.String()
}

// name is the word for a value of a small enumeration.
func name[T ~uint8](v T, kind string, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", kind, uint8(v))
}
