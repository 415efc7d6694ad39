package probe

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// A SocketState is what a socket that holds a port does with it.
type SocketState uint8

// The states that matter to somebody who wants the port.
const (
	Listening SocketState = iota
	Bound                 // bound, and neither listening nor connected
	Connected             // any state of a connection that a process has open
	Ended                 // TIME_WAIT and the like: the kernel's own, of no process
)

// String names the state in a sentence: "which ... on".
func (s SocketState) String() string {
	switch s {
	case Listening:
		return "listens"
	case Bound:
		return "is bound, without listening,"
	case Connected:
		return "has a connection"
	case Ended:
		return "had a connection"
	default:
		return fmt.Sprintf("state %d", uint8(s))
	}
}

// A Holder is one socket, and the processes that have it open.
type Holder struct {
	Local     netip.AddrPort // of a TCP socket
	Remote    netip.AddrPort // of a connected one
	Path      string         // of a unix socket
	State     SocketState
	UID       int // whose socket it is; -1 where the kernel does not say
	Inode     uint64
	Processes []Process // empty: none that this process may see
}

// A Process has a socket open.
type Process struct {
	PID  int
	Name string
	UID  int
}

// TCPHolders lists the sockets of this network namespace that are bound to port,
// in both address families, with those that listen first.
func TCPHolders(port uint16) ([]Holder, error) {
	var all []Holder
	for _, name := range []string{"tcp", "tcp6"} {
		// thread-self: a thread may live in another namespace than the process.
		data, err := os.ReadFile("/proc/thread-self/net/" + name)
		if errors.Is(err, fs.ErrNotExist) && name == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		found, err := parseTCP(string(data), port)
		if err != nil {
			return nil, fmt.Errorf("/proc/thread-self/net/%s: %w", name, err)
		}
		all = append(all, found...)
	}
	for _, v6 := range []bool{false, true} {
		bound, err := sys.BoundSockets(v6)
		if err != nil {
			continue // only a kernel without sock_diag; the lists above remain
		}
		for _, b := range bound {
			if b.Local.Port() == port {
				all = append(all, Holder{Local: b.Local, State: Bound, UID: b.UID, Inode: b.Inode})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Holder) int { return int(a.State) - int(b.State) })
	addProcesses(all)
	return all, nil
}

// UnixHolders lists the sockets of this network namespace that are bound to the
// path and listen.
func UnixHolders(path string) ([]Holder, error) {
	data, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return nil, err
	}
	all := parseUnix(string(data), path)
	addProcesses(all)
	return all, nil
}

// parseTCP reads /proc/net/tcp or tcp6: sl local rem st tx:rx tr:when retrnsmt uid timeout inode.
func parseTCP(text string, port uint16) ([]Holder, error) {
	var found []Holder
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || f[0] == "sl" {
			continue
		}
		local, err := parseHexAddrPort(f[1])
		if err != nil {
			return nil, err
		}
		if local.Port() != port {
			continue
		}
		remote, err := parseHexAddrPort(f[2])
		if err != nil {
			return nil, err
		}
		uid, err1 := strconv.Atoi(f[7])
		inode, err2 := strconv.ParseUint(f[9], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		h := Holder{Local: local, Remote: remote, State: Connected, UID: uid, Inode: inode}
		switch {
		case f[3] == "0A":
			h.State = Listening
		case inode == 0:
			h.State, h.UID = Ended, -1
		}
		found = append(found, h)
	}
	return found, nil
}

// parseHexAddrPort reads "0100007F:18EC": the address as 32-bit words of the
// host's byte order, the port as a number.
func parseHexAddrPort(s string) (netip.AddrPort, error) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if !ok || err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("address %q is not one of the kernel's", s)
	}
	for w := 0; w < len(raw); w += 4 {
		binary.NativeEndian.PutUint32(raw[w:], binary.BigEndian.Uint32(raw[w:]))
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q is not one of the kernel's", s)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(p)), nil
}

// parseUnix reads /proc/net/unix: Num RefCount Protocol Flags Type St Inode Path.
func parseUnix(text, path string) []Holder {
	const acceptsConnections = 1 << 16 // __SO_ACCEPTCON
	var found []Holder
	for line := range strings.Lines(text) {
		var f [7]string
		rest := strings.TrimSuffix(line, "\n")
		for i := range f {
			f[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
		}
		flags, err1 := strconv.ParseUint(f[3], 16, 32)
		inode, err2 := strconv.ParseUint(f[6], 10, 64)
		if err1 != nil || err2 != nil || flags&acceptsConnections == 0 || !samePath(rest, path) {
			continue // also the heading, and sockets without a name
		}
		found = append(found, Holder{Path: rest, State: Listening, UID: -1, Inode: inode})
	}
	return found
}

// samePath compares as text: what is listed is what the other process said to
// bind, relative to a directory that only it knows.
func samePath(bound, path string) bool {
	if bound == "" {
		return false
	}
	if bound == path {
		return true
	}
	abs, err := filepath.Abs(path)
	return err == nil && filepath.Clean(bound) == abs
}

// addProcesses finds who has the sockets open, as far as this process may look.
func addProcesses(holders []Holder) {
	index := make(map[string][]int) // link text -> holders
	for i, h := range holders {
		if h.Inode != 0 {
			link := "socket:[" + strconv.FormatUint(h.Inode, 10) + "]"
			index[link] = append(index[link], i)
		}
	}
	if len(index) == 0 {
		return
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name(), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // another user's, or it ended
		}
		seen := make(map[int]bool)
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join(dir, fd.Name()))
			if err != nil {
				continue
			}
			for _, i := range index[link] {
				if !seen[i] {
					seen[i] = true
					holders[i].Processes = append(holders[i].Processes, describeProcess(pid))
				}
			}
		}
	}
	for _, h := range holders { // the parent first, of a server with workers
		slices.SortFunc(h.Processes, func(a, b Process) int { return a.PID - b.PID })
	}
}

func describeProcess(pid int) Process {
	p := Process{PID: pid, Name: "a program", UID: -1}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if comm, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
		p.Name = strings.TrimSpace(string(comm))
	}
	// comm ends after 15 bytes; the command line has the whole name.
	if args, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil {
		first, _, _ := strings.Cut(string(args), "\x00")
		first, _, _ = strings.Cut(first, " ") // servers that write their own title
		if base := filepath.Base(first); len(p.Name) == 15 && strings.HasPrefix(base, p.Name) {
			p.Name = base
		}
	}
	if fi, err := os.Stat(dir); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			p.UID = int(st.Uid)
		}
	}
	return p
}

// String says who: "redis-server (pid 812, user redis)".
func (p Process) String() string {
	if p.UID < 0 {
		return fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
	}
	return fmt.Sprintf("%s (pid %d, user %s)", p.Name, p.PID, userName(p.UID))
}

func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
