package config

import (
	"net/netip"
	"time"

	"github.com/holdfast-net/holdfast/balance"
)

// DefaultFile is where a node looks for its configuration.
const DefaultFile = "/etc/holdfast/holdfast.yaml"

// Config is a whole file.
type Config struct {
	// The node's name, in status, events and metrics. Two nodes need two names.
	Node string `yaml:"node" unset:"host name"`

	// The link to the node that backs this one. Leave it out for a single node.
	Pair *Pair `yaml:"pair"`

	// Groups of virtual IP addresses that one node at a time owns. A group moves
	// as one.
	Addresses []AddressGroup `yaml:"addresses"`

	// Where clients connect, and who serves them. It may be left out where there
	// are addresses: a node may own addresses for other programs.
	Services []Service `yaml:"services" without:"addresses"`

	// The socket on which the commands talk to the node.
	Admin Admin `yaml:"admin"`

	// Where the node keeps what lasts as long as it runs. Several nodes on one
	// machine need one each.
	Directories Directories `yaml:"directories"`

	// Prometheus metrics over TCP. They are on the admin socket in any case.
	Metrics Metrics `yaml:"metrics"`

	// What the node logs, on standard error.
	Log Log `yaml:"log"`

	// File is the file's name, and Digest the first 12 hex digits of the SHA-256
	// of its content.
	File, Digest string `yaml:"-"`

	places *decoder // where everything stands; nil for a Config that was not parsed
}

// Pair is the link to the node that backs this one. It carries what the other
// node must know, with mutual TLS; it never carries traffic of clients.
type Pair struct {
	// Where this node awaits the other: ADDRESS:PORT or [IPv6]:PORT, an address of
	// its own that never moves. It cannot be changed by a reload.
	Listen Address `yaml:"listen" required:"true" address:"pair"`

	// Where the other node listens. It is an address, never a name: what a name
	// server says must not decide who owns an address.
	Peer Address `yaml:"peer" required:"true" address:"pair"`

	// The directory with the keys of both nodes, as holdfast pair init makes it.
	Keys string `yaml:"keys" default:"/etc/holdfast/pair"`

	// An address that answers ARP or neighbour solicitations on the network of a
	// group, normally the gateway. A node that reaches neither the other node nor
	// the witness gives its addresses up before the other node may take them; a
	// node that does not reach it takes none. With a live peer losing it does
	// nothing.
	Witness netip.Addr `yaml:"witness" unset:"none"`
}

// AddressGroup is a group of virtual IP addresses that move together.
type AddressGroup struct {
	// The group's name, unique in the file and equal on both nodes: in commands,
	// events and metrics.
	Name string `yaml:"name" required:"true"`

	// The interface that has the addresses while this node owns them, and where
	// they are announced. Only its own MAC address is used.
	Interface string `yaml:"interface" required:"true"`

	// The addresses with the length of their network, as 10.0.0.100/24 or
	// 2001:db8::100/64; both families may be mixed.
	Addresses []netip.Prefix `yaml:"addresses" required:"true" prefix:"address"`

	// How the nodes agree on who owns the group: VRRP version 3 (RFC 9568).
	// Without it this node owns the addresses whenever it is well.
	VRRP *VRRP `yaml:"vrrp"`

	// What must be well, besides the interface itself, for this node to own the
	// group.
	Track Track `yaml:"track"`

	// Commands that are run when the role of this node changes.
	Notify Notify `yaml:"notify"`
}

