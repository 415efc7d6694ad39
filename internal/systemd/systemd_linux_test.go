package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/internal/sys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manager is the service manager's end of a notification socket.
type manager struct{ *net.UnixConn }

func listen(t *testing.T, address string) manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return manager{c}
}

func (m manager) receive(t *testing.T) map[string]string {
	t.Helper()
	if err := m.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := m.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for variable := range strings.SplitSeq(string(buf[:n]), "\n") {
		name, value, ok := strings.Cut(variable, "=")
		if !ok {
			t.Errorf("%q is no variable", variable)
		}
		got[name] = value
	}
	return got
}

func notifier(t *testing.T, environment map[string]string) *Notifier {
	t.Helper()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		t.Setenv(name, environment[name])
	}
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(n.Close(), n.Close()); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestMessages(t *testing.T) {
	for name, address := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@holdfast-notify-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			m := listen(t, address)
			n := notifier(t, map[string]string{"NOTIFY_SOCKET": address})
			before := sys.MonotonicNanos() / 1000
			for _, tt := range []struct {
				send func() error
				want map[string]string
			}{
				{func() error { return n.Ready("2 services\nFDSTORE=1") }, map[string]string{"READY": "1", "STATUS": "2 services FDSTORE=1"}},
				{n.Reloading, map[string]string{"RELOADING": "1", "MONOTONIC_USEC": ""}},
				{func() error { return n.Status("well") }, map[string]string{"STATUS": "well"}},
				{func() error { return n.ExtendTimeout(1500 * time.Millisecond) }, map[string]string{"EXTEND_TIMEOUT_USEC": "1500000"}},
				{func() error { return n.Stopping("drains") }, map[string]string{"STOPPING": "1", "STATUS": "drains"}},
			} {
				if err := tt.send(); err != nil {
					t.Fatal(err)
				}
				got := m.receive(t)
				if usec, ok := got["MONOTONIC_USEC"]; ok {
					at, err := strconv.ParseInt(usec, 10, 64)
					if now := sys.MonotonicNanos() / 1000; err != nil || at < before || at > now {
						t.Errorf("the time of a reload is %q, not from %d to %d", usec, before, now)
					}
					got["MONOTONIC_USEC"] = ""
				}
				if fmt.Sprint(got) != fmt.Sprint(tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			}
		})
	}
}

func TestNobodyAsks(t *testing.T) {
	n := notifier(t, map[string]string{"WATCHDOG_USEC": "1000"})
	if n != nil {
		t.Fatal("there is a notifier without a socket")
	}
	n.Beat(t.Context(), func(context.Context) error { t.Error("asked"); return nil }, func(error) { t.Error("failed") })
	if err := errors.Join(n.Ready(""), n.Reloading(), n.Stopping(""), n.Status(""), n.ExtendTimeout(1)); err != nil {
		t.Error(err)
	}
}

func TestChildrenDoNotSpeak(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	listen(t, address)
	notifier(t, map[string]string{"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())})
	out, err := exec.CommandContext(t.Context(), "env").Output()
	if err != nil {
		t.Skipf("no env program: %v", err)
	}
	if strings.Contains(string(out), "NOTIFY_SOCKET") || strings.Contains(string(out), "WATCHDOG") {
		t.Errorf("a child finds the socket in its environment:\n%s", out)
	}
}

func TestBadEnvironment(t *testing.T) {
	for _, env := range []map[string]string{
		{"NOTIFY_SOCKET": "vsock:2:1"},
		{"NOTIFY_SOCKET": "relative"},
		{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"},
		{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"},
		{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "9223372036854775807"},
	} {
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			t.Setenv(name, env[name])
		}
		n, err := New()
		if err == nil || n != nil {
			t.Errorf("%v: got %v, %v", env, n, err)
		}
		if os.Getenv("NOTIFY_SOCKET") != "" {
			t.Errorf("%v: the socket is still in the environment", env)
		}
	}
}

// A manager that was executed anew has a new socket at the old place.
func TestManagerComesBack(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	m := listen(t, address)
	n := notifier(t, map[string]string{"NOTIFY_SOCKET": address})
	if err := n.Status("one"); err != nil {
		t.Fatal(err)
	}
	m.receive(t)
	m.Close()
	if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := n.Status("two"); err == nil {
		t.Error("nobody is there, and a message was sent")
	}
	m = listen(t, address)
	if err := n.Status("three"); err != nil {
		t.Fatal(err)
	}
	if got := m.receive(t); got["STATUS"] != "three" {
		t.Errorf("got %v", got)
	}
	n.Close()
	if err := n.Status("four"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A manager that does not read costs a bounded time.
func TestFullQueue(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	listen(t, address)
	n := notifier(t, map[string]string{"NOTIFY_SOCKET": address})
	for range 100_000 {
		began := time.Now()
		if err := n.Status("again"); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if d := time.Since(began); d < sendWithin/2 {
				t.Errorf("gave up after %v", d)
			}
			return
		}
	}
	t.Error("the queue takes everything")
}

func TestBeat(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	m := listen(t, address)
	n := notifier(t, map[string]string{"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())})
	if d := n.Watchdog(); d != 20*time.Millisecond {
		t.Fatalf("the watchdog wants to hear within %v", d)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var hangs atomic.Bool
	failures := make(chan error, 100)
	asked := make(chan struct{}, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Beat(ctx, func(ctx context.Context) error {
			select {
			case asked <- struct{}{}:
			default:
			}
			if hangs.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, func(err error) { failures <- err })
	}()
	for range 5 {
		if got := m.receive(t); got["WATCHDOG"] != "1" {
			t.Errorf("got %v", got)
		}
	}
	// Nothing is said for a program that does not answer, and its failure once.
	hangs.Store(true)
	if err := <-failures; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("failed: %v", err)
	}
	for range len(asked) {
		<-asked
	}
	for { // what was sent before
		m.SetReadDeadline(time.Now())
		if _, err := m.Read(make([]byte, 64)); err != nil {
			break
		}
	}
	<-asked
	<-asked
	<-asked
	m.SetReadDeadline(time.Now().Add(time.Millisecond))
	if k, err := m.Read(make([]byte, 64)); err == nil {
		t.Errorf("a program that hangs says that it lives (%d bytes)", k)
	}
	if len(failures) != 0 {
		t.Errorf("one failure was reported %d times more", len(failures))
	}
	hangs.Store(false)
	if got := m.receive(t); got["WATCHDOG"] != "1" {
		t.Errorf("got %v", got)
	}
	stop()
	<-done
}

func TestWatchdogOfAnother(t *testing.T) {
	n := notifier(t, map[string]string{"NOTIFY_SOCKET": "/nobody", "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"})
	if os.Getpid() != 1 && n.Watchdog() != 0 {
		t.Errorf("another process's watchdog is fed every %v", n.Watchdog())
	}
}
