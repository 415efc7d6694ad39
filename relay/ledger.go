//go:build linux

package relay

import (
	"fmt"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// A store is the memory file of one loop: a header, a ledger with one entry a
// connection, and slots that hold bytes in transit. Whoever holds the file and
// the sockets after the relay was killed can account for every byte:
//
//	read    = bytes_received - unread          of the source's socket
//	written = bytes_acked + unacked            of the sink's socket
//	held    = read - written                   bytes, which lie at
//	          slot[written-base : read-base]   of the ledger's slot and base
//
// (a SYN and a FIN count in the kernel's sums; [position] takes them out). The
// ledger is written before the read that it describes, and a slot changes its
// owner only when it holds nothing of anybody else's, so the equations hold
// between any two instructions.
//
//	0      header: magic, version, slot size, offset and number of entries, offset of slots
//	4096   entries of 64 bytes: id (0 = free); client to backend: slot+1, base; backend to client: slot+1, base
//	...    slots of 128 KiB
type store struct {
	mem      *sys.Memory
	entries  int     // how many there is room for
	freshEnt int32   // entries from here on were never used
	freeEnt  []int32 // used before, free now
	slotsOff int
	maxSlots int
	fresh    int32   // slots from here on were never used
	warm     []int32 // free, their pages still there
	cold     []int32 // free, their pages given back
}

const (
	storeMagic   = 0x5453_4146_444c_4f48 // "HOLDFAST", little-endian
	storeVersion = 1
	headerSize   = 4096
	entrySize    = 64
	slotSize     = 128 << 10
	growSlots    = 16
	warmSlots    = 32 // pages kept for the next burst: 4 MiB a loop

	entryID   = 0
	entryFlow = 8 // two words for each direction: slot+1, base
)

// newStore makes the memory file for at most entries connections.
func newStore(name string, entries int) (*store, error) {
	slotsOff := headerSize + (entries*entrySize+slotSize-1)/slotSize*slotSize
	maxSlots := 2*entries + 1 // both directions of each, and the loop's scratch
	mem, err := sys.NewMemory(name, slotsOff+growSlots*slotSize, slotsOff+maxSlots*slotSize)
	if err != nil {
		return nil, fmt.Errorf("memory for bytes in transit: %w", err)
	}
	for i, v := range [...]uint64{storeMagic, storeVersion, slotSize, headerSize, uint64(entries), uint64(slotsOff)} {
		mem.Word(8 * i).Store(v)
	}
	return &store{mem: mem, entries: entries, slotsOff: slotsOff, maxSlots: maxSlots}, nil
}

func (s *store) close() error { return s.mem.Close() }

// open takes a ledger entry for connection id.
func (s *store) open(id uint64) (entry int32, ok bool) {
	if n := len(s.freeEnt); n > 0 {
		entry, s.freeEnt = s.freeEnt[n-1], s.freeEnt[:n-1]
	} else if int(s.freshEnt) < s.entries {
		entry = s.freshEnt
		s.freshEnt++
	} else {
		return 0, false
	}
	s.mem.Word(s.entryOff(entry) + entryID).Store(id)
	return entry, true
}

// drop gives an entry back.
func (s *store) drop(entry int32) {
	off := s.entryOff(entry)
	for i := 0; i < entrySize; i += 8 {
		s.mem.Word(off + i).Store(0)
	}
	s.freeEnt = append(s.freeEnt, entry)
}

func (s *store) entryOff(entry int32) int { return headerSize + int(entry)*entrySize }

// note records, before a read, that the bytes of a flow from position base on
// will lie in slot.
func (s *store) note(entry int32, flow int, slot int32, base uint64) {
	off := s.entryOff(entry) + entryFlow + 16*flow
	s.mem.Word(off).Store(uint64(slot) + 1)
	s.mem.Word(off + 8).Store(base)
}

// take returns a slot whose content is anybody's.
func (s *store) take() (slot int32, err error) {
	if n := len(s.warm); n > 0 {
		slot, s.warm = s.warm[n-1], s.warm[:n-1]
		return slot, nil
	}
	if n := len(s.cold); n > 0 {
		slot, s.cold = s.cold[n-1], s.cold[:n-1]
		return slot, nil
	}
	if int(s.fresh) == s.maxSlots {
		return 0, fmt.Errorf("all %d slots for bytes in transit are taken", s.maxSlots)
	}
	end := s.slotsOff + (int(s.fresh)+1)*slotSize
	if end > s.mem.Size() {
		grown := min(end+(growSlots-1)*slotSize, s.slotsOff+s.maxSlots*slotSize)
		if err := s.mem.Grow(grown); err != nil {
			return 0, fmt.Errorf("memory for bytes in transit: %w", err)
		}
	}
	slot = s.fresh
	s.fresh++
	return slot, nil
}

// give returns a slot that holds nothing any more.
func (s *store) give(slot int32) {
	if len(s.warm) < warmSlots {
		s.warm = append(s.warm, slot)
		return
	}
	s.mem.Discard(s.slotsOff+int(slot)*slotSize, slotSize)
	s.cold = append(s.cold, slot)
}

func (s *store) bytes(slot int32) []byte {
	return s.mem.Bytes(s.slotsOff+int(slot)*slotSize, slotSize)
}
