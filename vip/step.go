package vip

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// When is a place in the order of a takeover or of a release, at which others
// can do something: see [Order].
type When uint8

const (
	// BeforeAddress: the addresses are not on the interface yet. State is put in
	// place here. In an unplanned takeover the lease runs, nobody else acts, and
	// adverts are sent meanwhile; in a planned one the peer still serves, and
	// waits for a second at most.
	BeforeAddress When = iota + 1
	// AfterAnnounce: the addresses are here and announced. Who cannot be saved
	// is told here.
	AfterAnnounce
	// Draining: a planned release has been agreed; new connections go to the
	// peer already, established ones still come here. The step ends when they
	// have, or at its Bound.
	Draining
	// BeforeWithdraw: the addresses are still here, for the last moment in
	// which those whose connections end can be told. It is not reached where
	// the right to act is lost at once: by a lease that ended, or to another
	// active router.
	BeforeWithdraw
	// AfterWithdraw: the addresses have left.
	AfterWithdraw
)

var whenNames = [...]string{
	BeforeAddress: "before address", AfterAnnounce: "after announce", Draining: "draining",
	BeforeWithdraw: "before withdraw", AfterWithdraw: "after withdraw",
}

// String names the place.
func (w When) String() string {
	if w > 0 && int(w) < len(whenNames) {
		return whenNames[w]
	}
	return fmt.Sprintf("When(%d)", w)
}

// Bounds of [Step].Bound.
const (
	DefaultStepBound = time.Second
	MaxStepBound     = time.Hour
)

// Step is what another package does in a takeover or a release. Steps at the
// same place run at the same time, each on a goroutine of its own; what comes
// after waits until all have ended or their Bound has passed. Adverts and leases
// never wait for a step.
type Step struct {
	// Name is for logs and errors.
	Name string
	When When
	// Bound is how long the order waits for Do; 0 means DefaultStepBound, at
	// most MaxStepBound. Then ctx ends, and the order goes on without it.
	Bound time.Duration
	// Do does it. ctx also ends when what it is for is over: the node has lost
	// the addresses again, or got them back. An error is reported, and the
	// order goes on.
	Do func(ctx context.Context, e Event) error
}

// Event is what a step is told.
type Event struct {
	Group     string
	Addresses []netip.Prefix
	When      When
	Epoch     uint64
	Cause     Cause
	// Planned: the peer lives and knows, so that nobody need lose anything.
	Planned bool
}

// Place is one entry of [Order].
type Place struct {
	Name string
	When When // not 0: here others' steps run
	Why  string
}

// Order lists what is done, first to last: when this node becomes the owner,
// when it gives the addresses up with its peer's knowledge or of its own will,
// and when it has lost the right to act and must be silent at once.
func Order() (takeover, release, loss []Place) {
	return takeoverOrder[:], releaseOrder[:], lossOrder[:]
}

var takeoverOrder = [...]Place{
	{"lease", 0, "nobody acts without one; adverts start with it"},
	{"gate", 0, "the addresses may speak from here on, as long as the lease runs"},
	{"steps", BeforeAddress, "state is in place before the first segment arrives"},
	{"addresses", 0, "with a short lifetime, and without duplicate address detection"},
	{"announce", 0, "on every link that has clients or backends"},
	{"steps", AfterAnnounce, "those who cannot be saved are told, those who can are woken"},
}

var releaseOrder = [...]Place{
	{"offer", 0, "the peer has the addresses ready, silent, before anything changes here"},
	{"hand over", 0, "the gate sends who comes new to the peer"},
	{"steps", Draining, "those who are here may end"},
	{"steps", BeforeWithdraw, "those who are left are told while the address can still say it"},
	{"pass on", 0, "the gate sends every late frame to the peer"},
	{"addresses", 0, "they leave"},
	{"farewell", 0, "the peer is told, by beat and by an advert of priority 0"},
	{"steps", AfterWithdraw, "what was kept for the addresses is freed"},
}

var lossOrder = [...]Place{
	{"gate", 0, "silence first"},
	{"addresses", 0, "they leave"},
	{"steps", AfterWithdraw, "what was kept for the addresses is freed"},
}
