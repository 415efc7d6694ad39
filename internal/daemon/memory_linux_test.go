package daemon

import (
	"strings"
	"testing"
	"testing/fstest"
)

// root makes a file system of names and texts.
func root(files map[string]string) fstest.MapFS {
	m := make(fstest.MapFS)
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

const meminfo = "MemTotal:       16000000 kB\nMemFree:         100000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\n"

func TestReadMemory(t *testing.T) {
	for name, tt := range map[string]struct {
		files     map[string]string
		used, max uint64
		source    string
		err       string
	}{
		"a machine": {
			files: map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n"},
			used:  8000000 << 10, max: 16000000 << 10, source: "MemTotal of the machine",
		},
		"cgroup v2, the bound of a slice above": {
			files: map[string]string{
				"proc/meminfo": meminfo, "proc/self/cgroup": "0::/system.slice/holdfast.service\n",
				"sys/fs/cgroup/system.slice/holdfast.service/memory.max":     "max\n",
				"sys/fs/cgroup/system.slice/holdfast.service/memory.current": "1000\n",
				"sys/fs/cgroup/system.slice/memory.max":                      "1073741824\n",
				"sys/fs/cgroup/system.slice/memory.current":                  "900000000\n",
				"sys/fs/cgroup/system.slice/memory.stat":                     "anon 5\ninactive_file 100000000\nactive_file 7\n",
			},
			used: 800000000, max: 1 << 30, source: "memory.max of the cgroup /system.slice",
		},
		"cgroup v2, the tightest of two": {
			files: map[string]string{
				"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
				"sys/fs/cgroup/a/b/memory.max": "1000000000", "sys/fs/cgroup/a/b/memory.current": "100000000",
				"sys/fs/cgroup/a/memory.max": "2000000000", "sys/fs/cgroup/a/memory.current": "1900000000",
			},
			used: 1900000000, max: 2000000000, source: "memory.max of the cgroup /a",
		},
		"cgroup v1 beside an empty v2": {
			files: map[string]string{
				"proc/meminfo": meminfo, "proc/self/cgroup": "4:cpu,memory:/docker/abc\n1:cpu:/x\n0::/\n",
				"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "64000000", "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "60000000",
				"sys/fs/cgroup/memory/docker/abc/memory.stat": "inactive_file 1\ntotal_inactive_file 20000000\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes":  "9223372036854771712", "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
			},
			used: 40000000, max: 64000000, source: "memory.limit_in_bytes of the cgroup /docker/abc",
		},
		"a path of the host, seen from inside a container": {
			files: map[string]string{
				"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/docker/abc\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "64000000", "sys/fs/cgroup/memory/memory.usage_in_bytes": "10",
			},
			used: 10, max: 64000000, source: "memory.limit_in_bytes of the cgroup /",
		},
		"a path that leads out": {
			files: map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/../../x\n"},
			used:  8000000 << 10, max: 16000000 << 10, source: "MemTotal of the machine",
		},
		"a bare container that has its group": {
			files: map[string]string{"sys/fs/cgroup/memory.max": "64000000", "sys/fs/cgroup/memory.current": "10"},
			used:  10, max: 64000000, source: "memory.max of the cgroup /",
		},
		"a bare container":   {files: map[string]string{}, err: "proc/meminfo"},
		"nonsense":           {files: map[string]string{"proc/meminfo": "MemTotal: x\n", "proc/self/cgroup": "::\n0:\n"}, err: "MemTotal"},
		"nonsense in cgroup": {files: map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "-5", "sys/fs/cgroup/memory.current": "7"}, err: "meminfo"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := readMemory(root(tt.files))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%+v, %v, want an error about %s", m, err, tt.err)
				}
				return
			}
			if err != nil || m.used != tt.used || m.max != tt.max || m.source != tt.source || m.remedy == "" {
				t.Errorf("%+v, %v, want %d of %d by %s", m, err, tt.used, tt.max, tt.source)
			}
		})
	}
}

// What is kept free is never more than a quarter, and on machines never so much
// that a neighbour's appetite ends the service.
func TestMemoryKept(t *testing.T) {
	for _, tt := range []struct {
		max     uint64
		machine bool
		want    uint64
	}{
		{16 << 20, false, 4 << 20},
		{64 << 20, false, 8 << 20},
		{1 << 30, false, 128 << 20},
		{64 << 30, false, 512 << 20},
		{64 << 20, true, 16 << 20},
		{4 << 30, true, 128 << 20},
		{256 << 30, true, 256 << 20},
	} {
		if got := (memory{max: tt.max, machine: tt.machine}).keep(); got != tt.want {
			t.Errorf("of %s, machine %t: %s, want %s", size(tt.max), tt.machine, size(got), size(tt.want))
		}
	}
	if got := (memory{used: 10, max: 5}).free(); got != 0 {
		t.Errorf("free is %d of less than nothing", got)
	}
}
