package daemon

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// A memory is how much of it this process may have, and how much is taken: by
// its control group where that has a bound, by the whole machine otherwise.
type memory struct {
	used, max uint64 // bytes
	source    string // what sets max: "memory.max of the cgroup /system.slice/x"
	remedy    string // how to raise it
	machine   bool   // it is the machine's: others use it too
}

// free is how much is left.
func (m memory) free() uint64 { return m.max - min(m.used, m.max) }

// keep is how much shall stay free: what a second of new clients may take, as
// the watcher looks once a second. A control group that runs out is killed, so
// it keeps an eighth; a machine has more, and others who use it.
func (m memory) keep() uint64 {
	if m.machine {
		return min(max(m.max/32, 32<<20), 256<<20, m.max/4)
	}
	return min(max(m.max/8, 8<<20), 512<<20, m.max/4)
}

// readMemory finds the bound that leaves the least. root is the root of the file
// system. The error says what could not be read.
func readMemory(root fs.FS) (memory, error) {
	bounds, cgroupErr := cgroupMemory(root)
	m, err := machineMemory(root)
	if err == nil {
		bounds = append(bounds, m)
	}
	if len(bounds) == 0 {
		return memory{}, errors.Join(err, cgroupErr)
	}
	tightest := bounds[0]
	for _, b := range bounds[1:] {
		// By what is left beyond what shall stay, which can be less than nothing.
		if int64(b.free())-int64(b.keep()) < int64(tightest.free())-int64(tightest.keep()) {
			tightest = b
		}
	}
	return tightest, nil
}

// machineMemory reads /proc/meminfo.
func machineMemory(root fs.FS) (memory, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return memory{}, fmt.Errorf("the machine's memory: %w", err)
	}
	fields := words(text)
	total, available := fields["MemTotal:"]<<10, fields["MemAvailable:"]<<10
	if total == 0 || available == 0 {
		return memory{}, errors.New("the machine's memory: /proc/meminfo has no MemTotal and MemAvailable")
	}
	return memory{
		used: total - min(available, total), max: total, machine: true,
		source: "MemTotal of the machine", remedy: "give the machine more memory, or fewer other programs",
	}, nil
}

// A hierarchy is a version of control groups: where its files are, and what they
// are called.
type hierarchy struct {
	mount, max, used, reclaimable string
}

var (
	cgroup2 = hierarchy{"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"}
	cgroup1 = hierarchy{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
)

// cgroupMemory lists the bounds of this process's control group and of those
// around it.
func cgroupMemory(root fs.FS) ([]memory, error) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		// A container that has no /proc may still see its own group.
		text, err = []byte("0::/\n1:memory:/\n"), fmt.Errorf("the control group: %w", err)
	}
	var bounds []memory
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		h := cgroup1
		switch {
		case parts[0] == "0" && parts[1] == "":
			h = cgroup2
		case !strings.Contains(","+parts[1]+",", ",memory,"):
			continue
		}
		bounds = append(bounds, h.bounds(root, parts[2])...)
	}
	return bounds, err
}

// bounds walks from a group to the root. A path that is not there is one of the
// host's, seen from inside a container whose own group is mounted as the root.
func (h hierarchy) bounds(root fs.FS, group string) (bounds []memory) {
	for at := path.Clean("/" + group); ; at = path.Dir(at) {
		if m, ok := h.bound(root, at); ok {
			bounds = append(bounds, m)
		}
		if at == "/" {
			return bounds
		}
	}
}

func (h hierarchy) bound(root fs.FS, group string) (memory, bool) {
	dir := path.Join(h.mount, group)
	limit, ok := number(root, path.Join(dir, h.max))
	used, okUsed := number(root, path.Join(dir, h.used))
	const none = 1 << 62 // cgroup v1 says so by a number near 2^63
	if !ok || !okUsed || limit == 0 || limit >= none {
		return memory{}, false
	}
	// What the kernel takes back before it says that there is no more.
	if text, err := fs.ReadFile(root, path.Join(dir, "memory.stat")); err == nil {
		used -= min(words(text)[h.reclaimable], used)
	}
	return memory{
		used: used, max: limit, source: h.max + " of the cgroup " + group,
		remedy: "raise " + h.max + " (MemoryMax= in a unit, --memory of a container)",
	}, true
}

// number reads a file that holds one number; "max" is none.
func number(root fs.FS, name string) (uint64, bool) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	return n, err == nil
}

// words reads lines of a word and a number.
func words(text []byte) map[string]uint64 {
	found := make(map[string]uint64)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		parts := strings.Fields(lines.Text())
		if len(parts) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(parts[1], 10, 64); err == nil {
			found[parts[0]] = n
		}
	}
	return found
}
