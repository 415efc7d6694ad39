package socktrace

import "net/netip"

// Kind says what happened to a socket.
type Kind uint8

// The kinds of an Event.
const (
	Established Kind = iota + 1 // its handshake is complete, whether it connected or was accepted (or waits for accept)
	Closed                      // it is gone for the kernel; also where a TIME_WAIT remains, which nobody waits for
)

// A Socket is a connected socket at one moment: established, or half-closed in
// any way. Addresses have no zone, and IPv4 in an IPv6 socket is IPv4.
type Socket struct {
	Local, Remote netip.AddrPort
	Cookie        uint64 // names the socket, as in sockdiag; no other one ever has it
	At            int64  // the moment, of CLOCK_BOOTTIME in ns

	// Acknowledged is the oldest number that Remote has not acknowledged
	// (SND.UNA), NextSend the one after the last that was sent (SND.NXT),
	// NextReceive the one that is expected from Remote (RCV.NXT). At the
	// beginning of a connection Acknowledged-1 and NextReceive-1 are its two
	// initial sequence numbers. Those of a Closed socket are its last ones.
	Acknowledged, NextSend, NextReceive uint32
}

// An Event is a change of a socket.
type Event struct {
	Kind Kind
	Socket
}

// Addresses is how many addresses a Tracer can watch.
const Addresses = 4096
