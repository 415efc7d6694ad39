package main

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	addr4 = netip.MustParseAddrPort("127.0.0.1:8001")
	addr6 = netip.MustParseAddrPort("[fd77::21]:9000")
)

// The proxies themselves judge the configurations.
func TestProxiesTakeTheirConfiguration(t *testing.T) {
	for _, c := range allCandidates("no such file") {
		if c.name == direct || c.name == holdfast {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			path, state := c.state()
			if state.Skipped != "" {
				t.Skip(state.Skipped)
			}
			dir := t.TempDir()
			argv, err := c.command(path, dir, addr4, addr6)
			if err != nil {
				t.Fatal(err)
			}
			check := exec.CommandContext(t.Context(), path, "-c", "-f", argv[len(argv)-1])
			if c.name == nginx {
				check = exec.CommandContext(t.Context(), path, slices.Concat([]string{"-t"}, argv[1:])...)
			}
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", check.Args, err, out)
			}
		})
	}
}

func TestHAProxyStaysWithinItsDescriptors(t *testing.T) {
	config := haproxyConfig([]string{"tune.pipesize 1048576"}, []string{"option splice-auto"}, addr4, addr6, 4096)
	for _, line := range []string{"  maxconn 1598\n", "  maxpipes 200\n", "  tune.pipesize 1048576\n", "  option splice-auto\n", "  bind 127.0.0.1:8001\n", "  server backend fd77::21:9000\n"} {
		if !strings.Contains(config, line) {
			t.Errorf("no %q in\n%s", line, config)
		}
	}
}

func TestMissingCandidateSaysWhatToDo(t *testing.T) {
	all := allCandidates(filepath.Join(t.TempDir(), "holdfast"))
	_, state := all[slices.IndexFunc(all, func(c candidate) bool { return c.name == holdfast })].state()
	if !strings.Contains(state.Skipped, "make build") {
		t.Errorf("holdfast: %q", state.Skipped)
	}
	t.Setenv("PATH", t.TempDir())
	if _, _, err := findProgram("no-such-proxy", "some-package", "-v"); err == nil || !strings.Contains(err.Error(), "Debian package some-package") {
		t.Errorf("missing program: %v", err)
	}
}

func TestProcessCosts(t *testing.T) {
	self := os.Getpid()
	before, err := cpuTime([]int{self})
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 30*time.Millisecond; {
		_ = requestBytes()
	}
	after, err := cpuTime([]int{self})
	if err != nil {
		t.Fatal(err)
	}
	// The kernel may have run others meanwhile, but not only others.
	if used := after - before; used < time.Millisecond || used > time.Minute {
		t.Errorf("30 ms of work took %v of CPU", used)
	}
	if _, err := cpuTime([]int{1 << 30}); err == nil {
		t.Error("a process that does not exist has CPU time")
	}
	if pss, err := memory([]int{self}); err != nil || pss < 1<<20 || pss > 1<<34 {
		t.Errorf("this process has %d bytes, %v", pss, err)
	}
}

func TestProcessTreeHasChildren(t *testing.T) {
	child := exec.CommandContext(t.Context(), "sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	tree, err := processTree(os.Getpid())
	if err != nil || !slices.Contains(tree, os.Getpid()) || !slices.Contains(tree, child.Process.Pid) {
		t.Errorf("%v, %v; want %d and %d in it", tree, err, os.Getpid(), child.Process.Pid)
	}
}

func TestMachineTimes(t *testing.T) {
	got, err := parseMachineTimes("cpu  1 2 4 100 200 8 16 32 1 0")
	if want := (machineTimes{busy: 63, all: 363}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := parseMachineTimes("intr 1 2 3"); err == nil {
		t.Error("another line is no error")
	}
	if now, err := readMachineTimes(); err != nil || now.busy == 0 || now.busy > now.all {
		t.Errorf("this machine: %+v, %v", now, err)
	}
}

func TestPSSOf(t *testing.T) {
	rollup := "00400000-7fff [rollup]\nRss:    4000 kB\nPss:                1234 kB\nPss_Dirty:  99 kB\n"
	if kb, err := pssOf(rollup); err != nil || kb != 1234 {
		t.Errorf("got %d, %v", kb, err)
	}
	if _, err := pssOf("Rss: 1 kB\n"); err == nil {
		t.Error("no Pss line is no error")
	}
}
