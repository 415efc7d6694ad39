package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Conn asks the kernel about the sockets of one network namespace: that of the
// thread that opened it, wherever it is used. It is for one goroutine at a time.
type Conn struct {
	dump  dumper          // its answers are many
	one   *sys.DiagSocket // each request has one answer, so that it can be asked while a dump is read
	msgs  []sys.NetlinkMessage
	reply []sys.NetlinkMessage
	body  []byte

	listing bool   // a List is being ranged over
	unread  bool   // the answers of a dump have not all been read,
	seq     uint32 // which has this number
	closed  bool
}

// dumper is a *sys.DiagSocket, with what it says of its methods.
type dumper interface {
	Ask(kind uint16, dump bool, body []byte) (seq uint32, err error)
	Receive(msgs []sys.NetlinkMessage) ([]sys.NetlinkMessage, error)
	Close() error
}

// ListOptions say how sockets are listed.
type ListOptions struct {
	// Info asks for [Socket].Info. The kernel locks each socket shortly for it, and
	// has to copy about three times as much.
	Info bool
}

// Open opens a Conn. It needs no rights. An error is one of the kernel
// (EMFILE; EPROTONOSUPPORT: it has no socket diagnosis).
func Open() (*Conn, error) {
	dump, err := sys.OpenDiag()
	if err != nil {
		return nil, fmt.Errorf("sockdiag: %w", err)
	}
	one, err := sys.OpenDiag()
	if err != nil {
		_ = dump.Close()
		return nil, fmt.Errorf("sockdiag: %w", err)
	}
	return &Conn{dump: dump, one: one}, nil
}

// Close closes c. Afterwards every method returns an error that is
// net.ErrClosed. It must not be called while another one runs.
func (c *Conn) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	return errors.Join(c.dump.Close(), c.one.Close())
}

// List goes through the sockets that f admits, IPv4 sockets first. They come in
// pieces of some hundreds from the kernel, which goes through its hash tables
// meanwhile; no more than one piece is in memory. So they are no snapshot: each
// is told as it stood when it was reached. One that was made meanwhile may be
// missing; one that was there all along is missing only if another one was freed,
// between two pieces, that shared its place in a hash table with it; and for the
// like reason one may come twice, or once in each of two states. Who must have
// each one once uses [Conn.Collect]; who must have it at once beforehand, a
// [Watch], or eBPF.
//
// An error comes last, with a Socket that says nothing: of f (see
// [Filter.Check]), of ctx, which is looked at between the pieces, of the kernel,
// or ErrInterrupted. ErrNotPermitted is for a Filter with a Mark. After
// os.ErrDeadlineExceeded, when the kernel has not answered for 5 s, open another
// Conn. To stop early is all right; the next List reads what is left over.
//
// Inside the loop [Conn.Find] and [Conn.Destroy] may be called; but destroying is
// one of those changes that can hide another socket, so collect first. A second
// List ends at once with ErrBusy.
func (c *Conn) List(ctx context.Context, f Filter, o ListOptions) iter.Seq2[Socket, error] {
	return func(yield func(Socket, error) bool) {
		r, err := f.reduce()
		if err == nil {
			err = c.ready(ctx)
		}
		if err != nil {
			yield(Socket{}, err)
			return
		}
		c.listing = true
		defer func() { c.listing = false }()
		interrupted := false
		for _, family := range []byte{afInet, afInet6} {
			program, left, none := r.program(family)
			if none {
				continue
			}
			c.body = appendRequest(c.body[:0], family, r.states, o.Info)
			if len(program) > 0 {
				c.body = appendAttribute(c.body, requestBytecode, program)
			}
			goOn, broken, err := c.dumpOne(ctx, func(s Socket) bool {
				return len(left) > 0 && !r.match(s) || yield(s, nil)
			})
			interrupted = interrupted || broken
			if err != nil {
				yield(Socket{}, fmt.Errorf("sockdiag: list: %w", err))
				return
			}
			if !goOn {
				return
			}
		}
		if interrupted {
			yield(Socket{}, fmt.Errorf("sockdiag: list: %w", ErrInterrupted))
		}
	}
}

// ready reads what an earlier List has left over.
func (c *Conn) ready(ctx context.Context) error {
	switch {
	case c.closed:
		return fmt.Errorf("sockdiag: list: %w", net.ErrClosed)
	case c.listing:
		return fmt.Errorf("sockdiag: list: %w", ErrBusy)
	}
	for c.unread {
		if _, _, err := c.piece(ctx, func(Socket) bool { return true }); err != nil {
			if c.unread {
				return fmt.Errorf("sockdiag: list: read the rest of an earlier listing: %w", err)
			}
		}
	}
	return nil
}

// dumpOne asks for the sockets of c.body. goOn is false if take did not want any
// more; broken, if the kernel says that something may be missing.
func (c *Conn) dumpOne(ctx context.Context, take func(Socket) bool) (goOn, broken bool, err error) {
	if c.seq, err = c.dump.Ask(sys.DiagByFamily, true, c.body); err != nil {
		return false, false, err
	}
	c.unread = true
	for c.unread {
		more, gaps, err := c.piece(ctx, take)
		broken = broken || gaps
		if err != nil || !more {
			return false, broken, err
		}
	}
	return true, broken, nil
}

