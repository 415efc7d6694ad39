package node_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/netnstest"
)

func TestTwoNodesOnOneMachine(t *testing.T) {
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			first := newSite(t, host)
			first.write(t, "", "")
			one := first.start(t, nil)
			holder := fmt.Sprintf("holdfast (pid %d", one.Process.Pid)

			again := *first
			again.listen = free(t, host)
			again.file = filepath.Join(first.dir, "again.yaml")
			again.write(t, "", "")
			again.launch(t, nil).refused(t, "directories.runtime", first.dir, holder, "admin.socket")

			other := newSite(t, host)
			other.socket = first.socket
			other.write(t, "", "")
			other.launch(t, nil).refused(t, first.socket, holder)

			other.socket = filepath.Join(other.dir, "s")
			other.listen = first.listen
			other.write(t, "", "")
			other.launch(t, nil).refused(t, first.listen, holder, "choose another port")

			other.listen = free(t, host)
			other.write(t, "", "")
			two := other.start(t, nil)
			for _, s := range []*site{first, other} {
				exchange(t, s.listen)
			}
			if a, b := one.status(t).PID, two.status(t).PID; a != one.Process.Pid || b != two.Process.Pid {
				t.Errorf("status of pids %d and %d says %d and %d", one.Process.Pid, two.Process.Pid, a, b)
			}
			two.stop(t)
			exchange(t, first.listen)
			one.stop(t)
			if left, err := filepath.Glob(filepath.Join(first.dir, "s*")); err != nil || len(left) > 0 {
				t.Errorf("a node that has stopped leaves %v, %v", left, err)
			}
		})
	}
}

func asNobody(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			s := newSite(t, host)
			// The default directories are root's.
			text := fmt.Sprintf("services: [{name: web, listen: %q, backends: [{address: %q}]}]\n", s.listen, s.backend)
			if err := os.WriteFile(s.file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat("/run/holdfast"); errors.Is(err, fs.ErrNotExist) {
				s.launch(t, asNobody).refused(t, "/run/holdfast", "permission denied", "directories.runtime", "admin.socket")
			}
			s.write(t, "", "")
			p := s.start(t, asNobody)
			exchange(t, s.listen)
			if state := p.status(t).State; state != "well" {
				t.Errorf("the node is %s", state)
			}
			p.stop(t)
			if low, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil || strings.TrimSpace(string(low)) != "1024" {
				t.Logf("every user may use every port here: %s, %v", low, err)
				return
			}
			s.listen = net.JoinHostPort(host, "81")
			s.write(t, "", "")
			s.launch(t, asNobody).refused(t, s.listen, "CAP_NET_BIND_SERVICE")
		})
	}
}

func TestKilledNode(t *testing.T) {
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			s := newSite(t, host)
			path := filepath.Join(s.dir, "service")
			s.write(t, "", "")
			text, err := os.ReadFile(s.file)
			if err != nil {
				t.Fatal(err)
			}
			text = []byte(strings.Replace(string(text), strconv.Quote(s.listen), fmt.Sprintf("[%q, %q]", s.listen, "unix:"+path), 1))
			if err := os.WriteFile(s.file, text, 0o644); err != nil {
				t.Fatal(err)
			}
			p := s.start(t, nil)
			exchange(t, s.listen)
			p.signal(t, syscall.SIGKILL)
			<-p.ended
			p.ended <- nil
			for _, left := range []string{path, s.socket} {
				if _, err := os.Stat(left); err != nil {
					t.Fatalf("a killed node leaves no socket, this test asks nothing: %v", err)
				}
			}
			if _, said, code := p.command(t, "status"); code != 1 || !strings.Contains(said, s.socket) {
				t.Errorf("status of a node that is gone: exit code %d: %s", code, said)
			}
			p = s.start(t, nil)
			exchange(t, s.listen)
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			talk(t, c)
			p.stop(t)
		})
	}
}

