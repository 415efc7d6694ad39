package probe

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A ListenError says why nothing can listen on an address, and what to do.
type ListenError struct {
	Address string // as it was asked for
	Why     string
	Do      string
	Err     error // what the kernel said
}

func (e *ListenError) Error() string {
	s := "cannot listen on " + e.Address + ": " + e.Why
	if e.Do != "" {
		s += "; " + e.Do
	}
	return s
}

// Unwrap returns what the kernel said.
func (e *ListenError) Unwrap() error { return e.Err }

// ExplainListen looks for the reason why listening on a TCP address failed with
// err: who has the port, which capability is missing, which addresses there
// are. An unspecified IPv6 address is meant for IPv6 alone.
func ExplainListen(want netip.AddrPort, err error) *ListenError {
	e := &ListenError{Address: want.String(), Why: err.Error(), Err: err}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		e.Why = errno.Error()
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		holders, lookErr := TCPHolders(want.Port())
		if lookErr != nil {
			e.Why = "the port is in use; by whom could not be told: " + lookErr.Error()
			return e
		}
		e.Why, e.Do = explainInUse(want, holders)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Why, e.Do = explainNotAvailable(want.Addr())
	case errors.Is(err, syscall.EACCES) && int(want.Port()) < unprivilegedPortStart():
		e.Why = fmt.Sprintf("user %s lacks the capability CAP_NET_BIND_SERVICE, which ports below %d need", userName(os.Geteuid()), unprivilegedPortStart())
		e.Do = privilegedPortRemedy
	case errors.Is(err, syscall.EAFNOSUPPORT):
		e.Why, e.Do = "this system has no "+family(want.Addr()), "leave the address out, or enable the protocol"
	case errors.Is(err, syscall.EINVAL) && want.Addr().IsLinkLocalUnicast() && want.Addr().Zone() == "":
		e.Why = "a link-local address means nothing without its interface"
		e.Do = fmt.Sprintf("write it as [%s%%eth0]:%d", want.Addr(), want.Port())
	}
	return e
}

// explainInUse picks the socket that stands in the way and says how it does.
func explainInUse(want netip.AddrPort, holders []Holder) (why, do string) {
	// A socket of the other family stands in the way only if it is not limited
	// to its own, which is not listed anywhere: it is the last to be suspected.
	suspects := slices.Clone(holders)
	slices.SortStableFunc(suspects, func(a, b Holder) int {
		return otherFamily(want, a) - otherFamily(want, b)
	})
	for _, h := range suspects {
		how, conflicts := conflict(want, h)
		if !conflicts {
			continue
		}
		if h.State == Ended {
			return "the port is still taken by a connection that has ended (" + h.Local.String() + " -> " + h.Remote.String() + ", TIME_WAIT)",
				"try again: it is free within a minute"
		}
		who, do := explainHolder(h)
		return "the port is in use by " + who + how, do
	}
	return "the port was in use, and no socket holds it now", "try again; where it stays so, the holder is bound without listening, which kernels before 6.8 do not list"
}

func otherFamily(want netip.AddrPort, h Holder) int {
	if want.Addr().Is4() != h.Local.Addr().Unmap().Is4() {
		return 1
	}
	return 0
}

// conflict reports whether h keeps a socket from listening on want, and how, as
// the end of a sentence about who h is.
func conflict(want netip.AddrPort, h Holder) (how string, conflicts bool) {
	local := h.Local.Addr()
	plain := local.Unmap()
	switch {
	case local == want.Addr():
		how = ""
	case local == netip.IPv6Unspecified() && want.Addr().Is4():
		how = "every IPv6 address, and every IPv4 address with it"
	case plain.Is4() != want.Addr().Is4():
		return "", false
	case local.IsUnspecified():
		how = "every " + family(local) + " address"
	case plain == want.Addr():
		how = "the same address as an IPv6 socket writes it"
	case want.Addr().IsUnspecified():
		how = "one of the addresses that " + want.String() + " means"
	default:
		return "", false
	}
	switch {
	case h.State == Connected:
		return ", whose connection " + h.Local.String() + " -> " + h.Remote.String() + " uses it", true
	case how == "" && h.State == Listening:
		return "", true
	case how == "":
		return ", which is bound to it without listening", true
	}
	return fmt.Sprintf(", which %s on %s (%s)", h.State, h.Local, how), true
}

