package notice

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Connection names a connection by its two ends, as Local saw it, and what is
// known of its numbers. IPv4 addresses that are written as IPv6 ones count as
// IPv4. Of link-local addresses one at least has a zone, a link's name or index.
type Connection struct {
	Local  netip.AddrPort // the end that is gone
	Remote netip.AddrPort // the end that is told
	Start  Start
}

// Start is what is known of a connection's sequence numbers. The zero Start,
// nothing, is enough: the more is known, the less can keep a tickle from being
// answered.
//
//   - Nothing: the first tickle is a bare ACK with random numbers. Linux answers it at
//     most once in 500 ms for each connection, and firewalls that track connections may
//     drop it.
//   - ISN: the tickle is one old byte, which is answered every time. Firewalls may
//     drop it if Local has sent more than a window of data since.
//   - Numbers: the tickle is one byte that Remote acknowledged last, answered every
//     time and let pass by firewalls that still know the connection.
type Start struct {
	Known Known

	// ISN is a number of Local that Remote has acknowledged, and not more than 2^31
	// bytes ago: that of its SYN, or a later one.
	ISN uint32
	// RemoteISN is the same of Remote, which Local has acknowledged.
	RemoteISN uint32

	Acknowledged uint32 // what Remote has acknowledged to Local (SND.UNA)
	Next         uint32 // what Local would have sent next (SND.NXT), at or after Acknowledged
	Receive      uint32 // what Local expected next of Remote (RCV.NXT)
}

// Known says which fields of a [Start] hold something.
type Known uint8

const (
	// KnownISN is for Start.ISN.
	KnownISN Known = 1 << iota
	// KnownRemoteISN is for Start.RemoteISN.
	KnownRemoteISN
	// KnownNumbers is for Acknowledged, Next and Receive.
	KnownNumbers
	// Final, with KnownNumbers, says that they were read when the socket at Local could send
	// no more, as after its destruction. If everything is acknowledged, the RST needs no
	// answer first, and is sent with the first tickle.
	Final
)

// Verdict says what became of a connection.
type Verdict uint8

const (
	// Undecided: the context ended first. The zero Verdict.
	Undecided Verdict = iota
	// Told: Remote had the connection, and was sent a RST at its exact numbers.
	// Result.Confirmed says whether it has shown that it took it.
	Told
	// Gone: Remote does not have the connection. It answered the first tickle with
	// a RST.
	Gone
	// Unreachable: nothing was heard of Remote within the bound: it is gone, or
	// something on the way drops the segments.
	Unreachable
	// Alive: a socket of this machine has the connection (TIME_WAIT counts), or the
	// caller says so, or somebody goes on sending to Remote. Nothing was sent to it that
	// changes it.
	Alive
	// Refused: it could not be told although something was heard: Result.Err says
	// why.
	Refused

	verdicts = iota
)

// String gives the verdict in lower case.
func (v Verdict) String() string {
	switch v {
	case Undecided:
		return "undecided"
	case Told:
		return "told"
	case Gone:
		return "gone"
	case Unreachable:
		return "unreachable"
	case Alive:
		return "alive"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Result is what became of one connection.
type Result struct {
	Connection Connection // as it was given
	Verdict    Verdict
	// Confirmed, with Told: Remote answered a tickle after the RST with a RST of
	// its own. Otherwise it has fallen silent behind the RST, as it does where a
	// firewall keeps segments of no connection from it.
	Confirmed bool
	// Took is from the call to what the verdict rests on.
	Took time.Duration
	// Tries is how many tickles were sent.
	Tries int
	// Err is why, with Refused, or with Unreachable where sending failed, and the
	// context's error with Undecided.
	Err error
}

// Summary counts the results of one call.
type Summary struct {
	Results  [verdicts]int // indexed by Verdict
	Segments int           // sent
	Took     time.Duration // from the call to the last result
}

// Count gives how many connections had the verdict.
func (s Summary) Count(v Verdict) int {
	if int(v) < len(s.Results) {
		return s.Results[v]
	}
	return 0
}

// Errors of a Result, to be compared with errors.Is.
var (
	// ErrConnection: its ends are not a TCP connection: one is not valid, or they are of two families.
	ErrConnection = errors.New("notice: not two ends of a TCP connection")
	// ErrNumbers: what answered has other numbers than the connection that was
	// given: its ports are used by another one.
	ErrNumbers = errors.New("notice: the answers are not of this connection")
	// ErrHeld: the end goes on answering, whatever RST it is sent: its kernel keeps
	// a connection that has ended for a while (TIME_WAIT, with tcp_rfc1337 set), or
	// something on the way drops every RST.
	ErrHeld = errors.New("notice: the other end does not take a reset")
	// ErrClosed: the Teller was closed, or its Run has ended.
	ErrClosed = errors.New("notice: closed")
)

// Defaults and bounds of [Options].
const (
	DefaultRate  = 200_000
	MinRate      = 100
	MaxRate      = 10_000_000
	DefaultBound = time.Second
	MinBound     = 10 * time.Millisecond
	MaxBound     = time.Minute
)

// Options say how a [Teller] works. The zero Options are good.
type Options struct {
	// Rate is how many segments leave in a second at most, in bursts of up to 64.
	// Zero means DefaultRate, within MinRate and MaxRate. A segment is a frame of
	// 60 to 86 bytes: the default is up to 150 Mbit/s, for the 50 ms that 9,000
	// connections take.
	Rate int
	// Bound is when an end that does not answer is Unreachable, from its first
	// tickle. Zero means DefaultBound, within MinBound and MaxBound. Tickles go out
	// after 0, 3 and 30 ms, 200 and 600 ms, and every second then. A bare ACK needs
	// more than 500 ms to be answered again.
	Bound time.Duration
	// Alive says whether a connection lives, although no socket of this machine has
	// it: at the peer, or in a packet engine. It is asked before each tickle and each
	// RST, from the goroutine of Run, and must not block. Nil means that none does.
	Alive func(local, remote netip.AddrPort) bool
}

// check gives the options with defaults filled in.
func (o Options) check() (Options, error) {
	if o.Rate == 0 {
		o.Rate = DefaultRate
	}
	if o.Bound == 0 {
		o.Bound = DefaultBound
	}
	if o.Rate < MinRate || o.Rate > MaxRate {
		return o, fmt.Errorf("notice: Options.Rate: %d is not within %d and %d segments a second", o.Rate, MinRate, MaxRate)
	}
	if o.Bound < MinBound || o.Bound > MaxBound {
		return o, fmt.Errorf("notice: Options.Bound: %v is not within %v and %v", o.Bound, MinBound, MaxBound)
	}
	return o, nil
}

// normal gives the connection with plain addresses, and whether it can be one.
func (c Connection) normal() (Connection, error) {
	l, r := plain(c.Local), plain(c.Remote)
	switch {
	case !l.IsValid() || !r.IsValid(), l.Port() == 0 || r.Port() == 0,
		l.Addr().Is4() != r.Addr().Is4(),
		l.Addr().IsUnspecified() || r.Addr().IsUnspecified(),
		l.Addr().IsMulticast() || r.Addr().IsMulticast(), l == r:
		return c, fmt.Errorf("%w: %v and %v", ErrConnection, c.Local, c.Remote)
	}
	c.Local, c.Remote = l, r
	return c, nil
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
