//go:build unix

package usertest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

const childEnv = "HOLDFAST_USERTEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		fmt.Print(os.Getuid())
		return
	}
	goleak.VerifyTestMain(m)
}

// A directory for temporary files that others cannot enter, as a build system may
// set it, is passed over.
func TestClosedTemporaryDirectory(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "closed")
	within := filepath.Join(closed, "within")
	for _, dir := range []string{closed, within} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(closed, 0o700), os.Chmod(within, 0o777)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", within)
	dir := Dir(t)
	if strings.HasPrefix(dir, closed) {
		t.Errorf("made in %s", dir)
	}
	if err := reachable(dir); err != nil {
		t.Error(err)
	}
	if _, err := makeDir(within, closed); err == nil || !strings.Contains(err.Error(), closed+" has mode") {
		t.Errorf("where there is no way: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	cmd := exec.CommandContext(t.Context(), Program(t, "child"))
	cmd.Env = append(os.Environ(), childEnv+"=1")
	Nobody(cmd)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "65534" {
		t.Errorf("%q, %v", out, err)
	}
}
