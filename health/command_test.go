//go:build linux

package health

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(script string, timeout time.Duration) Check {
	return Check{Kind: Command, Command: CommandCheck{Argv: []string{"sh", "-c", script}}, Timeout: timeout}
}

func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		script, want string
	}{
		{"exit 0", ""},
		{`test "$HOLDFAST_BACKEND,$HOLDFAST_ADDRESS" = b,192.0.2.1:80`, ""},
		{"echo no route to the disk >&2; exit 3", "exit status 3: no route to the disk"},
		{"yes | head -c 100000; exit 1", "exit status 1: y"},
		{"kill -9 $$", "signal: killed"},
	} {
		v := once(t, "192.0.2.1:80", shell(tt.script, 20*time.Second), nil)
		if tt.want == "" && v.err != nil || tt.want != "" && (v.err == nil || !strings.Contains(v.err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.script, v.err, tt.want)
		}
		if v.timedOut {
			t.Errorf("%s: timed out", tt.script)
		}
	}
}

// fifo makes one, which tells by its end that every process that had it open is
// gone: nothing to poll.
func fifo(t *testing.T) (path string, gone func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return path, func() {
		t.Helper()
		defer f.Close()
		if err := f.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(f); err != nil || len(text) == 0 {
			t.Errorf("somebody is alive, or nobody ever was: %q, %v", text, err)
		}
	}
}

func TestCommandTimeoutKillsTheGroup(t *testing.T) {
	path, gone := fifo(t)
	// The shell waits for its children, both of which hold the fifo and the output.
	v := once(t, "192.0.2.1:80", shell("exec 3>"+path+"; echo $$ >&3; sleep 1000 & sleep 1000 & wait", 300*time.Millisecond), nil)
	if !v.timedOut || !strings.Contains(v.err.Error(), "no end of the program within 300ms") {
		t.Errorf("%v, want that the program did not end", v.err)
	}
	gone()
	assertNoChildren(t)
}

func TestCommandLeavesNothingBehind(t *testing.T) {
	path, gone := fifo(t)
	v := once(t, "192.0.2.1:80", shell("exec 3>"+path+"; echo $$ >&3; sleep 1000 & exit 0", 20*time.Second), nil)
	if v.err != nil {
		t.Error(v.err)
	}
	gone()
	assertNoChildren(t)
}

// assertNoChildren finds zombies too: those were not reaped.
func assertNoChildren(t *testing.T) {
	t.Helper()
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

func TestCommandUser(t *testing.T) {
	check := shell(`test "$(id -un)" = nobody && test "$(id -u)" != 0`, 20*time.Second)
	check.Command.User = "nobody"
	if os.Geteuid() != 0 {
		if v := once(t, "192.0.2.1:80", check, nil); !errors.Is(v.err, syscall.EPERM) {
			t.Errorf("another user without privilege: %v, want EPERM", v.err)
		}
	} else {
		if v := once(t, "192.0.2.1:80", check, nil); v.err != nil {
			t.Error(v.err)
		}
		check.Command.User = "65534"
		if v := once(t, "192.0.2.1:80", check, nil); v.err != nil {
			t.Errorf("by number: %v", v.err)
		}
	}
	self := shell("exit 0", 20*time.Second)
	self.Command.User = strconv.Itoa(os.Geteuid())
	if v := once(t, "192.0.2.1:80", self, nil); v.err != nil {
		t.Errorf("as oneself: %v", v.err)
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte("#!/nowhere/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	v := once(t, "192.0.2.1:80", Check{Kind: Command, Command: CommandCheck{Argv: []string{path}}, Timeout: 20 * time.Second}, nil)
	if !errors.Is(v.err, syscall.ENOENT) || isLocal(v.err) {
		t.Errorf("%v, want a counted failure with ENOENT", v.err)
	}
	if !isLocal(&startError{&exec.Error{Err: syscall.EAGAIN}}) {
		t.Error("no more processes: that is this machine's fault")
	}
}
