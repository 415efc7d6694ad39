package sys

import (
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capabilities is a set of them: bit n is the capability that
// linux/capability.h numbers n.
type Capabilities uint64

// CapabilitySet makes a set of numbers, such as [CapKill].
func CapabilitySet(numbers ...int) (c Capabilities) {
	for _, n := range numbers {
		c |= 1 << n
	}
	return c
}

// Capabilities that the project names, by their number.
const (
	CapChown          = unix.CAP_CHOWN
	CapDACOverride    = unix.CAP_DAC_OVERRIDE
	CapDACReadSearch  = unix.CAP_DAC_READ_SEARCH
	CapFowner         = unix.CAP_FOWNER
	CapKill           = unix.CAP_KILL
	CapSetGID         = unix.CAP_SETGID
	CapSetUID         = unix.CAP_SETUID
	CapNetBindService = unix.CAP_NET_BIND_SERVICE
	CapSysPtrace      = unix.CAP_SYS_PTRACE
	CapNetAdmin       = unix.CAP_NET_ADMIN
	CapNetRaw         = unix.CAP_NET_RAW
	CapIPCLock        = unix.CAP_IPC_LOCK
	CapSysNice        = unix.CAP_SYS_NICE
	CapSysResource    = unix.CAP_SYS_RESOURCE
	CapBPF            = unix.CAP_BPF
	CapPerfmon        = unix.CAP_PERFMON
	CapSysAdmin       = unix.CAP_SYS_ADMIN
)

var capabilityNames = map[int]string{
	CapChown: "CAP_CHOWN", CapDACOverride: "CAP_DAC_OVERRIDE", CapDACReadSearch: "CAP_DAC_READ_SEARCH",
	CapFowner: "CAP_FOWNER", CapKill: "CAP_KILL", CapSetGID: "CAP_SETGID", CapSetUID: "CAP_SETUID",
	CapNetBindService: "CAP_NET_BIND_SERVICE", CapSysPtrace: "CAP_SYS_PTRACE",
	CapNetAdmin: "CAP_NET_ADMIN", CapNetRaw: "CAP_NET_RAW", CapIPCLock: "CAP_IPC_LOCK", CapSysNice: "CAP_SYS_NICE",
	CapSysResource: "CAP_SYS_RESOURCE", CapBPF: "CAP_BPF", CapPerfmon: "CAP_PERFMON", CapSysAdmin: "CAP_SYS_ADMIN",
}

// String names them in the order of their numbers, with spaces between; one that
// is not among the project's is a number, as capsh takes it. The empty set is
// "none".
func (c Capabilities) String() string {
	var names []string
	for n := range 64 {
		if c&(1<<n) == 0 {
			continue
		}
		name := capabilityNames[n]
		if name == "" {
			name = fmt.Sprint(n)
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}

// capabilityWords is what capget and capset exchange: the low and the high 32
// bits of the three sets.
type capabilityWords [2]unix.CapUserData

func (w *capabilityWords) get() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &w[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	return nil
}

// HeldCapabilities returns what this thread holds, as permitted or as
// inheritable, and which of it every program has that it starts (the ambient
// ones). All threads hold the same, unless one was treated differently.
func HeldCapabilities() (held, ambient Capabilities, err error) {
	var w capabilityWords
	if err := w.get(); err != nil {
		return 0, 0, err
	}
	for i := range w {
		held |= Capabilities(w[i].Permitted|w[i].Inheritable) << (32 * i)
	}
	for n := range 64 {
		if held&(1<<n) == 0 {
			continue
		}
		set, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(n), 0, 0)
		if err != nil {
			continue // a kernel before 4.3 has none
		}
		if set == 1 {
			ambient |= 1 << n
		}
	}
	return held, ambient, nil
}

// effective says whether this thread may use a capability now.
func effective(number int) bool {
	var w capabilityWords
	return w.get() == nil && w[number/32].Effective&(1<<(number%32)) != 0
}

// KeepCapabilities drops what is not in keep from the effective, permitted and
// inheritable set of every thread, and with that from the ambient one. There is
// no way back. The bounding set stays as it is: a program that root starts
// afterwards has all of it again.
//
// In a program with cgo, where threads may be beyond the runtime's reach, it
// changes nothing and returns ENOTSUP.
func KeepCapabilities(keep Capabilities) error {
	var w capabilityWords
	if err := w.get(); err != nil {
		return err
	}
	for i := range w {
		mask := uint32(keep >> (32 * i))
		w[i].Effective &= mask
		w[i].Permitted &= mask
		w[i].Inheritable &= mask
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&w)), 0)
	if errno != 0 {
		return fmt.Errorf("capset of all threads: %w", errno)
	}
	return nil
}

// NoNewPrivileges reports whether this process, and all that it starts, can
// never hold more than now (PR_SET_NO_NEW_PRIVS): not even a program that root
// starts gets back what was dropped.
func NoNewPrivileges() bool {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && set == 1
}
