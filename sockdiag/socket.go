package sockdiag

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
	"time"
)

// A Socket is one TCP socket as the kernel tells of it: what stood at the
// moment when it was read. It is the caller's own and does not change.
type Socket struct {
	Local  netip.AddrPort // unspecified address: listens on every one of this family
	Remote netip.AddrPort // unspecified address and port 0 where there is no connection
	State  State
	// Cookie is the kernel's number of this socket, never used twice while the
	// machine runs. Two sockets with the same ends have different ones.
	Cookie uint64
	// Mapped says that it is an IPv6 socket that speaks IPv4.
	Mapped bool
	// V6Only is told for listening IPv6 sockets: it takes no IPv4 connections.
	V6Only bool
	// Interface is the index of the link that the socket is bound to; 0 is none.
	Interface int
	// Inode is that of the descriptor, as in /proc/PID/fd. 0: no program has one,
	// because it was not accepted yet, or is closed and the kernel sends what is
	// left, or the state is TimeWait.
	Inode uint32
	// UID is the user who made the socket; 0 also in TimeWait, and for connections
	// that have not been accepted.
	UID uint32
	// Mark is SO_MARK. It is told only to who has CAP_NET_ADMIN; else it is 0.
	Mark uint32
	// Cgroup is the ID of the socket's control group (v2); 0 if the kernel does not tell.
	Cgroup uint64
	// ReceiveQueue is how many bytes the program has not read yet. For a
	// listener: how many connections wait to be accepted.
	ReceiveQueue uint32
	// SendQueue is how many bytes the other end has not acknowledged yet. For a
	// listener: how many connections may wait.
	SendQueue uint32
	// Shutdown says which directions the program has ended or seen ended.
	Shutdown Shutdown
	// Timer is the one that runs, TimerLeft after what time it fires, and
	// Retransmits how often what it is about was sent again or asked for.
	Timer       Timer
	TimerLeft   time.Duration // in whole milliseconds
	Retransmits uint8
	// Info is the socket's TCP_INFO. Nil unless ListOptions asked for it, and for
	// sockets that have none (TimeWait, SynReceived).
	Info *TCPInfo
}

// String is "192.0.2.1:443 -> 198.51.100.7:52110 established".
func (s Socket) String() string {
	if s.Remote.Port() == 0 {
		return fmt.Sprintf("%s %s", s.Local, s.State)
	}
	return fmt.Sprintf("%s -> %s %s", s.Local, s.Remote, s.State)
}

// State is where a connection stands, by the kernel's number
// (include/net/tcp_states.h).
type State uint8

// The states. SynReceived includes requests that no socket was made for yet.
// BoundInactive is a socket that has a port, and neither listens nor connects;
// Linux tells of those since 6.8, and not in a Watch.
const (
	Established   State = 1
	SynSent       State = 2
	SynReceived   State = 3
	FinWait1      State = 4
	FinWait2      State = 5
	TimeWait      State = 6
	Closed        State = 7
	CloseWait     State = 8
	LastAck       State = 9
	Listen        State = 10
	Closing       State = 11
	BoundInactive State = 13
)

var stateNames = [...]string{
	Established: "established", SynSent: "syn-sent", SynReceived: "syn-received", FinWait1: "fin-wait-1",
	FinWait2: "fin-wait-2", TimeWait: "time-wait", Closed: "closed", CloseWait: "close-wait", LastAck: "last-ack",
	Listen: "listen", Closing: "closing", BoundInactive: "bound-inactive",
}

// String is the state's name as in RFC 9293, in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// States is a set of states: bit n stands for state n.
type States uint32

// Sets of states that are asked for together.
const (
	// AllStates is every state that this package knows.
	AllStates = Live | States(1<<TimeWait|1<<Closed|1<<Listen|1<<BoundInactive)
	// Live is where the other end has, may have, or is to have a connection: all
	// but TimeWait, Closed, Listen and BoundInactive.
	Live = States(1<<Established | 1<<SynSent | 1<<SynReceived | 1<<FinWait1 | 1<<FinWait2 | 1<<CloseWait | 1<<LastAck | 1<<Closing)
)

// StatesOf is the set of those states.
func StatesOf(states ...State) States {
	var set States
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has says whether s is in the set.
func (set States) Has(s State) bool { return set&(1<<s) != 0 }

// String lists the names of the states, as "established|listen".
func (set States) String() string {
	var names []string
	for set != 0 {
		s := State(bits.TrailingZeros32(uint32(set)))
		names = append(names, s.String())
		set &^= 1 << s
	}
	return strings.Join(names, "|")
}

// Shutdown says which directions of a connection have ended at this end.
type Shutdown uint8

const (
	ReceiveEnded Shutdown = 1 << iota // nothing more will be received: a FIN came, or the program reads no more
	SendEnded                         // nothing more will be sent: shutdown(2) or close(2)
)

// Timer is the one that runs for a socket.
type Timer uint8

const (
	NoTimer         Timer = iota
	RetransmitTimer       // until the oldest segment, or the SYN, is sent again
	KeepaliveTimer        // until the next keepalive probe; of an orphan in FinWait2: until it is freed
	TimeWaitTimer         // until TimeWait ends
	WindowTimer           // until the next zero-window probe
)
