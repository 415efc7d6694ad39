package gate

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/holdfast-net/holdfast/internal/probe"
)

// loopback is the index of every network namespace's first interface.
const loopback = 1

// Probe asks whether the gate works here: the kernel is given its programs, and
// asked what is attached to the loopback interface. Nothing is left of it.
func Probe() probe.Result {
	spec, err := loadPrograms()
	if err != nil {
		return judge("load", err)
	}
	var objects programsObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return judge("load", err)
	}
	defer objects.Close()
	if err := findable(objects.HoldfastIn); err != nil {
		return judge("find", err)
	}
	for _, d := range directions {
		f, err := d.find(loopback)
		if err != nil {
			return judge("attach", err)
		}
		f.close()
	}
	return judge("", nil)
}

// judge says what an error means that came of loading or attaching.
func judge(step string, err error) probe.Result {
	r := probe.Result{Name: "lease gate", For: "an owner that is frozen falls silent within its lease, and not only when its addresses' lifetimes end"}
	if err == nil {
		r.Answer, r.Evidence = probe.Yes, "the kernel takes its programs (eBPF on TCX)"
		return r
	}
	r.Evidence, _, _ = strings.Cut(err.Error(), "\n")
	var refused *ebpf.VerifierError
	switch {
	case step == "find" && errors.Is(err, os.ErrPermission):
		r.Answer, r.Remedy = probe.No, "run as root, or with CAP_SYS_ADMIN too: a process that is started anew could not find what the one before it has left"
	case errors.Is(err, os.ErrPermission):
		r.Answer, r.Remedy = probe.No, "run as root, or with CAP_BPF and CAP_NET_ADMIN; in a container, with a seccomp profile that allows bpf"
	case errors.Is(err, syscall.ENOSYS), step == "attach" && (errors.Is(err, syscall.EINVAL) || errors.Is(err, ebpf.ErrNotSupported)):
		r.Answer, r.Remedy = probe.No, "use a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_XGRESS (Linux 6.6 or later)"
	case errors.As(err, &refused):
		r.Answer, r.Remedy = probe.No, "use a later kernel: this one's verifier does not accept the programs"
	case errors.Is(err, syscall.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		r.Answer, r.Remedy = probe.No, "use a later kernel, with CONFIG_BPF_SYSCALL and CONFIG_NET_XGRESS (Linux 6.6 or later)"
	default:
		r.Remedy = "try again; the system is short of something"
	}
	return r
}
