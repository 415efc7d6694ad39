package traffic

import (
	"fmt"
	"strconv"
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
	Lie Lie    `json:"lie"`
	Why string `json:"why,omitempty"`
}

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
		return Verdict{Corrupted, fmt.Sprintf("the client received a wrong byte at %d", r.CorruptAt)}
	}
	if facts.Corrupt {
		return Verdict{Corrupted, fmt.Sprintf("the server received a wrong byte at %d", facts.CorruptAt)}
	}
	if r.Ending != FIN || r.StartedAt == 0 {
		return Verdict{}
	}
	has := max(facts.In, facts.Announced)
	if r.HalfClosedAt != 0 && r.Pattern == Upload && has < r.Sent {
		return Verdict{UploadLost, fmt.Sprintf("end of stream after %d bytes of upload, of which the server has %d", r.Sent, has)}
	}
	if r.Pattern == Upload && (r.HalfClosedAt != 0 || facts.Fate == Killed) {
		return Verdict{} // nothing to receive
	}
	if r.Pattern == Download && r.Length > 0 && r.Received == r.Length {
		return Verdict{}
	}
	if r.Received < facts.Out {
		return Verdict{FalseEnd, fmt.Sprintf("end of stream after %d bytes, of %d or more that the server sent", r.Received, facts.Out)}
	}
	if facts.Fate == Killed || facts.End.Ending == Closed || r.HalfClosedAt != 0 && facts.End.At != 0 {
		return Verdict{} // the server's side ended it, and all it sent is here
	}
	return Verdict{FalseEnd, fmt.Sprintf("end of stream after %d bytes, which the server did not send", r.Received)}
}
