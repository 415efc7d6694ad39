package probe

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// holdEnv makes the test binary a process that holds sockets until its standard
// input ends: how "tcp4 127.0.0.1:0", "unix /path", or "bound 127.0.0.1:0".
const holdEnv = "HOLDFAST_TEST_HOLD"

func TestMain(m *testing.M) {
	if what := os.Getenv(holdEnv); what != "" {
		hold(what)
		return
	}
	goleak.VerifyTestMain(m)
}

func hold(what string) {
	network, address, _ := strings.Cut(what, " ")
	var addr string
	if network == "bound" {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err == nil {
			err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		if err != nil {
			fmt.Fprintln(os.Stdout, "error:", err)
			return
		}
		sa, _ := syscall.Getsockname(fd)
		addr = fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
	} else {
		l, err := net.Listen(network, address)
		if err != nil {
			fmt.Fprintln(os.Stdout, "error:", err)
			return
		}
		defer l.Close()
		addr = l.Addr().String()
	}
	fmt.Fprintln(os.Stdout, addr)
	bufio.NewReader(os.Stdin).ReadByte()
}

// startHolder runs a process that holds a socket, and returns its pid and the
// address it got.
func startHolder(t *testing.T, what string) (pid int, addr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+what, "GORACE=atexit_sleep_ms=0")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error:") {
		t.Fatalf("holder of %q: %q, %v", what, line, err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line)
}

// listenFails tries to listen, which must fail, and returns the explanation.
func listenFails(t *testing.T, want netip.AddrPort) string {
	t.Helper()
	network := "tcp4"
	if want.Addr().Is6() {
		network = "tcp6" // which limits the socket to IPv6
	}
	l, err := net.Listen(network, want.String())
	if err == nil {
		l.Close()
		t.Fatalf("listening on %v worked", want)
	}
	e := ExplainListen(want, err)
	if !errors.Is(e, errors.Unwrap(errors.Unwrap(err))) {
		t.Errorf("%v does not wrap %v", e, err)
	}
	return e.Error()
}

func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on the loopback interface: %v", err)
	}
	l.Close()
}

func TestPortInUseNamesItsHolder(t *testing.T) {
	needIPv6(t)
	for _, tt := range []struct {
		name, hold, want, how string
	}{
		{"same IPv4", "tcp4 127.0.0.1:0", "127.0.0.1", "; stop it"},
		{"same IPv6", "tcp6 [::1]:0", "::1", "; stop it"},
		{"IPv4 wildcard", "tcp4 0.0.0.0:0", "127.0.0.1", "which listens on 0.0.0.0:PORT (every IPv4 address); stop it"},
		{"both families against IPv4", "tcp :0", "127.0.0.1", "which listens on [::]:PORT (every IPv6 address, and every IPv4 address with it); stop it"},
		{"both families against IPv6", "tcp :0", "::1", "which listens on [::]:PORT (every IPv6 address); stop it"},
		{"one address against the IPv6 wildcard", "tcp6 [::1]:0", "::", "which listens on [::1]:PORT (one of the addresses that [::]:PORT means); stop it"},
		{"one address against an IPv4 wildcard", "tcp4 127.0.0.1:0", "0.0.0.0", "(one of the addresses that 0.0.0.0:PORT means)"},
		{"both families against IPv4 wildcard", "tcp :0", "0.0.0.0", "which listens on [::]:PORT (every IPv6 address, and every IPv4 address with it); stop it"},
		{"IPv6 wildcard against IPv6", "tcp6 [::]:0", "::1", "which listens on [::]:PORT (every IPv6 address); stop it"},
		{"bound without listening", "bound 127.0.0.1:0", "127.0.0.1", "which is bound to it without listening"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pid, addr := startHolder(t, tt.hold)
			held := netip.MustParseAddrPort(addr)
			got := listenFails(t, netip.AddrPortFrom(netip.MustParseAddr(tt.want), held.Port()))
			who := fmt.Sprintf("in use by %s (pid %d, user %s)", filepath.Base(os.Args[0]), pid, userName(os.Getuid()))
			how := strings.ReplaceAll(tt.how, "PORT", fmt.Sprint(held.Port()))
			if !strings.Contains(got, who) || !strings.Contains(got, how) {
				t.Errorf("got  %q\nwant %q\nand  %q", got, who, how)
			}
		})
	}
}

func TestOtherAddressesDoNotConflict(t *testing.T) {
	h := func(s string) Holder { return Holder{Local: netip.MustParseAddrPort(s)} }
	for _, tt := range []struct {
		want string
		held Holder
		ok   bool
	}{
		{"127.0.0.1:80", h("127.0.0.2:80"), false},
		{"127.0.0.1:80", h("[::1]:80"), false},
		{"[::1]:80", h("0.0.0.0:80"), false},
		{"0.0.0.0:80", h("[::1]:80"), false},
		{"0.0.0.0:80", h("[::ffff:127.0.0.1]:80"), true},
		{"127.0.0.1:80", h("[::ffff:127.0.0.1]:80"), true},
		{"[::]:80", h("[::1]:80"), true},
		{"[::]:80", h("10.0.0.1:80"), false},
		{"10.0.0.1:80", h("[::]:80"), true},
	} {
		if how, got := conflict(netip.MustParseAddrPort(tt.want), tt.held); got != tt.ok {
			t.Errorf("conflict(%s, %s) = %q, %t; want %t", tt.want, tt.held.Local, how, got, tt.ok)
		}
	}
}

