package tail

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// What is kept is the end of all that was written, however it was cut in pieces.
func TestBuffer(t *testing.T) {
	for _, piece := range []int{1000, Size - 1, Size, Size + 1, 3 * Size} {
		var b Buffer
		var all strings.Builder
		for i := 0; all.Len() < 3*Size; i++ {
			text := bytes.Repeat([]byte{byte('a' + i%26)}, piece)
			all.Write(text)
			if n, err := b.Write(text); n != piece || err != nil {
				t.Fatalf("Write of %d bytes: %d, %v", piece, n, err)
			}
			want := all.String()
			if want = want[max(0, len(want)-Size):]; b.String() != want {
				t.Fatalf("in pieces of %d bytes, after %d: %d bytes are kept that are not the last %d", piece, all.Len(), len(b.String()), len(want))
			}
		}
	}
}

// Nobody who asks before looking misses a write.
func TestChanged(t *testing.T) {
	var b Buffer
	first, same := b.Changed(), b.Changed()
	select {
	case <-first:
		t.Fatal("changed without a write")
	default:
	}
	if _, err := io.WriteString(&b, "ready"); err != nil {
		t.Fatal(err)
	}
	<-first
	<-same
	select {
	case <-b.Changed():
		t.Fatal("a write before the question counts as one after it")
	default:
	}
}
