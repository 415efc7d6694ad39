package balance

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Limits of what a Pool takes.
const (
	// MaxWeight is the largest weight of a backend.
	MaxWeight = 65535
	// MaxBackends is the largest number of backends in one pool. It keeps an
	// index in 16 bits, and leaves a backend at least one entry of the table of
	// SourceHash on average.
	MaxBackends = 65535
)

var (
	// ErrNoBackend says that no backend is up with a weight above zero, apart
	// from those already tried.
	ErrNoBackend = errors.New("balance: no backend is up")
	// ErrFull says that every backend that is up, and was not tried, is at its
	// MaxConnections. A Release makes room.
	ErrFull = errors.New("balance: every backend that is up is at its limit")
	// ErrUnknown says that the pool has no backend of that name.
	ErrUnknown = errors.New("balance: no backend of that name")
)

// Backend describes one backend of a pool. It is plain data.
type Backend struct {
	// Name identifies the backend within its pool; not empty.
	Name string
	// Weight is its share of new connections relative to the others, 0 to
	// [MaxWeight]. Zero drains it: it keeps its connections and gets no new ones.
	Weight int
	// Backup backends are picked only when no other backend is up with a weight
	// above zero.
	Backup bool
	// MaxConnections bounds the connections it has at one time; 0 is no limit.
	// Lowering it below what is there ends nothing, it only admits no more.
	MaxConnections int
}

func (b Backend) validate() error {
	switch {
	case b.Name == "":
		return errors.New("balance: a backend's Name is empty")
	case b.Weight < 0 || b.Weight > MaxWeight:
		return fmt.Errorf("balance: backend %q: Weight is %d, want 0 (drain) to %d", b.Name, b.Weight, MaxWeight)
	case b.MaxConnections < 0:
		return fmt.Errorf("balance: backend %q: MaxConnections is %d, want 0 (no limit) or more", b.Name, b.MaxConnections)
	}
	return nil
}

// Status is what a pool knows about one backend at one moment.
type Status struct {
	Name   string
	State  State  // Up, Down, or Drain: up with weight zero
	Weight int    // as set
	Backup bool   // as set
	Active int    // picks not released yet
	Total  uint64 // picks so far
}

// Pool is the backends of one service. Make one with New. It is not safe for
// concurrent use.
type Pool struct {
	policy   Policy
	backends []*backend // in the order they were added
	byName   map[string]*backend
	// gone are removed backends that still have connections: Set with the same
	// name takes the count up again, and their releases meet nobody else's.
	gone   map[string]*backend
	picks  uint64       // so far; dates backend.lastPick
	tables [2]hashTable // SourceHash: of the ordinary backends, of the backups
}

type backend struct {
	Backend
	down     bool
	active   int
	total    uint64
	lastPick uint64 // 0: never
	current  int64  // smooth round-robin
}

// admits reports whether this one may serve a client at all (usable), and
// whether it has room now (open).
func (b *backend) admits(tried []string) (usable, open bool) {
	if b.down || b.Weight == 0 || len(tried) > 0 && slices.Contains(tried, b.Name) {
		return false, false
	}
	return true, b.MaxConnections == 0 || b.active < b.MaxConnections
}

