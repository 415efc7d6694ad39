package probe

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The newest version counts where several are hidden, PATH before all, and only
// what can be executed.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	put := func(version string, mode os.FileMode) string {
		path := filepath.Join(dir, version, "server")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("PATH", filepath.Join(dir, "nowhere"))
	find := func() (string, error) { return Program("server", "some-package", filepath.Join(dir, "*", "server")) }

	path, err := find()
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "server is not installed (Debian package some-package)") {
		t.Errorf("without the program: %q, %v", path, err)
	}
	put("9", 0o755)
	newest := put("15", 0o755)
	put("16", 0o644) // cannot be executed
	if path, err := find(); path != newest || err != nil {
		t.Errorf("%q, %v; want %q", path, err, newest)
	}
	t.Setenv("PATH", filepath.Join(dir, "9"))
	if path, err := find(); path != filepath.Join(dir, "9", "server") || err != nil {
		t.Errorf("in PATH: %q, %v", path, err)
	}
}
