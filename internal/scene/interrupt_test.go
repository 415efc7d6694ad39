//go:build linux

package scene_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// TestInterruptedDemo ends a demonstration in the middle of a scene: no process
// and no file is left.
func TestInterruptedDemo(t *testing.T) {
	if err := lab.Supported(lab.Topology{}); err != nil {
		t.Skip(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			files := temporary(t)
			mark := fmt.Sprintf("HOLDFAST_TEST_MARK=%d-%d", os.Getpid(), sig)
			out := &awaited{}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "demo", "backend-dies", "--family", "4", "--seed", "1")
			// Without the lab's variable it makes itself processes and mounts of
			// its own, as from a shell.
			cmd.Env = append(os.Environ(), asProgram, mark, "HOLDFAST_LAB=")
			cmd.Stdout, cmd.Stderr = out, out
			cmd.WaitDelay = 5 * time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := out.await(ctx, "every byte checked")
			if n := len(marked(t, mark)); err == nil && n < 6 {
				t.Errorf("only %d processes run in the middle of a scene: this test cannot see them", n)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
			waitErr := cmd.Wait()
			if err != nil {
				t.Fatalf("%v; it said:\n%s", err, out)
			}
			if exit, ok := errors.AsType[*exec.ExitError](waitErr); sig != syscall.SIGKILL && (!ok || exit.ExitCode() != 1) {
				t.Errorf("the demonstration ended with %v, not with exit code 1; it said:\n%s", waitErr, out)
			}
			for left := marked(t, mark); len(left) > 0; left = marked(t, mark) {
				select {
				case <-time.After(20 * time.Millisecond): // the kernel is at work
				case <-ctx.Done():
					t.Fatalf("processes are left: %s", strings.Join(left, "; "))
				}
			}
			if now := temporary(t); now != files {
				t.Errorf("temporary files before:\n%s\nand after:\n%s", files, now)
			}
		})
	}
}

// marked lists the processes that have the mark in their environment.
func marked(t *testing.T, mark string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if env, err := os.ReadFile(f); err == nil && bytes.Contains(env, []byte(mark+"\x00")) {
			argv, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline"))
			found = append(found, string(bytes.ReplaceAll(argv, []byte{0}, []byte(" "))))
		}
	}
	return found
}

// temporary lists where temporary files would be left.
func temporary(t *testing.T) string {
	t.Helper()
	var all []string
	for _, dir := range []string{"/dev/shm", os.TempDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return strings.Join(all, "\n")
}

// awaited is output that can be waited for.
type awaited struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{}
}

func (a *awaited) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text = append(a.text, b...)
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
	return len(b), nil
}

func (a *awaited) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return string(a.text)
}

func (a *awaited) await(ctx context.Context, text string) error {
	for {
		a.mu.Lock()
		if a.changed == nil {
			a.changed = make(chan struct{})
		}
		changed, found := a.changed, strings.Contains(string(a.text), text)
		a.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q: %w", text, ctx.Err())
		}
	}
}
