package balance

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
)

// tableSize is the paper's smaller size: a prime, a hundred entries each for 655
// backends (which bounds the imbalance at about 1 %), and 128 KiB, which stays in
// a second-level cache. It is one size for all pools, as growing it with the
// pool would move every client at the step.
const tableSize = 65537

// hashTable says for each residue of a client's hash which backend serves it. The
// zero value is a table not made yet.
type hashTable struct {
	entries []uint16 // index into members
	members []*backend
}

const noMember = 0xffff // MaxBackends keeps real indices below

// newHashTable fills the table as in section 3.4 of the Maglev paper: each
// backend has its own permutation of the entries, and in turn each takes the next
// free entry of its own. Weights are turns: in a round of the heaviest backend,
// one with half its weight has a turn every second round.
//
// Members are those with a weight, up or not: one that is down keeps its entries
// and is passed over, so that its going and coming moves nobody else's clients.
func newHashTable(backends []*backend, backup bool) hashTable {
	var members []*backend
	heaviest := 0
	for _, b := range backends {
		if b.Backup == backup && b.Weight > 0 {
			members = append(members, b)
			heaviest = max(heaviest, b.Weight)
		}
	}
	slices.SortFunc(members, func(a, b *backend) int { return cmp.Compare(a.Name, b.Name) })

	turns := make([]turn, len(members))
	// rounds[r] is the first member with a turn in round r. There are at most
	// tableSize rounds, because the heaviest fills an entry in each. This list
	// costs one step per entry, whatever the weights; giving every member its
	// credit in every round would cost members x rounds when weights are uneven.
	rounds := make([]int32, tableSize+1)
	for r := range rounds {
		rounds[r] = -1
	}
	enlist := func(i int) {
		t := &turns[i]
		t.taken++
		weight := members[i].Weight
		round := (t.taken*heaviest + weight - 1) / weight
		if round <= tableSize {
			t.next = rounds[round]
			rounds[round] = int32(i)
		}
	}
	for i := range slices.Backward(members) {
		h := hashName(members[i].Name)
		turns[i].at = uint32(mix(h^offsetSeed) % tableSize)
		turns[i].skip = uint32(mix(h^skipSeed)%(tableSize-1)) + 1
		enlist(i)
	}

	entries := make([]uint16, tableSize)
	for e := range entries {
		entries[e] = noMember
	}
	for filled, round := 0, 1; filled < tableSize; round++ {
		for i := rounds[round]; i >= 0 && filled < tableSize; {
			t := &turns[i]
			for entries[t.at] != noMember {
				t.advance()
			}
			entries[t.at] = uint16(i)
			filled++
			following := t.next // enlisting sets it anew
			enlist(int(i))
			i = following
		}
	}
	return hashTable{entries: entries, members: members}
}

// turn is where one member stands while a table is filled.
type turn struct {
	at, skip uint32 // its permutation: where it stands, its step
	taken    int    // turns enlisted so far
	next     int32  // the next member with a turn in the same round, or -1
}

func (t *turn) advance() {
	if t.at += t.skip; t.at >= tableSize {
		t.at -= tableSize
	}
}

// The two numbers of a member's permutation come from one hash of its name, told
// apart by these (digits of pi).
const (
	offsetSeed = 0x243f6a8885a308d3
	skipSeed   = 0x13198a2e03707344
)

func hashName(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return h.Sum64()
}

// hashAddr is stable over processes and machines, which hash/maphash is not. An
// IPv4 address and its IPv6-mapped form are the same client; a zone is not part of
// the address.
func hashAddr(addr netip.Addr) uint64 {
	a := addr.As16() // maps IPv4
	return mix(binary.BigEndian.Uint64(a[:8]) ^ mix(binary.BigEndian.Uint64(a[8:])+offsetSeed))
}

// mix spreads every bit of x over all bits: xor-shifts and odd multiplications,
// each of which can be undone, so no two inputs collide.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
