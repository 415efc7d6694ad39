package elector

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vip"
)

// TestReplaced has a daemon of another build find an elector: it becomes the
// daemon's program, and keeps its number and what it owns.
func TestReplaced(t *testing.T) {
	dir := runtimeDir(t)
	other := filepath.Join(dir, "other")
	if out, err := exec.Command("cp", "--", os.Args[0], other).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	old := exec.Command(other, "elector", "--runtime", dir)
	old.Stderr = os.Stderr
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	defer old.Wait()
	await(t, "it listens", func() bool {
		c, err := net.Dial("unix", socketPath(dir))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	raw := &link{in: &receiver{conn: dial(t, dir)}}
	raw.conn, raw.pid = raw.in.conn, 0
	if _, err := (&Client{o: Options{}}).greet(raw); err != nil {
		t.Fatal(err)
	}
	if err := configureNow(raw, Settings{Node: "n", Groups: []Group{group("front")}}); err != nil {
		t.Fatal(err)
	}
	b, err := appendFrame(nil, &message{Beat: &beat{Data: []byte("own front")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.conn.Write(b); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := raw.in.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Change != nil && m.Change.Role == vip.Active {
			break
		}
	}
	_ = raw.conn.Close()

	began := time.Now()
	d := open(t, dir, nil)
	t.Logf("attached to another program after %v", time.Since(began))
	if got := d.Info().PID; got != old.Process.Pid {
		t.Errorf("the elector is process %d, want %d", got, old.Process.Pid)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", old.Process.Pid))
	if own, _ := os.Readlink("/proc/self/exe"); err != nil || exe != own {
		t.Errorf("its program is %s (%v), want %s", exe, err, own)
	}
	defer kill(old.Process.Pid)
	d.status("it owns what it owned", func(s vip.Status) bool { return s.Role == vip.Active && s.Priority == 2 })
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", old.Process.Pid)); err == nil && len(open) > 14 {
		t.Errorf("it has %d descriptors", len(open))
	}
}

// TestReplacedByWhatDoesNotRun has an elector be asked to become files that the
// kernel does not execute: it stays what it is, with what it owns, and keeps
// nothing of the tries.
func TestReplacedByWhatDoesNotRun(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	pid := d.Info().PID
	defer kill(pid)
	d.Deliver([]byte("own front"))
	d.status("it owns", func(s vip.Status) bool { return s.Role == vip.Active })
	descriptors := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := descriptors()
	name := filepath.Join(dir, "text")
	if err := os.WriteFile(name, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	for lives := uint8(2); lives < 7; lives++ {
		d.mu.Lock()
		conn := d.link.conn
		d.mu.Unlock()
		text, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := appendFrame(nil, &message{Replace: &replace{}})
		if err == nil {
			err = sys.WriteWithFile(conn, b, text)
		}
		if err = errors.Join(err, text.Close()); err != nil {
			t.Fatal(err)
		}
		d.status("it goes on", func(s vip.Status) bool { return s.Role == vip.Active && s.Priority == lives })
	}
	if got := d.Info().PID; got != pid {
		t.Errorf("the elector is process %d, was %d", got, pid)
	}
	await(t, fmt.Sprintf("it has %d descriptors again", before), func() bool { return descriptors() <= before })
}
