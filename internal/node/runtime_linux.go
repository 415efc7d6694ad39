package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// lockName is the file in the runtime directory that says whose it is.
const lockName = "lock"

// A runtimeDir is a directory that this node has for itself, as long as it runs.
type runtimeDir struct {
	path string
	lock *os.File
}

// takeRuntime makes the directory where it is not there, and takes it. The lock
// goes with the process, however that ends; the file stays, as removing it would
// let two processes hold two files of the same name.
func takeRuntime(path string) (_ *runtimeDir, err error) {
	const remedy = "set directories.runtime and admin.socket to paths that this user can write"
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("directories.runtime: %s cannot be made: %w: %s", path, cause(err), remedy)
	}
	name := filepath.Join(path, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("directories.runtime: %s cannot be written: %w: %s", name, cause(err), remedy)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	switch locked, err := sys.TryLock(f); {
	case err == nil && !locked:
		return nil, fmt.Errorf("directories.runtime: %s is in use by %s: stop it, or set directories.runtime and admin.socket to paths of this node's own", path, lockHolder(f))
	case err != nil:
		return nil, fmt.Errorf("directories.runtime: %s cannot be locked: %w: choose a directory on another file system", name, err)
	}
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("directories.runtime: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, fmt.Errorf("directories.runtime: %w", err)
	}
	return &runtimeDir{path, f}, nil
}

// close gives the directory back.
func (r *runtimeDir) close() error { return r.lock.Close() }

// lockHolder says who holds the lock, as far as that can be told: its number is
// that of its own PID namespace.
func lockHolder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 32))
	pid, errNumber := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || errNumber != nil {
		return "another node"
	}
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		return fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), pid)
	}
	return fmt.Sprintf("another node (pid %d)", pid)
}

// cause is what the kernel said, without the path that the sentence names anyway.
func cause(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}
