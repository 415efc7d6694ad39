package pair

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame on the link, inside TLS; numbers are big-endian:
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	|                   length of the payload                       |
//	+---------------+---------------+---------------+---------------+
//	|     kind      |    version    |     flags     |       0       |
//	+---------------+---------------+---------------+---------------+
//	|   payload ...
//
// A kind, or a version of a kind, that a node does not know is skipped, unless
// its flag says that it is required: then the link is refused, with the kind.
// What is longer than a version says is an error: who adds a field gives the
// kind another version.

const (
	headerSize = 8
	maxPayload = 68 << 10 // the longest frame is a put: maxKey, maxValue and what goes with them
	maxName    = 255
	maxDigest  = 64
	maxBeat    = 16 << 10
	maxKey     = 1 << 10
	maxValue   = 64 << 10
)

// The protocol's versions that this program speaks. Two nodes use the latest one
// that both speak.
const (
	protocolMin = 1
	protocolMax = 1
)

type kind uint8

const (
	kindHello  kind = 1 // who I am; the first frame of both
	kindAdopt  kind = 2 // node 1: this connection is the link
	kindBye    kind = 3 // why I close; the last frame
	kindInfo   kind = 4 // the digest of my configuration is another one
	kindBeat   kind = 5 // of the elector, opaque
	kindPing   kind = 6
	kindPong   kind = 7
	kindHave   kind = 16 // follower: what I have; an acknowledgement of all up to there
	kindBegin  kind = 17 // leader: what comes is this epoch's, from the start or from what you have
	kindPut    kind = 18
	kindDelete kind = 19
	kindMark   kind = 20 // leader: now you have everything
	kindRefuse kind = 21 // follower: your epoch is over
)

// flagRequired is the flag of what a node must know to go on.
const flagRequired = 1

// known is what this program understands: of each kind the latest version, and
// the flags that it sends it with.
var known = map[kind]struct{ version, flags uint8 }{
	kindHello:  {1, flagRequired},
	kindAdopt:  {1, flagRequired},
	kindBye:    {1, flagRequired},
	kindInfo:   {1, 0},
	kindBeat:   {1, 0},
	kindPing:   {1, flagRequired},
	kindPong:   {1, flagRequired},
	kindHave:   {1, flagRequired},
	kindBegin:  {1, flagRequired},
	kindPut:    {1, flagRequired},
	kindDelete: {1, flagRequired},
	kindMark:   {1, flagRequired},
	kindRefuse: {1, flagRequired},
}

// header is the beginning of a frame.
type header struct {
	length  int
	kind    kind
	version uint8
	flags   uint8
}

// An UnknownFrameError is about a frame that this node would have to understand
// and does not: the peer's program is newer.
type UnknownFrameError struct {
	Kind, Version uint8
}

func (e *UnknownFrameError) Error() string {
	return fmt.Sprintf("the peer requires frame kind %d version %d, which this program does not know: update holdfast on this node", e.Kind, e.Version)
}

// A frameError is about a frame that is none: the link ends.
type frameError struct {
	kind kind
	what string
}

func (e *frameError) Error() string {
	return fmt.Sprintf("frame of kind %d: %s", uint8(e.kind), e.what)
}

// parseHeader reads the first headerSize bytes of a frame.
func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, io.ErrUnexpectedEOF
	}
	h := header{kind: kind(b[4]), version: b[5], flags: b[6]}
	n := binary.BigEndian.Uint32(b)
	switch {
	case n > maxPayload:
		return header{}, &frameError{h.kind, fmt.Sprintf("%d bytes of payload, at most %d", n, maxPayload)}
	case h.version == 0:
		return header{}, &frameError{h.kind, "version 0"}
	}
	h.length = int(n)
	return h, nil
}

// understand reports whether the frame is to be read; one that is not may be
// skipped, or is an error.
func (h header) understand() (bool, error) {
	if k, ok := known[h.kind]; ok && h.version <= k.version {
		return true, nil
	}
	if h.flags&flagRequired != 0 {
		return false, &UnknownFrameError{uint8(h.kind), h.version}
	}
	return false, nil
}

// readFrame reads frames from r up to the first that this program understands.
// The payload lies in buf, which is returned for the next call.
func readFrame(r io.Reader, buf []byte) (h header, payload, _ []byte, err error) {
	for {
		if cap(buf) < headerSize {
			buf = make([]byte, 4<<10)
		}
		if _, err := io.ReadFull(r, buf[:headerSize]); err != nil {
			return header{}, nil, buf, err
		}
		h, err := parseHeader(buf[:headerSize])
		if err != nil {
			return header{}, nil, buf, err
		}
		read, err := h.understand()
		if err != nil {
			return header{}, nil, buf, err
		}
		if cap(buf) < h.length {
			buf = make([]byte, max(h.length, min(2*cap(buf), maxPayload)))
		}
		if _, err := io.ReadFull(r, buf[:h.length]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return header{}, nil, buf, err
		}
		if read {
			return h, buf[:h.length], buf, nil
		}
	}
}

