//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// stopped reports whether no thread of a process executes anything before the
// process gets SIGCONT. One that has ended does not.
//
// A thread that starts a program by vfork waits in the kernel, in state D, until
// its child has become that program. A child that was stopped before keeps it
// there: the thread never gets to state T, and stands as still as if it had. Its
// own SIGSTOP waits for it, and SIGCONT takes that away.
//
// A thread that waits in the kernel for something else, a lock that others hold
// for seconds, stands still too, once another thread of its process has
// stopped: by then the kernel has marked all of them, and none gets back to its
// program (kernel/signal.c, do_signal_stop).
func stopped(pid int) bool {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return os.IsNotExist(err)
	}
	stopping, inKernel := false, false
	for _, t := range threads {
		dir := fmt.Sprintf("/proc/%d/task/%s", pid, t.Name())
		switch state, ok := stateIn(dir); {
		case !ok, state == 'Z', state == 'X':
		case state == 'T':
			stopping = true
		case state == 'D':
			inKernel = inKernel || !heldByChild(pid, dir)
		default:
			return false
		}
	}
	return stopping || !inKernel
}

// heldByChild reports whether a stopped child of a thread still shares the
// memory of the process, as only one does that has not become its program yet.
func heldByChild(pid int, thread string) bool {
	children, err := os.ReadFile(filepath.Join(thread, "children"))
	if err != nil {
		return false
	}
	for text := range strings.FieldsSeq(string(children)) {
		child, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		if same, err := sys.SameMemory(pid, child); err == nil && same && stopped(child) {
			return true
		}
	}
	return false
}

// processState gives the state letter of a process of proc(5): that of its first
// thread.
func processState(pid int) (byte, bool) { return stateIn(fmt.Sprintf("/proc/%d", pid)) }

// stateIn gives the state letter in a directory of a process or thread.
func stateIn(dir string) (byte, bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, false
	}
	// The program's name stands in parentheses and may hold any character.
	s := string(stat)
	i := strings.LastIndex(s, ") ")
	if i < 0 || i+2 >= len(s) {
		return 0, false
	}
	return s[i+2], true
}

// describe says of a process, and of the thread that has not stopped, what a
// reader needs who wonders why it does not obey.
func describe(pid int) string {
	dir := fmt.Sprintf("/proc/%d", pid)
	state, ok := stateIn(dir)
	if !ok {
		return fmt.Sprintf("process %d, which has ended", pid)
	}
	text := fmt.Sprintf("process %d (%s) is in state %c%s", pid, read(dir, "comm"), state, where(dir))
	threads, _ := os.ReadDir(filepath.Join(dir, "task"))
	for _, t := range threads {
		thread := filepath.Join(dir, "task", t.Name())
		if state, ok := stateIn(thread); ok && t.Name() != strconv.Itoa(pid) && !strings.ContainsRune("TZX", rune(state)) {
			return text + fmt.Sprintf(", its thread %s in state %c%s", t.Name(), state, where(thread))
		}
	}
	return text
}

// where is the function of the kernel in which a thread waits.
func where(dir string) string {
	if in := read(dir, "wchan"); in != "" && in != "0" {
		return " in " + in
	}
	return ""
}

func read(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b))
}
