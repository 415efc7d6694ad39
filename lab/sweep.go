//go:build linux

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

const (
	dirPrefix     = "holdfast-lab-"
	ownerVariable = "HOLDFAST_LAB_OWNER"
)

// owner names this process in the things it makes: its PID namespace, its
// number there, and when it started, so that a number used again is no match.
func owner() string {
	ns, err := pidNamespace()
	if err != nil {
		ns = "pid:[0]"
	}
	start, _ := startTime(os.Getpid())
	return fmt.Sprintf("%s-%d-%s", strings.Trim(ns, "pid:[]"), os.Getpid(), start)
}

// startTime is field 22 of proc(5)'s stat, in clock ticks since boot.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// Counted from the end of the program's name, which may hold spaces.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat: %q", pid, stat)
	}
	return fields[19], nil
}

// abandoned says whether name is an owner's that lived in this PID namespace
// and does not live any more.
func abandoned(name string) bool {
	part := strings.Split(name, "-")
	if len(part) < 3 || !strings.HasPrefix(owner(), part[0]+"-") {
		return false
	}
	pid, err := strconv.Atoi(part[1])
	if err != nil {
		return false
	}
	start, err := startTime(pid)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	return start != part[2]
}

// Sweep removes what labs of killed processes have left, and says what that
// was. Namespaces, links, addresses, rules and captures cannot be left: the
// kernel ends them with the process. What can be left by a process that did
// not call [Main] are programs that had made themselves daemons inside a host,
// which it kills, and the directory of [Lab.Dir], which it removes. Labs of
// living processes are not touched. [Main] calls it.
func Sweep() (removed []string, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("lab: sweep: %w", err)
	}
	var errs []error
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue // gone, or not ours to see
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			name, ok := strings.CutPrefix(string(v), ownerVariable+"=")
			if !ok || !abandoned(name) {
				continue
			}
			if err := sys.Signal(pid, syscall.SIGKILL); err == nil {
				removed = append(removed, fmt.Sprintf("process %d", pid))
			} else if !errors.Is(err, os.ErrProcessDone) {
				errs = append(errs, fmt.Errorf("kill process %d: %w", pid, err))
			}
		}
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	errs = append(errs, err)
	for _, dir := range dirs {
		if !abandoned(strings.TrimPrefix(filepath.Base(dir), dirPrefix)) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, "directory "+dir)
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("lab: sweep: %w", err)
	}
	return removed, nil
}
