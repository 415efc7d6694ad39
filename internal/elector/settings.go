package elector

import (
	"encoding/json"
	"time"

	"github.com/holdfast-net/holdfast/vip"
)

// Settings are what the daemon tells the elector. They are plain data, and empty
// when there is nothing to own.
type Settings struct {
	Node   string  `json:"node"` // for logs
	Groups []Group `json:"groups,omitempty"`
}

// Group is a group of addresses with what the daemon does for it.
type Group struct {
	vip.Group

	// Steps says that the daemon has something to do in a move of the group: it
	// is asked for [vip.Draining] within the group's Drain, or a moment if that is
	// less, and for every other step within StepBound.
	Steps bool `json:",omitempty"`
}

// StepBound is how long a move waits for the daemon at each step but Draining.
const StepBound = time.Second

// drainMoment is how long those who were on their way when an address is handed
// over may take to arrive, and the least that Draining takes.
const drainMoment = 60 * time.Millisecond

// Check says what is wrong with the settings.
func (s Settings) Check() error {
	return vip.CheckAll(s.groups())
}

// groups are what the Owner gets.
func (s Settings) groups() []vip.Group {
	list := make([]vip.Group, len(s.Groups))
	for i, g := range s.Groups {
		list[i] = g.Group
	}
	return list
}

// Equal reports whether two settings are the same.
func (s Settings) Equal(other Settings) bool {
	a, errA := json.Marshal(s)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && string(a) == string(b)
}
