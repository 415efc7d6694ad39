//go:build linux

package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/internal/usertest"
)

func TestListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "holdfast")
	path := filepath.Join(dir, "node.sock")
	l, err := Listen(path, 0o620, "")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for what, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o755, path: fs.ModeSocket | 0o620} {
		if fi, err := os.Stat(what); err != nil || fi.Mode() != want {
			t.Errorf("%s is %v, %v; want %v", what, fi.Mode(), err, want)
		}
	}
	if l.Addr().String() != path {
		t.Errorf("it listens on %s", l.Addr())
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	_, err = Listen(path, 0o660, "")
	want := fmt.Sprintf("cannot listen on unix:%s: the path is in use by this program itself; stop it, or set admin.socket to another path (a second node needs directories.runtime of its own too)", path)
	if err == nil || err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second node: %v\nwant %s", err, want)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close the socket is there: %v", err)
	}
}

// What a node that was killed has left does not stop the next; what another has
// put in its place is not removed.
func TestListenAfterOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := Listen(path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next, err := Listen(path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first has removed the socket of the second: %v", err)
	} else {
		c.Close()
	}
}

// Of those who start at once, one gets the socket, and keeps it.
func TestListenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.sock")
	var mu sync.Mutex
	var got []*Listener
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			l, err := Listen(path, 0o600, "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got = append(got, l)
			} else if !errors.Is(err, syscall.EADDRINUSE) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Errorf("%d got it", len(got))
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("nobody listens there: %v", err)
	} else {
		c.Close()
	}
	for _, l := range got {
		l.Close()
	}
}

func TestListenFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	loose := filepath.Join(dir, "loose")
	if err := errors.Join(os.Mkdir(loose, 0o777), os.Chmod(loose, 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, group, want string
		mode              fs.FileMode
	}{
		{file, "", "the file there is not a socket; set admin.socket to another path", 0o660},
		{filepath.Join(file, "s"), "", "is not a directory; set admin.socket to another path", 0o660},
		{filepath.Join(dir, strings.Repeat("x", 120)), "", "and a unix socket's may have 107; set admin.socket to another path", 0o660},
		{filepath.Join(loose, "s"), "", "everybody may remove and make files there in " + loose + "; set admin.socket to another path, or take the right to write there from others", 0o660},
		{filepath.Join(dir, "s"), "no-such-group", `there is no group "no-such-group"`, 0o660},
		{filepath.Join(dir, "s"), "", "admin.mode: 4755 is more than permission bits", 0o4755},
	} {
		l, err := Listen(tt.path, tt.mode, tt.group)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v\nwant %s", tt.path, err, tt.want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file has %q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "s")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

// A group is known by name and number; without root it must be one's own.
func TestListenGroup(t *testing.T) {
	gid := os.Getgid()
	group := fmt.Sprint(gid)
	if os.Getuid() == 0 {
		gid, group = 4711, "4711"
	} else if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	path := filepath.Join(t.TempDir(), "node.sock")
	l, err := Listen(path, 0o660, group)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); int(st.Gid) != gid || fi.Mode().Perm() != 0o660 {
		t.Errorf("the group is %d, want %d; the mode %v", st.Gid, gid, fi.Mode())
	}
}

// Somebody who is not root is told what he may not do, and where he might.
func TestListenWithoutRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it becomes another user")
	}
	dir := usertest.Dir(t)
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/4712")
	for _, tt := range []struct{ path, group, want string }{
		{filepath.Join(dir, "s"), "", "permission denied: uid 4712 may not make files in " + dir +
			"; run as root, or set admin.socket to a path that uid 4712 may write, such as /run/user/4712/holdfast.sock"},
		{filepath.Join(dir, "a", "s"), "", "permission denied: uid 4712 may not make files in " + filepath.Join(dir, "a")},
		{filepath.Join(os.TempDir(), fmt.Sprintf("holdfast-%d.sock", os.Getpid())), "4711", "uid 4712 may not give the socket to group 4711; run as root, make that user a member of the group, or leave admin.group out"},
	} {
		if err := listenAs(t, 4712, tt.path, tt.group); !strings.Contains(err, tt.want) || strings.Contains(err, "\n") {
			t.Errorf("%s: %s\nwant %s", tt.path, err, tt.want)
		}
		if _, err := os.Lstat(tt.path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", tt.path, err)
		}
	}
}

// listenAs makes a process of another user listen, and returns its error.
func listenAs(t *testing.T, uid uint32, path, group string) string {
	t.Helper()
	return runAs(t, &syscall.Credential{Uid: uid, Gid: uid}, "listen", path, group)
}

func TestPeer(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "s"), 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := identify(s)
	if p.err != nil || p.PID != os.Getpid() || int(p.UID) != os.Getuid() || int(p.GID) != os.Getgid() {
		t.Errorf("the peer is %+v", p)
	}
	s.Close()
	if p := identify(s); p.err == nil || p.String() != "somebody unknown" {
		t.Errorf("of a closed socket the peer is %+v", p)
	}
	if got := (peer{Peer: sys.Peer{UID: 4294967290, PID: 7}}).String(); got != "uid 4294967290 (pid 7)" {
		t.Errorf("a user without a name is %s", got)
	}
}
