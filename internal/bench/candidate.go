package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// A candidate is what stands between client and backend.
type candidate struct {
	name string
	// find returns the program's path and version, or why it is left out.
	find func() (path, version string, err error)
	// command returns what to run so that listen is relayed to backend. Files
	// it needs go into dir, which is its own.
	command func(path, dir string, listen, backend netip.AddrPort) (argv []string, err error)
}

// measures reports whether a row says anything about the candidate.
func (c candidate) measures(row Row) bool {
	switch row.Load {
	case loadIdle:
		return c.name != direct // it has no process
	case loadListing:
		return strings.HasPrefix(c.name, holdfast)
	}
	return true
}

// allCandidates returns the candidates in the order of the table. Of several
// holdfast binaries, two states of the program beside each other, the second
// is called holdfast-2, and so on.
func allCandidates(holdfastPaths ...string) []candidate {
	proxy := func(name string, globals, options []string) candidate {
		return candidate{
			name: name,
			find: func() (string, string, error) { return findProgram("haproxy", "haproxy", "-v") },
			command: func(path, dir string, listen, backend netip.AddrPort) (argv []string, err error) {
				config := haproxyConfig(globals, options, listen, backend, fileLimit())
				file, err := writeConfig(dir, "haproxy.cfg", config)
				if err != nil {
					return nil, err
				}
				return []string{path, "-q", "-db", "-f", file}, nil
			},
		}
	}
	all := []candidate{
		{name: direct, find: func() (string, string, error) { return "", "", nil }},
		proxy(haproxy, nil, nil),
		proxy(haproxyAuto, nil, []string{"option splice-auto"}),
		proxy(haproxySplice, []string{"tune.pipesize 1048576"}, []string{"option splice-request", "option splice-response"}),
		{
			name: nginx,
			find: func() (string, string, error) {
				path, version, err := findProgram("nginx", "nginx", "-v")
				if err != nil {
					return "", "", err
				}
				return path, strings.TrimPrefix(version, "nginx version: "), nil
			},
			command: func(path, dir string, listen, backend netip.AddrPort) (argv []string, err error) {
				module, err := nginxStream(path)
				if err != nil {
					return nil, err
				}
				file, err := writeConfig(dir, "nginx.conf", nginxConfig(module, dir, listen, backend, fileLimit()))
				if err != nil {
					return nil, err
				}
				return []string{path, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", file}, nil
			},
		},
	}
	for i, binary := range holdfastPaths {
		name := holdfast
		if i > 0 {
			name = fmt.Sprintf("%s-%d", holdfast, i+1)
		}
		all = append(all, candidate{
			name: name,
			find: func() (string, string, error) { return findHoldfast(binary) },
			command: func(path, _ string, listen, backend netip.AddrPort) (argv []string, err error) {
				return []string{path, "relay", listen.String(), backend.String()}, nil
			},
		})
	}
	return all
}

// fileLimit is how many descriptors a process may have here.
func fileLimit() int {
	_, hard, err := sys.FileLimit()
	if err != nil {
		return 1024
	}
	return int(min(hard, 1<<20))
}

// findProgram finds a program and asks it for its version.
func findProgram(name, pkg string, versionFlag string) (path, version string, err error) {
	path, err = probe.Program(name, pkg)
	if err != nil {
		return "", "", err
	}
	out, err := exec.Command(path, versionFlag).CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("%s %s: %w", path, versionFlag, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return path, strings.TrimSpace(first), nil
}

func findHoldfast(path string) (string, string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", "", err
	}
	if _, err := os.Stat(absolute); err != nil {
		return "", "", fmt.Errorf("%w: build it with make build, or name it with -holdfast", err)
	}
	info, err := buildinfo.ReadFile(absolute)
	if err != nil {
		return "", "", err
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && !strings.Contains(version, s.Value[:12]) {
			version += " " + s.Value[:12]
		}
	}
	return absolute, strings.TrimSpace("holdfast " + version + ", " + info.GoVersion), nil
}

// haproxyConfig leaves everything at its default but what the rows need: room
// for the idle connections within files descriptors, of which every connection
// takes two and every splicing one up to four more for a while.
func haproxyConfig(globals, options []string, listen, backend netip.AddrPort, files int) string {
	const pipes = 200
	connections := min(9000, (files-2*pipes-500)/2)
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("global")
	line("  maxconn %d", connections)
	line("  maxpipes %d", pipes)
	for _, g := range globals {
		line("  %s", g)
	}
	line("defaults")
	line("  mode tcp")
	line("  timeout connect 5s")
	line("  timeout client 1h")
	line("  timeout server 1h")
	for _, o := range options {
		line("  %s", o)
	}
	line("listen bench")
	line("  bind %s", haproxyAddress(listen))
	line("  server backend %s", haproxyAddress(backend))
	return b.String()
}

// haproxyAddress writes an address as every HAProxy reads it: IPv6 without
// brackets, the port behind the last colon.
func haproxyAddress(a netip.AddrPort) string {
	return fmt.Sprintf("%s:%d", a.Addr(), a.Port())
}

func nginxConfig(module, dir string, listen, backend netip.AddrPort, files int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if module != "" {
		line("load_module %s;", module)
	}
	line("daemon off;")
	line("user root;") // as whoever started it, also in a user namespace that has no other
	line("pid %s;", filepath.Join(dir, "nginx.pid"))
	line("worker_processes auto;")
	line("worker_rlimit_nofile %d;", files)
	line("events { worker_connections %d; }", files-100)
	line("stream {")
	line("  server {")
	line("    listen %s backlog=%d;", listen, backlog)
	line("    proxy_pass %s;", backend)
	line("    proxy_timeout 1h;")
	line("  }")
	line("}")
	return b.String()
}

// nginxStream returns the stream module to load, or nothing when it is built
// in.
func nginxStream(path string) (module string, err error) {
	out, err := exec.Command(path, "-V").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s -V: %w", path, err)
	}
	modules := "/usr/lib/nginx/modules"
	for _, argument := range strings.Fields(string(out)) {
		switch {
		case argument == "--with-stream":
			return "", nil
		case strings.HasPrefix(argument, "--modules-path="):
			modules = strings.TrimPrefix(argument, "--modules-path=")
		}
	}
	module = filepath.Join(modules, "ngx_stream_module.so")
	if _, err := os.Stat(module); err != nil {
		return "", errors.New("nginx has no stream module (Debian package libnginx-mod-stream)")
	}
	return module, nil
}

func writeConfig(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// state finds the candidate; one that is not there says why.
func (c candidate) state() (path string, state CandidateState) {
	path, version, err := c.find()
	if err == nil && c.name == nginx {
		_, err = nginxStream(path)
	}
	if err != nil {
		return "", CandidateState{Name: c.name, Skipped: err.Error()}
	}
	return path, CandidateState{Name: c.name, Version: version}
}
