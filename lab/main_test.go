//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// given are descriptors that TestMainHandsOn passes on: their names are not in
// the order of their numbers, and others between them are closed.
var given = []int{4, 9, 12}

// sayGiven is a program of its own: it calls Main, prints what it reads from
// the descriptors that it was given, and ends with status 7.
func sayGiven() int {
	Main()
	for _, fd := range given {
		text, err := io.ReadAll(os.NewFile(uintptr(fd), "given"))
		fmt.Println(fd, string(text), err)
	}
	return 7
}

// The program inside has the descriptors of the one outside,
// which ends with its status.
func TestMainHandsOn(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{childVariable + "=given"}
	cmd.ExtraFiles = make([]*os.File, given[len(given)-1]-2)
	var want strings.Builder
	for _, fd := range given {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fmt.Fprintf(w, "for %d", fd)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles[fd-3] = r
		fmt.Fprintf(&want, "%d for %d <nil>\n", fd, fd)
	}
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Errorf("it ends with %v, want exit status 7", err)
	}
	if string(out) != want.String() {
		t.Errorf("it says\n%swant\n%s", out, want.String())
	}
}
