//go:build linux

package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/holdfast-net/holdfast/balance"
	"github.com/holdfast-net/holdfast/internal/sourceport"
)

// Options configures a [Relay]. The zero value is usable.
type Options struct {
	// Loops is the number of event loops; each keeps at most one processor
	// busy. 0 means GOMAXPROCS, which knows the limits of a container; at most
	// 1024.
	Loops int

	// Logger receives what cannot be returned as an error; nil discards it. It
	// is called on event loops too: its handler must not block.
	Logger *slog.Logger

	// MaxConnections is how many connections the relay carries at a time;
	// clients beyond are accepted and reset, with CauseResources. 0 means what
	// the descriptors allow: half of those that are left when New is called,
	// less a reserve for listeners and the rest of the program (an eighth of
	// them, at most 64).
	MaxConnections int

	// OnEnd is called once for every client connection that was accepted,
	// when it has ended and both its sockets are closed. It runs on an event
	// loop: it must not block, and must not call into this package.
	OnEnd func(End)

	// Ports are the source ports of backend legs that are bound to an address of
	// ServiceOptions.Groups; the zero value means DefaultPorts, at least 1024.
	// Two machines between which an address moves must have different ones:
	// [PortRange.Half]. Ports of net.ipv4.ip_local_reserved_ports are left out,
	// unless all are in it: then they are reserved for this.
	Ports PortRange

	// OnLegs is told of each leg on an address of ServiceOptions.Groups when it
	// is there and when it is gone: a client's when it was accepted, a backend's
	// when its connect has succeeded. It runs on an event loop, once for what
	// happened in a moment (at most some milliseconds), in the order of events
	// for each connection: it must not block, must not keep the slice, and must
	// not call into this package. nil: nobody is told. See [Relay.TellLegs].
	OnLegs func([]LegChange)
}

