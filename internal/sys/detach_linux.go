package sys

import (
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// StartDetached starts a program in a session of its own, so that no terminal
// and no process group takes it along. Its descriptors are files, which count
// from 0; it gets no other.
func StartDetached(path string, argv, env []string, files []uintptr) (*os.Process, error) {
	return start(path, argv, &syscall.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
}

// ExecFile replaces this process by the program that f is open on; what is not
// [Inherited] is closed. It returns only if that failed.
func ExecFile(f *os.File, argv, env []string) error {
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	return fmt.Errorf("execute %s: %w", f.Name(), syscall.Exec(path, argv, env))
}

// Inherited has a program that this process executes keep a descriptor, under
// the number that is returned.
func Inherited(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctrlErr := raw.Control(func(n uintptr) {
		fd = int(n)
		_, err = unix.FcntlInt(n, unix.F_SETFD, 0)
	})
	if ctrlErr != nil {
		return 0, ctrlErr
	}
	return fd, os.NewSyscallError("fcntl F_SETFD", err)
}

// TakeInherited takes a descriptor that this process was given; programs that it
// starts do not get it.
func TakeInherited(fd int, name string) (*os.File, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("descriptor %d (%s): %w", fd, name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// maxFiles is how many descriptors are taken from one message.
const maxFiles = 8

// ReadWithFiles reads from a unix socket, with the descriptors that came
// (SCM_RIGHTS). n == 0 without an error is the end of the stream.
func ReadWithFiles(c *net.UnixConn, p []byte) (n int, files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := c.ReadMsgUnix(p, oob)
	if err != nil {
		return 0, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, nil, fmt.Errorf("control message: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // something else than descriptors
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return n, files, nil
}

// WriteWithFile writes p to a unix socket with a descriptor of f.
func WriteWithFile(c *net.UnixConn, p []byte, f *os.File) error {
	n, _, err := c.WriteMsgUnix(p, unix.UnixRights(int(f.Fd())), nil)
	if err == nil && n < len(p) {
		_, err = c.Write(p[n:])
	}
	return err
}

// MemoryFile makes a file in memory without a name, which a program that this
// process executes can be given ([Inherited]).
func MemoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// CloseInherited closes what this process was given besides the standard
// descriptors and those of keep, and would give to a program it executes. It is
// for the start of a program, before it has made any of its own.
func CloseInherited(keep ...int) error {
	files, err := InheritedFiles()
	if err != nil {
		return err
	}
	for fd, f := range files {
		if fd > 2 && f != closedFile && !slices.Contains(keep, fd) {
			_ = unix.Close(fd) // it was open a moment ago, and nobody else knows it
		}
	}
	return nil
}
