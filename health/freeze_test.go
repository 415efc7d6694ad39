//go:build linux

package health

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const childVariable = "HOLDFAST_HEALTH_TEST_BACKEND"

// frozenChild is the process that TestStoppedProcess stops: a checker of the
// backend that the environment names, until its input ends.
func frozenChild() {
	address := os.Getenv(childVariable)
	if address == "" {
		return
	}
	c, err := New(Options{
		Name: "b", Address: address,
		Check: Check{
			Kind: Exchange, Exchange: ExchangeCheck{Send: "ping", Expect: "pong"},
			Interval: 50 * time.Millisecond, Timeout: 400 * time.Millisecond, Fall: 1,
		},
		OnChange: func(change Change) { fmt.Println(change.State, change.Cause) },
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = c.Close()
	}()
	if err := c.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println("distrusted", c.Status().Distrusted)
	os.Exit(0)
}

// A process that is stopped in the middle of a check, for longer than its timeout,
// does not take the backend down when it continues, although one failure would.
func TestStoppedProcess(t *testing.T) {
	const stopped = 4 // the check in which it happens, and which is never answered
	var checks atomic.Int32
	reached := map[int32]chan struct{}{stopped: make(chan struct{}), stopped + 3: make(chan struct{})}
	address, _ := serve(t, "127.0.0.1", func(conn net.Conn) {
		if _, err := conn.Read(make([]byte, 4)); err != nil {
			return
		}
		n := checks.Add(1)
		if ch := reached[n]; ch != nil {
			close(ch)
		}
		if n != stopped {
			_, _ = io.WriteString(conn, "pong")
		}
		silently(conn)
	})

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+address)
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	await := func(n int32) {
		t.Helper()
		select {
		case <-reached[n]:
		case <-time.After(20 * time.Second):
			t.Fatalf("check %d never came", n)
		}
	}
	await(stopped)
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("not stopped: %v, %v", status, err)
	}
	<-time.After(time.Second) // much longer than the timeout: this is the fault itself
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(stopped + 3)
	_ = stdin.Close()
	var said []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		said = append(said, lines.Text())
	}
	got := strings.Join(said, "; ")
	if !strings.HasPrefix(got, "up <nil>; distrusted ") || strings.HasSuffix(got, " 0") {
		t.Errorf("the stopped checker said %q, want it up and a verdict distrusted", got)
	}
}
