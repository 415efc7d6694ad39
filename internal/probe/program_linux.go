package probe

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Program finds an installed program: in PATH, by the patterns of hidden (the
// one with the highest version where several match), and in /usr/sbin, where
// Debian keeps servers and an unprivileged user's PATH does not look. pkg is the
// Debian package that has it. The error names both, and is exec.ErrNotFound.
func Program(name, pkg string, hidden ...string) (path string, err error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, pattern := range append(hidden, "/usr/sbin/"+name) {
		paths, _ := filepath.Glob(pattern)
		slices.SortFunc(paths, func(a, b string) int { return slices.Compare(numbers(a), numbers(b)) })
		for _, path := range slices.Backward(paths) {
			if path, err := exec.LookPath(path); err == nil {
				return path, nil
			}
		}
	}
	return "", &missingProgram{name, pkg}
}

// numbers returns the numbers in a path, so that version 15 comes after 9.
func numbers(path string) (n []int) {
	for f := range strings.FieldsFuncSeq(path, func(r rune) bool { return r < '0' || r > '9' }) {
		v, _ := strconv.Atoi(f)
		n = append(n, v)
	}
	return n
}

// missingProgram is that a program is not installed.
type missingProgram struct{ name, pkg string }

func (e *missingProgram) Error() string {
	return fmt.Sprintf("%s is not installed (Debian package %s)", e.name, e.pkg)
}

func (e *missingProgram) Is(target error) bool { return target == exec.ErrNotFound }
