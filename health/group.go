//go:build linux

package health

import "sync"

// Group knows when every backend of a service is down, and says so once; and once
// when the first is back. It decides nothing. It is safe for concurrent use.
type Group struct {
	onChange func(GroupChange)

	mu     sync.Mutex
	states map[string]State
	down   bool
}

// GroupChange says that the last backend of a group went down, or that the first
// came back.
type GroupChange struct {
	// AllDown is true when every backend is down now, false when no longer.
	AllDown bool
	// Backend is the one that made the difference.
	Backend string
	// Backends is how many the group has.
	Backends int
}

// NewGroup makes a group of these backends, all Unknown, which counts as up.
// A group without backends is not down. The function is called for each change,
// one call at a time and in order; it must not call the group. It may be nil, for
// who only asks AllDown.
func NewGroup(onChange func(GroupChange), backends ...string) *Group {
	g := &Group{onChange: onChange, states: make(map[string]State)}
	for _, name := range backends {
		g.states[name] = Unknown
	}
	return g
}

// Set records a backend's state, and adds one that the group does not have. Call
// it from Options.OnChange.
func (g *Group) Set(backend string, state State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.states[backend] = state
	g.judge(backend)
}

// Remove takes a backend out of the group.
func (g *Group) Remove(backend string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.states, backend)
	g.judge(backend)
}

// AllDown reports whether the group has backends and every one is down.
func (g *Group) AllDown() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.down
}

func (g *Group) judge(backend string) {
	down := len(g.states) > 0
	for _, s := range g.states {
		down = down && s == Down
	}
	if down == g.down {
		return
	}
	g.down = down
	if g.onChange != nil {
		g.onChange(GroupChange{AllDown: down, Backend: backend, Backends: len(g.states)})
	}
}