// appendFrame appends a frame; payload appends what is in it.
func appendFrame(b []byte, k kind, payload func([]byte) []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0, byte(k), known[k].version, known[k].flags, 0)
	b = payload(b)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-headerSize))
	return b
}

// A decoder reads fields. The first error stays: what is read afterwards is zero.
type decoder struct {
	kind kind
	b    []byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = &frameError{d.kind, fmt.Sprintf(format, args...)}
	}
	d.b = nil
}

func (d *decoder) take(n int, what string) []byte {
	if d.err != nil || len(d.b) < n {
		d.fail("%s needs %d bytes, and %d are left", what, n, len(d.b))
		return nil
	}
	var out []byte
	out, d.b = d.b[:n:n], d.b[n:]
	return out
}

func (d *decoder) uint8(what string) uint8 {
	if b := d.take(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint16(what string) uint16 {
	if b := d.take(2, what); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) uint64(what string) uint64 {
	if b := d.take(8, what); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// flag is a byte that is 0 or 1.
func (d *decoder) flag(what string) bool {
	n := d.uint8(what)
	if n > 1 {
		d.fail("%s is %d, and can be 0 or 1", what, n)
	}
	return n == 1
}

// bytes is a length of two bytes and as many bytes.
func (d *decoder) bytes(what string, limit int) []byte {
	n := int(d.uint16(what))
	if n > limit {
		d.fail("%s has %d bytes, at most %d", what, n, limit)
		return nil
	}
	return d.take(n, what)
}

// rest is all that is left.
func (d *decoder) rest(what string, limit int) []byte {
	if len(d.b) > limit {
		d.fail("%s has %d bytes, at most %d", what, len(d.b), limit)
		return nil
	}
	out := d.b
	d.b = nil
	return out
}

// end is the error of all that was read; bytes that are left are one.
func (d *decoder) end() error {
	if len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}

func appendBytes(b, p []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	return append(b, p...)
}

func appendFlag(b []byte, set bool) []byte {
	if set {
		return append(b, 1)
	}
	return append(b, 0)
}

// hello is what a node says first.
type hello struct {
	oldest, latest uint16 // protocol versions
	cluster        ClusterID
	number         uint8 // 1 or 2
	node           string
	version        string // the program's
	digest         []byte
}

func (h hello) appendTo(b []byte) []byte {
	return appendFrame(b, kindHello, func(b []byte) []byte {
		b = binary.BigEndian.AppendUint16(b, h.oldest)
		b = binary.BigEndian.AppendUint16(b, h.latest)
		b = append(b, h.cluster[:]...)
		b = append(b, h.number)
		b = appendBytes(b, []byte(h.node))
		b = appendBytes(b, []byte(h.version))
		return appendBytes(b, h.digest)
	})
}

func parseHello(p []byte) (hello, error) {
	d := decoder{kind: kindHello, b: p}
	h := hello{oldest: d.uint16("oldest protocol version"), latest: d.uint16("latest protocol version")}
	copy(h.cluster[:], d.take(len(h.cluster), "cluster"))
	h.number = d.uint8("number of the node")
	h.node = string(d.bytes("name of the node", maxName))
	h.version = string(d.bytes("version of the program", maxName))
	h.digest = append([]byte(nil), d.bytes("digest", maxDigest)...)
	if err := d.end(); err != nil {
		return hello{}, err
	}
	switch {
	case h.oldest == 0 || h.oldest > h.latest:
		return hello{}, &frameError{kindHello, fmt.Sprintf("protocol versions %d to %d", h.oldest, h.latest)}
	case h.number != 1 && h.number != 2:
		return hello{}, &frameError{kindHello, fmt.Sprintf("node %d, and a pair has 1 and 2", h.number)}
	case h.node == "":
		return hello{}, &frameError{kindHello, "the node has no name"}
	}
	return h, nil
}

// bye is why a node closes the link.
type bye struct {
	reason uint8
	text   string
}

// The reasons of a bye.
const (
	byeStopping  = 1 // the program ends
	byeReplaced  = 2 // a newer connection is the link
	byeRefused   = 3 // text says why
	byeMalformed = 4 // a frame that cannot be: text says which
)

func (m bye) appendTo(b []byte) []byte {
	return appendFrame(b, kindBye, func(b []byte) []byte {
		return appendBytes(append(b, m.reason), []byte(m.text[:min(len(m.text), 4*maxName)]))
	})
}

func parseBye(p []byte) (bye, error) {
	d := decoder{kind: kindBye, b: p}
	m := bye{reason: d.uint8("reason"), text: string(d.bytes("text", 4*maxName))}
	return m, d.end()
}

func appendAdopt(b []byte) []byte {
	return appendFrame(b, kindAdopt, func(b []byte) []byte { return b })
}

func parseAdopt(p []byte) error {
	d := decoder{kind: kindAdopt, b: p}
	return d.end()
}

func appendInfo(b, digest []byte) []byte {
	return appendFrame(b, kindInfo, func(b []byte) []byte { return appendBytes(b, digest) })
}

func parseInfo(p []byte) (digest []byte, err error) {
	d := decoder{kind: kindInfo, b: p}
	digest = append([]byte(nil), d.bytes("digest", maxDigest)...)
	return digest, d.end()
}

func appendBeat(b, beat []byte) []byte {
	return appendFrame(b, kindBeat, func(b []byte) []byte { return append(b, beat...) })
}

func parseBeat(p []byte) ([]byte, error) {
	d := decoder{kind: kindBeat, b: p}
	beat := d.rest("beat", maxBeat)
	return beat, d.end()
}

// appendPing appends a ping, or the pong that answers it with the same number.
func appendPing(b []byte, k kind, id uint64) []byte {
	return appendFrame(b, k, func(b []byte) []byte { return binary.BigEndian.AppendUint64(b, id) })
}

func parsePing(k kind, p []byte) (uint64, error) {
	d := decoder{kind: k, b: p}
	id := d.uint64("number")
	return id, d.end()
}

// term says whose data it is: who leads, and since which epoch. The later epoch
// wins; between equal ones, which only two nodes make that did not see each
// other, node 2.
type term struct {
	epoch  uint64
	leader uint8 // 1 or 2; 0 in the term before all others
}

func (t term) before(u term) bool {
	return t.epoch < u.epoch || t.epoch == u.epoch && t.leader < u.leader
}

// message is a frame about one set. Which fields it has depends on the kind.
type message struct {
	kind kind
	set  uint16
	term term

	generation uint64 // have, begin: of the leader's numbers
	seq        uint64 // have: all up to here; begin: what comes is after it; put, delete: its own; mark: all up to here
	whole      bool   // begin: from the start, what does not come does not exist; have, mark: nothing is missing, and nothing older is left

	key, value []byte // put, delete
}

func (m message) appendTo(b []byte) []byte {
	return appendFrame(b, m.kind, func(b []byte) []byte {
		b = binary.BigEndian.AppendUint16(b, m.set)
		b = binary.BigEndian.AppendUint64(b, m.term.epoch)
		b = append(b, m.term.leader)
		switch m.kind {
		case kindHave, kindBegin:
			b = binary.BigEndian.AppendUint64(b, m.generation)
			b = binary.BigEndian.AppendUint64(b, m.seq)
			b = appendFlag(b, m.whole)
		case kindPut:
			b = binary.BigEndian.AppendUint64(b, m.seq)
			b = appendBytes(b, m.key)
			b = append(b, m.value...)
		case kindDelete:
			b = binary.BigEndian.AppendUint64(b, m.seq)
			b = appendBytes(b, m.key)
		case kindMark:
			b = binary.BigEndian.AppendUint64(b, m.seq)
			b = appendFlag(b, m.whole)
		}
		return b
	})
}

// parseMessage reads a frame about a set; key and value lie in p.
func parseMessage(k kind, p []byte) (message, error) {
	d := decoder{kind: k, b: p}
	m := message{kind: k, set: d.uint16("set")}
	m.term = term{epoch: d.uint64("epoch"), leader: d.uint8("leader")}
	if m.term.leader > 2 {
		d.fail("leader %d, and a pair has 1 and 2", m.term.leader)
	}
	if m.term.leader == 0 && k != kindHave && k != kindRefuse {
		d.fail("no leader")
	}
	switch k {
	case kindHave, kindBegin:
		m.generation = d.uint64("generation")
		m.seq = d.uint64("sequence")
		m.whole = d.flag("whole")
	case kindPut:
		m.seq = d.uint64("sequence")
		m.key = d.bytes("key", maxKey)
		m.value = d.rest("value", maxValue)
	case kindDelete:
		m.seq = d.uint64("sequence")
		m.key = d.bytes("key", maxKey)
	case kindMark:
		m.seq = d.uint64("sequence")
		m.whole = d.flag("whole")
	case kindRefuse:
	default:
		d.fail("not about a set")
	}
	if err := d.end(); err != nil {
		return message{}, err
	}
	return m, nil
}
