package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Seconds is a span of time; in JSON a number of seconds.
type Seconds time.Duration

// Duration returns the span as Go counts it.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// String is that of time.Duration.
func (s Seconds) String() string { return time.Duration(s).String() }

// MarshalJSON writes a number of seconds.
func (s Seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(s).Seconds()) }

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(text []byte) error {
	var f float64
	if err := json.Unmarshal(text, &f); err != nil {
		return fmt.Errorf("a span of time is a number of seconds: %w", err)
	}
	if math.Abs(f) >= math.MaxInt64/1e9 {
		return fmt.Errorf("%g s is longer than 292 years", f)
	}
	*s = Seconds(math.Round(f * 1e9))
	return nil
}

// Status is a node in one answer.
type Status struct {
	Node      string         `json:"node"`
	Version   string         `json:"version"`
	PID       int            `json:"pid"`
	Started   time.Time      `json:"started"`
	State     string         `json:"state"`    // "well", "degraded" or "stopping"
	Problems  []Problem      `json:"problems"` // why it is degraded; worst first, empty when well
	Config    ConfigFile     `json:"config"`
	Limits    []Limit        `json:"limits"`
	Totals    Totals         `json:"totals"`
	Pair      *Pair          `json:"pair,omitempty"`    // the link to the other node; left out for a single node
	Elector   *Elector       `json:"elector,omitempty"` // the process that owns the addresses; left out where there are none
	Addresses []AddressGroup `json:"addresses"`         // in the order of the file
	Services  []Service      `json:"services"`
	Sources   *Sources       `json:"sources,omitempty"` // where backend legs come from; left out while none is bound to an address of a pair's
}

// Problem is one reason why a node is not well.
type Problem struct {
	Code    string    `json:"code"` // see Problem codes
	Service string    `json:"service,omitempty"`
	Backend string    `json:"backend,omitempty"`
	Group   string    `json:"group,omitempty"` // of addresses
	Text    string    `json:"text"`            // a sentence for a person: what, and what to do
	Since   time.Time `json:"since"`           // when it began
}

// Problem codes.
const (
	ProblemServiceDown   = "service_down"   // no backend of the service can take a client
	ProblemBackendDown   = "backend_down"   // a backend is marked down
	ProblemReloadRefused = "reload_refused" // the file is not the one that runs: the last reload was refused
	ProblemLimit         = "limit_reached"  // a limit was reached within the last minute; new clients were or are refused
	ProblemAcceptQueue   = "accept_queue"   // within the last minute the kernel dropped connects of a listener
	ProblemListenerGone  = "listener_gone"  // the file of a unix socket was removed or replaced: nobody can connect to it
	ProblemEventsLost    = "events_lost"    // within the last minute events or log lines could not be written
	ProblemSourcePorts   = "source_ports"   // within the last minute every source port to a backend was in use: it is connected to from the node's own address
	ProblemNoWayBack     = "no_way_back"    // a backend does not answer to the address that clients use: it is connected to from the node's own

	ProblemAddressFault    = "address_fault"         // this node cannot own a group: its interface, what it tracks, or its engines are not well; or owns it without some of its addresses
	ProblemAddressConflict = "address_conflict"      // another host answers for an address that is this node's
	ProblemAddressReleased = "address_released"      // a group was released by command, and nobody took it: nobody owns it until the next reload or start
	ProblemAddressSettings = "address_settings"      // the groups of addresses are not those of the file: the elector did not take them
	ProblemForgedAdverts   = "forged_adverts"        // within the last minute adverts came from a host that is not the peer, or contradict the file
	ProblemAdvertsLost     = "adverts_lost"          // the link says that the peer is active, and its adverts do not arrive
	ProblemPairDown        = "pair_down"             // the link to the other node is down
	ProblemPairSyncing     = "pair_syncing"          // the other node does not have everything yet
	ProblemConfiguration   = "configuration_differs" // the two nodes' files differ where they must not
	ProblemWitness         = "witness_unreachable"   // the witness does not answer: this node takes no address over
	ProblemElectorDown     = "elector_down"          // the process that owns the addresses is not there
	ProblemElector         = "elector"               // that process lacks something: a real-time priority, locked memory
	ProblemNoLeaseGate     = "no_lease_gate"         // the kernel takes no program for the lease: a frozen owner answers until its addresses expire
	ProblemNotify          = "notify_failed"         // the last notify command of a group failed
)

// ConfigFile says which configuration runs.
type ConfigFile struct {
	File    string    `json:"file"`              // "" for a node that was started without one
	Digest  string    `json:"digest"`            // of its content, the first 12 hex digits of SHA-256
	Loaded  time.Time `json:"loaded"`            // when it was taken
	Reloads uint64    `json:"reloads"`           // that were taken since the start
	Refused uint64    `json:"refused"`           // reloads that changed nothing
	Error   string    `json:"error,omitempty"`   // of the last reload, when that was refused
	Changed bool      `json:"changed,omitempty"` // the file on disk is not the one that runs
}

