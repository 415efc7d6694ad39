package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// describeMachine fills in what the figures depend on; what cannot be learnt
// stays empty.
func describeMachine(r *Report) {
	r.CPUs, r.Go = runtime.NumCPU(), runtime.Version()
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Kernel = strings.TrimSpace(string(release))
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				r.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
		r.Commit = strings.TrimSpace(string(out))
		if out, err := exec.Command("git", "status", "--porcelain").Output(); err == nil && len(out) > 0 {
			r.Commit += "+"
		}
	}
}
