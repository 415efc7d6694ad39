package connected

import (
	"fmt"
	"net/netip"
	"time"
)

// Kind says whose connection it is.
type Kind uint8

// The kinds of a Record. Their numbers are part of the encoding.
const (
	Socket       Kind = 1 // of any program that has a socket at the address
	RelayClient  Kind = 2 // the relay's leg to a client
	RelayBackend Kind = 3 // the relay's leg to a backend, from the address
)

// String returns the words a person reads.
func (k Kind) String() string {
	switch k {
	case Socket:
		return "socket"
	case RelayClient:
		return "relay client"
	case RelayBackend:
		return "relay backend"
	default:
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
}

// A Tuple names a connection: Local is its end at an address that this pair
// owns, Remote the other one. Both are of one family, without zones, and never
// IPv4 in IPv6.
type Tuple struct{ Local, Remote netip.AddrPort }

// A Record is one connection, established or half-closed. It is comparable.
type Record struct {
	Tuple
	Kind Kind

	// HasISN says that the two numbers below are known; they are where eBPF
	// gave them.
	HasISN bool
	// ISN is a sequence number of Local that Remote has acknowledged: the
	// initial one, or a later one where more than [Stride] bytes have followed.
	// A byte sent with it is old data, as long as it is less than 2^31 behind.
	// So it is, as every look ([State.Refresh] apart) sees to it: a connection
	// that moves more than 2^30 bytes between two looks has no numbers until it
	// slows down. What no look can see is 2^32 bytes that go between the last
	// one and the end of the node: 69 Gbit/s for the half second. And who holds
	// a [Copy] whose link has been down for some seconds knows too little of
	// their age to use them.
	ISN uint32
	// RemoteISN is the same of Remote: Local has acknowledged it.
	RemoteISN uint32

	Since time.Time // when it was established, or first seen; by this node's wall clock, without a monotonic reading
	Owner string    // who serves it, for people: a service's name; at most [MaxOwner] bytes, "" where nobody said
}

// String says all of it in a line.
func (r Record) String() string {
	s := fmt.Sprintf("%s, %s", r.Tuple, r.Kind)
	if r.Owner != "" {
		s += " of " + r.Owner
	}
	s += ", since " + r.Since.Format(time.RFC3339Nano)
	if r.HasISN {
		s += fmt.Sprintf(", numbers %d and %d", r.ISN, r.RemoteISN)
	}
	return s
}

// MaxOwner bounds Record.Owner.
const MaxOwner = 255

// Stride is how many bytes may pass in one direction before a Record is told
// anew with later numbers.
const Stride = 1 << 29