// Limit is something that a node can run out of.
type Limit struct {
	Name    string    `json:"name"`             // "connections", "descriptors" or "memory"
	Used    uint64    `json:"used"`             // now
	Max     uint64    `json:"max"`              // new clients are refused from here on; 0: no bound
	Source  string    `json:"source"`           // what sets it: "RLIMIT_NOFILE 10000", "memory.max of the cgroup"
	Reached uint64    `json:"reached"`          // how many clients were refused for it
	Last    time.Time `json:"last,omitzero"`    // when a client was last refused for it
	Remedy  string    `json:"remedy,omitempty"` // how to raise it
}

// Sources says where the backend legs come from that are bound to an address of a
// pair's.
type Sources struct {
	Ports   string            `json:"ports"`   // that are this node's, as 32768-46883
	Ways    []SourceWay       `json:"ways"`    // from each address to each backend that was connected to
	Unbound map[string]uint64 `json:"unbound"` // backend legs since the start that come from the node's own address, by reason: "ports", "no_way", "away"
}

// SourceWay is the way from an address to a backend.
type SourceWay struct {
	Address string    `json:"address"`
	Backend string    `json:"backend"`         // its address and port
	Used    int       `json:"used"`            // source ports in use
	Max     int       `json:"max"`             // source ports there are
	NoWay   time.Time `json:"no_way,omitzero"` // since when the backend does not answer to the address
}

// Totals are sums over every connection that has ended since the start.
type Totals struct {
	Connections uint64            `json:"connections"`
	BytesIn     uint64            `json:"bytes_in"`
	BytesOut    uint64            `json:"bytes_out"`
	ByCause     map[string]uint64 `json:"by_cause"`
}

// Ends are the connections of one service that ended in one way, since the
// start: what metrics count.
type Ends struct {
	Service     string `json:"service"`
	Cause       string `json:"cause"`
	By          string `json:"by"` // "client", "backend" or "holdfast"
	Count       uint64 `json:"count"`
	ToldClient  uint64 `json:"told_client"`  // how many clients were given a RST
	ToldBackend uint64 `json:"told_backend"` // how many backends were given a RST
	Undelivered uint64 `json:"undelivered"`  // bytes received from one side and not acknowledged by the other
}

// Service is a service as it stands.
type Service struct {
	Name          string     `json:"name"`
	Engine        string     `json:"engine"` // "relay"
	State         string     `json:"state"`  // "up", "down" (no backend can take a client) or "drain" (removed, or the node stops)
	Listen        []Listener `json:"listen"`
	Balance       string     `json:"balance"`
	OnBackendLost string     `json:"on_backend_lost"`
	Active        int        `json:"active"`   // established connections
	Inactive      int        `json:"inactive"` // every other one: being made, or ending
	Total         uint64     `json:"total"`    // clients accepted since the start
	Refused       uint64     `json:"refused"`  // clients that got nothing, and no fault of their own
	BytesIn       uint64     `json:"bytes_in"`
	BytesOut      uint64     `json:"bytes_out"`
	Backends      []Backend  `json:"backends"`
}

// Listener is one address where a service takes clients.
type Listener struct {
	Address  string `json:"address"`
	Queue    int    `json:"queue"`     // connections that wait to be accepted
	QueueMax int    `json:"queue_max"` // at most
	Dropped  uint64 `json:"dropped"`   // connects that the kernel dropped here, most of them because the queue was full
}

// Backend is a backend of a service as it stands.
type Backend struct {
	Service        string    `json:"service"`
	Name           string    `json:"name"`
	Address        string    `json:"address"`
	State          string    `json:"state"` // "up", "down" or "drain"
	Weight         int       `json:"weight"`
	Backup         bool      `json:"backup"`
	MaxConnections int       `json:"max_connections"`   // 0: no limit
	Active         int       `json:"active"`            // established connections
	Inactive       int       `json:"inactive"`          // every other one: being made, or ending
	Total          uint64    `json:"total"`             // established since the backend was added
	BytesIn        uint64    `json:"bytes_in"`          // from clients, those of live connections included
	BytesOut       uint64    `json:"bytes_out"`         // from the backend, those of live connections included
	Since          time.Time `json:"since,omitzero"`    // of being up or down
	Reason         string    `json:"reason,omitempty"`  // why it is down, or not yet known
	ByHand         *ByHand   `json:"by_hand,omitempty"` // what was changed by command, and lasts until the file changes that key
	Removed        bool      `json:"removed,omitempty"` // only its connections are left
	Check          Check     `json:"check"`
}

// ByHand is what a command has set in place of what the file says.
type ByHand struct {
	What       string    `json:"what"`        // "drain", "weight" or "remove"
	FileWeight int       `json:"file_weight"` // what the file says
	Since      time.Time `json:"since"`
	By         string    `json:"by,omitempty"` // who: "uid 1000 (pid 4711)"
}

// Check is what is known of the checks of a backend.
type Check struct {
	Kind       string    `json:"kind"` // "tcp", "http", "exchange", "command" or "none"
	Last       time.Time `json:"last,omitzero"`
	Checks     uint64    `json:"checks"`
	Failures   uint64    `json:"failures"`
	Reported   uint64    `json:"reported"`   // failures that connections met, counted as checks
	Distrusted uint64    `json:"distrusted"` // failures not counted, as this machine was late itself
}

