package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// shown is what a terminal was given to show.
type shown struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (s *shown) read(from io.Reader) {
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		s.mu.Lock()
		s.text.Write(b[:n])
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
		if err != nil {
			return // EIO: the program has ended
		}
	}
}

// await waits until text was shown, and forgets what came before.
func (s *shown) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(within)
	for {
		s.mu.Lock()
		i := strings.Index(s.text.String(), text)
		if i >= 0 {
			s.text.Next(i + len(text))
		}
		s.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("%q was not shown within %v; shown was %q", text, within, s.text.String())
		}
	}
}

// TestTopOnTerminal draws on a terminal, whose keys it reads, and leaves it as it
// was: by q, and by Ctrl-C.
func TestTopOnTerminal(t *testing.T) {
	program, err := exec.LookPath("holdfast")
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{"q": "q", "Ctrl-C": "\x03"} {
		t.Run(name, func(t *testing.T) {
			outside, inside, err := sys.OpenTerminal(100, 20)
			if err != nil {
				t.Skipf("no pseudo-terminals here: %v", err)
			}
			defer outside.Close()
			defer inside.Close()
			n := startNode(t, 1) // and then it is gone, and waited for

			ctx, cancel := context.WithTimeout(t.Context(), 2*within)
			defer cancel()
			cmd := exec.CommandContext(ctx, program, "top", "--every", "100ms")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = inside, inside, inside
			cmd.Env = append(os.Environ(), admin.SocketVariable+"="+n.socket, "TERM=xterm", "NO_COLOR=")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			s := &shown{more: make(chan struct{}, 1)}
			var wg sync.WaitGroup
			wg.Go(func() { s.read(outside) })
			defer wg.Wait()
			defer outside.Close()
			defer inside.Close()

			s.await(t, enterScreen)
			s.await(t, "degraded")
			s.await(t, "the node has ended; trying again")
			if _, err := io.WriteString(outside, "x"); err != nil { // a new frame, and nothing else
				t.Fatal(err)
			}
			s.await(t, homeCursor)
			if _, err := io.WriteString(outside, key); err != nil {
				t.Fatal(err)
			}
			s.await(t, leaveScreen)
			if err := cmd.Wait(); err != nil {
				var exit *exec.ExitError
				errors.As(err, &exit)
				t.Errorf("it ended with %v", err)
			}
			// What is typed is shown again.
			if _, err := io.WriteString(outside, "echo"); err != nil {
				t.Fatal(err)
			}
			s.await(t, "echo")
		})
	}
}

// TestStatusOnTerminal says that a terminal gets colours, unless NO_COLOR says no.
func TestStatusOnTerminal(t *testing.T) {
	n := startNode(t, 3)
	for name, want := range map[string]bool{"TERM=xterm": true, "NO_COLOR=1": false, "TERM=dumb": false} {
		t.Run(name, func(t *testing.T) {
			outside, inside, err := sys.OpenTerminal(100, 20)
			if err != nil {
				t.Skipf("no pseudo-terminals here: %v", err)
			}
			defer outside.Close()
			defer inside.Close()
			t.Setenv("TERM", "xterm")
			t.Setenv("NO_COLOR", "")
			t.Setenv(admin.SocketVariable, n.socket)
			key, value, _ := strings.Cut(name, "=")
			t.Setenv(key, value)
			s := &shown{more: make(chan struct{}, 1)}
			var wg sync.WaitGroup
			wg.Go(func() { s.read(outside) })
			if code := Main([]string{"status", "--check"}, Streams{Out: inside, Err: io.Discard}); code != 2 {
				t.Errorf("exit code %d", code)
			}
			inside.Close()
			wg.Wait()
			if got := strings.Contains(s.text.String(), "\x1b["); got != want {
				t.Errorf("colours: %t, want %t: %q", got, want, s.text.String())
			}
		})
	}
}
