package gate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Addresses is how many addresses the gate of one interface can hold.
const Addresses = 4096

// An entry in the memory that processes share with the programs, in words.
const (
	wordState     = iota // Entry.Until without its lowest three bits, which are Entry.Mode
	wordPeer             // Entry.Peer, the first byte lowest
	wordClaimed          // not 0: the slot has an address, or is about to
	wordsPerEntry        // as struct entry in bpf/gate.c
)

// A Gate is the gate of one interface. Its methods may be called at the same
// time. Several processes may have a Gate for one interface: they share the
// programs and what those know, and each sets addresses of its own.
type Gate struct {
	ifindex int
	objects programsObjects
	memory  *sys.MapWords
	slotsID ebpf.MapID

	reading sync.Mutex // held by Counters, so that it never makes a renewal wait
	mu      sync.Mutex
	slots   map[netip.Addr]uint32 // that this Gate has set, or has found when it set them
	next    uint32                // where the search for a free slot goes on
	closed  bool
}

// Open puts the gate on an interface of the calling thread's network namespace.
// Where an earlier process has left one, its programs are replaced, in one
// step, and what they know of addresses stays as it is: [Gate.Entry] tells it.
// Programs of others are left alone, and see only what the gate lets pass.
func Open(ifindex int) (*Gate, error) {
	spec, err := loadPrograms()
	if err != nil {
		return nil, fmt.Errorf("lease gate: %w", err)
	}
	return open(ifindex, spec)
}

// tries bounds how often Open begins again because somebody else has changed
// the interface's programs meanwhile.
const tries = 32

