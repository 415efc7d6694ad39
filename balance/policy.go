package balance

import "fmt"

// Policy is how a pool chooses. Its text form is the word the configuration
// uses.
type Policy uint8

const (
	// LeastConnections takes the backend with the fewest connections for its
	// weight: "least-connections". It is the zero value.
	LeastConnections Policy = iota
	// RoundRobin takes backends in turn, by weight: "round-robin".
	RoundRobin
	// SourceHash keeps a client address on one backend: "source-hash".
	SourceHash
)

var policyNames = [...]string{"least-connections", "round-robin", "source-hash"}

// ParsePolicy returns the policy of that name.
func ParsePolicy(s string) (Policy, error) {
	for i, name := range policyNames {
		if s == name {
			return Policy(i), nil
		}
	}
	return 0, fmt.Errorf("balance: unknown policy %q, want least-connections, round-robin or source-hash", s)
}

// String returns the policy's name.
func (p Policy) String() string {
	if int(p) < len(policyNames) {
		return policyNames[p]
	}
	return fmt.Sprintf("Policy(%d)", uint8(p))
}

// MarshalText implements encoding.TextMarshaler.
func (p Policy) MarshalText() ([]byte, error) {
	if int(p) >= len(policyNames) {
		return nil, fmt.Errorf("balance: unknown policy %d", uint8(p))
	}
	return []byte(policyNames[p]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Policy) UnmarshalText(text []byte) error {
	parsed, err := ParsePolicy(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// State is whether a backend gets new connections. Its text form is the word
// that commands and the configuration use.
type State uint8

const (
	// Up takes new connections: "up". It is the zero value.
	Up State = iota
	// Down was found dead by health checks: "down".
	Down
	// Drain is up with a weight of zero: it keeps its connections and gets no
	// new ones: "drain".
	Drain
)

var stateNames = [...]string{"up", "down", "drain"}

// String returns the state's name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("balance: unknown state %d", uint8(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if string(text) == name {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("balance: unknown state %q, want up, down or drain", text)
}
