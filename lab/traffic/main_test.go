//go:build linux

package traffic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// serverArg makes the test binary a server process.
const serverArg = "holdfast-traffic-server"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serverArg {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := ServerMain(ctx, os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// patterns are all of them.
var patterns = []Pattern{Idle, Request, Upload, Download, Push, ZeroWindow}

// families are the loopback addresses that every test of the network runs on.
var families = []struct{ name, listen string }{{"ipv4", "127.0.0.1:0"}, {"ipv6", "[::1]:0"}}

// bounded is a context for one test: a hang is a failure with a name.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, errors.New("the test took too long"))
	t.Cleanup(cancel)
	return ctx
}

// serve runs a server in this process until the test ends and returns where it listens.
func serve(t *testing.T, network, listen string, o ServerOptions) (address string) {
	t.Helper()
	l, err := Listen(network, listen)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// until waits for the journal to say what ok wants.
func until(ctx context.Context, t *testing.T, j *Journal, id ID, ok func(ServerFacts) bool) ServerFacts {
	t.Helper()
	for {
		changed := j.Changed()
		f, known := j.Facts(id)
		if known && ok(f) {
			return f
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the server's facts of %s stay %+v", id, f)
		}
	}
}
