package gate

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A direction is one of the two places on an interface where programs judge
// frames.
type direction struct {
	program string // its name, by which another process finds it
	place   ebpf.AttachType
}

var directions = [2]direction{
	{programsProgHoldfastIn, ebpf.AttachTCXIngress},
	{programsProgHoldfastOut, ebpf.AttachTCXEgress},
}

// found is the gate's program on an interface, if there is one, and its maps by
// name.
type found struct {
	prog     *ebpf.Program
	maps     map[string]*ebpf.Map
	revision uint64 // of the interface's list of programs
}

func (f found) close() {
	f.prog.Close()
	for _, m := range f.maps {
		m.Close()
	}
}

// find looks for the program in its place.
func (d direction) find(ifindex int) (_ found, err error) {
	list, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: d.place})
	if errors.Is(err, os.ErrNotExist) {
		// What Linux 6.6 said of an interface that never had a program.
		list, err = &link.QueryResult{Revision: 1}, nil
	}
	if err != nil {
		return found{}, fmt.Errorf("list programs: %w", err)
	}
	f := found{revision: list.Revision, maps: make(map[string]*ebpf.Map)}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	for _, attached := range list.Programs {
		if _, byLink := attached.LinkID(); byLink {
			continue // not ours: it ends with whoever holds its link
		}
		prog, err := ebpf.NewProgramFromID(attached.ID)
		if err != nil {
			return f, fmt.Errorf("open program %d: %w", attached.ID, err)
		}
		info, err := prog.Info()
		if err != nil {
			prog.Close()
			return f, fmt.Errorf("read program %d: %w", attached.ID, err)
		}
		if info.Name != d.program {
			prog.Close()
			continue
		}
		f.prog = prog
		ids, _ := info.MapIDs()
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			if err != nil {
				return f, fmt.Errorf("open map %d: %w", id, err)
			}
			info, err := m.Info()
			if err != nil {
				m.Close()
				return f, fmt.Errorf("read map %d: %w", id, err)
			}
			f.maps[info.Name] = m
		}
		return f, nil
	}
	return f, nil
}

// findable says whether a later process with the same rights could find the
// program. Without CAP_SYS_ADMIN it could not: whatever the program closed
// would be closed for the grace, and nobody could open it.
func findable(prog *ebpf.Program) error {
	info, err := prog.Info()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	id, _ := info.ID()
	again, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Errorf("find the program again by its number: %w", err)
	}
	return again.Close()
}

// shared are the maps that a program takes over from its predecessor. The digit
// in their names is the version of what they hold.
var shared = []string{programsMapHf1Slots, programsMapHf1Entries, programsMapHf1Counts}

// inherit gives the maps of f if programs of spec can use them. Maps of another
// version they cannot: they begin with empty ones.
func (f found) inherit(spec *ebpf.CollectionSpec) map[string]*ebpf.Map {
	maps := make(map[string]*ebpf.Map)
	for _, name := range shared {
		m, ok := f.maps[name]
		if !ok || spec.Maps[name].Compatible(m) != nil {
			return nil
		}
		maps[name] = m
	}
	return maps
}

// mapID tells one map from another.
func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("read map: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("read map: the kernel gives it no number")
	}
	return id, nil
}

// attach puts a program in the place of its predecessor, or before all others.
// It belongs to the interface then, and to no process. The error is
// syscall.ESTALE if the interface's list is no longer the one that was found.
func (d direction) attach(ifindex int, prog *ebpf.Program, f found) error {
	anchor := link.Head()
	if f.prog != nil {
		anchor = link.ReplaceProgram(f.prog)
	}
	err := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: ifindex, Program: prog, Attach: d.place, Anchor: anchor, ExpectedRevision: f.revision,
	})
	if err != nil {
		return fmt.Errorf("attach %s: %w", d.program, err)
	}
	return nil
}

// shares says whether the program that was found uses the map of slots id: it
// guards what we know, whoever has loaded it.
func (f found) shares(id ebpf.MapID) bool {
	m := f.maps[programsMapHf1Slots]
	if m == nil {
		return false
	}
	its, err := mapID(m)
	return err == nil && its == id
}

// detach takes off the program that uses the map of slots id. That there is
// none, or no interface, is no error.
func (d direction) detach(ifindex int, id ebpf.MapID) error {
	f, err := d.find(ifindex)
	if errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.close()
	if !f.shares(id) {
		return nil
	}
	err = link.RawDetachProgram(link.RawDetachProgramOptions{Target: ifindex, Program: f.prog, Attach: d.place})
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return fmt.Errorf("detach %s: %w", d.program, err)
}