// VRRP is how the nodes agree on who owns a group.
type VRRP struct {
	// The virtual router's id, equal on both nodes, and on no other pair of the
	// same network. It has no default: two pairs that both left it out would fight.
	ID int `yaml:"id" required:"true" min:"1" max:"255"`

	// Of two nodes that are well, and start at the same time, the one with the
	// larger priority owns the group. Of equal ones it is the node with the first
	// keys of the pair; without a pair, the one with the larger address. 255 is
	// what RFC 9568 gives the owner of a real address; here it wins every tie, and
	// starts as backup like every other.
	Priority int `yaml:"priority" default:"200" min:"1" max:"255"`

	// How often the owner sends an advert: a multiple of 10ms, equal on both nodes.
	// The other node takes over after three intervals of silence, and up to one
	// more, the smaller its priority.
	Interval time.Duration `yaml:"interval" default:"100ms" min:"10ms" max:"40s"`

	// Takes the group back from a node with a smaller priority, once this node is
	// well and in sync. From our own peer it is a planned takeover.
	Preempt bool `yaml:"preempt" default:"false"`

	// How long this node must have been well and in sync before it preempts.
	PreemptDelay time.Duration `yaml:"preempt_delay" default:"0s" min:"1ms" max:"24h" zero:"at once"`

	// Sends adverts to these addresses instead of the multicast group, and takes
	// them from these only. A group with both families needs a peer of each.
	Peers []netip.Addr `yaml:"peers" unset:"multicast"`
}

// Track is what must be well for a node to own a group.
type Track struct {
	// Other interfaces that must be up and have a carrier. The group's own is
	// always watched.
	Interfaces []string `yaml:"interfaces" unset:"none"`

	// A program and its arguments, no shell, that ends with status 0 while this
	// node may own the group. It is killed, and has failed, when it takes longer
	// than the interval. It finds the group in HOLDFAST_GROUP, and the role that
	// this node has in HOLDFAST_ROLE.
	Command []string `yaml:"command" unset:"none"`

	// From the start of one run of the command to the start of the next.
	Interval time.Duration `yaml:"interval" default:"1s" min:"10ms" max:"1h"`

	// So many failures in a row, and the node gives the group up.
	Fall int `yaml:"fall" default:"3" min:"1" max:"1000"`

	// So many successes in a row, and it may own the group again.
	Rise int `yaml:"rise" default:"2" min:"1" max:"1000"`
}

// Notify are commands that are run when the role of this node changes. They find
// the group in HOLDFAST_GROUP, its addresses in HOLDFAST_ADDRESSES, its interface
// in HOLDFAST_INTERFACE, the role in HOLDFAST_ROLE, the one before in
// HOLDFAST_BEFORE, the cause in HOLDFAST_CAUSE and the epoch in HOLDFAST_EPOCH.
// No takeover waits for them, and two of one group never run at once: the last
// role is always told.
type Notify struct {
	// The program and its arguments, no shell, that is run once this node owns the
	// addresses.
	Active []string `yaml:"active" unset:"none"`

	// The one that is run once this node is backup: at the start, and when it has
	// given the addresses up.
	Backup []string `yaml:"backup" unset:"none"`

	// The one that is run once this node cannot own the addresses.
	Fault []string `yaml:"fault" unset:"none"`
}

// Service is where clients connect, with its backends and its policies.
type Service struct {
	// The service's name, unique in the file: in commands, events and metrics.
	Name string `yaml:"name" required:"true"`

	// Where clients connect: ADDRESS:PORT, [IPv6]:PORT, :PORT for every address
	// of the machine, or unix:/path; one, or a list.
	Listen []Address `yaml:"listen" required:"true" address:"listen"`

	// What carries the connections. The relay is the only engine of this
	// version, and what auto chooses.
	Engine string `yaml:"engine" default:"auto" enum:"auto,relay" later:"packet"`

	// How a backend is chosen for a new client. source-hash gives the clients of
	// one address the same backend, and moves few of them when backends change
	// (Maglev).
	Balance balance.Policy `yaml:"balance" default:"least-connections" enum:"least-connections,round-robin,source-hash"`

	// The real servers. A list may be empty: clients are refused until a reload
	// adds one.
	Backends []Backend `yaml:"backends" required:"true"`

	// How backends are checked.
	Health Health `yaml:"health" unset:"{tcp: {}}"`

	// What becomes of established connections when their backend is lost. reset
	// tells both ends by a RST; a connection that is still making progress may
	// finish first. drain leaves them alone.
	OnBackendLost string `yaml:"on_backend_lost" default:"reset" enum:"reset,drain" later:"hold,rehome"`

	// Bounds for what is left of a drained backend, of a removed one, of a
	// removed service, of a node that stops, and on an address that this node
	// gives to the other one.
	Drain Drain `yaml:"drain"`

	// How long to try one backend before the next. A lost SYN is sent again after
	// one second, so less than that turns one lost packet into another backend.
	ConnectTimeout time.Duration `yaml:"connect_timeout" default:"3s" min:"1ms" max:"1h"`

	// Resets both ends of a connection on which no byte has moved for this long.
	// 0 is never. It is what frees the places that slow clients hold for nothing.
	IdleTimeout time.Duration `yaml:"idle_timeout" default:"0s" min:"1ms" max:"8760h" zero:"never"`

	// How long a client's or a backend's host may be silent (no data, no
	// acknowledgement, no answer to at least six probes) before both ends get a
	// RST, whatever the connection was doing: idle, sending, receiving, or
	// waiting at a zero window. A peer that answers lives for ever. 0 is no bound.
	DeadPeerTimeout time.Duration `yaml:"dead_peer_timeout" default:"15s" min:"7s" max:"24h" zero:"no bound"`

	// The networks that clients may come from, as 10.0.0.0/8 or 2001:db8::/32.
	// Empty is all. Clients of a unix socket are always allowed: its file's mode
	// is for that.
	Allow []netip.Prefix `yaml:"allow" unset:"all"`
}

