//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package sys

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// TerminalSize returns how many characters fit on the terminal f, and an error
// where f is none.
func TerminalSize(f *os.File) (columns, rows int, err error) {
	err = control(f, func(fd int) error {
		w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			columns, rows = int(w.Col), int(w.Row)
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("the size of the terminal %s: %w", f.Name(), err)
	}
	return columns, rows, nil
}

// ReadKeys makes the terminal f give each key at once and show none of them.
// Ctrl-C stays a signal. What restore does is needed however the program ends.
func ReadKeys(f *os.File) (restore func() error, err error) {
	var before *unix.Termios
	err = control(f, func(fd int) (err error) {
		if before, err = unix.IoctlGetTermios(fd, getTermios); err != nil {
			return err
		}
		t := *before
		t.Lflag &^= unix.ICANON | unix.ECHO
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, setTermios, &t)
	})
	if err != nil {
		return nil, fmt.Errorf("single keys of the terminal %s: %w", f.Name(), err)
	}
	return func() error {
		return control(f, func(fd int) error { return unix.IoctlSetTermios(fd, setTermios, before) })
	}, nil
}

// control calls do with f's descriptor, which stays f's.
func control(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	return errors.Join(c.Control(func(fd uintptr) { doErr = do(int(fd)) }), doErr)
}
