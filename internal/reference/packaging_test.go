package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// install runs make install into dir.
func install(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", "-s", "install", "DESTDIR="+dir)
	cmd.Dir = root
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MAKE") { // those of the make that runs this test
			cmd.Env = append(cmd.Env, e)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
}

// What make install puts where: everything, readable by everybody, and a
// configuration that is there already stays as it is.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	install(t, dir)
	for name, mode := range map[string]os.FileMode{
		"usr/bin/holdfast":                                  0o755,
		"usr/share/man/man1/holdfast.1":                     0o644,
		"usr/share/man/man5/holdfast.yaml.5":                0o644,
		"usr/share/bash-completion/completions/holdfast":    0o644,
		"usr/share/zsh/site-functions/_holdfast":            0o644,
		"usr/share/fish/vendor_completions.d/holdfast.fish": 0o644,
		"usr/lib/systemd/system/holdfast.service":           0o644,
		"usr/lib/sysusers.d/holdfast.conf":                  0o644,
		"usr/share/doc/holdfast/addresses.conf":             0o644,
		"usr/share/doc/holdfast/holdfast.yaml":              0o644,
		"usr/share/doc/holdfast/holdfast.rules.yaml":        0o644,
		"etc/holdfast/holdfast.yaml":                        0o644,
		"etc/logrotate.d/holdfast":                          0o644,
	} {
		switch info, err := os.Stat(filepath.Join(dir, name)); {
		case err != nil:
			t.Error(err)
		case info.Mode() != mode:
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), mode)
		case info.Size() == 0:
			t.Errorf("%s is empty", name)
		}
	}
	pages, err := filepath.Glob(root + "/docs/man/*")
	if err != nil {
		t.Fatal(err)
	}
	installed, err := filepath.Glob(dir + "/usr/share/man/man?/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) != len(installed) {
		t.Errorf("%d manuals are installed, there are %d", len(installed), len(pages))
	}

	const own = "# the operator's own\n"
	file := filepath.Join(dir, "etc/holdfast/holdfast.yaml")
	if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	install(t, dir)
	if text, err := os.ReadFile(file); err != nil || string(text) != own {
		t.Errorf("a second installation has changed the configuration: %q, %v", text, err)
	}
}

// systemd understands every line of the unit, and finds it as closed as the guide
// says.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze (package systemd) is not there")
	}
	dir := t.TempDir()
	// The program must be there for a unit to be valid.
	program := filepath.Join(dir, "holdfast")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(dir, "holdfast.service")
	text := strings.ReplaceAll(read(t, "packaging/systemd/holdfast.service"), "/usr/bin/holdfast", program)
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// At most 2.0 of 10; a line that systemd drops shows here too.
	out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=yes", "--threshold=20", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// A node that cannot start yet is tried again, for as long as it takes, and not
// so often that the journal shows nothing else.
func TestUnitRestarts(t *testing.T) {
	section, settings := "", make(map[string]string)
	for line := range strings.Lines(read(t, "packaging/systemd/holdfast.service")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		} else if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			settings[section+key] = value
		}
	}
	for key, want := range map[string]string{"[Unit]StartLimitIntervalSec": "0", "[Service]Restart": "on-failure"} {
		if settings[key] != want {
			t.Errorf("%s is %q, want %q", key, settings[key], want)
		}
	}
	if d, err := time.ParseDuration(settings["[Service]RestartSec"]); err != nil || d < 2*time.Second || d > 5*time.Second {
		t.Errorf("RestartSec is %q, want 2s to 5s", settings["[Service]RestartSec"])
	}
}

// systemd understands the drop-in for nodes that own addresses, and the unit with
// it has what they need, and nothing less of what it had.
func TestAddressesDropIn(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze (package systemd) is not there")
	}
	const name = "packaging/systemd/holdfast.service.d/addresses.conf"
	var capabilities []string
	for line := range strings.Lines(read(t, name)) {
		if list, ok := strings.CutPrefix(strings.TrimSpace(line), "CapabilityBoundingSet="); ok {
			capabilities = strings.Fields(list)
		} else if list, ok := strings.CutPrefix(strings.TrimSpace(line), "AmbientCapabilities="); ok && strings.Join(capabilities, " ") != list {
			t.Errorf("%s: the bounding set is %v, the ambient one %s", name, capabilities, list)
		}
	}
	if len(capabilities) == 0 {
		t.Errorf("%s gives no capabilities", name)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "holdfast")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(dir, "holdfast.service")
	verify := func(dropIn string) string {
		t.Helper()
		for file, text := range map[string]string{
			unit:                               strings.ReplaceAll(read(t, "packaging/systemd/holdfast.service"), "/usr/bin/holdfast", program),
			unit + ".d/" + filepath.Base(name): dropIn,
		} {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput()
		if text := string(bytes.TrimSpace(out)); err == nil || text != "" {
			return text
		}
		return err.Error()
	}
	if out := verify(read(t, name)); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	// It does look at the drop-in.
	if out := verify(read(t, name) + "LimitMEMLOCK=much\n"); !strings.Contains(out, "much") {
		t.Errorf("a mistake in the drop-in is not found: %q", out)
	}
}

// What the guide tells people to add to the unit are settings that systemd knows.
func TestDropIns(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze (package systemd) is not there")
	}
	_, table, ok := strings.Cut(read(t, "docs/guide/daemon.md"), "## What the unit allows\n")
	table, _, end := strings.Cut(table, "\n## ")
	if !ok || !end {
		t.Fatal("docs/guide/daemon.md says nothing about what the unit allows")
	}
	settings := regexp.MustCompile("`([A-Z]\\w+=[^`]*)`").FindAllStringSubmatch(table, -1)
	if len(settings) < 10 {
		t.Fatalf("%d settings were found", len(settings))
	}
	dir := t.TempDir()
	unit := filepath.Join(dir, "holdfast.service")
	text := "[Service]\nType=oneshot\nExecStart=/bin/true\n"
	for _, s := range settings {
		if line := strings.ReplaceAll(s[1], "/usr/bin/holdfast", "/bin/true"); !strings.HasPrefix(line, "TimeoutStopSec=") {
			text += line + "\n"
		}
	}
	text = strings.ReplaceAll(text, "ExecStart=\n", "") // two commands are two commands of a oneshot
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s\n%s", err, out, text)
	}
}

// The guide shows the very files that are in packaging, and are tested.
func TestExamplesOfTheGuide(t *testing.T) {
	guide := read(t, "docs/guide/addresses.md")
	for _, name := range []string{"holdfast.yaml", "settings", "role"} {
		if !strings.Contains(guide, "\n"+strings.TrimRight(read(t, "packaging/examples/postgresql/"+name), "\n")+"\n```\n") {
			t.Errorf("docs/guide/addresses.md shows another %s than packaging/examples/postgresql has", name)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "packaging/examples/postgresql/role")); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("role cannot be run: %v, %v", info, err)
	}
	for _, name := range []string{"role", "settings"} {
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", filepath.Join(root, "packaging/examples/postgresql", name)).CombinedOutput(); err != nil {
			t.Errorf("sh -n %s: %v\n%s", name, err, out)
		}
	}
}
