// Package relay carries TCP and unix-socket connections between clients and
// backends in user space, and tells the truth about how they end.
//
// A [Relay] has a few event loops. Each [Service] on it has listeners and a
// table of backends; a client that arrives is given to a backend, and from
// then on bytes are copied both ways until both directions have ended.
//
//	r, err := relay.New(relay.Options{})
//	svc, err := r.Listen(relay.ServiceOptions{
//		Listen:   []relay.Address{relay.MustParseAddress("127.0.0.1:6380")},
//		Backends: []relay.Backend{{Name: "r1", Address: relay.MustParseAddress("127.0.0.1:6379"), Weight: 100}},
//	})
//	err = r.Run(ctx)
//
// # Connecting
//
// A connect that is refused or takes too long goes to another backend at once.
// A client is refused, by RST, only when no backend is left.
//
// # Where backends are connected to from
//
// From the machine's own address, or, for clients that have connected to an
// address which moves between machines ([ServiceOptions] Groups), from that one:
// what the backend sends after a move reaches the machine that has the address
// then. [Relay.Sources] and [Relay.Unbound] say what has become of it.
//
// # Endings
//
// An end of stream (FIN) is passed on only when every byte before it has been
// acknowledged by the other side's kernel, and to a client only when the
// backend's kernel has acknowledged every byte that the client has sent. A RST
// from one side is passed on as a RST, after what was received before it has
// been delivered. When a host is silent for too long ([ServiceOptions]
// DeadPeerTimeout), or a backend is marked down ([Service.MarkDown]), both ends
// get a RST at once: a cut stream never ends like a complete one. Every
// connection that ends is reported once, as an [End] with its cause.
//
// A unix socket has no RST. Where a connection with a unix socket on one side
// cannot be kept, that side sees a reset only if bytes of its own are still
// unread, and an end of stream otherwise.
//
// # Changing
//
// [Relay.Configure] takes all services at once and makes them so, or changes
// nothing. What stays keeps its listening sockets, with everybody in their
// queues, and its connections; changed policies hold for those too.
//
// # Limits
//
// A relay carries as many connections as its descriptors allow, or
// [Relay.SetMaxConnections] says. Clients beyond that are accepted and reset at
// once, with [CauseResources]; those that are there notice nothing.
//
// # Accounting
//
// A relay's memory holds bytes that one side has sent and the other has not
// been given yet. They lie in a memory file, with a ledger that says which
// bytes of which stream they are, so that another process that holds the file
// and the sockets can account for all of them, even after a SIGKILL: the
// kernel's counters say how far each stream was read and written, the ledger
// where the bytes between lie. See ledger.go for the layout.
//
// # Concurrency
//
// All methods of Relay and Service are safe for concurrent use. Callbacks run
// on the event loops: they must not block and must not call back into the
// package.
package relay