// piece reads one datagram of a dump. goOn is false if take did not want any more.
func (c *Conn) piece(ctx context.Context, take func(Socket) bool) (goOn, broken bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, false, err
	}
	if c.msgs, err = c.dump.Receive(c.msgs[:0]); err != nil {
		return false, false, err
	}
	goOn = true
	for _, m := range c.msgs {
		if m.Seq != c.seq {
			continue
		}
		broken = broken || m.Interrupted()
		if done, err := m.Done(); done {
			c.unread = false
			return goOn, broken, dumpMeaning(err)
		}
		if refused, err := m.Answer(); refused {
			c.unread = false
			return goOn, broken, dumpMeaning(err)
		}
		if m.Type != sys.DiagByFamily || !goOn {
			continue
		}
		s, err := decode(m.Body)
		if err != nil {
			return false, broken, err
		}
		goOn = take(s)
	}
	return goOn, broken, nil
}

// collectTries is how often Collect begins anew.
const collectTries = 4

// Collect is List into a slice, with each socket once, as it was told last. It
// begins anew, up to three times, when the kernel says that the listing was
// interrupted; after that it returns what it has found, with ErrInterrupted. With
// any other error it returns nil.
func (c *Conn) Collect(ctx context.Context, f Filter, o ListOptions) ([]Socket, error) {
	var all []Socket
	var err error
	for range collectTries {
		at := make(map[uint64]int, len(all))
		all, err = all[:0], nil
		for s, lerr := range c.List(ctx, f, o) {
			if lerr != nil {
				err = lerr
				break
			}
			if i, twice := at[s.Cookie]; twice {
				all[i] = s
				continue
			}
			at[s.Cookie] = len(all)
			all = append(all, s)
		}
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, ErrInterrupted) {
			return nil, err
		}
	}
	return all, err
}

// Find looks up the connection with these two ends, in any state, by the kernel's
// hash: it takes microseconds, however many there are. It never finds a listening
// socket. IPv4 addresses find v4-mapped sockets as well. ifindex is that of the
// link by which the connection's segments arrive: a socket that is bound to a link
// is found only with that one's, any other with every ifindex and with 0.
//
// ErrGone says that there is none. Info is not told.
func (c *Conn) Find(local, remote netip.AddrPort, ifindex int) (Socket, error) {
	local, remote = plain(local), plain(remote)
	failed := func(err error) (Socket, error) {
		return Socket{}, fmt.Errorf("sockdiag: find %s -> %s: %w", local, remote, err)
	}
	if !alike(local, remote) {
		return failed(errEnds)
	}
	m, err := c.ask(sys.DiagByFamily, appendExact(c.body[:0], familyOf(local.Addr()), local, remote, ifindex, noCookie))
	if err != nil {
		return failed(err)
	}
	s, err := decode(m.Body)
	if err != nil {
		return failed(err)
	}
	// Without a connection the kernel finds who listens for one.
	if s.Local != local || s.Remote != remote {
		return failed(ErrGone)
	}
	return s, nil
}

// Has says of each pair of ends (the local one first) whether a connection has
// them: has[i] is what [Conn.Find] finds of ends[i] at that ifindex, and must be
// there for every i. It is for many: up to 64 are asked for by one system call, and
// nothing is allocated for them. After an error has says nothing.
func (c *Conn) Has(ends [][2]netip.AddrPort, ifindex int, has []bool) error {
	switch {
	case len(has) < len(ends):
		return fmt.Errorf("sockdiag: has: room for %d answers, for %d pairs of ends", len(has), len(ends))
	case c.closed:
		return fmt.Errorf("sockdiag: has: %w", net.ErrClosed)
	}
	for len(ends) > 0 {
		n := min(len(ends), sys.DiagEach)
		c.body = c.body[:0]
		for _, e := range ends[:n] {
			local, remote := plain(e[0]), plain(e[1])
			if !alike(local, remote) {
				return fmt.Errorf("sockdiag: has %s -> %s: %w", e[0], e[1], errEnds)
			}
			c.body = appendExact(c.body, familyOf(local.Addr()), local, remote, ifindex, noCookie)
		}
		err := c.one.Each(sys.DiagByFamily, c.body, requestSize, func(i int, m sys.NetlinkMessage) error {
			if _, err := m.Answer(); err != nil {
				if has[i] = false; errors.Is(err, syscall.ENOENT) {
					return nil
				}
				return meaning(err)
			}
			s, err := decode(m.Body)
			has[i] = s.Local == plain(ends[i][0]) && s.Remote == plain(ends[i][1])
			return err
		})
		if err != nil {
			return fmt.Errorf("sockdiag: has: %w", err)
		}
		ends, has = ends[n:], has[n:]
	}
	return nil
}

var errEnds = errors.New("want two addresses of the same family")

