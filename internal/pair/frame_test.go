package pair

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/frames.txt anew; only when frames were added, or their version is another one")

// frames are one of each kind, and of what differs inside a kind.
var frames = []struct {
	name  string
	frame []byte
}{
	{"hello", hello{
		oldest: 1, latest: 1, cluster: ClusterID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, number: 2,
		node: "lb2", version: "0.4.0", digest: []byte{0xd1, 0x6e},
	}.appendTo(nil)},
	{"adopt", appendAdopt(nil)},
	{"bye, stopping", bye{byeStopping, ""}.appendTo(nil)},
	{"bye, refused", bye{byeRefused, "no"}.appendTo(nil)},
	{"info", appendInfo(nil, []byte{1, 2, 3})},
	{"beat", appendBeat(nil, []byte("opaque"))},
	{"ping", appendPing(nil, kindPing, 7)},
	{"pong", appendPing(nil, kindPong, 7)},
	{"have, nothing", message{kind: kindHave, set: 1}.appendTo(nil)},
	{"have", message{kind: kindHave, set: 1, term: term{5, 2}, generation: 0x0102030405060708, seq: 9, whole: true}.appendTo(nil)},
	{"begin, from the start", message{kind: kindBegin, set: 1, term: term{5, 2}, generation: 3, whole: true}.appendTo(nil)},
	{"begin, from 9", message{kind: kindBegin, set: 1, term: term{5, 2}, generation: 3, seq: 9}.appendTo(nil)},
	{"put", message{kind: kindPut, set: 1, term: term{5, 2}, seq: 10, key: []byte("key"), value: []byte("value")}.appendTo(nil)},
	{"put, entry of a table", message{kind: kindPut, set: 1, term: term{0, 2}, seq: 10, key: []byte("redis/r1"),
		value: Entry{Stamp: 1_700_000_000_000, Node: "lb2", Value: []byte("{}")}.appendTo(nil)}.appendTo(nil)},
	{"put, deleted entry of a table", message{kind: kindPut, set: 1, term: term{0, 2}, seq: 11, key: []byte("redis/r1"),
		value: Entry{Stamp: 1_700_000_000_001, Node: "lb1", Deleted: true}.appendTo(nil)}.appendTo(nil)},
	{"delete", message{kind: kindDelete, set: 1, term: term{5, 2}, seq: 11, key: []byte("key")}.appendTo(nil)},
	{"mark", message{kind: kindMark, set: 1, term: term{5, 2}, seq: 11, whole: true}.appendTo(nil)},
	{"mark, an item found no room", message{kind: kindMark, set: 1, term: term{5, 2}, seq: 11}.appendTo(nil)},
	{"refuse", message{kind: kindRefuse, set: 1, term: term{epoch: 6, leader: 1}}.appendTo(nil)},
}

// TestGolden: what two releases say to each other does not change by accident.
func TestGolden(t *testing.T) {
	var b strings.Builder
	seen := make(map[kind]bool)
	for _, f := range frames {
		fmt.Fprintf(&b, "%s\n  %s\n  %s\n", f.name, hex.EncodeToString(f.frame[:headerSize]), hex.EncodeToString(f.frame[headerSize:]))
		seen[kind(f.frame[4])] = true
	}
	for k := range known {
		if !seen[k] {
			t.Errorf("no frame of kind %d is looked at", k)
		}
	}
	file := filepath.Join("testdata", "frames.txt")
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("frames are others than those of earlier releases; give a changed kind another version:\n%s", diff)
	}
}

// decode reads a frame and writes it again.
func decode(h header, payload []byte) ([]byte, error) {
	switch h.kind {
	case kindHello:
		m, err := parseHello(payload)
		return m.appendTo(nil), err
	case kindAdopt:
		return appendAdopt(nil), parseAdopt(payload)
	case kindBye:
		m, err := parseBye(payload)
		return m.appendTo(nil), err
	case kindInfo:
		digest, err := parseInfo(payload)
		return appendInfo(nil, digest), err
	case kindBeat:
		beat, err := parseBeat(payload)
		return appendBeat(nil, beat), err
	case kindPing, kindPong:
		id, err := parsePing(h.kind, payload)
		return appendPing(nil, h.kind, id), err
	}
	m, err := parseMessage(h.kind, payload)
	if err != nil {
		return nil, err
	}
	return m.appendTo(nil), nil
}

func TestFramesComeBack(t *testing.T) {
	for _, f := range frames {
		h, payload, _, err := readFrame(bytes.NewReader(f.frame), nil)
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
			continue
		}
		if got, err := decode(h, payload); err != nil || !bytes.Equal(got, f.frame) {
			t.Errorf("%s: %v\n%x became\n%x", f.name, err, f.frame, got)
		}
		// Every byte is of importance: what is cut off or added is noticed. A
		// beat, a digest's and a value's end is where the frame ends.
		for n := range payload {
			if got, err := decode(h, payload[:n]); err == nil && h.kind != kindBeat && h.kind != kindPut {
				t.Errorf("%s without its last %d bytes is %x", f.name, len(payload)-n, got)
			}
		}
		if _, err := decode(h, append(payload, 0)); err == nil && h.kind != kindBeat && h.kind != kindPut {
			t.Errorf("%s with another byte is one", f.name)
		}
	}
}

