//go:build linux

package traffic

import (
	"fmt"
	"strconv"
	"time"
)

// Lie is an untruth that a client was told.
type Lie uint8

// The lies.
const (
	NoLie      Lie = iota
	UploadLost     // the client half-closed and got the end of stream, and the server's kernel never had every byte
	FalseEnd       // the client got an end of stream that the server did not send, or in the wrong place: truncated looks complete
	Corrupted      // a byte was wrong, on either side
)

var lieNames = [...]string{"none", "upload lost", "false end", "corrupted"}

// String returns the lie's name; NoLie is "none".
func (l Lie) String() string {
	if int(l) < len(lieNames) {
		return lieNames[l]
	}
	return "lie " + strconv.Itoa(int(l))
}

// MarshalText is String.
func (l Lie) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Verdict is a judgement about one connection, and why.
type Verdict struct {
	Lie     Lie    `json:"lie"`
	Crossed bool   `json:"crossed,omitempty"` // no lie, but see LiedTo
	Why     string `json:"why,omitempty"`     // empty if there is nothing to say
}

// crossing is the time in which an end of stream may have left before the
// client's own end arrived: a path that is slow because its machine is busy.
const crossing = 10 * time.Millisecond

// LiedTo judges whether the client was told the truth about its connection.
// facts is what the server knows, with Fate set to what was done to it; if it
// knows nothing of the connection, facts with only Fate set. Facts from events
// that are still under way to the judge are too old: read the events to their
// end, or the ledger. It judges what was
// said, not whether and when it was said: a client that was told nothing has not
// been lied to.
//
// A process that is killed has its connections ended by its kernel, with FIN
// after the last byte it wrote if nothing was left unread. Nobody can tell that
// from a meant end, so it is no lie as long as all that was written arrives.
func LiedTo(r Report, facts ServerFacts) Verdict {
	if r.Corrupt {
		return Verdict{Lie: Corrupted, Why: fmt.Sprintf("the client received a wrong byte at %d", r.CorruptAt)}
	}
	if facts.Corrupt {
		return Verdict{Lie: Corrupted, Why: fmt.Sprintf("the server received a wrong byte at %d", facts.CorruptAt)}
	}
	if r.Ending != FIN || r.StartedAt == 0 {
		return Verdict{}
	}
	has := max(facts.In, facts.Announced)
	if r.HalfClosedAt != 0 && !r.EndedEarly && r.Pattern == Upload && has < r.Sent {
		v := Verdict{Lie: UploadLost, Why: fmt.Sprintf("end of stream after %d bytes of upload, of which the server has %d", r.Sent, has)}
		if facts.Fate == Killed && facts.FateAt != 0 && r.HalfClosedAt > facts.FateAt.Add(-crossing) && r.EndOfStreamAt.Sub(r.HalfClosedAt) < crossing {
			v.Lie, v.Crossed = NoLie, true
		}
		return v
	}
	if r.Pattern == Upload && (r.HalfClosedAt != 0 && !r.EndedEarly || facts.Fate == Killed) {
		return Verdict{} // nothing to receive
	}
	if r.Pattern == Download && r.Length > 0 && r.Received == r.Length {
		return Verdict{}
	}
	if r.Received < facts.Out {
		return Verdict{Lie: FalseEnd, Why: fmt.Sprintf("end of stream after %d bytes, of %d or more that the server sent", r.Received, facts.Out)}
	}
	if facts.Fate == Killed || facts.End.Ending == Closed || r.HalfClosedAt != 0 && !r.EndedEarly && facts.End.At != 0 {
		return Verdict{} // the server's side ended it, and all it sent is here
	}
	return Verdict{Lie: FalseEnd, Why: fmt.Sprintf("end of stream after %d bytes, which the server did not send", r.Received)}
}