func TestSignals(t *testing.T) {
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			s := newSite(t, host)
			s.write(t, "    drain: {timeout: 1h}\n", "")
			p := s.start(t, nil)
			c := dial(t, s.listen)
			talk(t, c)

			p.signal(t, syscall.SIGUSR2)
			p.await(t, "not supported by this version")
			s.write(t, "    drain: {timeout: 2h}\n", "log: {format: json}\n")
			p.signal(t, syscall.SIGHUP)
			p.await(t, `"msg":"the file was taken"`)
			if err := os.WriteFile(s.file, []byte("services: {"), 0o644); err != nil {
				t.Fatal(err)
			}
			p.signal(t, syscall.SIGHUP)
			p.await(t, `"msg":"the file was refused: nothing has changed"`)
			talk(t, c)
			if st := p.status(t); st.Config.Reloads != 1 || st.Config.Refused != 1 || st.Config.Error == "" || !st.Config.Changed || st.State != "degraded" {
				t.Errorf("status: %s, %+v", st.State, st.Config)
			}

			p.signal(t, syscall.SIGTERM)
			until(t, "status says that it stops", func() bool { return p.status(t).State == "stopping" })
			if d, err := net.DialTimeout("tcp", s.listen, within); err == nil {
				d.Close()
				t.Error("a node that stops takes new clients")
			}
			talk(t, c) // what there is carries on
			if _, said, code := p.command(t, "reload"); code != 1 || !strings.Contains(said, "stopping") {
				t.Errorf("a reload while it stops: exit code %d: %s", code, said)
			}
			p.signal(t, syscall.SIGINT)
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the second signal: the client saw %v", err)
			}
			if code := p.wait(t); code != 0 {
				t.Errorf("exit code %d: %s", code, p.said)
			}
		})
	}
}

// A log that nobody reads costs lines, and no connection.
func TestBlockedLog(t *testing.T) {
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			s := newSite(t, host)
			s.write(t, "", "log: {level: debug}\n")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			// Full before it starts.
			if err := w.SetWriteDeadline(time.Now()); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = w.Write(make([]byte, 4096))
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			p := s.launch(t, func(cmd *exec.Cmd) { cmd.Stderr = w })
			w.Close()
			until(t, "it serves", func() bool {
				c, err := net.DialTimeout("tcp", s.listen, within)
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			began := time.Now()
			for range 500 {
				exchange(t, s.listen)
			}
			t.Logf("500 connections in %v while nobody reads the log", time.Since(began))
			if st := p.status(t); st.Services[0].Total < 500 {
				t.Errorf("%d connections were accepted", st.Services[0].Total)
			}
			p.signal(t, syscall.SIGTERM)
			if code := p.wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// A disk that is full costs events, and no connection.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file system of its own needs root")
	}
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			s := newSite(t, host)
			s.write(t, "", "")
			disk := filepath.Join(s.dir, "disk")
			if err := os.Mkdir(disk, 0o755); err != nil {
				t.Fatal(err)
			}
			p := s.launch(t, func(cmd *exec.Cmd) {
				stage(cmd, "disk "+disk, syscall.CLONE_NEWNS)
				cmd.Args = append(cmd.Args, "--events", filepath.Join(disk, "events"))
			})
			p.await(t, "msg=ready")
			for range 1000 {
				exchange(t, s.listen)
			}
			p.await(t, "no space left on device")
			exchange(t, s.listen)
			p.signal(t, syscall.SIGTERM)
			p.wait(t)
			if said := p.said.String(); strings.Count(said, "no space left") > 5 {
				t.Errorf("each line that is lost is a line of the log: %s", said)
			}
		})
	}
}

