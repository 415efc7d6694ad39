package node_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/internal/netnstest"
)

// The numbers of linux/capability.h.
const (
	netRaw = 1 << 13

	// What a node keeps: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, KILL, SETGID,
	// SETUID, NET_BIND_SERVICE and SYS_PTRACE.
	keeps = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7 | 1<<10 | 1<<19
)

// capabilities reads one set from a status file of /proc.
func capabilities(t *testing.T, text, set string) uint64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, set+":"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return bits
		}
	}
	t.Fatalf("no %s in %q", set, text)
	return 0
}

// hold demands that each thread of the process holds just these capabilities,
// and could have the bounding ones by starting a program.
func (p *process) hold(t *testing.T, effective, inheritable, bounding uint64) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Process.Pid))
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	seen := 0
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		seen++
		for set, want := range map[string]uint64{"CapEff": effective, "CapPrm": effective, "CapInh": inheritable, "CapBnd": bounding} {
			if got := capabilities(t, string(text), set); got != want {
				t.Errorf("%s: %s is %x, want %x", path, set, got, want)
			}
		}
	}
	if seen < 2 {
		t.Errorf("%d threads were looked at", seen)
	}
}

// own returns the capabilities of the test, which must be root's and have some
// that a node gives up.
func own(t *testing.T) (effective, bounding uint64) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("what root gives up takes root")
	}
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	effective, bounding = capabilities(t, string(text), "CapEff"), capabilities(t, string(text), "CapBnd")
	if effective&keeps != keeps || effective&netRaw == 0 {
		t.Skipf("root has only the capabilities %x here", effective)
	}
	return effective, bounding
}

// A node of root's gives up what it cannot need, and does what a reload and a
// check may ask for with what is left.
func TestCapabilitiesAreDropped(t *testing.T) {
	_, bounding := own(t)
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			ns := netnstest.New(t)
			if err := ns.Do(func() error {
				return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("1024"), 0o644)
			}); err != nil {
				t.Fatal(err)
			}
			s := newSite(t, host)
			s.do, s.backend = ns.Do, echoWithin(t, ns.Do, host)
			s.listen = net.JoinHostPort(host, "7000")
			at := func(name string) string { return filepath.Join(s.dir, name) }
			check := func(name, user, script string) string {
				return fmt.Sprintf("  - name: %s\n    listen: unix:%s\n    health: {command: {argv: [/bin/sh, -c, %q]%s}, interval: 100ms, timeout: 500ms}\n    backends: [{name: one, address: %q}]\n",
					name, at(name), script, user, s.backend)
			}
			write := func(more string) {
				s.write(t, "", more)
				f, err := os.OpenFile(s.file, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, err = f.WriteString(check("root", "", "grep ^Cap /proc/self/status >"+at("r.tmp")+" && mv "+at("r.tmp")+" "+at("r")) +
					check("nobody", ", user: nobody", "id -u >"+at("n.tmp")+" && mv "+at("n.tmp")+" "+at("n")) +
					check("slow", ", user: nobody", "echo $$ >"+at("p.tmp")+" && mv "+at("p.tmp")+" "+at("p")+"; exec sleep 1000"))
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			write("")
			p := s.start(t, nil)
			if said := p.said.String(); strings.Count(said, "level=INFO msg=\"capabilities dropped\" kept=\"CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID CAP_NET_BIND_SERVICE CAP_SYS_PTRACE\"") != 1 {
				t.Errorf("it said: %s", said)
			}
			p.hold(t, keeps, 0, bounding)

			// Each check runs anew, after the start.
			again := func(name string) (text string) {
				t.Helper()
				if err := os.Remove(at(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				until(t, "a check has written "+name, func() bool {
					b, err := os.ReadFile(at(name))
					text = string(b)
					return err == nil
				})
				return text
			}
			if got := capabilities(t, again("r"), "CapEff"); got != bounding {
				t.Errorf("a check that root runs has %x, want %x", got, bounding)
			}
			if got := again("n"); got != "65534\n" {
				t.Errorf("a check as nobody runs as %q", got)
			}
			pid := strings.TrimSpace(again("p"))
			until(t, "a check of nobody's is ended", func() bool {
				_, err := os.Stat(filepath.Join("/proc", pid))
				return errors.Is(err, fs.ErrNotExist)
			})

			reload := func() {
				t.Helper()
				if out, said, code := p.command(t, "reload"); code != 0 {
					t.Errorf("reload: exit code %d: %s%s", code, out, said)
				}
			}
			s.listen = net.JoinHostPort(host, "81")
			write("")
			reload()
			if err := ns.Do(func() error {
				c, err := net.DialTimeout("tcp", s.listen, within)
				if err == nil {
					err = c.Close()
				}
				return err
			}); err != nil {
				t.Error(err)
			}

			whole, err := os.ReadFile(s.file)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(string(whole), "admin: {", "admin: {group: nogroup, mode: \"0666\", ", 1)
			if err := os.WriteFile(s.file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			reload()
			fi, err := os.Stat(s.socket)
			if err != nil {
				t.Fatal(err)
			}
			if gid := fi.Sys().(*syscall.Stat_t).Gid; gid == uint32(os.Getgid()) || fi.Mode().Perm() != 0o666 {
				t.Errorf("the socket has group %d and mode %v", gid, fi.Mode())
			}

			taken := strings.Replace(text, s.listen, echoWithin(t, ns.Do, host), 1)
			if err := os.WriteFile(s.file, []byte(taken), 0o644); err != nil {
				t.Fatal(err)
			}
			// This process: it holds more than the node.
			holder := fmt.Sprintf("(pid %d, user root)", os.Getpid())
			if _, said, code := p.command(t, "reload"); code != 1 || !strings.Contains(said, holder) {
				t.Errorf("reload to a port in use: exit code %d, without %q: %s", code, holder, said)
			}
			p.hold(t, keeps, 0, bounding)
			p.stop(t)
			if left, err := os.Stat(s.socket); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket is left: %v, %v", left, err)
			}
		})
	}
}