// Backend is a real server behind a service.
type Backend struct {
	// The backend's name, unique in its service. Without one it is the address.
	Name string `yaml:"name" unset:"address"`

	// Where connections go: ADDRESS:PORT, [IPv6]:PORT, NAME:PORT or unix:/path. A
	// host name is looked up when the file is taken, at start and reload, and its
	// first address used.
	Address Address `yaml:"address" required:"true" address:"backend"`

	// The backend's share relative to the others. 0 drains it: it keeps its
	// connections and gets no new ones.
	Weight int `yaml:"weight" default:"100" min:"0" max:"65535" zero:"drain"`

	// How many connections the backend carries at a time. 0 is no limit. A client
	// that finds every backend at its limit is refused.
	MaxConnections int `yaml:"max_connections" default:"0" min:"0" max:"1073741824" zero:"no limit"`

	// A backup gets clients only while no other backend is up.
	Backup bool `yaml:"backup" default:"false"`
}

// Health is how the backends of a service are checked. Exactly one of TCP, HTTP,
// Exchange, Command and None is set; without a word in the file it is TCP.
type Health struct {
	// Well is who accepts a connection (and completes a TLS handshake, with tls).
	TCP *TCPCheck `yaml:"tcp"`

	// Well is who answers a GET by HTTP/1.1 with one of the wanted statuses.
	HTTP *HTTPCheck `yaml:"http"`

	// Well is who answers what is sent with what is expected.
	Exchange *ExchangeCheck `yaml:"exchange"`

	// Well is where a program ends with status 0. It finds the backend in
	// HOLDFAST_BACKEND and HOLDFAST_ADDRESS.
	Command *CommandCheck `yaml:"command"`

	// Never checked: every backend counts as up.
	None *struct{} `yaml:"none"`

	// From the start of one check to the start of the next.
	Interval time.Duration `yaml:"interval" default:"1s" min:"1ms" max:"1h"`

	// A check that takes longer has failed.
	Timeout time.Duration `yaml:"timeout" default:"1s" min:"1ms" max:"1h"`

	// So many failures in a row take a backend down.
	Fall int `yaml:"fall" default:"3" min:"1" max:"1000"`

	// So many successes in a row bring it back.
	Rise int `yaml:"rise" default:"2" min:"1" max:"1000"`
}

// Target is what tcp, http and exchange checks may set besides.
type Target struct {
	// Check another port than the backend's.
	Port int `yaml:"port" unset:"the backend's" min:"1" max:"65535"`

	// Check another address than the backend's: an IP address, a host name, or
	// unix:/path.
	Address string `yaml:"address" unset:"the backend's"`

	// Speak TLS.
	TLS *TLS `yaml:"tls"`
}