func TestServiceManager(t *testing.T) {
	for family, host := range families(t) {
		t.Run(family, func(t *testing.T) {
			s := newSite(t, host)
			s.write(t, "    drain: {timeout: 1h}\n", "")
			path := filepath.Join(s.dir, "notify")
			m, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			p := s.launch(t, func(cmd *exec.Cmd) {
				cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=200000")
			})
			// hear waits for a message with all of these.
			hear := func(want ...string) string {
				t.Helper()
				buf := make([]byte, 4096)
				for {
					if err := m.SetReadDeadline(time.Now().Add(within)); err != nil {
						t.Fatal(err)
					}
					n, err := m.Read(buf)
					if err != nil {
						t.Fatalf("nothing is said of %q: %v", want, err)
					}
					all := true
					for _, w := range want {
						all = all && strings.Contains("\n"+string(buf[:n])+"\n", "\n"+w)
					}
					if all {
						return string(buf[:n])
					}
				}
			}
			hear("READY=1\n", "STATUS=well: services 1, backends up 1 of 1")
			exchange(t, s.listen) // at once
			hear("WATCHDOG=1\n")
			hear("WATCHDOG=1\n")
			p.signal(t, syscall.SIGHUP)
			hear("RELOADING=1\n", "MONOTONIC_USEC=")
			hear("READY=1\n")
			if err := os.WriteFile(s.file, []byte("service: []"), 0o644); err != nil {
				t.Fatal(err)
			}
			p.signal(t, syscall.SIGHUP)
			hear("RELOADING=1\n", "MONOTONIC_USEC=")
			if got := hear("READY=1\n"); !strings.Contains(got, "refused") {
				t.Errorf("a refused reload: %q", got)
			}
			c := dial(t, s.listen)
			talk(t, c)
			p.signal(t, syscall.SIGTERM)
			hear("STOPPING=1\n")
			hear("EXTEND_TIMEOUT_USEC=")
			hear("WATCHDOG=1\n") // it lives while it drains
			c.Close()
			if code := p.wait(t); code != 0 {
				t.Errorf("exit code %d: %s", code, p.said)
			}
		})
	}
}

// stageVariable says what the test binary does before it becomes holdfast.
const stageVariable = "HOLDFAST_TEST_STAGE"

// stage makes a command run in namespaces of its own, after what the stage says
// was done in them.
func stage(cmd *exec.Cmd, what string, namespaces uintptr) {
	cmd.Env = append(os.Environ(), stageVariable+"="+what)
	cmd.Args = append([]string{"stage", cmd.Path}, cmd.Args...)
	cmd.Path = "/proc/self/exe"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
}

