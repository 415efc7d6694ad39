package socktrace

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/holdfast-net/holdfast/internal/probe"
)

// Probe asks whether sockets can be watched here: the programs are loaded and
// attached, for a moment, with no address to look for.
func Probe() probe.Result {
	t, err := open(Options{Buffer: max(4096, os.Getpagesize())})
	if err != nil {
		return Judge(err)
	}
	return Judge(t.Close())
}

// Judge says what an error of Open means, in the form of Probe; nil is no error.
func Judge(err error) probe.Result {
	r := probe.Result{Name: "socket trace", For: "who is connected to an address is known at once and with sequence numbers, whatever program serves it; the list of sockets is read every 100 ms otherwise"}
	if err == nil {
		r.Answer, r.Evidence = probe.Yes, "the kernel takes its programs (eBPF on inet_sock_set_state, iterator over TCP sockets)"
		return r
	}
	r.Evidence, _, _ = strings.Cut(err.Error(), "\n")
	var refused *ebpf.VerifierError
	switch {
	case errors.Is(err, os.ErrPermission):
		r.Answer, r.Remedy = probe.No, "run as root, or with CAP_BPF and CAP_PERFMON; in a container, with a seccomp profile that allows bpf"
	case errors.Is(err, syscall.ENOSYS):
		r.Answer, r.Remedy = probe.No, "use a kernel with CONFIG_BPF_SYSCALL"
	case errors.Is(err, btf.ErrNotSupported), errors.Is(err, btf.ErrNotFound), errors.Is(err, os.ErrNotExist):
		r.Answer, r.Remedy = probe.No, "use a kernel with CONFIG_DEBUG_INFO_BTF, and see that /sys/kernel/btf/vmlinux can be read"
	case errors.As(err, &refused), errors.Is(err, syscall.ENOPROTOOPT), errors.Is(err, syscall.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		r.Answer, r.Remedy = probe.No, "use a later kernel (Linux 5.14 or later), with CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF"
	default:
		r.Remedy = "try again; the system is short of something"
	}
	return r
}
