package connected

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// A Record travels as an item of a pair.Set. Its key is the Tuple, its value the
// rest; numbers are in network order.
//
//	key    byte      4 or 6: the family, and with it the form of the key
//	       4 or 16   address of Local
//	       2         its port
//	       4 or 16   address of Remote
//	       2         its port
//
//	value  byte      1: the form of the value
//	       byte      Kind
//	       byte      bit 0: the numbers are known
//	       4, 4      ISN, RemoteISN; 0 where not known
//	       8         Since: nanoseconds since 1970, UTC
//	       byte      how many bytes of Owner follow
//	       ...       Owner
//
// A node may be older than its peer. So a later version appends to the value,
// and whoever does not know what was appended ignores it; unknown bits and
// kinds are kept as they are. Only what cannot be understood without is given
// another first byte, and then refused with a [*FormatError].

const (
	key4, key6     = 4, 6
	valueForm      = 1
	flagISN        = 1 << 0
	valueFixedSize = 1 + 1 + 1 + 4 + 4 + 8 + 1
)

// A FormatError says that an item is of a form that this version does not know.
type FormatError struct {
	Part string // "key" or "value"
	Form byte
}

// Error says what it is, and what to do.
func (e *FormatError) Error() string {
	return fmt.Sprintf("connection of the peer: a %s of form %d, which this version does not know: run the same version on both nodes", e.Part, e.Form)
}

// errCut says that an item ends too early.
var errCut = errors.New("connection of the peer: the item is cut short")

// AppendKey appends the key of the connection's item to b.
func AppendKey(b []byte, t Tuple) []byte {
	form := byte(key6)
	if t.Local.Addr().Is4() {
		form = key4
	}
	b = append(b, form)
	for _, end := range []netip.AddrPort{t.Local, t.Remote} {
		if form == key4 {
			a := end.Addr().As4()
			b = append(b, a[:]...)
		} else {
			a := end.Addr().As16()
			b = append(b, a[:]...)
		}
		b = binary.BigEndian.AppendUint16(b, end.Port())
	}
	return b
}

// AppendValue appends the value of the connection's item to b. What is longer
// than MaxOwner is cut.
func AppendValue(b []byte, r Record) []byte {
	var flags byte
	if r.HasISN {
		flags |= flagISN
	}
	b = append(b, valueForm, byte(r.Kind), flags)
	b = binary.BigEndian.AppendUint32(b, r.ISN)
	b = binary.BigEndian.AppendUint32(b, r.RemoteISN)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Since.UnixNano()))
	owner := r.Owner[:min(len(r.Owner), MaxOwner)]
	b = append(b, byte(len(owner)))
	return append(b, owner...)
}

// DecodeKey reads what AppendKey wrote.
func DecodeKey(key []byte) (t Tuple, err error) {
	if len(key) == 0 {
		return t, errCut
	}
	form, size := key[0], 4
	switch form {
	case key4:
	case key6:
		size = 16
	default:
		return t, &FormatError{Part: "key", Form: form}
	}
	key = key[1:]
	if len(key) < 2*(size+2) {
		return t, errCut
	}
	if len(key) > 2*(size+2) {
		return t, errors.New("connection of the peer: bytes follow its key")
	}
	for _, end := range []*netip.AddrPort{&t.Local, &t.Remote} {
		a, _ := netip.AddrFromSlice(key[:size])
		if a.Is4In6() {
			return Tuple{}, fmt.Errorf("connection of the peer: %s is IPv4 in IPv6", a)
		}
		*end = netip.AddrPortFrom(a, binary.BigEndian.Uint16(key[size:]))
		key = key[size+2:]
	}
	return t, nil
}

// Decode reads an item.
func Decode(key, value []byte) (r Record, err error) {
	if r.Tuple, err = DecodeKey(key); err != nil {
		return Record{}, err
	}
	if len(value) == 0 {
		return Record{}, errCut
	}
	if value[0] != valueForm {
		return Record{}, &FormatError{Part: "value", Form: value[0]}
	}
	if len(value) < valueFixedSize || len(value) < valueFixedSize+int(value[valueFixedSize-1]) {
		return Record{}, errCut
	}
	r.Kind = Kind(value[1])
	r.HasISN = value[2]&flagISN != 0
	if r.HasISN {
		r.ISN, r.RemoteISN = binary.BigEndian.Uint32(value[3:]), binary.BigEndian.Uint32(value[7:])
	}
	r.Since = time.Unix(0, int64(binary.BigEndian.Uint64(value[11:]))).UTC()
	r.Owner = string(value[valueFixedSize:][:value[valueFixedSize-1]])
	return r, nil
}

// normal gives a tuple as Records have it, or says what is wrong with it.
func (t Tuple) normal() (Tuple, error) {
	for _, end := range []*netip.AddrPort{&t.Local, &t.Remote} {
		if !end.Addr().IsValid() {
			return t, fmt.Errorf("connection %s to %s: an end has no address", t.Local, t.Remote)
		}
		*end = netip.AddrPortFrom(end.Addr().Unmap().WithZone(""), end.Port())
	}
	if t.Local.Addr().Is4() != t.Remote.Addr().Is4() {
		return t, fmt.Errorf("connection %s to %s: its ends are of two families", t.Local, t.Remote)
	}
	return t, nil
}

// String is "10.0.0.100:5432 to 10.0.0.7:40112".
func (t Tuple) String() string { return fmt.Sprintf("%s to %s", t.Local, t.Remote) }
