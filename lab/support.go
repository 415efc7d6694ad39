//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// unsupported is why a topology cannot be started on this machine. It is
// errors.ErrUnsupported.
type unsupported struct {
	text string
	err  error // what the kernel said; nil: it was not asked
}

func (e *unsupported) Error() string {
	if e.err == nil {
		return e.text
	}
	return fmt.Sprintf("%s: %v", e.text, e.err)
}

func (e *unsupported) Is(target error) bool { return target == errors.ErrUnsupported }
func (e *unsupported) Unwrap() error        { return e.err }

// probeTimeout bounds Supported.
const probeTimeout = 10 * time.Second

// Supported says whether a topology of this kind can be started here: nil is
// yes, an error that is [errors.ErrUnsupported] is no and says what is missing,
// and any other one is that it could not be told. It tries with the smallest
// topology that needs the same of the machine; that takes less than 0.1 s. The
// zero Topology asks for what every lab needs.
func Supported(t Topology) error {
	if os.Geteuid() != 0 {
		return &unsupported{text: "a laboratory needs root: it makes network namespaces"}
	}
	probe := Topology{
		Hosts:    []HostSpec{{Name: "host"}},
		Switches: []string{"switch"},
		Links:    []LinkSpec{{Host: "host", Switch: "switch"}},
	}
	if slices.ContainsFunc(t.Hosts, func(h HostSpec) bool { return h.Role == Middlebox }) {
		if _, err := exec.LookPath("nft"); err != nil {
			return &unsupported{text: "a middlebox needs the program nft, which is not installed (Debian package nftables)"}
		}
		probe.Hosts[0].Role = Middlebox
	}
	if slices.ContainsFunc(t.Links, func(l LinkSpec) bool { return l.Taps }) {
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			return &unsupported{text: "a link of TAP devices needs /dev/net/tun, which is not there"}
		}
		probe.Links[0].Taps = true
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	l, err := Start(ctx, probe, Options{})
	if err == nil {
		err = l.Close()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		return &unsupported{"this process may not do what a laboratory needs, perhaps because of its container", err}
	case errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENODEV):
		return &unsupported{"this kernel lacks something that a laboratory needs (Linux 6.6 or later with veth, bridge, TCX and eBPF)", err}
	}
	return fmt.Errorf("trying a small laboratory: %w", err)
}
