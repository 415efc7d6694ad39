package election

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Phase is where a node stands in a planned move.
type Phase uint8

// The phases.
const (
	NoPhase  Phase = iota
	Offering       // active: the peer may have the addresses, under Move
	Handing        // active: new connections go to the peer already
	Granted        // no longer active: take them, under Move
	Ready          // backup: prepared for Move
	Refusing       // backup: cannot take Move
	Wanting        // backup: has the higher priority, and preempts
)

func (p Phase) String() string {
	return name(p, "Phase", "none", "offering", "handing", "granted", "ready", "refusing", "wanting")
}

// Beat is what one node tells the other of a group, over the link. Each holds
// everything: beats may be lost, but must come in the order they were sent.
type Beat struct {
	// Stamp is when it was made, on its sender's clock; Echo is the Stamp of the
	// last beat that its sender had received by then, 0 if there was none.
	Stamp, Echo Instant

	Role  Role
	Phase Phase
	// Epoch is the largest that the sender knows, Owned the largest under which
	// it was active itself, Move the one of a planned move.
	Epoch, Owned, Move uint64

	// Running says that the sender's lease runs.
	Running bool
	// Well says that the sender is well; Able, that it would take over.
	Well, Able bool

	Priority uint8
	Interval time.Duration
	// Hold is how long the sender's kernel answers for the addresses after its
	// lease was extended last.
	Hold time.Duration

	// MAC and Addresses are those of the sender's interface.
	MAC       MAC
	Addresses []netip.Addr
}

// MaxBeatAddresses is how many addresses of the interface a beat holds; more
// are left out.
const MaxBeatAddresses = 32

// MaxBeatSize is the size of the largest beat.
const MaxBeatSize = beatHeader + MaxBeatAddresses*17

const (
	beatVersion = 1
	beatHeader  = 5 + 2*8 + 3*8 + 2*8 + 6 + 1

	flagRunning = 1
	flagWell    = 2
	flagAble    = 4
)

// AppendTo appends the beat to b:
//
//	version 1 | role | phase | flags | priority | stamp i64 | echo i64 |
//	epoch u64 | owned u64 | move u64 | interval i64 | hold i64 | MAC 6 |
//	count of addresses | each: length 4 or 16, bytes
func (x Beat) AppendTo(b []byte) []byte {
	var flags byte
	if x.Running {
		flags |= flagRunning
	}
	if x.Well {
		flags |= flagWell
	}
	if x.Able {
		flags |= flagAble
	}
	b = append(b, beatVersion, byte(x.Role), byte(x.Phase), flags, x.Priority)
	for _, v := range [...]uint64{uint64(x.Stamp), uint64(x.Echo), x.Epoch, x.Owned, x.Move, uint64(x.Interval), uint64(x.Hold)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = append(b, x.MAC[:]...)
	addresses := x.Addresses[:min(len(x.Addresses), MaxBeatAddresses)]
	b = append(b, byte(len(addresses)))
	for _, a := range addresses {
		raw := a.AsSlice()
		b = append(b, byte(len(raw)))
		b = append(b, raw...)
	}
	return b
}

// ParseBeat reads what AppendTo has written, all of it.
func ParseBeat(b []byte) (Beat, error) {
	if len(b) > 0 && b[0] != beatVersion {
		return Beat{}, fmt.Errorf("election: beat of version %d, this program speaks %d: run the same version on both nodes", b[0], beatVersion)
	}
	if len(b) < beatHeader {
		return Beat{}, fmt.Errorf("election: beat of %d bytes is cut short: its header has %d", len(b), beatHeader)
	}
	x := Beat{
		Role: Role(b[1]), Phase: Phase(b[2]), Priority: b[4],
		Running: b[3]&flagRunning != 0, Well: b[3]&flagWell != 0, Able: b[3]&flagAble != 0,
	}
	number := func(i int) uint64 { return binary.BigEndian.Uint64(b[5+8*i:]) }
	x.Stamp, x.Echo = Instant(number(0)), Instant(number(1))
	x.Epoch, x.Owned, x.Move = number(2), number(3), number(4)
	x.Interval, x.Hold = time.Duration(number(5)), time.Duration(number(6))
	x.MAC = MAC(b[beatHeader-7:])
	switch {
	case x.Role > Fault || x.Phase > Wanting || b[3] > flagRunning|flagWell|flagAble:
		return Beat{}, fmt.Errorf("election: beat has role %d, phase %d, flags %#x: not all of them are known", b[1], b[2], b[3])
	case x.Stamp < 0 || x.Echo < 0 || x.Interval < 0 || x.Interval > time.Hour || x.Hold < 0 || x.Hold > time.Hour:
		return Beat{}, fmt.Errorf("election: beat has stamp %d, echo %d, interval %d, hold %d: not all of them can be", x.Stamp, x.Echo, x.Interval, x.Hold)
	}
	count, rest := int(b[beatHeader-1]), b[beatHeader:]
	if count > MaxBeatAddresses {
		return Beat{}, fmt.Errorf("election: beat has %d addresses, at most %d", count, MaxBeatAddresses)
	}
	for range count {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return Beat{}, errors.New("election: beat is cut short in its addresses")
		}
		a, ok := netip.AddrFromSlice(rest[1 : 1+rest[0]])
		if !ok {
			return Beat{}, fmt.Errorf("election: beat has an address of %d bytes, want 4 or 16", rest[0])
		}
		x.Addresses, rest = append(x.Addresses, a), rest[1+rest[0]:]
	}
	if len(rest) > 0 {
		return Beat{}, fmt.Errorf("election: beat has %d bytes behind its end", len(rest))
	}
	return x, nil
}
