package pair

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// TestTune: the kernel knows how long the link may be silent, and how little it
// may hold.
func TestTune(t *testing.T) {
	const tcpUserTimeout, tcpNotSentLowat = 18, 25 // include/uapi/linux/tcp.h
	for _, f := range families {
		l, err := net.Listen("tcp", net.JoinHostPort(f.one.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := tune(c.(*net.TCPConn), 1500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for opt, want := range map[int]int{tcpUserTimeout: 1500, tcpNotSentLowat: unsentLimit, syscall.TCP_NODELAY: 1} {
			var got int
			var failed error
			if err := raw.Control(func(fd uintptr) { got, failed = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, opt) }); err != nil || failed != nil {
				t.Fatal(err, failed)
			}
			if got != want {
				t.Errorf("%s: option %d is %d, want %d", f.name, opt, got, want)
			}
		}
	}
}