// TLS is how a check speaks TLS.
type TLS struct {
	// The name that the certificate must have. Without one it is the host that is
	// checked.
	ServerName string `yaml:"server_name" unset:"the host"`

	// Take any certificate.
	Insecure bool `yaml:"insecure" default:"false"`
}

// TCPCheck is a check by connecting.
type TCPCheck struct {
	Target `yaml:",inline"`
}

// HTTPCheck is a check by one request.
type HTTPCheck struct {
	// What to get, with its query.
	Path string `yaml:"path" default:"/"`

	// The statuses that are well: numbers and ranges, as 200-299,404.
	Status string `yaml:"status" default:"200-399"`

	// The Host header.
	Host string `yaml:"host" unset:"the address"`

	Target `yaml:",inline"`
}

// ExchangeCheck is a check by one exchange of bytes.
type ExchangeCheck struct {
	// What is sent first, in double quotes with \r, \n and \x00 where they are
	// needed; empty for a server that speaks first. It is text: a character above
	// \x7f is sent as UTF-8.
	Send string `yaml:"send" unset:"nothing"`

	// What must occur in the first 64 KiB of the answer.
	Expect string `yaml:"expect" required:"true"`

	Target `yaml:",inline"`
}

// CommandCheck is a check by a program.
type CommandCheck struct {
	// The program and its arguments; no shell.
	Argv []string `yaml:"argv" required:"true"`

	// Who runs it, with that user's groups. Another user than the node's own
	// needs root, or CAP_SETUID and CAP_SETGID.
	User string `yaml:"user" unset:"the node's own"`
}

// Drain bounds connections that are to end.
type Drain struct {
	// Ends what is left after this long, by a RST to both ends. 0 is never.
	Timeout time.Duration `yaml:"timeout" default:"0s" min:"1ms" max:"8760h" zero:"never"`

	// Ends a draining connection once nothing has moved on it for this long. 0 is
	// never.
	Idle time.Duration `yaml:"idle" default:"0s" min:"1ms" max:"8760h" zero:"never"`
}

// Admin is the socket on which the commands talk to the node.
type Admin struct {
	// The socket's path. Every command takes it as --socket, or from
	// HOLDFAST_SOCKET. It cannot be changed by a reload.
	Socket string `yaml:"socket" default:"/run/holdfast/holdfast.sock"`

	// The socket's mode: who may read what the node knows. Changing is for root,
	// for the node's own user, and for the members of group.
	Mode Mode `yaml:"mode" default:"0660"`

	// The socket's group, whose members may also change things. Empty is the
	// group of the node's own user, whose members may read only.
	Group string `yaml:"group" unset:"none"`
}

// Directories are where the node keeps what lasts as long as it runs.
type Directories struct {
	// For sockets and locks. It cannot be changed by a reload.
	Runtime string `yaml:"runtime" default:"/run/holdfast"`

	// Where the packet engine pins its programs. This version has no packet
	// engine: the path is checked, and nothing is written there.
	BPF string `yaml:"bpf" default:"/sys/fs/bpf/holdfast"`
}

// Metrics is where Prometheus finds the metrics.
type Metrics struct {
	// ADDRESS:PORT or :PORT of an HTTP listener for /metrics, read-only and
	// without a password. Empty is none.
	Listen Address `yaml:"listen" unset:"none" address:"listen"`
}

// Log says what is logged.
type Log struct {
	// The least level that is logged. debug logs every connection.
	Level string `yaml:"level" default:"info" enum:"debug,info,warn,error"`

	// How a line looks.
	Format string `yaml:"format" default:"text" enum:"text,json"`
}

// Mode is a file's permission bits, written in octal as "0660".
type Mode uint32

// Address is where something listens or is reached: an IP address and port, a
// host name and port (backends only), a port alone (listeners only), or the path
// of a unix socket. It is comparable. The zero value is none.
type Address struct {
	Addr netip.Addr // invalid where there is a Host or a Path, or for every address of the machine
	Host string     // a name that is still to be looked up
	Port uint16
	Path string // of a unix socket
}

// Position is a place in the file; lines and columns count from 1, columns in
// characters. The zero value is no place.
type Position struct {
	Line, Column int
}
