package pair

import (
	"log/slog"
	"net/netip"
	"time"
)

// Options describe one end of the link.
type Options struct {
	Listen netip.AddrPort // where the peer connects to; its IP is also the source of our own connections, unless it is unspecified
	Peer   netip.AddrPort // where the peer listens
	Keys   *Keys          // who we are, and who the peer is; see [LoadKeys]

	Node    string // this node's name, 1 to 255 bytes
	Version string // this program's version, at most 255 bytes; shown at the peer
	Digest  []byte // of this node's configuration, at most 64 bytes; compared by the peer. [Link.SetDigest] changes it

	Sets   []*Set   // what one node has for the other; each belongs to one link
	Tables []*Table // what both nodes may change

	// Silence is how long nothing may come from the peer until the link is
	// down; a quarter of it is the interval of our own life signs. Default 2s,
	// at least 200ms, at most 1m.
	Silence time.Duration
	// BeatAge is how old a beat may be when it is its turn to be sent; an older
	// one is dropped. Default 100ms, at least 1ms, at most 1m.
	BeatAge time.Duration

	// The callbacks run on the goroutines of the link and must not block. Each
	// may be nil.
	OnBeat  func(beat []byte)                        // a beat of the peer; beat is valid during the call
	OnState func(State)                              // the link's state is another one
	OnPeer  func(Peer)                               // the peer said who it is, or that its digest changed
	OnAlien func(addr netip.AddrPort, reason string) // a stranger was turned away; at most one call for each reason in ten seconds

	Logger *slog.Logger // nil: nothing is logged
}

// The states of the link, and of a set or table on it.
const (
	Down    = "down"    // no connection to the peer
	Syncing = "syncing" // connected; the standby does not have everything yet
	Synced  = "synced"  // connected; the standby has everything but what is on its way
)

// Peer is what the other node says of itself.
type Peer struct {
	Node    string
	Version string
	Digest  []byte
	Address netip.AddrPort // the other end of the connection
}

// State is what is known of the link at one moment.
type State struct {
	State string        // Down, Syncing or Synced
	Since time.Time     // of this State
	Error string        // why the link is down, or what failed last; "" when nothing did
	RTT   time.Duration // the latest round trip; 0 when none was measured on this connection

	Peer Peer       // as it was last heard; the zero Peer before
	Sets []SetState // of sets and tables, in the order of Options

	Counters Counters
}

// SetState is what is known of one set or table.
type SetState struct {
	Name           string
	State          string // Down, Syncing or Synced
	Epoch          uint64 // 0 for a table
	Leads          bool   // this node is the one that produces; true for a table
	Items          int    // how many this node holds to send
	Unacknowledged int    // of these, changes that the peer has not acknowledged: these items are unprotected
	Refused        uint64 // puts that found no room, since the last Lead
	Snapshots      uint64 // how often the whole was sent
}

// Counters count since New.
type Counters struct {
	Connects                               uint64 // times that the link came up
	FramesSent, FramesReceived             uint64
	BytesSent, BytesReceived               uint64            // of frames, without what TLS adds
	BeatsSent, BeatsReceived, BeatsDropped uint64            // dropped: a newer one came, or it was too old
	Strangers                              map[string]uint64 // turned away, by reason
}

// Item is what a follower is told, in this order: ItemBegin, items, ItemEnd;
// afterwards items alone, until the next ItemBegin.
type Item struct {
	Kind       ItemKind
	Epoch      uint64 // the producer's
	Key, Value []byte // valid during the call
}

// ItemKind says what an Item is.
type ItemKind uint8

// The kinds of an Item.
const (
	ItemBegin  ItemKind = iota + 1 // everything is told from the start; forget nothing yet
	ItemPut                        // the item with this key has this value now
	ItemDelete                     // there is no item with this key any more; it may never have been one
	ItemEnd                        // whatever was not put since ItemBegin does not exist: forget it
)

// SetOptions describe a set.
type SetOptions struct {
	ID   uint16 // the same on both nodes, and never used for anything else; not 0
	Name string // in states and logs

	// OnItem is called at the node that follows, on the link's goroutine, in
	// order. What it returned from is acknowledged, not before.
	OnItem func(Item)
	// OnSuperseded is called at the node that leads when the peer leads with a
	// later epoch; this node follows from here on.
	OnSuperseded func(epoch uint64)

	// MaxItems and MaxBytes (keys and values) bound what the producer holds
	// for the peer. Default 1<<20 items and 256 MiB.
	MaxItems, MaxBytes int
}

// Entry is one entry of a table.
type Entry struct {
	Key     string
	Value   []byte
	Deleted bool   // the entry is the memory of a deletion
	Stamp   uint64 // Lamport's: the later one wins
	Node    string // who made it; the greater name wins between equal stamps
}

// TableOptions describe a table.
type TableOptions struct {
	ID   uint16 // shares its numbers with sets
	Name string
	Node string // this node's name

	// OnEntry is called for each entry of the peer that won, on the link's goroutine.
	OnEntry func(Entry)
	// MaxEntries bounds what is put at this node, deletions included. Default 8192.
	MaxEntries int
}
