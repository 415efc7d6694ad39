//go:build linux

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/internal/usertest"
)

// childEnv makes the test binary another process: "ask" asks the node at a
// socket and writes what it was answered, "listen" makes a socket and writes why
// it could not.
const childEnv = "HOLDFAST_TEST_ASK"

type childAnswer struct{ Read, Change, Code string }

func child() {
	switch args := os.Args[1:]; os.Getenv(childEnv) {
	case "ask":
		c := admin.Client{Socket: args[0]}
		var a childAnswer
		if _, err := c.Status(noDeadline()); err != nil {
			a.Read = err.Error()
		}
		if _, err := c.ChangeBackend(noDeadline(), "redis", "r1", admin.BackendCommand{Do: admin.DoDrain}); err != nil {
			a.Change = err.Error()
			if e, ok := errors.AsType[*admin.Error](err); ok {
				a.Code = e.Code
			}
		}
		_ = json.NewEncoder(os.Stdout).Encode(a)
	case "listen":
		l, err := Listen(args[0], 0o660, args[1])
		if err == nil {
			l.Close()
		}
		fmt.Fprint(os.Stdout, err)
	}
}

// runAs runs this test binary as somebody else.
func runAs(t *testing.T, cred *syscall.Credential, do string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), usertest.Program(t, "child"), args...)
	cmd.Env = append(os.Environ(), childEnv+"="+do, "GORACE=atexit_sleep_ms=0")
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s as uid %d: %v\n%s", do, cred.Uid, err, out)
	}
	return string(out)
}

// askAs asks as somebody else.
func askAs(t *testing.T, path string, cred *syscall.Credential) childAnswer {
	t.Helper()
	var a childAnswer
	out := runAs(t, cred, "ask", path)
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return a
}

// Reading is for those who may open the socket, changing for root, the node's
// user, and the members of the group: asked of the kernel by real processes.
func TestRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it asks as other users")
	}
	const group, uid = 4711, 4712
	for _, tt := range []struct {
		name         string
		mode         os.FileMode
		group        string
		cred         syscall.Credential
		read, change string // part of the error; "" is allowed
	}{
		{"root", 0o600, "", syscall.Credential{}, "", ""},
		{"another, socket closed", 0o660, "", syscall.Credential{Uid: uid, Gid: uid},
			"permission denied; you are uid 4712, and the socket has the mode 0660, the owner root and the group root; run as root, or as a member of the group root", "permission denied"},
		{"another, socket open", 0o666, "", syscall.Credential{Uid: uid, Gid: uid}, "", "uid 4712 (pid "},
		{"group may read", 0o660, "", syscall.Credential{Uid: uid, Gid: 0}, "", "may read, and not change anything; that is for root: run it as root (sudo), or name a group in admin.group"},
		{"member", 0o660, "4711", syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{5000, group}}, "", ""},
		{"member by primary group", 0o660, "4711", syscall.Credential{Uid: uid, Gid: group}, "", ""},
		{"no member, socket open", 0o666, "4711", syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{5000}}, "",
			"that is for root, and the members of group 4711: run it as root (sudo), or join the group and log in again"},
		{"member of many groups", 0o660, "4711", syscall.Credential{Uid: uid, Gid: uid, Groups: manyGroups(200, group)}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node, log := newFakeNode(), &sink{}
			s, err := New(Options{Node: node, Version: "1", Group: tt.group, Logger: logger(log)})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(usertest.Dir(t), "node.sock")
			l, err := Listen(path, tt.mode, tt.group)
			if err != nil {
				t.Fatal(err)
			}
			serve(t, s, l)
			a := askAs(t, path, &tt.cred)
			for _, c := range []struct{ what, got, want string }{{"reading", a.Read, tt.read}, {"changing", a.Change, tt.change}} {
				if (c.got == "") != (c.want == "") || !strings.Contains(c.got, c.want) {
					t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
				}
			}
			did := node.done()
			if (tt.change == "") != strings.Contains(did, fmt.Sprintf("drain r1 of redis to 0 by uid %d (pid ", tt.cred.Uid)) {
				t.Errorf("the node did %q", did)
			}
			if tt.read == "" && tt.change != "" {
				if a.Code != admin.CodeForbidden || !strings.Contains(log.String(), `level=WARN msg="a change was refused" by="uid 4712 (pid `) {
					t.Errorf("the refusal has the code %q, and the log\n%s", a.Code, log)
				}
			}
		})
	}
}

func manyGroups(n int, last uint32) []uint32 {
	var l []uint32
	for i := range n {
		l = append(l, 10000+uint32(i))
	}
	return append(l, last)
}

// A node that is not root's: its own user may change things, and root.
func TestRightsOfTheOwnUser(t *testing.T) {
	r := rights{self: 1000}
	for uid, want := range map[uint32]bool{0: true, 1000: true, 1001: false} {
		p := peer{}
		p.UID, p.GID, p.Groups = uid, 0, []uint32{0, 1000}
		if got := r.mayChange(p); got != want {
			t.Errorf("uid %d may change things: %v", uid, got)
		}
	}
	e := r.refusal(peer{Peer: sys.Peer{UID: 1001, PID: 7}})
	if want := "that is for root, and uid 1000, which the node runs as"; !strings.Contains(e.Text, want) {
		t.Errorf("the refusal says %q, want %q", e.Text, want)
	}
	unknown := peer{err: errNoUnixSocket}
	if r.mayChange(unknown) {
		t.Error("somebody unknown may change things")
	}
	if e := r.refusal(unknown); !strings.Contains(e.Text, "could not be told") {
		t.Errorf("the refusal says %q", e.Text)
	}
	if _, err := New(Options{Group: "no-such-group"}); err == nil || !strings.Contains(err.Error(), `there is no group "no-such-group": make it`) {
		t.Errorf("New: %v", err)
	}
}

// Who may use the socket changes while it is used.
func TestRightsChange(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it asks as other users")
	}
	const group, uid = 4711, 4712
	s, err := New(Options{Node: newFakeNode(), Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(usertest.Dir(t), "node.sock")
	l, err := Listen(path, 0o660, "")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, l)
	member := &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{group}}
	want := func(mayRead, mayChange bool) {
		t.Helper()
		if a := askAs(t, path, member); (a.Read == "") != mayRead || (a.Change == "") != mayChange {
			t.Errorf("reading: %q, changing: %q; want %v and %v", a.Read, a.Change, mayRead, mayChange)
		}
	}
	want(false, false)
	for _, step := range []struct {
		mode               os.FileMode
		group              string
		mayRead, mayChange bool
	}{{0o660, "4711", true, true}, {0o666, "", true, false}, {0o600, "", false, false}, {0o660, "4711", true, true}} {
		if err := errors.Join(l.SetAccess(step.mode, step.group), s.SetGroup(step.group)); err != nil {
			t.Fatal(err)
		}
		want(step.mayRead, step.mayChange)
	}
	for _, err := range []error{l.SetAccess(0o660, "no-such-group"), s.SetGroup("no-such-group"), l.SetAccess(0o2660, "")} {
		if err == nil || !strings.HasPrefix(err.Error(), "admin.") {
			t.Errorf("got %v", err)
		}
	}
	want(true, true) // nothing has changed
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := l.SetAccess(0o600, ""); err == nil || !strings.Contains(err.Error(), "no longer the node's") {
		t.Errorf("a socket that is gone: %v", err)
	}
}
