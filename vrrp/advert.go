package vrrp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// What the protocol fixes.
const (
	Protocol = 112 // IP protocol number

	// HopLimit is that of every advert, sent and received: a router on the way
	// would have lowered it. But keepalived 2.2.7 sends those to IPv6 peers with
	// the system's own (64), and looks at none that came from a peer.
	HopLimit = 255

	// PriorityStop says that the active router stops: the backups need not wait
	// for its silence.
	PriorityStop = 0
	// PriorityOwner is of a router whose own addresses these are.
	PriorityOwner = 255
	// DefaultPriority is of a router that backs another up.
	DefaultPriority = 100

	// MinInterval and MaxInterval bound the time between two adverts, which
	// the message carries in units of MinInterval.
	MinInterval = 10 * time.Millisecond
	MaxInterval = 4095 * MinInterval

	// MaxAddresses is how many the message can count.
	MaxAddresses = 255
	// MaxSize is the largest message, in bytes.
	MaxSize = headerSize + MaxAddresses*16

	version    = 3
	typeAdvert = 1
	headerSize = 8
)

// Where adverts go when no peers are named.
var (
	GroupIPv4 = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	GroupIPv6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x12})
)

// Family is that of an advert's addresses, and of the IP header before it.
type Family uint8

// The two families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String gives "IPv4" or "IPv6".
func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// FamilyOf gives the family of an address; a mapped IPv4 address is IPv6.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

func (f Family) addressSize() int {
	if f == IPv4 {
		return 4
	}
	return 16
}

// Advert says that a router is active, and for which addresses.
type Advert struct {
	Family   Family
	ID       uint8         // the virtual router, 1..255
	Priority uint8         // PriorityStop..PriorityOwner
	Interval time.Duration // until the sender's next one, MinInterval..MaxInterval, in whole MinInterval
	// Addresses are the group's of this family, without zones, 1..MaxAddresses.
	// RFC 9568 wants the first in IPv6 to be link-local (see LinkLocal);
	// keepalived does not, and refuses a list of another length than its own.
	// So it is for the sender to know whom it speaks to.
	Addresses []netip.Addr
}

// LinkLocal gives the address that leads an IPv6 advert of a group that lists
// no link-local one: that of the virtual router's MAC (00-00-5E-00-02-ID).
// Nobody needs to have it on an interface.
func LinkLocal(id uint8) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: 0x02, 9: 0x00, 10: 0x5e, 11: 0xff, 12: 0xfe, 13: 0x00, 14: 0x02, 15: id})
}

// CheckInterval says whether an advert can carry the interval.
func CheckInterval(d time.Duration) error {
	if d < MinInterval || d > MaxInterval || d%MinInterval != 0 {
		return fmt.Errorf("interval %v: adverts carry %v to %v in steps of %v", d, MinInterval, MaxInterval, MinInterval)
	}
	return nil
}

// AppendTo appends the message to b, with the checksum for an IP header from
// src to dst. It allocates only what b lacks. An advert that cannot be sent
// leaves b as it was.
func (a Advert) AppendTo(b []byte, src, dst netip.Addr) ([]byte, error) {
	if err := a.check(src, dst); err != nil {
		return b, err
	}
	start := len(b)
	b = append(b, version<<4|typeAdvert, a.ID, a.Priority, uint8(len(a.Addresses)))
	b = binary.BigEndian.AppendUint16(b, uint16(a.Interval/MinInterval))
	b = append(b, 0, 0)
	for _, addr := range a.Addresses {
		if a.Family == IPv4 {
			raw := addr.As4()
			b = append(b, raw[:]...)
		} else {
			raw := addr.As16()
			b = append(b, raw[:]...)
		}
	}
	msg := b[start:]
	binary.BigEndian.PutUint16(msg[6:], ^fold(sum(pseudo(src, dst, len(msg)), msg)))
	return b, nil
}

func (a Advert) check(src, dst netip.Addr) error {
	if a.Family != IPv4 && a.Family != IPv6 {
		return fmt.Errorf("advert of family %d: families are 4 and 6", uint8(a.Family))
	}
	if a.ID == 0 {
		return errors.New("advert with id 0: ids are 1 to 255")
	}
	if err := CheckInterval(a.Interval); err != nil {
		return fmt.Errorf("advert of id %d: %w", a.ID, err)
	}
	if n := len(a.Addresses); n == 0 || n > MaxAddresses {
		return fmt.Errorf("advert of id %d with %d addresses: it holds 1 to %d", a.ID, n, MaxAddresses)
	}
	for _, end := range []netip.Addr{src, dst} {
		if !end.IsValid() || FamilyOf(end) != a.Family {
			return fmt.Errorf("advert of id %d from %v to %v: both must be %v addresses", a.ID, src, dst, a.Family)
		}
	}
	for _, addr := range a.Addresses {
		if !addr.IsValid() || FamilyOf(addr) != a.Family {
			return fmt.Errorf("advert of id %d: address %v is not of family %v", a.ID, addr, a.Family)
		}
	}
	return nil
}

