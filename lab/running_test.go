//go:build linux

package lab

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// One process of a host is frozen, and no other; the host's list knows those
// that its programs have started.
func TestFreezeOneProcess(t *testing.T) {
	l := start(t, oneArm(t, Size{Nodes: 1}))
	h := l.Host("node1")
	p := must(h.Start(Command{Argv: []string{"sh", "-c", "setsid sleep 1001 & echo ready; sleep 1002"}}))(t)
	if err := p.Await(bounded(t), "ready"); err != nil {
		t.Fatal(err)
	}
	find := func(arg string) Running {
		t.Helper()
		for bounded(t).Err() == nil {
			all := must(h.Processes())(t)
			if i := slices.IndexFunc(all, func(r Running) bool { return slices.Contains(r.Argv, arg) && r.Argv[0] == "sleep" }); i >= 0 {
				return all[i]
			}
		}
		t.Fatalf("no process has the argument %s", arg)
		return Running{}
	}
	one, other := find("1001"), find("1002")
	must(one.Freeze())(t)
	for pid, want := range map[int]bool{one.PID: true, other.PID: false, p.PID(): false} {
		if state, ok := processState(pid); !ok || (state == 'T') != want {
			t.Errorf("process %d is in state %c; frozen: want %v", pid, state, want)
		}
	}
	must(one.Continue())(t)
	if state, _ := processState(one.PID); state == 'T' {
		t.Error("it does not go on")
	}
	must(one.Kill())(t)
	if _, err := one.Freeze(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a process that has ended was frozen: %v", err)
	}
	if _, ok := processState(other.PID); !ok {
		t.Error("the other one has ended with it")
	}
}

func TestSpin(t *testing.T) {
	l := start(t, oneArm(t, Size{Nodes: 2}))
	h := l.Host("node1")
	stop := must(h.Spin(1))(t)
	all := must(h.Processes())(t)
	if n := len(slices.DeleteFunc(all, func(r Running) bool { return !strings.Contains(strings.Join(r.Argv, " "), "while") })); n == 0 {
		t.Error("nothing is busy")
	}
	if others := must(l.Host("node2").Processes())(t); len(others) != 0 {
		t.Errorf("another host has %v", others)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if left := must(h.Processes())(t); len(left) != 0 {
		t.Errorf("after stop there are %v", left)
	}
}