// New makes a pool. All backends start Up: who knows better says so with
// SetState. A pool without backends is valid; Pick returns ErrNoBackend.
func New(policy Policy, backends ...Backend) (*Pool, error) {
	p := &Pool{byName: make(map[string]*backend), gone: make(map[string]*backend)}
	if err := p.SetPolicy(policy); err != nil {
		return nil, err
	}
	for _, b := range backends {
		if _, ok := p.byName[b.Name]; ok {
			return nil, fmt.Errorf("balance: two backends are named %q", b.Name)
		}
		if err := p.Set(b); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Pick chooses the backend for a new connection from source and counts it as
// active there until Release. Backends named in tried are passed over; give
// those whose connect failed for this client. An invalid source (a client on a
// unix socket) has nothing to hash: SourceHash then picks as LeastConnections.
//
// The error is [ErrNoBackend] or [ErrFull]. Pick does not allocate, except that
// SourceHash makes its table in the first Pick after a backend was added,
// removed, or changed its Weight or Backup.
func (p *Pool) Pick(source netip.Addr, tried ...string) (name string, err error) {
	for _, backup := range [2]bool{false, true} {
		var chosen *backend
		var usable bool
		switch {
		case p.policy == RoundRobin:
			chosen, usable = p.roundRobin(backup, tried)
		case p.policy == SourceHash && source.IsValid():
			chosen, usable = p.sourceHash(backup, source, tried)
		default:
			chosen, usable = p.leastConnections(backup, tried)
		}
		if chosen != nil {
			p.picks++
			chosen.lastPick = p.picks
			chosen.active++
			chosen.total++
			return chosen.Name, nil
		}
		if usable {
			return "", ErrFull
		}
	}
	return "", ErrNoBackend
}

// Release ends one pick of the named backend. It must be called once for each
// successful Pick, also when the backend was removed since; one too many does
// nothing.
func (p *Pool) Release(name string) {
	if b := p.byName[name]; b != nil {
		if b.active > 0 {
			b.active--
		}
		return
	}
	if b := p.gone[name]; b != nil {
		b.active--
		if b.active == 0 {
			delete(p.gone, name)
		}
	}
}

// Set adds a backend, Up, or changes the one of the same name, whose counts and
// state stay. An error names the field that is out of range and changes nothing.
func (p *Pool) Set(spec Backend) error {
	if err := spec.validate(); err != nil {
		return err
	}
	b := p.byName[spec.Name]
	if b == nil {
		if len(p.backends) == MaxBackends {
			return fmt.Errorf("balance: backend %q would be number %d of the pool, want at most %d", spec.Name, MaxBackends+1, MaxBackends)
		}
		if b = p.gone[spec.Name]; b == nil {
			b = &backend{}
		}
		delete(p.gone, spec.Name)
		b.Backend, b.down = spec, false
		p.byName[spec.Name] = b
		p.backends = append(p.backends, b)
		p.sharesChanged()
		return nil
	}
	moved := b.Weight != spec.Weight || b.Backup != spec.Backup
	b.Backend = spec
	if moved {
		p.sharesChanged()
	}
	return nil
}

// SetPolicy changes how the pool chooses from now on. Counts and states stay.
func (p *Pool) SetPolicy(policy Policy) error {
	if policy > SourceHash {
		return fmt.Errorf("balance: unknown policy %d", policy)
	}
	if policy != p.policy {
		p.policy = policy
		p.sharesChanged() // what round-robin owes goes, and a table that nobody asks any more
	}
	return nil
}

// SetState records what is known about a backend: Up or Down. There is no
// setting Drain: that is a weight of zero. The error is ErrUnknown for a name
// the pool does not have.
func (p *Pool) SetState(name string, state State) error {
	if state != Up && state != Down {
		return fmt.Errorf("balance: backend %q: cannot set the state %v, want up or down; to drain, set its Weight to 0", name, state)
	}
	b := p.byName[name]
	if b == nil {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	b.down = state == Down
	return nil
}

// Remove takes a backend out of the pool. Its connections must still be
// released; if it is added again before that, they count for it again. The error
// is ErrUnknown for a name the pool does not have.
func (p *Pool) Remove(name string) error {
	b := p.byName[name]
	if b == nil {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	delete(p.byName, name)
	p.backends = slices.DeleteFunc(p.backends, func(x *backend) bool { return x == b })
	if b.active > 0 {
		p.gone[name] = b
	}
	p.sharesChanged()
	return nil
}

// Statuses returns the backends in the order in which they were added.
func (p *Pool) Statuses() []Status {
	statuses := make([]Status, len(p.backends))
	for i, b := range p.backends {
		statuses[i] = b.status()
	}
	return statuses
}

// Removed returns the backends that were removed and still have picks to
// release, by name.
func (p *Pool) Removed() []Status {
	statuses := make([]Status, 0, len(p.gone))
	for _, b := range p.gone {
		statuses = append(statuses, b.status())
	}
	slices.SortFunc(statuses, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return statuses
}

func (b *backend) status() Status {
	state := Up
	switch {
	case b.down:
		state = Down
	case b.Weight == 0:
		state = Drain
	}
	return Status{Name: b.Name, State: state, Weight: b.Weight, Backup: b.Backup, Active: b.active, Total: b.total}
}

// sharesChanged forgets what was worked out from the old weights. The
// round-robin positions go too: a backend that stood at -60000 under a weight of
// 65535 would otherwise wait for 60000 turns under a weight of 1.
func (p *Pool) sharesChanged() {
	p.tables = [2]hashTable{}
	for _, b := range p.backends {
		b.current = 0
	}
}

func (p *Pool) leastConnections(backup bool, tried []string) (best *backend, usable bool) {
	for _, b := range p.backends {
		if b.Backup != backup {
			continue
		}
		u, open := b.admits(tried)
		usable = usable || u
		if open && (best == nil || b.lessLoaded(best)) {
			best = b
		}
	}
	return best, usable
}

// lessLoaded compares (active+1)/weight by cross-multiplication: exact, and far
// from overflow, as 2^47 connections do not exist and weights have 16 bits.
func (b *backend) lessLoaded(than *backend) bool {
	x := uint64(b.active+1) * uint64(than.Weight)
	y := uint64(than.active+1) * uint64(b.Weight)
	if x != y {
		return x < y
	}
	return b.lastPick < than.lastPick
}

// roundRobin gives every open backend its weight, takes the richest, and lets it
// pay for all. The sum of current over the pool stays zero whatever subset is
// open, so one that was away for long comes back where it left, without a debt.
func (p *Pool) roundRobin(backup bool, tried []string) (best *backend, usable bool) {
	var sum int64
	for _, b := range p.backends {
		if b.Backup != backup {
			continue
		}
		u, open := b.admits(tried)
		usable = usable || u
		if !open {
			continue
		}
		b.current += int64(b.Weight)
		sum += int64(b.Weight)
		if best == nil || b.current > best.current {
			best = b
		}
	}
	if best != nil {
		best.current -= sum
	}
	return best, usable
}

func (p *Pool) sourceHash(backup bool, source netip.Addr, tried []string) (best *backend, usable bool) {
	opens := 0
	for _, b := range p.backends {
		if b.Backup != backup {
			continue
		}
		u, open := b.admits(tried)
		usable = usable || u
		if open {
			opens++
			best = b
		}
	}
	if opens < 2 {
		return best, usable // nothing to choose, and the walk below could be long
	}
	table := &p.tables[0]
	if backup {
		table = &p.tables[1]
	}
	if table.entries == nil {
		*table = newHashTable(p.backends, backup)
	}
	at := hashAddr(source) % tableSize
	for range tableSize {
		b := table.members[table.entries[at]]
		if _, open := b.admits(tried); open {
			return b, true
		}
		if at++; at == tableSize {
			at = 0
		}
	}
	// All that are open have shares too small for an entry of their own.
	return p.leastConnections(backup, tried)
}
