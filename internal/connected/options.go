package connected

import (
	"log/slog"
	"net/netip"
	"time"
)

// Options describe a Roster.
type Options struct {
	// Addresses are those to watch at first; see [Roster.SetAddresses].
	Addresses []netip.Addr

	// OnChange is told what changed, in order, on one goroutine of the Roster.
	// At most one Change of a Tuple is in a call, and what came and went between
	// two calls is in none. The slice is valid during the call. It must not wait
	// for long: changes are gathered in memory meanwhile. nil: nobody is told.
	OnChange func([]Change)
	// OnState is told when State.Source, Reason, Error or Whole is another one, or
	// something was lost; on the goroutine of Run. nil: nobody is told.
	OnState func(State)

	// NoTrace leaves eBPF alone: the Roster polls.
	NoTrace bool
	// Gather is how long changes are gathered before they are told, so that a
	// crowd of short connections costs little: default 2 ms, at most 1 s. A
	// change after a quiet time is told at once, others within twice that time.
	Gather time.Duration
	// Poll is the time between two looks at the list of sockets where eBPF may not be
	// used: default 100 ms, at least 10 ms, at most 1 m. A connection that is
	// younger may be unknown.
	Poll time.Duration
	// Max bounds how many connections are known: default 1<<20. Those that find
	// no room are counted in State.Refused.
	Max int

	Logger *slog.Logger // nil: nothing is logged
}

// A Change is one item of the list that the peer holds.
type Change struct {
	Record Record // as it is now; of a Gone one only the Tuple
	Gone   bool   // it is connected no longer
}

// Source says how a Roster learns of sockets.
type Source string

// The sources.
const (
	Starting Source = "starting" // it has not looked yet
	Traced   Source = "trace"    // the kernel tells each change, with sequence numbers
	Polled   Source = "poll"     // the list of sockets is read every Options.Poll, without sequence numbers
)

// State is what is known of a Roster at one moment.
type State struct {
	Source Source
	Reason string        // of Polled: why not Traced, and what to do about it
	Error  string        // what failed last and has not succeeded since; "" when nothing did
	Whole  bool          // everybody is known who is connected, but for those of the last moment; false before the first look, after a loss until the next one, and without room
	Looked time.Time     // when the list of sockets was last read whole
	Took   time.Duration // how long that took

	Refresh time.Duration // the time between two such looks

	Connections int    // that OnChange was told of, and that are still there
	Lost        uint64 // changes that the kernel had no room for, since the start; each loss is followed by a look
	Resyncs     uint64 // looks because of a loss
	Refused     int    // connections that found no room at the last look, and since
	Changes     uint64 // told, since the start
}
