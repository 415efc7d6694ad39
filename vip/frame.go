package vip

import (
	"encoding/binary"
	"fmt"
)

// What goes over the link in one piece:
//
//	version 1 | sender u64 | count of beats, each:
//	    number u64 | name length u8, name | length u16, the election's own beat
//
// sender is drawn anew by every Owner; number grows with every beat of a group,
// so that what the link repeats or delivers late is noticed.
const frameVersion = 1

// maxGroupName bounds a name in a frame.
const maxGroupName = 255

type frame struct{ b []byte }

func (f *frame) begin(sender uint64) {
	f.b = append(f.b[:0], frameVersion)
	f.b = binary.BigEndian.AppendUint64(f.b, sender)
}

// empty says whether nothing was added since begin.
func (f *frame) empty() bool { return len(f.b) <= 9 }

func (f *frame) add(group string, number uint64, beat []byte) {
	f.b = binary.BigEndian.AppendUint64(f.b, number)
	f.b = append(f.b, byte(len(group)))
	f.b = append(f.b, group...)
	f.b = binary.BigEndian.AppendUint16(f.b, uint16(len(beat)))
	f.b = append(f.b, beat...)
}

// readFrame gives each beat of a frame. What it gives lies in b.
func readFrame(b []byte, each func(sender uint64, group []byte, number uint64, beat []byte)) error {
	if len(b) < 9 {
		return fmt.Errorf("vip: beat of %d bytes is cut short", len(b))
	}
	if b[0] != frameVersion {
		return fmt.Errorf("vip: beat of version %d, this program speaks %d; run the same version on both nodes", b[0], frameVersion)
	}
	sender := binary.BigEndian.Uint64(b[1:])
	for b = b[9:]; len(b) > 0; {
		if len(b) < 9 || len(b) < 9+int(b[8])+2 {
			return fmt.Errorf("vip: beat is cut short, %d bytes before its end", len(b))
		}
		number, group := binary.BigEndian.Uint64(b), b[9:9+int(b[8])]
		b = b[9+len(group):]
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; len(b) < n {
			return fmt.Errorf("vip: beat of group %q is cut short: %d of %d bytes", group, len(b), n)
		}
		each(sender, group, number, b[:n])
		b = b[n:]
	}
	return nil
}