// Connection is one connection as it stands.
type Connection struct {
	ID        uint64    `json:"id"`
	Service   string    `json:"service"`
	Client    string    `json:"client"`  // its address; "unix" for a client of a unix socket
	Backend   string    `json:"backend"` // "" while one is being looked for
	Engine    string    `json:"engine"`  // "relay"
	State     string    `json:"state"`   // "connecting", "established" or "closing"
	Began     time.Time `json:"began"`
	Age       Seconds   `json:"age"`
	Idle      Seconds   `json:"idle"` // since a byte last moved
	BytesIn   uint64    `json:"bytes_in"`
	BytesOut  uint64    `json:"bytes_out"`
	Held      uint64    `json:"held"`      // bytes in the node's memory, either way
	Protected bool      `json:"protected"` // it would survive this node; never for the relay of a single node
}

// Connections are the connections that a filter found.
type Connections struct {
	Connections []Connection `json:"connections"` // by id, the oldest first
	Matched     int          `json:"matched"`     // how many the filter found, those beyond Limit too
	Total       int          `json:"total"`       // how many there are
}

// Event is something that happened. A field that means nothing for the kind of
// event is left out.
type Event struct {
	Seq     uint64    `json:"seq,omitempty"` // counts the events of a node from its start; 0 in a stream that has no place to resume from
	Event   string    `json:"event"`         // its kind, see Event kinds
	Time    time.Time `json:"time"`
	Service string    `json:"service,omitempty"`
	Backend string    `json:"backend,omitempty"`
	Group   string    `json:"group,omitempty"` // of addresses

	*ConnectionEnd `json:",omitempty"`
	*Change        `json:",omitempty"`

	// Role is what became of this node's role for a group.
	Role *RoleChange `json:"role,omitempty"`

	// Count says how many events were lost, or how many clients it is about.
	Count uint64 `json:"count,omitempty"`
}

// Event kinds.
const (
	EventConnection = "connection" // a connection ended, or a client was refused: ConnectionEnd
	EventBackend    = "backend"    // a backend went up or down, was added, changed or removed: Change
	EventService    = "service"    // a service was added, changed or removed, has no backend left or one again: Change
	EventReset      = "reset"      // connections were reset by command, of any service unless it is named: Change, Count
	EventReload     = "reload"     // the file was taken, or refused: Change
	EventLimit      = "limit"      // a limit was reached, or is no longer: Change
	EventNode       = "node"       // the node started, or stops: Change
	EventLost       = "lost"       // events are missing here: Count
	EventAddress    = "address"    // the role of this node for a group changed: Role; or something was noticed about it: Change
	EventPair       = "pair"       // the link to the other node is up, in sync or down, or what it says differs: Change
)

// ConnectionEnd is how a connection ended.
type ConnectionEnd struct {
	ID          uint64  `json:"id"`
	Client      string  `json:"client"`
	Engine      string  `json:"engine"` // "relay"
	Cause       string  `json:"cause"`
	By          string  `json:"by"` // "client", "backend" or "holdfast"
	Age         Seconds `json:"age"`
	BytesIn     uint64  `json:"bytes_in"`
	BytesOut    uint64  `json:"bytes_out"`
	Undelivered uint64  `json:"undelivered"`
	ToldClient  string  `json:"told_client"`  // "", "fin" or "rst"
	ToldBackend string  `json:"told_backend"` // "", "fin" or "rst"
	Attempts    int     `json:"attempts"`
	Detail      string  `json:"detail,omitempty"`
}

// Change is what became of something.
type Change struct {
	Address string `json:"address,omitempty"` // of a backend
	State   string `json:"state"`             // of a backend "up", "down", "drain", "added", "removed", "changed", "reset"; of a service the same, but for "drain"; of a reload "taken", "refused"; of a limit its name; of a reset "reset"; of a node "started", "stopping"; of a pair "synced", "syncing", "down", "stranger", "configuration"; of a group a problem code, or its end "well"
	Reason  string `json:"reason,omitempty"`  // why, for a person
	ByHand  string `json:"by_hand,omitempty"` // who did it by command
	Weight  *int   `json:"weight,omitempty"`  // the new one, where that changed
}

// Filter narrows a listing. The zero value lets everything pass.
type Filter struct {
	Service string // its name
	Backend string // its name
	Client  string // an address, address:port, or a network such as 10.0.0.0/8; "unix" for clients of unix sockets
	Limit   int    // at most so many; 0: all. Of events, the newest
}

// Reload is what a reload did.
type Reload struct {
	File    string   `json:"file"`
	Digest  string   `json:"digest"`
	Changes []string `json:"changes"` // one sentence each; empty: the file says what runs already
}

// ConfigError is one mistake in a configuration file.
type ConfigError struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1; 0: the file as a whole
	Column  int    `json:"column"` // from 1, in characters
	Path    string `json:"path"`   // such as services[0].backends[1].weight
	What    string `json:"what"`
	Excerpt string `json:"excerpt,omitempty"` // the line, and a mark under the column
}
