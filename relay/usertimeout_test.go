//go:build linux

package relay

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// TestUserTimeoutKillsAPausedReader is why the relay does not use
// TCP_USER_TIMEOUT (docs/decisions/0003): the kernel gives up a peer that does
// not read although that peer answers every zero-window probe. If this test
// fails, the kernel has learned better and the decision should be taken again.
func TestUserTimeoutKillsAPausedReader(t *testing.T) {
	t.Parallel()
	each(t, userTimeoutKills)
}

func userTimeoutKills(t *testing.T, host string) {
	const bound = 3 * time.Second
	t.Parallel()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	lc.KeepAlive = -1
	ln, err := lc.Listen(t.Context(), "tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	reader, err := net.Dial("tcp", ln.Addr().String()) // lives, and does not read
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	writer := c.(*net.TCPConn)
	raw, err := writer.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const tcpUserTimeout = 18 // include/uapi/linux/tcp.h
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		optErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(bound.Milliseconds()))
	}); err != nil || optErr != nil {
		t.Fatal(err, optErr)
	}

	// The writer's view every 50 ms: when did the peer last answer?
	stop, watched := make(chan struct{}), make(chan struct{})
	var worst time.Duration // the longest time without an answer
	var answers int         // how often an answer was seen to be fresh
	go func() {
		defer close(watched)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		last := time.Duration(0)
		for {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			var info sys.TCPInfo
			if raw.Control(func(fd uintptr) { sys.GetTCPInfo(int(fd), &info) }) != nil || info.State != sys.TCPEstablished {
				continue
			}
			worst = max(worst, info.LastACKReceived)
			if info.LastACKReceived < last {
				answers++
			}
			last = info.LastACKReceived
		}
	}()

	if err := writer.SetWriteDeadline(time.Now().Add(4 * bound)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var n int
	for buf := make([]byte, 64<<10); err == nil; {
		var k int
		k, err = writer.Write(buf)
		n += k
	}
	took := time.Since(began)
	close(stop)
	<-watched
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the kernel has let a paused reader live for %v with a user timeout of %v", took, bound)
	}
	if !errors.Is(err, syscall.ETIMEDOUT) {
		t.Fatalf("the writer got %v, want ETIMEDOUT", err)
	}
	if answers < 2 || worst >= bound {
		t.Fatalf("the peer was not heard from for %v (%d answers): this test has proved nothing", worst, answers)
	}
	t.Logf("%d bytes written; ETIMEDOUT after %v, although the peer had answered %d probes, the longest silence being %v", n, took, answers, worst)
}