// Parse reads the message of an advert that came in an IP header from src to
// dst. What it refuses is a [*ParseError]. The hop limit, which the message does
// not show, is for the caller to check. Bytes behind the message are ignored, as
// the kernel does not say where padding begins.
func Parse(msg []byte, src, dst netip.Addr) (Advert, error) {
	if !src.IsValid() || !dst.IsValid() || FamilyOf(src) != FamilyOf(dst) {
		return Advert{}, refuse(MixedFamilies, "from %v to %v", src, dst)
	}
	if len(msg) < headerSize {
		return Advert{}, refuse(TooShort, "%d bytes, the header has %d", len(msg), headerSize)
	}
	if v := msg[0] >> 4; v != version {
		return Advert{}, refuse(WrongVersion, "version %d, want %d", v, version)
	}
	if t := msg[0] & 0xf; t != typeAdvert {
		return Advert{}, refuse(WrongType, "type %d, want %d", t, typeAdvert)
	}
	a := Advert{
		Family:   FamilyOf(src),
		ID:       msg[1],
		Priority: msg[2],
		Interval: time.Duration(binary.BigEndian.Uint16(msg[4:])&0xfff) * MinInterval,
	}
	count, size := int(msg[3]), a.Family.addressSize()
	want := headerSize + count*size
	if len(msg) < want {
		return Advert{}, refuse(TooShort, "%d bytes, %d addresses need %d", len(msg), count, want)
	}
	msg = msg[:want]
	if !sound(msg, src, dst) {
		return Advert{}, refuse(WrongChecksum, "%#04x is neither with nor without the pseudo-header", binary.BigEndian.Uint16(msg[6:]))
	}
	switch {
	case a.ID == 0:
		return Advert{}, refuse(NoID, "id 0")
	case count == 0:
		return Advert{}, refuse(NoAddresses, "id %d", a.ID)
	case a.Interval == 0:
		return Advert{}, refuse(NoInterval, "id %d", a.ID)
	}
	a.Addresses = make([]netip.Addr, count)
	for i := range a.Addresses {
		raw := msg[headerSize+i*size:][:size]
		a.Addresses[i], _ = netip.AddrFromSlice(raw) // 4 or 16 bytes
	}
	return a, nil
}

// ParseError says why a message is no advert.
type ParseError struct {
	Reason Reason
	Detail string
}

func refuse(r Reason, format string, args ...any) *ParseError {
	return &ParseError{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

func (e *ParseError) Error() string {
	return "vrrp message refused: " + e.Reason.String() + ": " + e.Detail
}

// Reason is why a message is refused. The values are stable, to be counted by.
type Reason uint8

// Why a message is refused.
const (
	_             Reason = iota
	TooShort             // the header, or the addresses that it counts, do not fit
	WrongVersion         // not version 3; keepalived sends version 2 unless it has vrrp_version 3
	WrongType            // not an advert
	WrongChecksum        // damaged, or not sent between these two addresses
	NoID                 // id 0
	NoAddresses          // none counted
	NoInterval           // interval 0
	MixedFamilies        // source and destination are not of one family
)

var reasons = [...]string{
	TooShort: "too short", WrongVersion: "wrong version", WrongType: "wrong type", WrongChecksum: "wrong checksum",
	NoID: "no id", NoAddresses: "no addresses", NoInterval: "no interval", MixedFamilies: "mixed families",
}

func (r Reason) String() string {
	if int(r) < len(reasons) && reasons[r] != "" {
		return reasons[r]
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// sound says whether the checksum holds, with or without the pseudo-header in
// IPv4, with it in IPv6.
func sound(msg []byte, src, dst netip.Addr) bool {
	const whole = 0xffff // what a sum over everything gives, its own complement included
	if fold(sum(pseudo(src, dst, len(msg)), msg)) == whole {
		return true
	}
	return src.Is4() && fold(sum(0, msg)) == whole
}

// pseudo sums up the pseudo-header: addresses, length and protocol. Those of
// IPv4 and IPv6 give the same sum.
func pseudo(src, dst netip.Addr, length int) uint32 {
	acc := uint32(Protocol + length)
	for _, a := range [2]netip.Addr{src, dst} {
		if a.Is4() {
			raw := a.As4()
			acc = sum(acc, raw[:])
		} else {
			raw := a.As16()
			acc = sum(acc, raw[:])
		}
	}
	return acc
}

// sum adds b to acc as 16-bit words, carries not folded: there is room for the
// carries of 65,536 words, and the largest message has 2,044.
func sum(acc uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint32(binary.BigEndian.Uint16(b))
	}
	return acc
}

func fold(acc uint32) uint16 {
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}