func TestRelayDropsCapabilities(t *testing.T) {
	_, bounding := own(t)
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			s := newSite(t, host)
			p := s.start(t, func(cmd *exec.Cmd) { cmd.Args = []string{cmd.Path, "relay", s.listen, s.backend} })
			p.await(t, "capabilities dropped")
			p.hold(t, keeps, 0, bounding)
			exchange(t, s.listen)
			p.stop(t)
		})
	}
}

// What there is not is not dropped, and what checks are to have is theirs.
func TestCapabilitiesThatStay(t *testing.T) {
	effective, bounding := own(t)
	for _, tt := range []struct {
		name                   string
		change                 func(*testing.T, *exec.Cmd)
		effective, inheritable uint64
		says                   string
	}{
		{"nobody", func(_ *testing.T, cmd *exec.Cmd) { asNobody(cmd) }, 0, 0, ""},
		{"ambient", func(_ *testing.T, cmd *exec.Cmd) {
			asNobody(cmd)
			cmd.SysProcAttr.AmbientCaps = []uintptr{13}
		}, netRaw, netRaw, ""},
		{"no_new_privs", func(t *testing.T, cmd *exec.Cmd) {
			path, err := exec.LookPath("setpriv")
			if err != nil {
				t.Skip("setpriv (package util-linux) is not there")
			}
			cmd.Args = append([]string{path, "--no-new-privs", cmd.Path}, cmd.Args[1:]...)
			cmd.Path = path
		}, effective, 0, "capabilities stay"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, "127.0.0.1")
			s.write(t, "", "")
			p := s.start(t, func(cmd *exec.Cmd) { tt.change(t, cmd) })
			p.hold(t, tt.effective, tt.inheritable, bounding)
			if said := p.said.String(); strings.Contains(said, "capabilities") != (tt.says != "") || !strings.Contains(said, tt.says) {
				t.Errorf("it said: %s", said)
			}
			p.stop(t)
		})
	}
}

// A program with cgo may have threads that the runtime cannot reach: there
// everything stays, and is said to.
func TestCapabilitiesWithCgo(t *testing.T) {
	effective, bounding := own(t)
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("cgo needs gcc")
	}
	path := filepath.Join(t.TempDir(), "holdfast")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../cmd/holdfast")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := newSite(t, "127.0.0.1")
	s.write(t, "", "")
	p := s.start(t, func(cmd *exec.Cmd) { cmd.Path = path })
	p.await(t, "capabilities stay: this program was built with cgo")
	p.hold(t, effective, 0, bounding)
	exchange(t, s.listen)
	p.stop(t)
}
