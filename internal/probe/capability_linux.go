package probe

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// The bits of linux/capability.h that are asked about.
const (
	capNetBindService = 10
	capNetAdmin       = 12
	capNetRaw         = 13
	capSysAdmin       = 21
)

// Relay asks for what `holdfast relay` can make use of.
func Relay() []Result {
	return []Result{
		processCapabilities().result("CAP_NET_BIND_SERVICE", capNetBindService,
			"listening on ports below "+strconv.Itoa(unprivilegedPortStart()), privilegedPortRemedy),
		descriptors(),
	}
}

// Laboratory asks for what the laboratory of the scenes cannot do without.
func Laboratory() []Result {
	caps := processCapabilities()
	return []Result{
		caps.result("CAP_SYS_ADMIN", capSysAdmin, "making network namespaces", "run as root"),
		caps.result("CAP_NET_ADMIN", capNetAdmin, "setting up their networks", "run as root"),
		caps.result("CAP_NET_RAW", capNetRaw, "reading packets in them", "run as root"),
		netNamespaces(tryNetNamespace()),
		tunDevice(os.OpenFile("/dev/net/tun", os.O_RDWR, 0)),
	}
}

// Missing returns the results among rs that are not Yes.
func Missing(rs []Result) []Result {
	var missing []Result
	for _, r := range rs {
		if r.Answer != Yes {
			missing = append(missing, r)
		}
	}
	return missing
}

// A capabilitySet is the effective set of this thread, or why it is not known.
type capabilitySet struct {
	bits uint64
	err  error
}

func processCapabilities() capabilitySet {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return capabilitySet{err: err}
	}
	return parseCapabilities(string(status))
}

func parseCapabilities(status string) capabilitySet {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				err = fmt.Errorf("CapEff in /proc/thread-self/status: %w", err)
			}
			return capabilitySet{bits: bits, err: err}
		}
	}
	return capabilitySet{err: errors.New("no CapEff in /proc/thread-self/status")}
}

func (c capabilitySet) has(bit int) Answer {
	switch {
	case c.err != nil:
		return CouldNotTell
	case c.bits&(1<<bit) != 0:
		return Yes
	default:
		return No
	}
}

func (c capabilitySet) result(name string, bit int, needed, remedy string) Result {
	r := Result{Name: name, Answer: c.has(bit), For: needed}
	switch r.Answer {
	case Yes, No:
		r.Evidence = fmt.Sprintf("effective capabilities %016x", c.bits)
	case CouldNotTell:
		r.Evidence = c.err.Error()
	}
	if r.Answer != Yes {
		r.Remedy = remedy
	}
	return r
}

// tryNetNamespace makes a network namespace, of which nothing is left.
func tryNetNamespace() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	return ns.Close()
}

func netNamespaces(err error) Result {
	r := Result{Name: "network namespaces", For: "a host of the laboratory"}
	switch {
	case err == nil:
		r.Answer, r.Evidence = Yes, "made one, which is gone again"
	case errors.Is(err, syscall.EPERM):
		r.Answer, r.Evidence, r.Remedy = No, err.Error(), "run as root; in a container, with CAP_SYS_ADMIN and a seccomp profile that allows unshare"
	case errors.Is(err, syscall.EINVAL):
		r.Answer, r.Evidence, r.Remedy = No, err.Error(), "use a kernel with CONFIG_NET_NS"
	case errors.Is(err, syscall.ENOSPC):
		r.Answer, r.Evidence, r.Remedy = No, err.Error(), "raise the sysctl user.max_net_namespaces"
	default:
		r.Evidence, r.Remedy = err.Error(), "try again; the system is short of something"
	}
	return r
}

// tunDevice judges what opening the device gave, and closes it.
func tunDevice(f *os.File, err error) Result {
	r := Result{Name: "/dev/net/tun", For: "a wire with delay, loss and reordering"}
	switch {
	case err == nil:
		f.Close()
		r.Answer, r.Evidence = Yes, "it opens"
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		r.Answer, r.Evidence, r.Remedy = No, err.Error(), "modprobe tun; in a container, pass the device in"
	case errors.Is(err, os.ErrPermission):
		r.Answer, r.Evidence, r.Remedy = No, err.Error(), "run as root; in a container, allow the device"
	default:
		r.Evidence, r.Remedy = err.Error(), "try again; the system is short of something"
	}
	return r
}

// enoughDescriptors is what the bench and the largest scene open in one process.
const enoughDescriptors = 8192

func descriptors() Result {
	r := Result{Name: "descriptors", For: "two for each relayed connection"}
	soft, hard, err := sys.FileLimit()
	if err != nil {
		r.Evidence = err.Error()
		return r
	}
	r.Evidence = fmt.Sprintf("limit %d, hard limit %d", soft, hard)
	r.Answer = Yes
	if soft < enoughDescriptors {
		r.Answer = No
		r.Remedy = fmt.Sprintf("raise the hard limit to %d or more: LimitNOFILE= in the unit, or ulimit -Hn", enoughDescriptors)
	}
	return r
}

// unprivilegedPortStart returns the first port that needs no capability.
func unprivilegedPortStart() int {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			return n
		}
	}
	return 1024 // the kernel's own default
}

const privilegedPortRemedy = "choose a higher port, or give the program the capability (setcap cap_net_bind_service=ep FILE; AmbientCapabilities=CAP_NET_BIND_SERVICE in a unit)" +
	", or lower the sysctl net.ipv4.ip_unprivileged_port_start"
