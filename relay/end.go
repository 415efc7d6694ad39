//go:build linux

package relay

import (
	"fmt"
	"log/slog"
	"time"
)

// Side is one of the two ends of a connection, or the relay between them.
type Side uint8

// Sides.
const (
	ByRelay Side = iota
	ByClient
	ByBackend
)

var sideNames = [...]string{ByRelay: "holdfast", ByClient: "client", ByBackend: "backend"}

// String returns "client", "backend" or "holdfast".
func (s Side) String() string {
	if int(s) < len(sideNames) {
		return sideNames[s]
	}
	return fmt.Sprintf("Side(%d)", s)
}

// MarshalText is String.
func (s Side) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Cause says why a connection ended.
type Cause uint8

// Causes. By in [End] says which side it came from.
const (
	CauseClosed      Cause = iota + 1 // both sides ended their streams
	CauseReset                        // a side reset it
	CauseDeadPeer                     // a side was silent for DeadPeerTimeout, or its kernel gave the connection up
	CauseBackendDown                  // the backend was marked down
	CauseIdle                         // nothing moved for IdleTimeout
	CauseDrained                      // the bounds of Drain ended it
	CauseOperator                     // it was reset by ResetBackend or ResetConnections
	CauseShutdown                     // the relay was closed
	CauseNoBackend                    // no backend was up, or every one was at its limit
	CauseUnreachable                  // every backend refused or timed out
	CauseNotAllowed                   // the client's address is not in Allow
	CauseResources                    // the machine lacked something: descriptors, source ports, memory
	CauseAddress                      // the address that the client had connected to left this machine: ResetAddresses
)

var causeNames = [...]string{
	CauseClosed: "closed", CauseReset: "reset", CauseDeadPeer: "dead_peer", CauseBackendDown: "backend_down",
	CauseIdle: "idle_timeout", CauseDrained: "drained", CauseOperator: "operator", CauseShutdown: "shutdown",
	CauseNoBackend: "no_backend", CauseUnreachable: "unreachable", CauseNotAllowed: "not_allowed", CauseResources: "resources",
	CauseAddress: "address",
}

// String returns the cause's name in events and metrics.
func (c Cause) String() string {
	if int(c) < len(causeNames) && causeNames[c] != "" {
		return causeNames[c]
	}
	return fmt.Sprintf("Cause(%d)", c)
}

// MarshalText is String.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Told says what an end of a connection was given as its end.
type Told uint8

// What a side was told.
const (
	ToldNothing Told = iota // it needed no telling: it ended itself first, by RST, or never was connected
	ToldFIN                 // an end of stream, after every byte
	ToldRST                 // a RST
)

var toldNames = [...]string{ToldNothing: "", ToldFIN: "fin", ToldRST: "rst"}

// String returns "", "fin" or "rst".
func (t Told) String() string {
	if int(t) < len(toldNames) {
		return toldNames[t]
	}
	return fmt.Sprintf("Told(%d)", t)
}

// MarshalText is String.
func (t Told) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// End is the record of a connection that is over.
type End struct {
	ID          uint64        // unique within the relay's life
	Service     string        // its service
	Client      string        // the client's address; "unix" for a client of a unix socket
	Backend     string        // the backend's name; "" when none was reached
	Began       time.Time     // when it was accepted
	Age         time.Duration // from then to its end
	BytesIn     uint64        // received from the client
	BytesOut    uint64        // received from the backend
	Undelivered uint64        // received from either side and not acknowledged by the other's kernel when the end came
	Cause       Cause         // why it ended
	By          Side          // which side ended it
	ToldClient  Told          // what the client was told
	ToldBackend Told          // what the backend was told
	Attempts    int           // how many connects to backends it took
	Detail      string        // more about the cause for a person: the last error, the reason of a mark-down
}

// LogValue makes the record readable in a structured log; age is in seconds.
func (e End) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Uint64("id", e.ID), slog.String("service", e.Service), slog.String("client", e.Client), slog.String("backend", e.Backend),
		slog.String("cause", e.Cause.String()), slog.String("by", e.By.String()), slog.Float64("age", e.Age.Seconds()),
		slog.Uint64("bytes_in", e.BytesIn), slog.Uint64("bytes_out", e.BytesOut), slog.Uint64("undelivered", e.Undelivered),
		slog.String("told_client", e.ToldClient.String()), slog.String("told_backend", e.ToldBackend.String()), slog.String("detail", e.Detail),
	)
}
