package vip

import (
	"bytes"
	"fmt"
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

// Whatever comes, reading it does not panic, and what is read can be written
// the same way.
func FuzzFrame(f *testing.F) {
	var fr frame
	fr.begin(7)
	fr.add("front", 1, []byte("abc"))
	f.Add(fr.b)
	f.Fuzz(func(t *testing.T, b []byte) {
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
