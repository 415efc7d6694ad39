package vip

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

func TestFrame(t *testing.T) {
	var f frame
	f.begin(7)
	if !f.empty() {
		t.Error("a frame that has just begun is not empty")
	}
	f.add("front", 1, []byte("abc"))
	f.add("back", 1<<40, nil)
	var got []string
	err := readFrame(f.b, func(sender uint64, group []byte, number uint64, beat []byte) {
		got = append(got, fmt.Sprintf("%d %s %d %q", sender, group, number, beat))
	})
	if want := `[7 front 1 "abc" 7 back 1099511627776 ""]`; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
	for n := range f.b {
		if n == 9 || n == 28 {
			continue // a whole number of beats
		}
		if err := readFrame(f.b[:n], func(uint64, []byte, uint64, []byte) {}); err == nil {
			t.Errorf("the first %d bytes pass for a frame", n)
		}
	}
	other := bytes.Clone(f.b)
	other[0] = 2
	if err := readFrame(other, nil); err == nil {
		t.Error("another version is read")
	}
}

// What does not fit into one frame goes into the next: nothing is lost, and no
// frame is larger than whoever carries it takes.
func TestFrameThatIsFull(t *testing.T) {
	type beat struct {
		sender, number uint64
		group          string
		length         int
	}
	var want, got []beat
	frames := 0
	f := frame{send: func(b []byte) {
		frames++
		if len(b) > MaxBeat {
			t.Errorf("a frame has %d bytes, at most %d", len(b), MaxBeat)
		}
		if err := readFrame(b, func(sender uint64, group []byte, number uint64, text []byte) {
			got = append(got, beat{sender, number, string(group), len(text)})
		}); err != nil {
			t.Error(err)
		}
	}}
	f.begin(7)
	for n := range uint64(255) {
		group, text := fmt.Sprintf("group%d", n), make([]byte, 68+17*(n%33))
		f.add(group, n, text)
		want = append(want, beat{7, n, group, len(text)})
	}
	f.flush()
	if !f.empty() {
		t.Error("what was sent is in it still")
	}
	f.flush()
	if frames < 2 || frames > 10 || !slices.Equal(got, want) {
		t.Errorf("%d frames with %d beats, want %d beats in fewer than ten", frames, len(got), len(want))
	}
}

// Whatever comes, reading it does not panic, and what is read can be written
// the same way.
func FuzzFrame(f *testing.F) {
	var fr frame
	fr.begin(7)
	fr.add("front", 1, []byte("abc"))
	f.Add(fr.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxBeat {
			return // Deliver refuses it
		}
		var again frame
		again.begin(0)
		if len(b) >= 9 {
			copy(again.b, b[:9])
		}
		if err := readFrame(b, func(_ uint64, group []byte, number uint64, beat []byte) {
			again.add(string(group), number, beat)
		}); err == nil && !bytes.Equal(again.b, b) {
			t.Errorf("%x is written as %x", b, again.b)
		}
	})
}