// alike says whether both are valid and of the same family.
func alike(local, remote netip.AddrPort) bool {
	return local.IsValid() && remote.IsValid() && local.Addr().Is4() == remote.Addr().Is4()
}

// plain is ap without a zone, and as IPv4 if it is v4-mapped.
func plain(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return afInet
	}
	return afInet6
}

// Destroy ends a socket, as by a reset that came: reads and writes of its program
// end with ECONNABORTED, the other end of a connection is sent a RST, and what was
// not sent is dropped. A RST can leave only while the local address is on this
// machine. Of a listening socket the connections that wait are reset as well; one
// in TimeWait just ends.
//
// It needs Local, Remote, Mapped, Interface and Cookie of s as they were listed,
// and destroys that very socket or none: a later one with the same ends has
// another Cookie. If Cookie is 0, it is the one that [Conn.Find] finds.
//
// The error is ErrGone (also if somebody else was faster), ErrNotPermitted or
// ErrUnsupported. Of listening sockets that share a port by SO_REUSEPORT the
// kernel looks up one by chance: for the others it is ErrGone, too.
func (c *Conn) Destroy(s Socket) error {
	failed := func(err error) error { return fmt.Errorf("sockdiag: destroy %s: %w", s, err) }
	s.Local, s.Remote = plain(s.Local), plain(s.Remote)
	if !alike(s.Local, s.Remote) {
		return failed(errEnds)
	}
	if s.Cookie == 0 {
		// Never without: the kernel would take who listens for one that is gone.
		found, err := c.Find(s.Local, s.Remote, s.Interface)
		if err != nil {
			return failed(err)
		}
		s = found
	}
	family := familyOf(s.Local.Addr())
	if s.Mapped {
		family = afInet6
	}
	if _, err := c.ask(sys.DiagDestroy, appendExact(c.body[:0], family, s.Local, s.Remote, s.Interface, s.Cookie)); err != nil {
		return failed(err)
	}
	return nil
}

// CanDestroy says whether Destroy works here: nil, ErrNotPermitted or
// ErrUnsupported, or an error that says why it could not tell. It destroys
// nothing.
func (c *Conn) CanDestroy() error {
	failed := func(err error) error { return fmt.Errorf("sockdiag: destroy sockets: %w", err) }
	nobody := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	_, err := c.ask(sys.DiagDestroy, appendExact(c.body[:0], afInet, nobody, nobody, 0, 1))
	if err != nil && !errors.Is(err, ErrGone) {
		return failed(err)
	}
	// The kernel asks for the right only when it has found the socket. The same
	// right is asked for marks, before anything is listed.
	f := Filter{States: StatesOf(BoundInactive), LocalPorts: []PortRange{Port(0)}, Mark: &Mark{}}
	for _, err := range c.List(context.Background(), f, ListOptions{}) {
		if err != nil {
			return failed(err)
		}
	}
	return nil
}

// ask sends a request for one socket and returns its answer. The request is
// kept as c.body, to be used again.
func (c *Conn) ask(kind uint16, body []byte) (m sys.NetlinkMessage, err error) {
	if c.closed {
		return m, net.ErrClosed
	}
	c.body = body
	seq, err := c.one.Ask(kind, false, body)
	if err != nil {
		return m, err
	}
	for {
		if c.reply, err = c.one.Receive(c.reply[:0]); err != nil {
			return m, err
		}
		for _, m := range c.reply {
			if m.Seq != seq { // of a request whose answer was not waited for
				continue
			}
			if answer, err := m.Answer(); answer {
				return m, meaning(err)
			}
			return m, nil
		}
	}
}

// meaning says what the kernel's answer to a request means.
func meaning(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOENT):
		return refusal{ErrGone, syscall.ENOENT}
	case errors.Is(err, syscall.EPERM):
		return refusal{ErrNotPermitted, syscall.EPERM}
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EPROTONOSUPPORT):
		return refusal{ErrUnsupported, err}
	}
	return err
}

// dumpMeaning is meaning for a dump: what is not there then is not a socket, but
// the part of the kernel that lists them.
func dumpMeaning(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return refusal{ErrUnsupported, syscall.ENOENT}
	}
	return meaning(err)
}

// InfoOf asks for the TCP_INFO of a TCP socket of one's own. It may be called
// while the connection is used.
func InfoOf(c syscall.Conn) (TCPInfo, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return TCPInfo{}, fmt.Errorf("sockdiag: TCP_INFO: %w", err)
	}
	var buf [infoRoom]byte
	var n int
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) { n, errno = sys.RawTCPInfo(int(fd), buf[:]) }); err != nil {
		return TCPInfo{}, fmt.Errorf("sockdiag: TCP_INFO: %w", err)
	}
	if errno != 0 {
		return TCPInfo{}, fmt.Errorf("sockdiag: TCP_INFO: want a TCP socket: %w", errno)
	}
	return ParseTCPInfo(buf[:n]), nil
}

// infoRoom is more than any kernel's struct tcp_info.
const infoRoom = 512
