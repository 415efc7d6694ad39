//go:build linux

package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func where(t *testing.T, do func(func() error) error) (name string) {
	t.Helper()
	if err := do(func() (err error) {
		name, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDo(t *testing.T) {
	n := open(t)
	want := fmt.Sprintf("net:[%d]", n.Inode())
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got := where(t, n.Do); got != want {
					t.Errorf("Do ran in %s, want %s", got, want)
				}
			}
		})
	}
	wg.Wait()
	here, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	for range 50 {
		if err := n.WithFD(func(fd int) error {
			ns, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err != nil {
				return err
			}
			defer ns.Close()
			if got := where(t, func(f func() error) error { return Within(ns, f) }); got != want {
				t.Errorf("Within ran in %s, want %s", got, want)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := where(t, func(f func() error) error { return Within(here, f) }); got != outside {
			t.Errorf("within its own namespace it ran in %s, want %s", got, outside)
		}
	}
	if got := where(t, n.DoAtHome); got != want {
		t.Errorf("DoAtHome ran in %s, want %s", got, want)
	}
	// No thread was left behind inside, the main one least of all.
	for range 100 {
		if got := where(t, func(f func() error) error { return f() }); got != outside {
			t.Fatalf("a thread is in %s, want %s", got, outside)
		}
	}
	if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != outside {
		t.Errorf("the main thread is in %s (%v), want %s", now, err, outside)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that does not return: no error")
	}
}

// A socket stays where it was made, and keeps the namespace alive.
func TestSocketStays(t *testing.T) {
	n := open(t)
	var pc net.PacketConn
	if err := n.Do(func() (err error) {
		pc, err = net.ListenPacket("udp", "[::]:9")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do after Close: %v", err)
	}
	if err := n.DoAtHome(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("DoAtHome after Close: %v", err)
	}
	// The same port is free out here.
	other, err := net.ListenPacket("udp", "[::]:9")
	if err != nil {
		t.Errorf("the socket is in this namespace: %v", err)
	} else {
		other.Close()
	}
}

// A parent-death signal comes when the namespace is closed, and not before,
// whatever thread the garbage of the runtime's scheduling ends on.
func TestProcessOfHome(t *testing.T) {
	n := open(t)
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.DoAtHome(cmd.Start); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := n.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("the process has ended early: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v, want killed", err)
	}
}
