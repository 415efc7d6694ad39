package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/elector"
)

// within bounds every wait.
const within = 15 * time.Second

var program struct {
	once sync.Once
	path string
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "elector" { // of a node in a test
		if err := elector.Main(os.Args[:2], os.Args[2:], "test", os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if stage := os.Getenv(stageVariable); stage != "" {
		enter(stage) // does not return
	}
	code := m.Run()
	if program.dir != "" {
		os.RemoveAll(program.dir)
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// holdfast is the program as users have it: static, in a directory that everybody
// may enter. It is built once.
func holdfast(t *testing.T) string {
	t.Helper()
	program.once.Do(func() {
		if program.dir, program.err = os.MkdirTemp("", "holdfast-node"); program.err != nil { //nolint:usetesting // it outlives the test
			return
		}
		program.err = os.Chmod(program.dir, 0o755)
		program.path = filepath.Join(program.dir, "holdfast")
		for out, pkg := range map[string]string{program.path: "../../cmd/holdfast", filepath.Join(program.dir, "orphans"): "./testdata/orphans"} {
			cmd := exec.Command("go", "build", "-o", out, pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if text, err := cmd.CombinedOutput(); err != nil {
				program.err = errors.Join(program.err, fmt.Errorf("%w: %s", err, text))
			}
		}
	})
	if program.err != nil {
		t.Fatal(program.err)
	}
	return program.path
}

// families are the loopback addresses that tests listen on.
func families(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"ipv4": "127.0.0.1"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		all["ipv6"] = "::1"
	} else {
		t.Logf("without IPv6: %v", err)
	}
	return all
}

// site is what a test gives a node: a directory, addresses, and a backend that
// sends back what it gets.
type site struct {
	dir, file, socket string
	listen            string // a free address
	backend           string
	do                func(func() error) error // where the node is started; nil: here
	elector           []string                 // of a node in this process; nil: its own program
}

func newSite(t *testing.T, host string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "node") //nolint:usetesting // unix sockets have short paths, and other users must get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { echo(l, &wg) })
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return &site{
		dir: dir, file: filepath.Join(dir, "holdfast.yaml"), socket: filepath.Join(dir, "s"),
		listen: free(t, host), backend: l.Addr().String(),
	}
}

func echo(l net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
	}
}

// free gives an address with a port on which nobody listens.
func free(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// write writes the file: the site's own directories, a service called web with
// settings, and more.
func (s *site) write(t *testing.T, settings, more string) {
	t.Helper()
	text := fmt.Sprintf("admin: {socket: %s}\ndirectories: {runtime: %s}\n%sservices:\n  - name: web\n    listen: %q\n    health: {none: {}}\n%s    backends: [{name: one, address: %q}]\n",
		s.socket, s.dir, more, s.listen, settings, s.backend)
	if err := os.WriteFile(s.file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A process is holdfast run.
type process struct {
	*exec.Cmd
	socket string
	said   *output
	ended  chan error
}

// output takes in what a process says.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// next returns what was said, and what is closed when there is more.
func (o *output) next() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.text.String(), o.changed
}

// launch starts holdfast run with the site's file; change may change how.
func (s *site) launch(t *testing.T, change func(*exec.Cmd)) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(holdfast(t), "run", "-c", s.file), socket: s.socket, said: &output{}, ended: make(chan error, 1)}
	p.Stderr, p.Dir = p.said, "/"
	p.WaitDelay = time.Second
	if change != nil {
		change(p.Cmd)
	}
	do := s.do
	if do == nil {
		do = func(f func() error) error { return f() }
	}
	if err := do(p.Start); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.Cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		select {
		case err := <-p.ended:
			p.ended <- err
		case <-time.After(within):
			t.Error("a killed node has not ended")
		}
	})
	return p
}

// start launches and waits until the node is ready.
func (s *site) start(t *testing.T, change func(*exec.Cmd)) *process {
	t.Helper()
	p := s.launch(t, change)
	p.await(t, "msg=ready")
	return p
}

// await waits until the process has said something.
func (p *process) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(within)
	for {
		said, changed := p.said.next()
		if strings.Contains(said, text) {
			return
		}
		select {
		case <-changed:
		case err := <-p.ended:
			p.ended <- err
			if strings.Contains(p.said.String(), text) {
				return
			}
			t.Fatalf("the node ended (%v) before it said %q: %s", err, text, p.said)
		case <-deadline:
			t.Fatalf("the node has not said %q within %v: %s", text, within, p.said)
		}
	}
}

// wait waits for the end, and returns the exit code.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		if err != nil {
			t.Fatal(err)
		}
		return 0
	case <-time.After(within):
		t.Fatalf("the node has not ended within %v: %s", within, p.said)
		return -1
	}
}

// refused waits for the end of a node that cannot start, and demands one line
// that says what must be said.
func (p *process) refused(t *testing.T, want ...string) {
	t.Helper()
	code := p.wait(t)
	said := strings.TrimSpace(p.said.String())
	var lines []string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "holdfast: ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if code != 1 || len(lines) != 1 {
		t.Errorf("exit code %d, and %d lines: %s", code, len(lines), said)
		return
	}
	for _, w := range want {
		if !strings.Contains(lines[0], w) {
			t.Errorf("%q is not in: %s", w, lines[0])
		}
	}
}

func (p *process) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// stop stops the node, which must end well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != 0 {
		t.Errorf("the node ended with exit code %d: %s", code, p.said)
	}
}

// command runs another command of holdfast.
func (p *process) command(t *testing.T, args ...string) (out, said string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, holdfast(t), append(args, "--socket", p.socket)...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), code
}

func (p *process) status(t *testing.T) admin.Status {
	t.Helper()
	out, said, code := p.command(t, "status", "-o", "json")
	if code != 0 {
		t.Fatalf("status: exit code %d: %s", code, said)
	}
	var s admin.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// until looks again and again.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// exchange makes one connection through a service, and one exchange on it.
func exchange(t *testing.T, address string) {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	talk(t, c)
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: within}
	c, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * within)); err != nil {
		t.Fatal(err)
	}
	return c
}

func talk(t *testing.T, c net.Conn) {
	t.Helper()
	const text = "hello\n"
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v", got, err)
	}
}