func open(ifindex int, spec *ebpf.CollectionSpec) (*Gate, error) {
	var err error
	for range tries {
		var g *Gate
		g, err = try(ifindex, spec)
		if err == nil {
			return g, nil
		}
		if !errors.Is(err, syscall.ESTALE) && !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return nil, fmt.Errorf("lease gate on interface %d: %w", ifindex, err)
}

func try(ifindex int, spec *ebpf.CollectionSpec) (_ *Gate, err error) {
	var there [2]found
	for i, d := range directions {
		if there[i], err = d.find(ifindex); err != nil {
			return nil, err
		}
		defer there[i].close()
	}
	if err := ethernet(ifindex); err != nil {
		return nil, err
	}
	g := &Gate{ifindex: ifindex, slots: make(map[netip.Addr]uint32)}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	var options ebpf.CollectionOptions
	for _, f := range there {
		if options.MapReplacements = f.inherit(spec); options.MapReplacements != nil {
			break
		}
	}
	if err := spec.Copy().LoadAndAssign(&g.objects, &options); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	if err := findable(g.objects.HoldfastIn); err != nil {
		return nil, err
	}
	if g.slotsID, err = mapID(g.objects.Hf1Slots); err != nil {
		return nil, err
	}
	g.memory, err = sys.MapArray(g.objects.Hf1Entries.FD(), Addresses*wordsPerEntry)
	if err != nil {
		return nil, err
	}
	for i, d := range directions {
		if err := d.attach(ifindex, g.program(i), there[i]); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// ethernet refuses an interface whose frames the programs could not read.
func ethernet(ifindex int) error {
	i, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return fmt.Errorf("look at interface: %w", err)
	}
	if len(i.HardwareAddr) != 6 {
		return fmt.Errorf("%s has no Ethernet address: the gate reads Ethernet frames", i.Name)
	}
	return nil
}

func (g *Gate) program(i int) *ebpf.Program {
	return []*ebpf.Program{g.objects.HoldfastIn, g.objects.HoldfastOut}[i]
}

// Set says what the gate lets an address do; a zone is ignored. For an address
// that has been set before it is two stores in memory: the peer, then mode and
// end at once.
func (g *Gate) Set(addr netip.Addr, e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("lease gate: set %s: %w", addr, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	slot, ok, err := g.find(addr)
	if err != nil {
		return fmt.Errorf("lease gate: set %s: %w", addr, err)
	}
	if ok {
		g.write(slot, e)
		return nil
	}
	if err := g.add(addr, e); err != nil {
		return fmt.Errorf("lease gate: set %s: %w", addr, err)
	}
	return nil
}

// Renew moves the end of what an address may do. It is one store in memory.
// Ends are kept to 8 ns, rounded down.
func (g *Gate) Renew(addr netip.Addr, until int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	slot, ok, err := g.find(addr)
	switch {
	case err != nil:
		return fmt.Errorf("lease gate: renew %s: %w", addr, err)
	case !ok:
		return fmt.Errorf("lease gate: renew %s: it has not been set", addr)
	case until < 0:
		return fmt.Errorf("lease gate: renew %s: its end %d lies before the start of the machine", addr, until)
	}
	state := g.word(slot, wordState)
	atomic.StoreUint64(state, uint64(until)&^modeBits|atomic.LoadUint64(state)&modeBits)
	return nil
}

// Entry tells what the gate knows of an address, whichever process has set it.
func (g *Gate) Entry(addr netip.Addr) (Entry, bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	slot, ok, err := g.find(addr)
	if err != nil {
		return Entry{}, false, fmt.Errorf("lease gate: look up %s: %w", addr, err)
	}
	if !ok {
		return Entry{}, false, nil
	}
	return unpack(atomic.LoadUint64(g.word(slot, wordState)), atomic.LoadUint64(g.word(slot, wordPeer))), true, nil
}

// Delete makes the gate forget an address: it is open. One that is not known
// is no error.
func (g *Gate) Delete(addr netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.remove(addr); err != nil {
		return fmt.Errorf("lease gate: delete %s: %w", addr, err)
	}
	return nil
}

// Counters reads what has been counted, of all addresses together.
func (g *Gate) Counters() (Counters, error) {
	g.reading.Lock()
	defer g.reading.Unlock()
	var c Counters
	for i, to := range []*uint64{
		&c.ClosedIn, &c.ClosedOut, &c.AsksIn, &c.ClaimsOut, &c.NotFromPeer, &c.Unnamed, &c.Handed, &c.PassedOn,
	} {
		var perCPU []uint64
		if err := g.objects.Hf1Counts.Lookup(uint32(i), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("lease gate: read counter %d: %w", i, err)
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	return c, nil
}

// Attached reports whether this gate is on its interface still. It is not when
// the interface has been removed, or removed and made again: then it is to be
// closed, and opened for the new one. The calling thread must be in the
// interface's network namespace.
func (g *Gate) Attached() (bool, error) {
	for _, d := range directions {
		f, err := d.find(g.ifindex)
		if errors.Is(err, syscall.ENODEV) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("lease gate on interface %d: %w", g.ifindex, err)
		}
		shares := f.shares(g.slotsID)
		f.close()
		if !shares {
			return false, nil
		}
	}
	return true, nil
}

// Detach forgets the addresses that this Gate has set, takes the programs off
// the interface unless they still guard another process's addresses, and
// closes the Gate. The calling thread must be in the interface's network
// namespace.
func (g *Gate) Detach() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	var errs []error
	for addr := range g.slots {
		errs = append(errs, g.remove(addr))
	}
	others, err := g.guarding(sys.BootTime())
	errs = append(errs, err)
	g.mu.Unlock()
	if !others {
		for _, d := range directions {
			errs = append(errs, d.detach(g.ifindex, g.slotsID))
		}
	}
	if err := errors.Join(append(errs, g.Close())...); err != nil {
		return fmt.Errorf("lease gate: leave interface %d: %w", g.ifindex, err)
	}
	return nil
}

// Close gives the process's descriptors back. The programs stay on the
// interface, with what they know.
func (g *Gate) Close() error {
	g.reading.Lock()
	defer g.reading.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	var err error
	if g.memory != nil {
		err = g.memory.Close()
	}
	return errors.Join(err, g.objects.Close())
}

func (g *Gate) word(slot uint32, word int) *uint64 {
	return &g.memory.Words[int(slot)*wordsPerEntry+word]
}

// write changes an entry. A frame sees the old mode with the old end, or the new
// with the new.
func (g *Gate) write(slot uint32, e Entry) {
	state, peer := e.pack()
	if e.Mode >= Handing {
		atomic.StoreUint64(g.word(slot, wordPeer), peer)
	}
	atomic.StoreUint64(g.word(slot, wordState), state)
}

// A key is an address as the programs look it up.
func key(addr netip.Addr) [16]byte { return addr.As16() }

// find gives the slot of an address.
func (g *Gate) find(addr netip.Addr) (slot uint32, ok bool, err error) {
	if g.closed {
		return 0, false, os.ErrClosed
	}
	addr = addr.Unmap().WithZone("")
	if slot, ok = g.slots[addr]; ok {
		return slot, true, nil
	}
	if !addr.IsValid() {
		return 0, false, errors.New("it is no address")
	}
	slot, err = g.lookup(addr)
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	g.slots[addr] = slot
	return slot, true, nil
}

// lookup asks the map that the programs ask.
func (g *Gate) lookup(addr netip.Addr) (slot uint32, err error) {
	if err := g.objects.Hf1Slots.Lookup(key(addr), &slot); err != nil {
		return 0, err
	}
	if slot >= Addresses {
		return 0, fmt.Errorf("the map names slot %d, and there are %d", slot, Addresses)
	}
	return slot, nil
}

// add claims a slot and tells the programs of it once it is filled.
func (g *Gate) add(addr netip.Addr, e Entry) error {
	for range Addresses {
		slot := g.next
		g.next = (g.next + 1) % Addresses
		if !atomic.CompareAndSwapUint64(g.word(slot, wordClaimed), 0, 1) {
			continue
		}
		g.write(slot, e)
		addr = addr.Unmap().WithZone("")
		if err := g.objects.Hf1Slots.Update(key(addr), slot, ebpf.UpdateNoExist); err != nil {
			atomic.StoreUint64(g.word(slot, wordClaimed), 0)
			return err
		}
		g.slots[addr] = slot
		return nil
	}
	return fmt.Errorf("it holds %d addresses already, and no more have room", Addresses)
}

func (g *Gate) remove(addr netip.Addr) error {
	slot, ok, err := g.find(addr)
	if err != nil || !ok {
		return err
	}
	addr = addr.Unmap().WithZone("")
	if err := g.objects.Hf1Slots.Delete(key(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	delete(g.slots, addr)
	// A frame that has found the slot just now sees the old entry still.
	atomic.StoreUint64(g.word(slot, wordClaimed), 0)
	return nil
}

// guarding says whether any address is not open at this moment.
func (g *Gate) guarding(now int64) (bool, error) {
	var addr [16]byte
	var slot uint32
	all := g.objects.Hf1Slots.Iterate()
	for all.Next(&addr, &slot) {
		if slot < Addresses && now-int64(atomic.LoadUint64(g.word(slot, wordState))&^modeBits) < int64(Grace) {
			return true, nil
		}
	}
	return false, all.Err()
}

func (e Entry) check() error {
	switch {
	case e.Mode > Passing:
		return fmt.Errorf("there is no %s", e.Mode)
	case e.Until < 0:
		return fmt.Errorf("its end %d lies before the start of the machine", e.Until)
	case e.Mode >= Handing && (e.Peer == [6]byte{} || e.Peer[0]&1 != 0):
		return fmt.Errorf("%s needs the Ethernet address of the peer, and %x is none", e.Mode, e.Peer)
	}
	return nil
}

// modeBits are those of a state that are the mode.
const modeBits = 7

func (e Entry) pack() (state, peer uint64) {
	for i, b := range e.Peer {
		peer |= uint64(b) << (8 * i)
	}
	return uint64(e.Until)&^modeBits | uint64(e.Mode), peer
}

func unpack(state, peer uint64) Entry {
	e := Entry{Mode: Mode(state & modeBits), Until: int64(state &^ modeBits)}
	if e.Mode < Handing {
		return e
	}
	for i := range e.Peer {
		e.Peer[i] = byte(peer >> (8 * i))
	}
	return e
}
