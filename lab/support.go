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

// Answer is the result of a probe.
type Answer uint8

const (
	Unknown Answer = iota // it could not be told
	Yes
	No
)

func (a Answer) String() string {
	switch a {
	case Unknown:
		return "unknown"
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return fmt.Sprintf("Answer(%d)", uint8(a))
}

// Support says whether labs can run here.
type Support struct {
	Answer Answer
	Why    string // a sentence that says what is missing; empty if Answer is Yes
}

// probeTimeout bounds Supported.
const probeTimeout = 10 * time.Second

// Supported says whether a topology of this kind can be started here. It
// tries with the smallest one that needs the same of the machine; that takes
// less than 0.1 s. The zero Topology asks for what every lab needs.
func Supported(t Topology) Support {
	if os.Geteuid() != 0 {
		return Support{No, "A laboratory needs root: it makes network namespaces."}
	}
	probe := Topology{
		Hosts:    []HostSpec{{Name: "host"}},
		Switches: []string{"switch"},
		Links:    []LinkSpec{{Host: "host", Switch: "switch"}},
	}
	if slices.ContainsFunc(t.Hosts, func(h HostSpec) bool { return h.Role == Middlebox }) {
		if _, err := exec.LookPath("nft"); err != nil {
			return Support{No, "A middlebox needs the program nft, which is not installed (package nftables)."}
		}
		probe.Hosts[0].Role = Middlebox
	}
	if slices.ContainsFunc(t.Links, func(l LinkSpec) bool { return l.Taps }) {
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			return Support{No, "A link of TAP devices needs /dev/net/tun, which is not there."}
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
		return Support{Answer: Yes}
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		return Support{No, fmt.Sprintf("This process may not do what a laboratory needs, perhaps because of its container: %v.", err)}
	case errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENODEV):
		return Support{No, fmt.Sprintf("This kernel lacks something that a laboratory needs (Linux 6.6 or later with veth, bridge, TCX and eBPF): %v.", err)}
	}
	return Support{Unknown, fmt.Sprintf("Trying a small laboratory failed: %v.", err)}
}