// explainHolder says who has the socket open, and what to do about it.
func explainHolder(h Holder) (who, do string) {
	if len(h.Processes) > 0 {
		p := h.Processes[0]
		who = p.String()
		if more := len(h.Processes) - 1; more > 0 {
			who = fmt.Sprintf("%s and %d more of its processes", who, more)
		}
		switch {
		case p.PID == os.Getpid():
			return "this program itself", "leave one of the two addresses out"
		case p.PID == 1:
			return who, "it holds the port for a socket unit: `systemctl list-sockets` names it"
		default:
			return who, elsewhere(h)
		}
	}
	if os.Geteuid() == 0 {
		return "a process that is not visible here" + ofUser(h.UID), "look for it on the host, or in the container that shares this network; or " + elsewhere(h)
	}
	look := fmt.Sprintf("sudo ss -tlnp 'sport = :%d'", h.Local.Port())
	if h.Path != "" {
		look = "sudo ss -xlp src " + h.Path
	}
	return "a process" + ofUser(h.UID) + " that is not visible to user " + userName(os.Geteuid()), "`" + look + "` names it; " + elsewhere(h)
}

func elsewhere(h Holder) string {
	if h.Path != "" {
		return "stop it, or choose another path"
	}
	return "stop it, or choose another port"
}

func ofUser(uid int) string {
	if uid < 0 {
		return ""
	}
	return " of user " + userName(uid)
}

// explainNotAvailable looks for the address, and for those that are there.
func explainNotAvailable(want netip.Addr) (why, do string) {
	if state := addressState(want); state != "" {
		return "the address is on an interface, but " + state, "wait until it is usable, or see `ip -6 address`"
	}
	why = "the address is not on this host"
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return why, ""
	}
	var there []string
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() == want.Unmap().Is4() && !p.Addr().IsLinkLocalUnicast() {
			there = append(there, p.Addr().String())
		}
	}
	if len(there) == 0 {
		return why, "it has no " + family(want) + " address at all"
	}
	const most = 8
	if len(there) > most {
		there = append(there[:most], "...")
	}
	return why, "it has " + strings.Join(there, ", ")
}

// addressState reports why an IPv6 address that is there cannot be used, or "".
func addressState(want netip.Addr) string {
	const tentative, duplicate = 0x40, 0x08 // IFA_F_TENTATIVE, IFA_F_DADFAILED
	f, err := os.Open("/proc/thread-self/net/if_inet6")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// address index prefixlength scope flags name
		field := strings.Fields(lines.Text())
		if len(field) < 6 {
			continue
		}
		raw, err := hex.DecodeString(field[0])
		flags, err2 := strconv.ParseUint(field[4], 16, 32)
		if err != nil || err2 != nil || len(raw) != 16 {
			continue
		}
		if netip.AddrFrom16([16]byte(raw)) != want.WithZone("") {
			continue
		}
		switch {
		case flags&duplicate != 0:
			return "another host has it too (duplicate address detection failed on " + field[5] + ")"
		case flags&tentative != 0:
			return "not yet usable (tentative on " + field[5] + ": duplicate address detection runs)"
		}
	}
	return ""
}

// ExplainListenUnix looks for the reason why listening on the unix socket path
// failed with err.
func ExplainListenUnix(path string, err error) *ListenError {
	e := &ListenError{Address: "unix:" + path, Why: err.Error(), Err: err}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		e.Why = errno.Error()
	}
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		if fi, statErr := os.Lstat(path); statErr == nil && fi.Mode().Type() != os.ModeSocket {
			e.Why, e.Do = "the file there is not a socket", "remove it, or choose another path"
			return e
		}
		e.Why, e.Do = "the path is in use by a process that is not visible here", "stop it, or choose another path"
		if holders, err := UnixHolders(path); err == nil && len(holders) > 0 {
			if fi, err := os.Lstat(path); err == nil {
				if st, ok := fi.Sys().(*syscall.Stat_t); ok {
					holders[0].UID = int(st.Uid)
				}
			}
			who, do := explainHolder(holders[0])
			e.Why, e.Do = "the path is in use by "+who, do
		}
	case errors.Is(err, syscall.ENOENT):
		e.Why, e.Do = "there is no directory "+dir, "make it, or choose another path"
	case errors.Is(err, syscall.ENOTDIR):
		e.Why, e.Do = dir+" is not a directory", "choose another path"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		e.Why = fmt.Sprintf("user %s may not make files in %s", userName(os.Geteuid()), dir)
		e.Do = "choose a directory of that user"
	case errors.Is(err, syscall.EROFS):
		e.Why, e.Do = dir+" is on a read-only file system", "choose another path"
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL) && len(path) > maxUnixPath:
		e.Why, e.Do = fmt.Sprintf("the path has %d bytes, and a unix socket's may have %d", len(path), maxUnixPath), "choose a shorter one"
	}
	return e
}

// maxUnixPath is what sun_path holds, with a final zero byte.
const maxUnixPath = 107

func family(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "IPv4"
	}
	return "IPv6"
}