func (o Options) check() (Options, error) {
	if o.Loops < 0 || o.Loops > 1024 {
		return o, fmt.Errorf("relay: Options.Loops is %d; it must be between 0 and 1024", o.Loops)
	}
	if o.MaxConnections < 0 {
		return o, fmt.Errorf("relay: Options.MaxConnections is %d; it must not be negative", o.MaxConnections)
	}
	if o.Ports == (PortRange{}) {
		o.Ports = DefaultPorts
	}
	if err := o.Ports.check(); err != nil {
		return o, err
	}
	if o.Loops == 0 {
		o.Loops = min(runtime.GOMAXPROCS(0), 1024)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Defaults and bounds of [ServiceOptions].
const (
	DefaultConnectTimeout  = 3 * time.Second
	DefaultDeadPeerTimeout = 15 * time.Second

	// MinDeadPeerTimeout is the least time in which the kernel's keepalive,
	// whose clock counts whole seconds, fits six probes.
	MinDeadPeerTimeout = 7 * time.Second
)

// LostPolicy says what happens to the established connections of a backend
// that is lost.
type LostPolicy uint8

const (
	// LostReset ends them: both ends get a RST. A connection whose backend is
	// heard from all the same, or has already ended its side, may first finish
	// what it is delivering.
	LostReset LostPolicy = iota
	// LostDrain leaves them alone: they end by themselves, by Drain, or by
	// DeadPeerTimeout.
	LostDrain
)

var lostNames = [...]string{LostReset: "reset", LostDrain: "drain"}

// String returns the policy's name in the configuration.
func (p LostPolicy) String() string {
	if int(p) < len(lostNames) {
		return lostNames[p]
	}
	return fmt.Sprintf("LostPolicy(%d)", p)
}

// ParseLostPolicy understands "reset" and "drain".
func ParseLostPolicy(s string) (LostPolicy, error) {
	for p, name := range lostNames {
		if s == name {
			return LostPolicy(p), nil
		}
	}
	return 0, fmt.Errorf("policy %q: want reset or drain", s)
}

// Drain bounds what is left of a backend that gets no new connections, and of
// a service that is shut down.
type Drain struct {
	// Timeout ends what is left after this long. 0 means never.
	Timeout time.Duration
	// Idle ends a draining connection once nothing has moved on it for this
	// long. 0 means never.
	Idle time.Duration
}

// Backend is a real server behind a service.
type Backend struct {
	// Name is unique within the service and not empty.
	Name string
	// Address is where connections go.
	Address Address
	// Weight is the backend's share relative to the others, 0 to 65535.
	// 0 drains it: it keeps its connections and gets no new ones.
	Weight int
	// Backup backends are used only when no other is up.
	Backup bool
	// MaxConnections bounds what the backend carries at a time; 0 is no bound.
	MaxConnections int
}

// EvidenceKind is what the relay noticed of a backend's health in passing.
type EvidenceKind uint8

const (
	// EvidenceRefused: a connect was refused, or the network says that the
	// backend cannot be reached.
	EvidenceRefused EvidenceKind = iota + 1
	// EvidenceTimeout: a connect took longer than ConnectTimeout.
	EvidenceTimeout
	// EvidenceReset: the backend reset a connection before it had sent a byte.
	EvidenceReset
)

// String returns a word for logs.
func (k EvidenceKind) String() string {
	switch k {
	case EvidenceRefused:
		return "refused"
	case EvidenceTimeout:
		return "connect timeout"
	case EvidenceReset:
		return "reset"
	}
	return fmt.Sprintf("EvidenceKind(%d)", k)
}

// Evidence is one observation about a backend.
type Evidence struct {
	Service string
	Backend string
	Kind    EvidenceKind
	Began   time.Time // when the connect or the connection began
}

// ServiceOptions configures a [Service]. Listen is required; an error names
// the field that is out of its bounds, nothing is clipped.
type ServiceOptions struct {
	// Name appears in reports and logs, and Configure tells services apart by
	// it. No two services have the same, but for those that were removed.
	// Listen takes an empty one for the first Listen address.
	Name string

	// Listen are the addresses where clients connect; at least one. An
	// unspecified IPv6 address takes IPv6 clients only.
	Listen []Address

	// Floating are addresses that may come to this machine and leave it again, as
	// those of a pair do: a listener on one of them is bound whether or not it
	// is here, so that the first client finds it. Without a zone.
	Floating []netip.Addr

	// Groups are addresses that move between machines, each list as one. The
	// backend leg of a client that has connected to one of them comes from that
	// address too, or, where the backend is of the other family, from the first
	// of that family in the same list. So what the backend sends after a move
	// reaches the machine that has the address then, which can tell it.
	//
	// A leg comes from this machine's own address, as without Groups, where the
	// list has no address of the backend's family, and where the backend is a unix
	// socket or on a loopback or an IPv6 link-local address. The same happens, and
	// [Relay.Unbound] counts it, where every port of Options.Ports is in use towards
	// that backend, and where the backend does not answer to the address but does
	// to this machine's own: it has no way back, which two clients find out that
	// wait for half a second, and another one after a minute, two, and so on up to
	// an hour. After a Configure it is found out anew. Link-local IPv6 addresses cannot be in a group.
	Groups [][]netip.Addr

	// Balance chooses among the backends. The zero value is least connections.
	Balance balance.Policy

	// Backends may be empty: then clients are refused until one is added.
	Backends []Backend

	// OnBackendLost is the policy for established connections of a lost
	// backend. The zero value resets them.
	OnBackendLost LostPolicy

	// ConnectTimeout bounds each attempt to reach a backend before the next
	// one is tried. 0 means 3 s; at least 1 ms. A lost SYN is sent again after
	// one second, so less than that turns one lost packet into a redispatch.
	ConnectTimeout time.Duration

	// IdleTimeout resets both ends of a connection on which no byte has moved
	// for this long. 0 means none.
	IdleTimeout time.Duration

	// DeadPeerTimeout bounds how long a client or backend host may be silent
	// (no data, no acknowledgement, no answer to at least six probes) before
	// both ends get a RST, whatever the connection was doing. A peer that
	// answers lives for ever. 0 means 15 s, negative means none; at least 7 s.
	// It does not apply to unix sockets, which cannot lose their peer.
	DeadPeerTimeout time.Duration

	// Drain bounds connections of drained backends and of a service that is
	// shut down, and of what MarkDown lets finish.
	Drain Drain

	// Allow are the networks that clients may come from; empty allows all.
	// Clients of a unix socket are always allowed: its file mode is for that.
	Allow []netip.Prefix

	// Backlog is the length of the kernel's accept queue, which the kernel
	// itself bounds by net.core.somaxconn. 0 means 4096.
	Backlog int

	// OnEvidence receives passive evidence about backends; nil discards it.
	// It runs on an event loop, as Options.OnEnd does.
	OnEvidence func(Evidence)
}

func (o ServiceOptions) check() (ServiceOptions, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("relay: ServiceOptions."+format, args...))
	}
	if len(o.Listen) == 0 {
		bad("Listen is empty; a service listens on at least one address")
	}
	for i, a := range o.Listen {
		if !a.IsValid() {
			bad("Listen[%d] is not an address", i)
		}
	}
	if o.OnBackendLost > LostDrain {
		bad("OnBackendLost is %v; it must be reset or drain", o.OnBackendLost)
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = DefaultConnectTimeout
	}
	if o.ConnectTimeout < time.Millisecond {
		bad("ConnectTimeout is %v; it must be at least 1ms", o.ConnectTimeout)
	}
	if o.IdleTimeout < 0 {
		bad("IdleTimeout is %v; it must not be negative", o.IdleTimeout)
	}
	if o.DeadPeerTimeout == 0 {
		o.DeadPeerTimeout = DefaultDeadPeerTimeout
	}
	if o.DeadPeerTimeout > 0 && o.DeadPeerTimeout < MinDeadPeerTimeout {
		bad("DeadPeerTimeout is %v; it must be at least %v, so that six probes fit", o.DeadPeerTimeout, MinDeadPeerTimeout)
	}
	if o.Drain.Timeout < 0 || o.Drain.Idle < 0 {
		bad("Drain is %+v; its times must not be negative", o.Drain)
	}
	for i, p := range o.Allow {
		if !p.IsValid() {
			bad("Allow[%d] is not a network", i)
		}
	}
	if o.Backlog < 0 {
		bad("Backlog is %d; it must not be negative", o.Backlog)
	}
	if o.Backlog == 0 {
		o.Backlog = 4096
	}
	if _, err := sourceport.NewOrigins(o.Groups); err != nil {
		bad("Groups%w", err)
	}
	entries := make([]balance.Backend, len(o.Backends))
	for i, b := range o.Backends {
		if err := b.check(); err != nil {
			bad("Backends[%d]: %w", i, err)
		}
		entries[i] = b.entry()
	}
	if len(errs) == 0 {
		if _, err := balance.New(o.Balance, entries...); err != nil {
			bad("Backends: %w", err)
		}
	}
	// The caller may go on using its own.
	o.Listen, o.Backends, o.Allow = slices.Clone(o.Listen), slices.Clone(o.Backends), slices.Clone(o.Allow)
	o.Floating, o.Groups = slices.Clone(o.Floating), cloneGroups(o.Groups)
	return o, errors.Join(errs...)
}

func cloneGroups(groups [][]netip.Addr) [][]netip.Addr {
	groups = slices.Clone(groups)
	for i, g := range groups {
		groups[i] = slices.Clone(g)
	}
	return groups
}

// floats reports whether a is on an address that may not be here.
func (o *ServiceOptions) floats(a Address) bool {
	return !a.IsUnix() && slices.Contains(o.Floating, a.ip.Addr().WithZone(""))
}

func (b Backend) check() error {
	switch {
	case b.Name == "":
		return errors.New("the backend has no name")
	case !b.Address.IsValid():
		return fmt.Errorf("backend %s has no address", b.Name)
	case !b.Address.IsUnix() && b.Address.ip.Port() == 0:
		return fmt.Errorf("backend %s: %s has no port to connect to", b.Name, b.Address)
	}
	return nil // weight and limit are the pool's to check
}

func (b Backend) entry() balance.Backend {
	return balance.Backend{Name: b.Name, Weight: b.Weight, Backup: b.Backup, MaxConnections: b.MaxConnections}
}
