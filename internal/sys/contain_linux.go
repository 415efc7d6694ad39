package sys

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// closedFile stands for a descriptor that a new program does not get.
const closedFile = ^uintptr(0)

// InheritedFiles lists the descriptors that this process was given and would
// give to a program it executes, each at its own number.
func InheritedFiles() ([]uintptr, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	files := []uintptr{0, 1, 2}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		for len(files) <= fd { // they come in the order of their names: 10 before 9
			files = append(files, closedFile)
		}
		files[fd] = uintptr(fd)
	}
	return files, nil
}

// StartHolding starts a program, in a process group of its own and with an empty
// environment, that has files as its descriptors, which count from 0. It leaves
// them as they are; os/exec would make a socket blocking for everybody who
// shares it.
func StartHolding(path string, argv []string, files []uintptr) (*os.Process, error) {
	return start(path, argv, &syscall.ProcAttr{Files: files, Sys: &syscall.SysProcAttr{Setpgid: true}})
}

// StartContained starts a program as the first process of a new PID and a new
// mount namespace and in a session of its own; what it starts ends with it. Its
// descriptors are files, which count from 0. It is killed when the calling
// thread ends: the caller has locked the thread, for as long as it is to live.
func StartContained(path string, argv, env []string, files []uintptr) (*os.Process, error) {
	return start(path, argv, &syscall.ProcAttr{
		Env: env, Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
			Setsid:     true,
		},
	})
}

func start(path string, argv []string, attr *syscall.ProcAttr) (*os.Process, error) {
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return os.FindProcess(pid)
}

// UnshareMounts keeps what is mounted in this process's mount namespace from
// showing in the one it was copied from.
func UnshareMounts() error {
	return mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// MountProc mounts on dir the processes of this process's PID namespace.
func MountProc(dir string) error {
	return mount("proc", dir, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// MountTmpfs mounts on dir an empty file system in memory, which everybody may
// use as /tmp.
func MountTmpfs(dir string) error {
	return mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}
