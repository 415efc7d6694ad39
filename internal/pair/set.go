package pair

import "fmt"

// Set is a set of items that one node produces, the leader, and the other one
// holds a copy of. Who leads is told by [Set.Lead]; a set begins as a follower.
type Set struct {
	o SetOptions
}

// NewSet returns a set that is to be given to a link in its [Options].
func NewSet(o SetOptions) (*Set, error) {
	if o.ID == 0 {
		return nil, fmt.Errorf("set %q: its ID is 0: give it a number of its own", o.Name)
	}
	return &Set{o: o}, nil
}

// Table is a table that both nodes may change. For each key the later entry
// wins, at both nodes.
type Table struct {
	o TableOptions
}

// NewTable returns a table that is to be given to a link in its [Options].
func NewTable(o TableOptions) (*Table, error) {
	if o.ID == 0 {
		return nil, fmt.Errorf("table %q: its ID is 0: give it a number of its own", o.Name)
	}
	return &Table{o: o}, nil
}
