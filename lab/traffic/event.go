//go:build linux

package traffic

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
)

// EventKind is what a server reports.
type EventKind string

// The events of a server.
const (
	EventReady    EventKind = "ready"    // it listens; Address is where
	EventAccepted EventKind = "accepted" // a client's start line was read; At is then, AcceptedAt the accept
	EventProgress EventKind = "progress" // an upload got further
	EventEnded    EventKind = "ended"    // a connection ended; printed before the server closes its side
)

// Event is one line of a server's report. Fields that an event does not know are zero.
type Event struct {
	Kind       EventKind `json:"event"`
	At         Instant   `json:"ns"`
	Name       string    `json:"name,omitempty"` // the server's
	Address    string    `json:"address,omitempty"`
	PID        int       `json:"pid,omitempty"`
	Remote     string    `json:"remote,omitempty"`
	AcceptedAt Instant   `json:"accepted_ns,omitempty"`
	ServerFacts
}

// ServerFacts is what the server's side knows about one connection.
type ServerFacts struct {
	ID      ID      `json:"id,omitempty"`
	Pattern Pattern `json:"pattern"`

	// In and Out count the bytes that read gave and write took, without the
	// start line and the greeting. Announced is In or, if the server was killed
	// between asking its kernel what is there and reading it, what its kernel
	// had acknowledged for sure: only the ledger knows more than In.
	In        int64 `json:"in"`
	Announced int64 `json:"announced"`
	Out       int64 `json:"out"`

	Complete  bool  `json:"complete,omitempty"` // the server did all that was agreed, and ended (or accepted the end of) the stream for that reason
	Corrupt   bool  `json:"corrupt,omitempty"`
	CorruptAt int64 `json:"corrupt_at,omitempty"` // position of the first wrong byte received

	End End `json:"end,omitzero"`

	// Fate and when it came, taken just before, are not the server's to say: who judges sets them.
	Fate   Fate    `json:"fate,omitempty"`
	FateAt Instant `json:"fate_at,omitempty"`
}

// Fate is what was done to a server under a connection.
type Fate uint8

// The fates of a server.
const (
	Running Fate = iota // nothing: it lives, or ended by itself
	Killed              // the process died and its kernel lived, and ended its connections: FIN after what was written, RST if something was unread
	Silent              // the host was cut off: nothing left it after that
)

var fateNames = [...]string{"running", "killed", "silent"}

// String returns the fate in lower case.
func (f Fate) String() string {
	if int(f) < len(fateNames) {
		return fateNames[f]
	}
	return "fate " + strconv.Itoa(int(f))
}

// MarshalText is String.
func (f Fate) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (f *Fate) UnmarshalText(text []byte) error {
	for i, name := range fateNames {
		if string(text) == name {
			*f = Fate(i)
			return nil
		}
	}
	return fmt.Errorf("traffic: no fate %q", text)
}

// A Journal collects the facts from the events of one or more servers. The zero
// value is ready to use; its methods may be called from any goroutine.
type Journal struct {
	mu    sync.Mutex
	facts map[ID]ServerFacts
	wait  chan struct{} // closed and replaced at every event
}

// Add takes in one event.
func (j *Journal) Add(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.ID != 0 {
		if j.facts == nil {
			j.facts = make(map[ID]ServerFacts)
		}
		j.facts[e.ID] = e.ServerFacts
	}
	if j.wait != nil {
		close(j.wait)
		j.wait = nil
	}
}

// Facts returns what is known of a connection; ok is false if nothing is.
func (j *Journal) Facts(id ID) (f ServerFacts, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f, ok = j.facts[id]
	return f, ok
}

// All returns a copy of all facts.
func (j *Journal) All() map[ID]ServerFacts {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make(map[ID]ServerFacts, len(j.facts))
	for id, f := range j.facts {
		all[id] = f
	}
	return all
}

// Changed returns a channel that is closed at the next event. Ask for it
// before looking at the facts.
func (j *Journal) Changed() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.wait == nil {
		j.wait = make(chan struct{})
	}
	return j.wait
}

// ReadEvents calls on for every event of r, the output of ServerMain, until r
// ends. A last line without its newline, which a killed server leaves, is no error.
func ReadEvents(r io.Reader, on func(Event)) error {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("traffic: reading a server's events: %w", err)
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("traffic: a server's event %.80q: %w", line, err)
		}
		on(e)
	}
}
