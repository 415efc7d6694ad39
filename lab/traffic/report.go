//go:build linux

package traffic

import (
	"fmt"
	"time"
)

// Report is what one client knows about its connection.
type Report struct {
	ID      ID      `json:"id"`
	Pattern Pattern `json:"pattern"`
	Address string  `json:"address"`          // where it connected
	Local   string  `json:"local,omitempty"`  // its own address and port
	Server  string  `json:"server,omitempty"` // the name in the server's greeting: who answered

	DialedAt    Instant `json:"dialed_at,omitempty"`
	ConnectedAt Instant `json:"connected_at,omitempty"`
	StartedAt   Instant `json:"started_at,omitempty"` // the greeting was there: the way to the server works

	End
	Err string `json:"err,omitempty"` // why it could not connect, or why it closed

	Length    int64 `json:"length,omitempty"` // what was agreed; 0 = open
	Sent      int64 `json:"sent"`             // bytes that write took, without the start line
	Received  int64 `json:"received"`         // bytes that read gave, without the greeting
	Verified  int64 `json:"verified"`         // of these, up to the first wrong one
	Corrupt   bool  `json:"corrupt,omitempty"`
	CorruptAt int64 `json:"corrupt_at,omitempty"` // position of the first wrong byte received

	Requests int64 `json:"requests,omitempty"` // requests written in full
	Replies  int64 `json:"replies,omitempty"`  // answers received in full

	HalfClosedAt  Instant       `json:"half_closed_at,omitempty"`
	EndedEarly    bool          `json:"ended_early,omitempty"` // the peer's end was there before: it answers no half-close
	EndOfStreamAt Instant       `json:"end_of_stream_at,omitempty"`
	LastByteAt    Instant       `json:"last_byte_at,omitempty"`       // the last one received
	WorstSilence  time.Duration `json:"worst_silence_ns,omitempty"`   // longest time between two arrivals of bytes (request, push, download)
	WorstReply    time.Duration `json:"worst_reply_ns,omitempty"`     // longest time from a request written to its answer
	FinishedAt    Instant       `json:"finish_asked_at,omitempty"`    // Finish was called, or the work was done
	Checked       bool          `json:"checked,omitempty"`            // the last checked exchange, asked by Finish, succeeded
	Complete      bool          `json:"complete,omitempty"`           // it ended as it was meant to: all bytes right, both streams ended
	Unanswered    int64         `json:"unanswered_requests,omitzero"` // Requests - Replies
}

// Told reports whether the client has learned that its connection is gone.
func (r Report) Told() bool {
	return r.Ending != Alive && r.Ending != Closed
}

// Cut reports whether the connection ended otherwise than it was meant to.
func (r Report) Cut() bool { return r.Told() && !r.Complete }

// String is one line for a log or a failed test.
func (r Report) String() string {
	s := fmt.Sprintf("%s %s at %s: %s", r.ID, r.Pattern, r.Server, r.Ending)
	if r.Errno != "" {
		s += " (" + r.Errno + ")"
	}
	s += fmt.Sprintf(", sent %d, received %d", r.Sent, r.Received)
	if r.Corrupt {
		s += fmt.Sprintf(", corrupt at %d", r.CorruptAt)
	}
	if r.Complete {
		s += ", complete"
	}
	if r.Err != "" {
		s += ": " + r.Err
	}
	return s
}
