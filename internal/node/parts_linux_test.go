package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/config"
)

// TestSteps says in which moves of a group the daemon has a part, and which groups
// need it alive: who comes to a listener on every address is told, and the
// addresses do not depend on it.
func TestSteps(t *testing.T) {
	const groups = "addresses: [{name: a, interface: eth0, addresses: [10.0.0.100/24]}]\n"
	for _, c := range []struct {
		listen      string
		steps, live bool
	}{
		{"10.0.0.1:80", false, false},
		{"unix:/run/a.sock", false, false},
		{"10.0.0.100:80", true, true},
		{":80", true, false},
		{"0.0.0.0:80", true, false},
	} {
		file, err := config.Parse("test", []byte(groups+"services: [{name: web, listen: \""+c.listen+"\", backends: []}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		if g := (&node{}).settings(file, nil).Groups[0]; g.Steps != c.steps || g.NeedsAlive != c.live {
			t.Errorf("with a service on %s: steps %t, needs the daemon alive %t", c.listen, g.Steps, g.NeedsAlive)
		}
	}
}

func TestLogChangesWhileItIsUsed(t *testing.T) {
	var out bytes.Buffer
	log, s := newLogger(&out)
	derived := log.With("service", "web").WithGroup("g")
	if err := s.set(config.Log{Level: "warn", Format: "text"}); err != nil {
		t.Fatal(err)
	}
	derived.Info("left out")
	derived.Warn("text", "n", 1)
	if err := s.set(config.Log{Level: "debug", Format: "json"}); err != nil {
		t.Fatal(err)
	}
	derived.Debug("structured", "n", 2)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], "level=WARN msg=text service=web g.n=1") {
		t.Fatalf("got %q", lines)
	}
	var line struct {
		Level, Msg, Service string
		G                   struct{ N int }
	}
	if err := json.Unmarshal([]byte(lines[1]), &line); err != nil || line.Level != "DEBUG" || line.Service != "web" || line.G.N != 2 {
		t.Errorf("%q: %+v, %v", lines[1], line, err)
	}
	if err := s.set(config.Log{Level: "loud"}); err == nil || s.level.Level() != slog.LevelDebug {
		t.Errorf("an unknown level: %v, and the level is %v", err, s.level.Level())
	}
}

func TestRuntimeDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	first, err := takeRuntime(path)
	if err != nil {
		t.Fatal(err)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	_, err = takeRuntime(path)
	for _, want := range []string{path, fmt.Sprintf("in use by %s (pid %d)", strings.TrimSpace(string(comm)), os.Getpid()), "admin.socket"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("the second: %v, wanted %q", err, want)
		}
	}
	// Children do not keep it.
	child := exec.CommandContext(t.Context(), "sleep", "60")
	if err := child.Start(); err != nil {
		t.Skip(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	again, err := takeRuntime(path)
	if err != nil {
		t.Fatalf("it was given back: %v", err)
	}
	if err := again.close(); err != nil {
		t.Error(err)
	}
}

func TestRuntimeDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(file, "below"), file, "/proc/holdfast", "/proc/self"} {
		_, err := takeRuntime(path)
		if err == nil || !strings.HasPrefix(err.Error(), "directories.runtime: ") || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "admin.socket") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestFileOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "holdfast.yaml")
	write := func(text string, age time.Duration) {
		t.Helper()
		at := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	write("one", time.Hour)
	one := digest(path)
	var f fileOnDisk
	now := time.Now()
	step := func(want bool) {
		t.Helper()
		f.look(path, now)
		if f.differs(one) != want {
			t.Errorf("differs: %v", !want)
		}
		now = now.Add(lookInterval)
	}
	step(false)
	write("two", time.Minute)
	step(true)
	write("one", time.Second) // as before, by another file
	step(false)
	write("six", 0) // of the same size, at a time that may come twice
	step(true)
	write("one", 0)
	step(false)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.look(path, now.Add(-lookInterval)) // too early to look again
	if f.differs(one) {
		t.Error("it was looked at twice in a moment")
	}
	step(true)
	// One that no node could take is not read to the end.
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, config.MaxFileSize+1)); err != nil {
		t.Fatal(err)
	}
	step(true)
	if d := digest(path); d != "" {
		t.Errorf("the digest of a file that is too large is %q", d)
	}
	// What can be read once only was read at the start.
	path = "/dev/stdin"
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		step(false)
	}
}
