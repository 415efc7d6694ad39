package vip

import (
	"encoding/binary"
	"fmt"
)

// What goes over the link in one piece, MaxBeat bytes at most:
//
//	version 1 | sender u64 | each beat:
//	    number u64 | name length u8, name | length u16, the election's own beat
//
// sender is drawn anew by every Owner; number grows with every beat of a group,
// so that what the link repeats or delivers late is noticed.
const frameVersion = 1

// MaxBeat is the largest beat that OnBeat is given and that Deliver takes, in
// bytes. It holds what all groups have to say in one turn; where that is more, it
// is more than one beat.
const MaxBeat = 16 << 10

const (
	frameHeader = 1 + 8
	beatHeader  = 8 + 1 + 2 // of each beat in a frame

	// maxGroupName bounds a name in a frame.
	maxGroupName = 255
)

// frame gathers beats, and sends what is full.
type frame struct {
	b    []byte
	send func([]byte)
}

func (f *frame) begin(sender uint64) {
	f.b = append(f.b[:0], frameVersion)
	f.b = binary.BigEndian.AppendUint64(f.b, sender)
}

// empty says whether nothing was added since begin.
func (f *frame) empty() bool { return len(f.b) <= frameHeader }

// flush sends what was added; the frame is empty then.
func (f *frame) flush() {
	if !f.empty() {
		f.send(f.b)
		f.b = f.b[:frameHeader]
	}
}

func (f *frame) add(group string, number uint64, beat []byte) {
	if len(f.b)+beatHeader+len(group)+len(beat) > MaxBeat {
		f.flush()
	}
	f.b = binary.BigEndian.AppendUint64(f.b, number)
	f.b = append(f.b, byte(len(group)))
	f.b = append(f.b, group...)
	f.b = binary.BigEndian.AppendUint16(f.b, uint16(len(beat)))
	f.b = append(f.b, beat...)
}

// readFrame gives each beat of a frame. What it gives lies in b.
func readFrame(b []byte, each func(sender uint64, group []byte, number uint64, beat []byte)) error {
	if len(b) < frameHeader {
		return fmt.Errorf("vip: beat of %d bytes is cut short", len(b))
	}
	if b[0] != frameVersion {
		return fmt.Errorf("vip: beat of version %d, this program speaks %d; run the same version on both nodes", b[0], frameVersion)
	}
	sender := binary.BigEndian.Uint64(b[1:])
	for b = b[frameHeader:]; len(b) > 0; {
		if len(b) < beatHeader || len(b) < beatHeader+int(b[8]) {
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
