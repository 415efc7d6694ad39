//go:build unix

package usertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nobody is the number of the user nobody, and of its group.
const nobody = 65534

// Nobody has cmd run as the user nobody, who has no capabilities, in a directory
// that it can enter. The caller is root.
func Nobody(cmd *exec.Cmd) {
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// Dir makes a directory that every user can enter, for as long as the test runs.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := makeDir(os.TempDir(), "/tmp", "/var/tmp", "/run")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// makeDir makes the directory below the first of some that others can get to.
func makeDir(parents ...string) (string, error) {
	for _, parent := range parents {
		if reachable(parent) != nil {
			continue
		}
		dir, err := os.MkdirTemp(parent, "holdfast-test-")
		if err != nil {
			return "", err
		}
		return dir, os.Chmod(dir, 0o755) // whatever the umask is
	}
	return "", fmt.Errorf("no directory for temporary files can be entered by every user: %w", reachable(parents[0]))
}

// reachable says what of a path keeps other users out.
func reachable(path string) error {
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	for err == nil {
		var info os.FileInfo
		if info, err = os.Stat(path); err == nil && info.Mode().Perm()&0o001 == 0 {
			err = fmt.Errorf("%s has mode %v", path, info.Mode())
		}
		if path == filepath.Dir(path) {
			break
		}
		path = filepath.Dir(path)
	}
	return err
}

// Program is a copy of the test's own program, of this name, that every user can
// run.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(Dir(tb), name)
	// By another process: what this one has open for writing may be inherited by
	// a program that starts just then, and cannot be run as long.
	if out, err := exec.CommandContext(tb.Context(), "install", "-m", "755", "--", self, path).CombinedOutput(); err != nil {
		tb.Fatalf("a copy of the test's program: %v: %s", err, out)
	}
	return path
}
