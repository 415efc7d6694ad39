//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package sys

import (
	"errors"
	"os"
	"runtime"
)

// TerminalSize fails: what a terminal is here is not known to this package.
func TerminalSize(*os.File) (columns, rows int, err error) {
	return 0, 0, errors.New("terminals are not supported on " + runtime.GOOS)
}

// ReadKeys fails: what a terminal is here is not known to this package.
func ReadKeys(*os.File) (restore func() error, err error) {
	return nil, errors.New("terminals are not supported on " + runtime.GOOS)
}
