package probe

import "fmt"

// An Answer is what a probe found out.
type Answer uint8

// The zero Answer is CouldNotTell: what has not been asked is not known.
const (
	CouldNotTell Answer = iota
	Yes
	No
)

// String returns the words a person reads.
func (a Answer) String() string {
	switch a {
	case CouldNotTell:
		return "could not tell"
	case Yes:
		return "yes"
	case No:
		return "no"
	default:
		return fmt.Sprintf("answer %d", uint8(a))
	}
}

// MarshalText encodes a as String returns it.
func (a Answer) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// A Result is one question put to the host.
type Result struct {
	Name     string `json:"name"`
	Answer   Answer `json:"answer"`
	Evidence string `json:"evidence"`             // what the answer rests on
	For      string `json:"needed_for"`           // what does not work without it
	Remedy   string `json:"what_to_do,omitempty"` // only where Answer is not Yes
}

// String says all of it in a line.
func (r Result) String() string {
	s := fmt.Sprintf("%s, needed for %s: %s (%s)", r.Name, r.For, r.Answer, r.Evidence)
	if r.Remedy != "" {
		s += "; " + r.Remedy
	}
	return s
}
