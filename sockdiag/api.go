package sockdiag

// What follows replaces this file:
//
//	// errors (errors.Is)
//	ErrGone         no such socket (any more)
//	ErrNotPermitted CAP_NET_ADMIN is missing
//	ErrUnsupported  this kernel cannot (CONFIG_INET_DIAG_DESTROY)
//	ErrInterrupted  a listing was not whole: what was told is true, something may be missing
//	ErrOverflow     a Watch has lost events: list anew
//	ErrBusy         a List of this Conn is still being ranged over
//
//	func (f Filter) Check() error          // names the field
//	func (f Filter) Match(s Socket) bool   // the same judgement, without the kernel
//	func (f Filter) Remainder() []string   // fields that do not fit the kernel's bytecode and are filtered here
//
//	// Conn: of the network namespace of the thread that opened it; for one goroutine at a time.
//	func Open() (*Conn, error)
//	func (c *Conn) List(ctx context.Context, f Filter, o ListOptions) iter.Seq2[Socket, error]
//	                                       // Find and Destroy may be called inside the loop; another List not (ErrBusy). After an error it ends.
//	                                       // Destroying inside the loop can make the kernel skip others: collect first.
//	func (c *Conn) Collect(ctx context.Context, f Filter, o ListOptions) ([]Socket, error) // each socket once; begins anew when interrupted
//	func (c *Conn) Find(local, remote netip.AddrPort, ifindex int) (Socket, error)          // one connection by its ends (never a listener); ErrGone
//	func (c *Conn) Destroy(s Socket) error // needs Local, Remote, Mapped, Interface, Cookie (0: whatever socket has the ends); ErrGone, ErrNotPermitted, ErrUnsupported
//	func (c *Conn) CanDestroy() error      // nil, ErrNotPermitted, ErrUnsupported
//	func (c *Conn) Close() error
//	type ListOptions struct { Info bool }
//
//	// Watch: IPv4 and IPv6 TCP sockets that the kernel frees, with their TCP_INFO.
//	func OpenWatch(WatchOptions) (*Watch, error)
//	func (w *Watch) Destroyed(ctx context.Context) iter.Seq2[Socket, error] // ErrOverflow does not end it; anything else does
//	func (w *Watch) Close() error
//	type WatchOptions struct { Buffer int }
//
//	func InfoOf(c syscall.Conn) (TCPInfo, error)   // of a socket of one's own
//	func ParseTCPInfo(b []byte) TCPInfo            // struct tcp_info as the kernel fills it, of any size
