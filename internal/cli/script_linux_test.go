package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/internal/probe"
)

// leakChecked fails a run that leaves goroutines behind.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestMain makes the programs that the scripts run of the test binary.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"holdfast": holdfast,
		// What the scene port-in-use calls the program that has taken the port.
		"web-server": holdfast,

		"echod":  func() { program(echod) },
		"say":    func() { program(say) },
		"hang":   func() { program(hang) },
		"leave":  func() { program(leave) },
		"nobody": func() { program(nobody) },
	})
}

func holdfast() { os.Exit(Main(os.Args[1:], Streams{Out: os.Stdout, Err: os.Stderr})) }

func program(f func(args []string) error) {
	if err := f(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func split(address string) (network, addr string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", address
}

// echod ADDRESS sends back what it receives, and ends a stream when its client
// has ended the other.
func echod(args []string) error {
	network, address := split(args[0])
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// say ADDRESS sends its standard input, ends that stream, and prints everything
// that comes back.
func say(args []string) error {
	network, address := split(args[0])
	c, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.Copy(c, os.Stdin); err != nil {
		return err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, c)
	return err
}

// hang ADDRESS FILE exchanges one line, makes FILE, and then waits for the end
// and prints how it came.
func hang(args []string) error {
	network, address := split(args[0])
	c, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	if err := os.WriteFile(args[1], nil, 0o600); err != nil {
		return err
	}
	_, err = r.ReadByte()
	switch {
	case errors.Is(err, io.EOF):
		fmt.Fprintln(os.Stdout, "end of stream")
	case errors.Is(err, syscall.ECONNRESET):
		fmt.Fprintln(os.Stdout, "reset")
	default:
		fmt.Fprintln(os.Stdout, "something else:", err)
	}
	return nil
}

// leave PATH leaves the file of a unix socket behind, as a killed server does.
func leave(args []string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

// nobody PROGRAM ARG... becomes a program of the user nobody.
func nobody(args []string) error {
	const id = 65534
	path, err := exec.LookPath(args[0])
	if err == nil {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
	}
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"listening": listening,
			"file":      awaitFile,
			"signal":    signalTo,
			"until":     until,
		},
		Condition: condition,
	})
}

// setUp gives the script free ports, and another user the right to run its
// programs.
func setUp(e *testscript.Env) error {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		for i := range 3 {
			l, err := net.Listen("tcp", host+":0")
			if err != nil {
				if host == "[::1]" {
					break // no IPv6: the scripts ask for it by a condition
				}
				return err
			}
			defer l.Close()
			name := fmt.Sprintf("A%d", i+1)
			if host == "[::1]" {
				name = fmt.Sprintf("B%d", i+1)
			}
			e.Setenv(name, l.Addr().String())
			e.Setenv("PORT"+name, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
		}
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	e.Setenv("GORACE", "atexit_sleep_ms=0") // or each program of a -race run ends with a second of rest
	e.Setenv("ME", me.Username)
	bin, _, _ := strings.Cut(e.Getenv("PATH"), string(os.PathListSeparator))
	for _, dir := range []string{bin, filepath.Dir(bin), filepath.Dir(e.WorkDir), e.WorkDir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func condition(name string) (bool, error) {
	switch name {
	case "ipv6":
		l, err := net.Listen("tcp6", "[::1]:0")
		if err == nil {
			l.Close()
		}
		return err == nil, nil
	case "root":
		return os.Geteuid() == 0, nil
	case "privileged-ports":
		text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
		return err == nil && strings.TrimSpace(string(text)) == "1024", nil
	default:
		return false, fmt.Errorf("there is no condition %q", name)
	}
}

// within bounds every wait of a script.
const within = 10 * time.Second

func await(ts *testscript.TestScript, what string, done func() bool) {
	deadline := time.After(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%s: not within %v", what, within)
		}
	}
}

// listening ADDRESS... waits until somebody listens there, without connecting.
func listening(ts *testscript.TestScript, _ bool, args []string) {
	for _, a := range args {
		await(ts, "listening on "+a, func() bool {
			return len(holdersOf(ts, a)) > 0
		})
	}
}

// file FILE [TEXT] waits until the file is there, and TEXT is in it.
func awaitFile(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.Join(args[1:], " ")
	await(ts, fmt.Sprintf("%q in %s", text, args[0]), func() bool {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && strings.Contains(string(data), text)
	})
}

// until PATTERN PROGRAM ARG... runs the program again and again, until what it
// prints matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	await(ts, fmt.Sprintf("%q printed by %q", args[0], args[1:]), func() bool {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = append(os.Environ(), "HOLDFAST_SOCKET="+ts.Getenv("HOLDFAST_SOCKET"))
		out, _ := cmd.CombinedOutput() // it may fail until then
		return pattern.Match(out)
	})
}

// signal TERM|INT|HUP ADDRESS|PID signals the program that listens there, and
// notes its PID; the package's own kill knows neither SIGTERM nor what a shell
// has started.
func signalTo(ts *testscript.TestScript, _ bool, args []string) {
	sig := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP}[args[0]]
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		holders := holdersOf(ts, args[1])
		if len(holders) == 0 || len(holders[0].Processes) != 1 {
			ts.Fatalf("nobody listens on %s", args[1])
		}
		pid = holders[0].Processes[0].PID
	}
	ts.Setenv("PID", strconv.Itoa(pid))
	ts.Check(syscall.Kill(pid, sig))
}

// holdersOf lists who listens on an address.
func holdersOf(ts *testscript.TestScript, address string) []probe.Holder {
	var holders []probe.Holder
	var err error
	if network, path := split(address); network == "unix" {
		holders, err = probe.UnixHolders(ts.MkAbs(path))
	} else {
		holders, err = probe.TCPHolders(netip.MustParseAddrPort(address).Port())
	}
	if err != nil || len(holders) == 0 || holders[0].State != probe.Listening {
		return nil
	}
	return holders
}