func TestPortInUseByAConnection(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := listenFails(t, netip.MustParseAddrPort(c.LocalAddr().String()))
	want := fmt.Sprintf("in use by this program itself, whose connection %v -> %v uses it", c.LocalAddr(), l.Addr())
	if !strings.Contains(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestAddressNotOnThisHost(t *testing.T) {
	needIPv6(t)
	for addr, loopback := range map[string]string{"192.0.2.77": "127.0.0.1", "2001:db8::77": "::1"} {
		got := listenFails(t, netip.AddrPortFrom(netip.MustParseAddr(addr), 4077))
		if !strings.Contains(got, "the address is not on this host; it has ") || !strings.Contains(got, loopback) {
			t.Errorf("%s: %q", addr, got)
		}
	}
}

func TestUnixSocketInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a socket") // with a space in it
	pid, _ := startHolder(t, "unix "+path)
	_, err := net.Listen("unix", path)
	got := ExplainListenUnix(path, err).Error()
	want := fmt.Sprintf("cannot listen on unix:%s: the path is in use by %s (pid %d, user %s); stop it, or choose another path",
		path, filepath.Base(os.Args[0]), pid, userName(os.Getuid()))
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestUnixSocketOtherFailures(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                                 "the file there is not a socket",
		filepath.Join(dir, "missing", "s"):   "there is no directory " + filepath.Join(dir, "missing"),
		filepath.Join(file, "s"):             "is not a directory",
		"/tmp/" + strings.Repeat("long", 30): "the path has 125 bytes, and a unix socket's may have 107",
	} {
		l, err := net.Listen("unix", path)
		if err == nil {
			l.Close()
			t.Errorf("listening on %s worked", path)
			continue
		}
		if got := ExplainListenUnix(path, err).Error(); !strings.Contains(got, want) {
			t.Errorf("%s: %q; want %q", path, got, want)
		}
	}
}

func TestRemoveStaleSocket(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path("stale"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	live, err := net.Listen("unix", path("live"))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	datagram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path("datagram"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	if err := os.WriteFile(path("file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"stale": "", "missing": "", "live": "in use by this program itself", "file": "not a socket", "datagram": "in use",
	} {
		err := RemoveStaleSocket(path(name))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if _, statErr := os.Lstat(path(name)); (statErr == nil) != (want != "") {
			t.Errorf("%s: afterwards %v", name, statErr)
		}
	}
}

func TestParseUnix(t *testing.T) {
	const text = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01   812 /run/a.sock
0000000000000000: 00000003 00000000 00000000 0001 03 20001 /run/a.sock
0000000000000000: 00000002 00000000 00010000 0001 01 2999999 /run/b c.sock
0000000000000000: 00000003 00000000 00000000 0001 03 20002
`
	for path, inode := range map[string]uint64{"/run/a.sock": 812, "/run/b c.sock": 2999999} {
		if got := parseUnix(text, path); len(got) != 1 || got[0].Inode != inode || got[0].Path != path {
			t.Errorf("parseUnix(%q) = %+v", path, got)
		}
	}
	if got := parseUnix(text, ""); len(got) != 0 {
		t.Errorf("unnamed sockets were found: %+v", got)
	}
}

func TestParseCapabilities(t *testing.T) {
	c := parseCapabilities("Name:\tx\nCapEff:\t0000000000001400\n")
	for bit, want := range map[int]Answer{capNetBindService: Yes, capNetAdmin: Yes, capNetRaw: No, capSysAdmin: No} {
		if got := c.has(bit); got != want {
			t.Errorf("bit %d: %v, want %v", bit, got, want)
		}
	}
	for _, text := range []string{"", "CapEff:\tx\n"} {
		if got := parseCapabilities(text).has(1); got != CouldNotTell {
			t.Errorf("%q: %v, want could not tell", text, got)
		}
	}
}

func TestCapabilitiesExplainThemselves(t *testing.T) {
	for _, r := range slices.Concat(Relay(), Laboratory()) {
		if r.Name == "" || r.Evidence == "" || r.For == "" {
			t.Errorf("%+v leaves something out", r)
		}
		if (r.Answer == Yes) != (r.Remedy == "") {
			t.Errorf("%s is %v, and what to do is %q", r.Name, r.Answer, r.Remedy)
		}
		t.Log(r)
	}
}

func FuzzParseHexAddrPort(f *testing.F) {
	f.Add("0100007F:18EC")
	f.Add("00000000000000000000000001000000:0050")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseHexAddrPort(s)
		if err == nil && !a.IsValid() {
			t.Errorf("%q gave %v", s, a)
		}
	})
}