func TestUnknownFrames(t *testing.T) {
	optional := []byte{0, 0, 0, 3, 99, 1, 0, 0, 'n', 'e', 'w'}
	newer := []byte{0, 0, 0, 1, byte(kindInfo), 2, 0, 0, 'x'}
	ping := appendPing(nil, kindPing, 1)
	h, _, _, err := readFrame(bytes.NewReader(bytes.Join([][]byte{optional, newer, ping}, nil)), nil)
	if err != nil || h.kind != kindPing {
		t.Errorf("what need not be known is not skipped: %+v, %v", h, err)
	}
	for _, required := range [][]byte{{0, 0, 0, 0, 99, 1, flagRequired, 0}, {0, 0, 0, 0, byte(kindPut), 2, flagRequired, 0}} {
		var unknown *UnknownFrameError
		if _, _, _, err := readFrame(bytes.NewReader(required), nil); !errors.As(err, &unknown) || unknown.Kind != required[4] || unknown.Version != required[5] {
			t.Errorf("%x: %v", required, err)
		}
	}
	for name, broken := range map[string][]byte{
		"a length beyond all": {0xff, 0xff, 0xff, 0xff, byte(kindBeat), 1, 0, 0},
		"one byte too long":   {0, 1, 0x10, 1, byte(kindBeat), 1, 0, 0},
		"version 0":           {0, 0, 0, 0, byte(kindBeat), 0, 0, 0},
	} {
		var frame *frameError
		if _, _, buf, err := readFrame(bytes.NewReader(broken), nil); !errors.As(err, &frame) {
			t.Errorf("%s: %v", name, err)
		} else if cap(buf) > maxPayload {
			t.Errorf("%s: %d bytes were made ready", name, cap(buf))
		}
	}
	if _, _, _, err := readFrame(bytes.NewReader(ping[:len(ping)-1]), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the end of a stream inside a frame: %v", err)
	}
	if _, _, _, err := readFrame(bytes.NewReader(nil), nil); !errors.Is(err, io.EOF) {
		t.Errorf("the end of a stream: %v", err)
	}
}

// FuzzFrame: whatever comes, reading ends without a panic and with little memory,
// and what was understood can be said again in the same bytes.
func FuzzFrame(f *testing.F) {
	for _, g := range frames {
		f.Add(g.frame)
	}
	f.Add([]byte{0, 0, 0, 3, 99, 1, 0, 0, 'n', 'e', 'w', 0, 0, 0, 0, 2, 1, 1, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 5, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var buf []byte
		for {
			h, payload, more, err := readFrame(r, buf)
			if err != nil {
				return
			}
			if cap(more) > maxPayload {
				t.Fatalf("%d bytes were made ready", cap(more))
			}
			buf = more
			before := bytes.Clone(payload)
			again, err := decode(h, payload)
			if err != nil {
				continue
			}
			if !bytes.Equal(again[headerSize:], before) {
				t.Fatalf("kind %d: %x became %x", h.kind, before, again[headerSize:])
			}
		}
	})
}

// FuzzEntry: the same for the entries of a table.
func FuzzEntry(f *testing.F) {
	f.Add([]byte{})
	f.Add(Entry{Stamp: 1, Node: "a", Value: []byte("v")}.appendTo(nil))
	f.Add(Entry{Stamp: maxStamp, Node: "a", Deleted: true}.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry("key", b)
		if (err == nil) != (e.Key != "") {
			t.Fatalf("%+v, %v", e, err)
		}
		if err == nil && !bytes.Equal(e.appendTo(nil), b) {
			t.Fatalf("%x became %x", b, e.appendTo(nil))
		}
	})
}

// FuzzReplica: a peer that has the key and says anything at all harms nothing:
// the connection ends, or the law of the replica holds.
func FuzzReplica(f *testing.F) {
	var all []byte
	for _, g := range frames {
		if k := kind(g.frame[4]); k >= kindHave {
			all = append(all, g.frame...)
			f.Add(g.frame, true)
		}
	}
	f.Add(all, false)
	f.Fuzz(func(t *testing.T, b []byte, leads bool) {
		r := newReplica(1, 1, false, 8, 1000)
		if leads {
			if err := r.lead(5, 1); err != nil {
				t.Fatal(err)
			}
			for i := range 4 {
				if err := r.out.put([]byte{'k', byte(i)}, []byte("v")); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.connect()
		in := bytes.NewReader(b)
		var buf []byte
		for {
			h, payload, more, err := readFrame(in, buf)
			if err != nil {
				return
			}
			buf = more
			m, err := parseMessage(h.kind, payload)
			if err != nil {
				continue
			}
			if _, err := r.receive(m); err != nil {
				return
			}
			r.apply()
			for range 20 {
				if _, ok := r.pop(); !ok {
					break
				}
			}
			if err := r.out.sound(); err != nil {
				t.Fatal(err)
			}
			_ = r.state()
		}
	})
}
