package elector

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxFrame bounds the JSON of one frame. The largest are settings and statuses
// of many groups with many addresses.
const maxFrame = 1 << 20

// errFrame is what errors of [readFrame], [decode] and [decodeFirst] match that
// say that the peer does not speak this protocol.
var errFrame = errors.New("not a frame of this protocol")

// appendFrame appends a frame of m, or says why there can be none.
func appendFrame(b []byte, m *message) ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return b, fmt.Errorf("elector: write a frame: %w", err)
	}
	if len(text) > maxFrame {
		return b, fmt.Errorf("elector: write a frame: %d bytes, at most %d: configure fewer groups", len(text), maxFrame)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...), nil
}

// readFrame reads the JSON of one frame. It reserves memory as bytes come, not
// as the length promises, and uses buf where that has room.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 2 || n > maxFrame {
		return nil, fmt.Errorf("%w: its length is %d, want 2 to %d", errFrame, n, maxFrame)
	}
	const step = 64 << 10
	buf = buf[:0]
	for have := 0; have < int(n); have = len(buf) {
		more := min(int(n)-have, step)
		if cap(buf) < have+more {
			buf = append(make([]byte, 0, min(int(n), 2*(have+more))), buf...)
		}
		buf = buf[:have+more]
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}

// decode makes a message of the JSON of a frame: exactly one part, and nothing
// that this version does not know.
func decode(text []byte) (*message, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	m := &message{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: there is more behind the object", errFrame)
	}
	if n := m.parts(); n != 1 {
		return nil, fmt.Errorf("%w: it has %d parts, want one", errFrame, n)
	}
	return m, nil
}

// decodeFirst makes a message of the first frame of a peer, which may be of
// another version: what this one does not know is passed over.
func decodeFirst(text []byte) (*message, error) {
	m := &message{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return m, nil
}
