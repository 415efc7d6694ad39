package sys

import (
	"os"
	"testing"
	"time"
)

func TestTerminal(t *testing.T) {
	outside, inside, err := OpenTerminal(132, 43)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	defer outside.Close()
	defer inside.Close()
	if c, r, err := TerminalSize(inside); err != nil || c != 132 || r != 43 {
		t.Errorf("the size is %d x %d, %v", c, r, err)
	}
	restore, err := ReadKeys(inside)
	if err != nil {
		t.Fatal(err)
	}
	// One key without a return arrives, and nothing is shown.
	if err := inside.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := outside.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if n, err := inside.Read(b); err != nil || string(b[:n]) != "q" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	// Now keys are shown again, so the first thing that comes back is the key.
	if err := outside.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := outside.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if n, err := outside.Read(b); err != nil || string(b[:n]) != "x" {
		t.Errorf("shown was %q, %v", b[:n], err)
	}
}

func TestNoTerminal(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := TerminalSize(f); err == nil {
		t.Error("the null device has the size of a terminal")
	}
	if _, err := ReadKeys(f); err == nil {
		t.Error("the null device has keys")
	}
}