// enter does what a stage says, and becomes the program in the arguments.
func enter(what string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "stage:", err)
			os.Exit(99)
		}
	}
	kind, dir, _ := strings.Cut(what, " ")
	// Nothing of what is mounted here is seen elsewhere.
	fail(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	path, args := os.Args[1], os.Args[2:]
	switch kind {
	case "disk":
		fail(syscall.Mount("none", dir, "tmpfs", 0, "size=64k"))
	case "bare", "bare-run":
		fail(syscall.Mount(dir, dir, "", syscall.MS_BIND, ""))
		// What every container has, and programs cannot be started without.
		if err := syscall.Mknod(filepath.Join(dir, "dev", "null"), syscall.S_IFCHR|0o666, 1<<8|3); !errors.Is(err, fs.ErrExist) {
			fail(err)
		}
		if kind == "bare-run" {
			fail(syscall.Mount("none", filepath.Join(dir, "run"), "tmpfs", 0, "size=1m"))
		}
		fail(syscall.Mount("none", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		fail(syscall.Chroot(dir))
		fail(syscall.Chdir("/"))
		path = "/" + filepath.Base(path)
	default:
		fail(fmt.Errorf("there is no stage %q", what))
	}
	fail(syscall.Exec(path, args, []string{"PATH=/"}))
}

// A container with nothing in it but the program and its file: no /etc, no
// /proc, no /sys, a root that is read-only, and the node as its first process.
func TestBareContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces and mounts need root")
	}
	for _, tt := range []struct {
		name, host, other string
		ipv6              bool
	}{
		{"ipv4", "127.0.0.1", "", true},
		{"ipv6", "::1", "", true},
		{"without IPv6", "127.0.0.1", "::1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := netnstest.New(t)
			if err := ns.Do(func() error {
				if tt.ipv6 {
					return nil
				}
				return errors.Join(
					os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0o644),
					os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0o644))
			}); err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			for _, name := range []string{"holdfast", "orphans"} {
				text, err := os.ReadFile(filepath.Join(filepath.Dir(holdfast(t)), name))
				if err == nil {
					err = os.WriteFile(filepath.Join(root, name), text, 0o755)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"run", "dev"} {
				if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			backend := echoWithin(t, ns.Do, tt.host)
			config := fmt.Sprintf(`admin: {socket: /run/holdfast/s}
services:
  - name: web
    listen: [":7000"]
    health: {command: {argv: [/orphans]}, interval: 100ms}
    backends: [{name: one, address: %q}]
`, backend)
			if err := os.WriteFile(filepath.Join(root, "holdfast.yaml"), []byte(config), 0o644); err != nil {
				t.Fatal(err)
			}
			launch := func(kind string) *process {
				p := &process{Cmd: exec.Command(filepath.Join(root, "holdfast"), "run", "-c", "/holdfast.yaml"), said: &output{}, ended: make(chan error, 1)}
				p.Stderr, p.WaitDelay = p.said, time.Second
				stage(p.Cmd, kind+" "+root, syscall.CLONE_NEWNS|syscall.CLONE_NEWPID|syscall.CLONE_NEWIPC|syscall.CLONE_NEWUTS)
				if err := ns.Do(p.Start); err != nil {
					t.Fatal(err)
				}
				go func() { p.ended <- p.Cmd.Wait() }()
				t.Cleanup(func() { _ = p.Process.Kill() })
				return p
			}
			// Where the root is read-only it needs one directory, and says so.
			launch("bare").refused(t, "/run/holdfast", "read-only file system", "directories.runtime")

			p := launch("bare-run")
			p.await(t, "msg=ready")
			connect := func() {
				t.Helper()
				var c net.Conn
				err := ns.Do(func() (err error) {
					c, err = net.DialTimeout("tcp", net.JoinHostPort(tt.host, "7000"), within)
					return err
				})
				if err != nil {
					t.Fatalf("%v: %s", err, p.said)
				}
				defer c.Close()
				if err := c.SetDeadline(time.Now().Add(within)); err != nil {
					t.Fatal(err)
				}
				talk(t, c)
			}
			connect()
			// The first process of a container has no default actions, and every
			// orphan is its child.
			p.signal(t, syscall.SIGUSR2)
			p.await(t, "not supported by this version")
			p.signal(t, syscall.SIGHUP)
			p.await(t, "the file was taken")
			most, checked := 0, time.Now()
			until(t, "twenty checks have left forty orphans", func() bool {
				most = max(most, zombies(t, p.Process.Pid))
				return time.Since(checked) > 2*time.Second
			})
			if most > 25 {
				t.Errorf("%d processes that have ended were not freed", most)
			}
			if left := p.said.String(); strings.Contains(left, "backend is down") {
				t.Errorf("the check does not work here: %s", left)
			}
			connect()
			p.signal(t, syscall.SIGTERM)
			if code := p.wait(t); code != 0 {
				t.Errorf("exit code %d: %s", code, p.said)
			}
			t.Logf("it said: %s", p.said)
		})
	}
}

// echoWithin is a backend in a namespace.
func echoWithin(t *testing.T, do func(func() error) error, host string) string {
	t.Helper()
	var l net.Listener
	if err := do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { echo(l, &wg) })
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// zombies counts the children of a process that have ended and were not freed.
func zombies(t *testing.T, parent int) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if field := strings.Fields(rest); len(field) > 1 && field[0] == "Z" && field[1] == strconv.Itoa(parent) {
			n++
		}
	}
	return n
}

// TestSignalsToTheEnd sends SIGHUP until there is nobody left to get it: the node
// ends well all the same.
func TestSignalsToTheEnd(t *testing.T) {
	s := newSite(t, "127.0.0.1")
	s.write(t, "", "")
	p := s.start(t, nil)
	p.signal(t, syscall.SIGTERM)
	for p.Process.Signal(syscall.SIGHUP) == nil {
		runtime.Gosched()
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("the node ended with exit code %d: %s", code, p.said)
	}
}
