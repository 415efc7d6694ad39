package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

func TestList(t *testing.T) {
	s := newSite(t)
	four, six, dual := s.listen("tcp4", "127.0.0.1:1001"), s.listen("tcp6", "[::1]:1002"), s.listen("tcp", ":1003")
	p4 := s.connect(four, "tcp4", "127.0.0.1:1001")
	p6 := s.connect(six, "tcp6", "[::1]:1002")
	pd := s.connect(dual, "tcp4", "127.0.0.2:1003")
	ends := func(a, b netip.AddrPort, kind string) string {
		return fmt.Sprintf("%s -> %s established%s", a, b, kind)
	}
	server4, client4 := ends(p4.remote(), p4.local(), ""), ends(p4.local(), p4.remote(), "")
	server6, client6 := ends(p6.remote(), p6.local(), ""), ends(p6.local(), p6.remote(), "")
	serverD, clientD := ends(pd.remote(), pd.local(), " mapped"), ends(pd.local(), pd.remote(), "")
	listen4, listen6, listenD := "127.0.0.1:1001 listen", "[::1]:1002 listen", "[::]:1003 listen"

	for _, tt := range []struct {
		name string
		f    Filter
		want []string
	}{
		{"everything", Filter{}, []string{server4, client4, server6, client6, serverD, clientD, listen4, listen6, listenD}},
		{"established", Filter{States: StatesOf(Established)}, []string{server4, client4, server6, client6, serverD, clientD}},
		{"listeners", Filter{States: StatesOf(Listen)}, []string{listen4, listen6, listenD}},
		{"IPv4", Filter{Family: IPv4, States: Live}, []string{server4, client4, serverD, clientD}},
		{"IPv6", Filter{Family: IPv6}, []string{server6, client6, listen6, listenD}},
		{"a host, by a mapped socket", Filter{Local: prefixes("127.0.0.2/32")}, []string{serverD}},
		{"remote ends", Filter{Remote: prefixes("127.0.0.2/32", "::1/128")}, []string{clientD, server6, client6}},
		{"IPv6 networks hold nothing mapped", Filter{Local: prefixes("::/1")}, []string{server6, client6, listen6, listenD}},
		{"a listener has no remote end", Filter{Remote: prefixes("0.0.0.0/32")}, []string{listen4}},
		{"ports", Filter{LocalPorts: []PortRange{{1002, 1003}}, States: Live}, []string{server6, serverD}},
		{"remote port", Filter{RemotePorts: []PortRange{Port(1001)}}, []string{client4}},
		{"nothing", Filter{LocalPorts: []PortRange{Port(9)}}, nil},
		{"a contradiction", Filter{Family: IPv4, Local: prefixes("::/0")}, nil},
		{"no mark", Filter{Mark: &Mark{Mask: 0xff}, States: StatesOf(Listen)}, []string{listen4, listen6, listenD}},
		{"a mark", Filter{Mark: &Mark{Value: 1, Mask: 0xff}}, nil},
		{"no link", Filter{Interface: 77}, nil},
		{"more hosts than the kernel is told of", Filter{Local: append(hosts4(3000), prefixes("127.0.0.2/32")...)}, []string{serverD}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := s.list(tt.f, ListOptions{})
			wantSockets(t, got, tt.want...)
			for _, sock := range got {
				if !tt.f.Match(sock) {
					t.Errorf("Match refuses %s", sock)
				}
				if sock.Info != nil {
					t.Errorf("%s has TCP_INFO that nobody asked for", sock)
				}
			}
			if got, err := s.conn.Collect(t.Context(), tt.f, ListOptions{}); err != nil {
				t.Error(err)
			} else {
				wantSockets(t, got, tt.want...)
			}
		})
	}

	for _, sock := range s.list(Filter{States: StatesOf(Listen), LocalPorts: []PortRange{{1002, 1003}}}, ListOptions{}) {
		if only := sock.Local.Port() == 1002; sock.V6Only != only {
			t.Errorf("%s: V6Only %t", sock, sock.V6Only)
		}
	}
}

func TestListTells(t *testing.T) {
	s := newSite(t)
	l := s.listen("tcp4", "127.0.0.1:1001")
	p := s.connect(l, "tcp4", "127.0.0.1:1001")
	if _, err := p.client.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	// One more, that nobody accepts.
	waiting := s.dial("tcp4", "127.0.0.1:1001")

	find := func(local, remote netip.AddrPort, info bool) Socket {
		t.Helper()
		all := s.list(Filter{
			Local: []netip.Prefix{Host(local.Addr())}, LocalPorts: []PortRange{Port(local.Port())},
			RemotePorts: []PortRange{Port(remote.Port())},
		}, ListOptions{Info: info})
		if len(all) != 1 {
			t.Fatalf("%s -> %s: %v", local, remote, texts(all))
		}
		return all[0]
	}
	server := find(p.remote(), p.local(), true)
	if server.ReceiveQueue != 1000 || server.SendQueue != 0 {
		t.Errorf("the server has %d bytes to read and %d sent, want 1000 and 0", server.ReceiveQueue, server.SendQueue)
	}
	raw, err := p.server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var stat syscall.Stat_t
	if err := raw.Control(func(fd uintptr) { err = syscall.Fstat(int(fd), &stat) }); err != nil {
		t.Fatal(err)
	}
	if err != nil || uint64(server.Inode) != stat.Ino {
		t.Errorf("inode %d, of the descriptor %d (%v)", server.Inode, stat.Ino, err)
	}
	if int(server.UID) != os.Getuid() {
		t.Errorf("user %d, want %d", server.UID, os.Getuid())
	}
	info, err := InfoOf(p.server)
	if err != nil {
		t.Fatal(err)
	}
	if server.Info == nil || server.Info.BytesReceived != 1000 || server.Info.State != Established {
		t.Errorf("TCP_INFO of the list: %+v, want 1000 bytes received", server.Info)
	} else if info.BytesReceived != 1000 || info.Size != server.Info.Size || info.SendMSS != server.Info.SendMSS {
		t.Errorf("TCP_INFO of the list and of the descriptor:\n%+v\n%+v", *server.Info, info)
	}

	listener := find(netip.MustParseAddrPort("127.0.0.1:1001"), netip.AddrPort{}, true)
	if listener.ReceiveQueue != 1 || listener.SendQueue == 0 {
		t.Errorf("%d connections wait, %d may; want 1", listener.ReceiveQueue, listener.SendQueue)
	}
	if listener.Info == nil || listener.Info.Unacked != 0 || listener.Info.Sacked != 0 {
		t.Errorf("TCP_INFO of a listener: %+v", listener.Info)
	}
	half := find(plain(waiting.RemoteAddr().(*net.TCPAddr).AddrPort()), plain(waiting.LocalAddr().(*net.TCPAddr).AddrPort()), false)
	if half.Inode != 0 || half.State != Established {
		t.Errorf("not accepted: %s, inode %d; want 0", half, half.Inode)
	}

	// Half-closed, and with a socket option.
	mark(t, p.client, 0x77)
	if err := p.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var client Socket
	until(t, "fin-wait-2", func() bool {
		client = find(p.local(), p.remote(), false)
		return client.State == FinWait2
	})
	if client.Shutdown != SendEnded {
		t.Errorf("the client has shut down %b", client.Shutdown)
	}
	if client.Mark != 0x77 {
		t.Errorf("mark %#x", client.Mark)
	}
	if got := s.list(Filter{Mark: &Mark{Value: 0x70, Mask: 0xf0}}, ListOptions{}); len(got) != 1 || got[0].Cookie != client.Cookie {
		t.Errorf("by mark: %v", texts(got))
	}
	server = find(p.remote(), p.local(), false)
	if server.State != CloseWait || server.Shutdown != ReceiveEnded {
		t.Errorf("the server: %s, shut down %b", server, server.Shutdown)
	}

	// The cookie is the connection's, to the end of TimeWait.
	if _, err := io.Copy(io.Discard, p.server); err != nil {
		t.Fatal(err)
	}
	_ = p.server.Close()
	if err := reads(t, p.client); err != io.EOF {
		t.Fatal(err)
	}
	_ = p.client.Close()
	last := find(p.local(), p.remote(), false)
	if last.State != TimeWait || last.Timer != TimeWaitTimer || last.TimerLeft <= 0 || last.TimerLeft > time.Minute {
		t.Errorf("%s, timer %d fires in %s", last, last.Timer, last.TimerLeft)
	}
	if last.Cookie != client.Cookie {
		t.Errorf("cookie %d in %s, was %d", last.Cookie, last.State, client.Cookie)
	}
}

// dial connects, and does not wait for who accepts.
func (s *site) dial(network, address string) *net.TCPConn {
	s.t.Helper()
	var c net.Conn
	s.do(func() (err error) {
		c, err = net.DialTimeout(network, address, patience)
		return err
	})
	s.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func mark(t *testing.T, c *net.TCPConn, value int) {
	t.Helper()
	setOption(t, c, syscall.SOL_SOCKET, syscall.SO_MARK, value)
}

func setOption(t *testing.T, c syscall.Conn, level, option, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = syscall.SetsockoptInt(int(fd), level, option, value) })
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
}

func TestInfoAgrees(t *testing.T) {
	s := newSite(t)
	p := s.connect(s.listen("tcp4", "127.0.0.1:1001"), "tcp4", "127.0.0.1:1001")
	if _, err := p.client.Write(make([]byte, 12345)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p.server, make([]byte, 12345)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*net.TCPConn{"client": p.client, "server": p.server} {
		var other sys.TCPInfo
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var errno syscall.Errno
		if err := raw.Control(func(fd uintptr) { errno = sys.GetTCPInfo(int(fd), &other) }); err != nil || errno != 0 {
			t.Fatal(err, errno)
		}
		info, err := InfoOf(c)
		if err != nil {
			t.Fatal(err)
		}
		same := sys.TCPInfo{
			State: sys.TCPState(info.State), Retransmits: info.Retransmits, Probes: info.Probes, Unacked: info.Unacked,
			LastDataReceived: other.LastDataReceived, LastACKReceived: other.LastACKReceived,
			BytesAcked: info.BytesAcked, BytesReceived: info.BytesReceived, SendWindow: info.SendWindow,
		}
		if same != other {
			t.Errorf("%s:\n%+v\n%+v", name, same, other)
		}
		if info.Size < 232 || info.SendWindow == 0 || info.RTO < 200*time.Millisecond || info.SendMSS < 500 || info.CongestionWindow == 0 {
			t.Errorf("%s: %+v", name, info)
		}
	}
	if _, err := InfoOf(udp(t, s)); err == nil {
		t.Error("a UDP socket has TCP_INFO")
	}
}

func udp(t *testing.T, s *site) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	s.do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestFind(t *testing.T) {
	s := newSite(t)
	four, six, dual := s.listen("tcp4", "127.0.0.1:1001"), s.listen("tcp6", "[::1]:1002"), s.listen("tcp", ":1003")
	for name, p := range map[string]pair{
		"IPv4":   s.connect(four, "tcp4", "127.0.0.1:1001"),
		"IPv6":   s.connect(six, "tcp6", "[::1]:1002"),
		"mapped": s.connect(dual, "tcp4", "127.0.0.1:1003"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, ends := range [][2]netip.AddrPort{{p.local(), p.remote()}, {p.remote(), p.local()}} {
				got, err := s.conn.Find(ends[0], ends[1], 0)
				if err != nil {
					t.Fatal(err)
				}
				if got.Local != ends[0] || got.Remote != ends[1] || got.State != Established || got.Cookie == 0 || got.Inode == 0 {
					t.Errorf("%+v", got)
				}
				if got.Mapped != (name == "mapped" && ends[0] == p.remote()) {
					t.Errorf("%s: mapped %t", got, got.Mapped)
				}
			}
			// The listener is not a connection's end.
			other := netip.AddrPortFrom(p.local().Addr(), p.local().Port()^1)
			if got, err := s.conn.Find(p.remote(), other, 0); !errors.Is(err, ErrGone) {
				t.Errorf("%s, %v; want ErrGone", got, err)
			}
		})
	}
	_, err := s.conn.Find(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"), 0)
	if !errors.Is(err, ErrGone) || !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	for _, ends := range [][2]netip.AddrPort{{}, {netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[::1]:1")}} {
		if _, err := s.conn.Find(ends[0], ends[1], 0); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("%v: %v", ends, err)
		}
	}
}

func TestHas(t *testing.T) {
	s := newSite(t)
	all := crowd(t, s, 150)
	dual := s.listen("tcp", ":1003")
	six, mapped := s.connect(dual, "tcp6", "[::1]:1003"), s.connect(dual, "tcp4", "127.0.0.1:1003")
	all = append(all, six, mapped)
	nobody := netip.MustParseAddrPort("192.0.2.1:1")
	var ends [][2]netip.AddrPort
	for _, p := range all {
		// Both ends, one that is not there, and one whose place a listener has.
		ends = append(ends, [2]netip.AddrPort{p.local(), p.remote()}, [2]netip.AddrPort{p.remote(), p.local()},
			[2]netip.AddrPort{nobody, nobody},
			[2]netip.AddrPort{p.remote(), netip.AddrPortFrom(p.local().Addr(), 1)})
	}
	for _, n := range []int{0, 1, sys.DiagEach - 1, sys.DiagEach, sys.DiagEach + 1, len(ends)} {
		has := make([]bool, n)
		for i := range has {
			has[i] = i%3 == 0 // whatever was there
		}
		if err := s.conn.Has(ends[:n], 0, has); err != nil {
			t.Fatal(err)
		}
		for i, got := range has {
			if want := i%4 < 2; got != want {
				t.Errorf("of %d: %d, %v: %t", n, i, ends[i], got)
			}
			if _, err := s.conn.Find(ends[i][0], ends[i][1], 0); (err == nil) != got {
				t.Errorf("Has says %t of %v, Find %v", got, ends[i], err)
			}
		}
	}
	if err := s.conn.Has(ends, 0, make([]bool, 1)); err == nil {
		t.Error("no room for the answers, and no error")
	}
	if err := s.conn.Has([][2]netip.AddrPort{{six.local(), mapped.remote()}}, 0, make([]bool, 1)); err == nil {
		t.Error("ends of two families, and no error")
	}
	room := make([]bool, len(ends))
	if n := testing.AllocsPerRun(10, func() { _ = s.conn.Has(ends, 0, room) }); n > 2 {
		t.Errorf("%g allocations for %d pairs of ends", n, len(ends))
	}
}

func TestDestroy(t *testing.T) {
	s := newSite(t)
	four, six, dual := s.listen("tcp4", "127.0.0.1:1001"), s.listen("tcp6", "[::1]:1002"), s.listen("tcp", ":1003")
	for _, tt := range []struct {
		name, network, address string
		l                      *net.TCPListener
	}{
		{"IPv4", "tcp4", "127.0.0.1:1001", four},
		{"IPv6", "tcp6", "[::1]:1002", six},
		{"mapped", "tcp4", "127.0.0.1:1003", dual},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, by := s.connect(tt.l, tt.network, tt.address), s.connect(tt.l, tt.network, tt.address)
			server, err := s.conn.Find(p.remote(), p.local(), 0)
			if err != nil {
				t.Fatal(err)
			}
			another := server
			another.Cookie++
			if err := s.conn.Destroy(another); !errors.Is(err, ErrGone) {
				t.Errorf("with another cookie: %v; want ErrGone", err)
			}
			if err := s.conn.Destroy(server); err != nil {
				t.Fatal(err)
			}
			if err := reads(t, p.server); !errors.Is(err, syscall.ECONNABORTED) {
				t.Errorf("its program reads: %v; want ECONNABORTED", err)
			}
			if err := reads(t, p.client); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other end reads: %v; want ECONNRESET", err)
			}
			if err := s.conn.Destroy(server); !errors.Is(err, ErrGone) {
				t.Errorf("twice: %v; want ErrGone", err)
			}
			server.Cookie = 0
			if err := s.conn.Destroy(server); !errors.Is(err, ErrGone) {
				t.Errorf("without a cookie, when it is gone: %v; want ErrGone", err)
			}
			// Neither the listener nor its other connection was hurt.
			if _, err := by.client.Write([]byte{1}); err != nil {
				t.Error(err)
			}
			if err := reads(t, by.server); err == nil || err.Error() != "a byte came" {
				t.Errorf("the bystander reads: %v", err)
			}
			s.connect(tt.l, tt.network, tt.address)
			// By its ends alone.
			if err := s.conn.Destroy(Socket{Local: by.remote(), Remote: by.local()}); err != nil {
				t.Error(err)
			}
			if err := reads(t, by.client); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other end reads: %v; want ECONNRESET", err)
			}
		})
	}
}

// A port that is used again has another cookie: what was listed before is gone.
func TestDestroyIsOfOneSocket(t *testing.T) {
	s := newSite(t)
	l := s.listen("tcp4", "127.0.0.1:1001")
	p := s.connect(l, "tcp4", "127.0.0.1:1001")
	first, err := s.conn.Find(p.remote(), p.local(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.client.SetLinger(0), p.client.Close()); err != nil {
		t.Fatal(err)
	}
	if err := reads(t, p.server); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	var c net.Conn
	s.do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(p.local()), Timeout: patience}
		c, err = d.Dial("tcp4", "127.0.0.1:1001")
		return err
	})
	defer c.Close()
	again, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := s.conn.Destroy(first); !errors.Is(err, ErrGone) {
		t.Errorf("the first one: %v; want ErrGone", err)
	}
	if _, err := c.Write([]byte{1}); err != nil {
		t.Error(err)
	}
	if err := reads(t, again); err.Error() != "a byte came" {
		t.Errorf("who has the port now reads: %v", err)
	}
}

func TestDestroyListenerAndTimeWait(t *testing.T) {
	s := newSite(t)
	l := s.listen("tcp4", "127.0.0.1:1001")
	waiting := s.dial("tcp4", "127.0.0.1:1001")
	all := s.list(Filter{States: StatesOf(Listen)}, ListOptions{})
	if len(all) != 1 {
		t.Fatalf("%v", texts(all))
	}
	if err := s.conn.Destroy(all[0]); err != nil {
		t.Fatal(err)
	}
	if err := reads(t, waiting); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waited to be accepted reads: %v", err)
	}
	if got := s.list(Filter{States: StatesOf(Listen)}, ListOptions{}); len(got) != 0 {
		t.Errorf("there is %v", texts(got))
	}
	_ = l.Close()

	p := s.connect(s.listen("tcp4", "127.0.0.1:1002"), "tcp4", "127.0.0.1:1002")
	_ = p.client.Close()
	if err := reads(t, p.server); err != io.EOF {
		t.Fatal(err)
	}
	_ = p.server.Close()
	var rest []Socket
	until(t, "time-wait", func() bool {
		rest = s.list(Filter{States: StatesOf(TimeWait)}, ListOptions{})
		return len(rest) == 1
	})
	if err := s.conn.Destroy(rest[0]); err != nil {
		t.Error(err)
	}
	if got := s.list(Filter{States: StatesOf(TimeWait)}, ListOptions{}); len(got) != 0 {
		t.Errorf("there is %v", texts(got))
	}
}

func TestCanDestroy(t *testing.T) {
	s := newSite(t)
	s.listen("tcp4", "127.0.0.1:1001")
	if err := s.conn.CanDestroy(); err != nil {
		t.Error(err)
	}
	if got := s.list(Filter{}, ListOptions{}); len(got) != 1 {
		t.Errorf("it has destroyed something: %v", texts(got))
	}
}

// Inside the loop one may find and destroy, and must not list.
func TestInsideTheLoop(t *testing.T) {
	s := newSite(t)
	l := s.listen("tcp4", "127.0.0.1:1001")
	const n = 5
	var all []pair
	for range n {
		all = append(all, s.connect(l, "tcp4", "127.0.0.1:1001"))
	}
	seen := 0
	for sock, err := range s.conn.List(t.Context(), Filter{States: StatesOf(Established), LocalPorts: []PortRange{Port(1001)}}, ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		for _, err := range s.conn.List(t.Context(), Filter{}, ListOptions{}) {
			if !errors.Is(err, ErrBusy) {
				t.Fatalf("a second listing: %v; want ErrBusy", err)
			}
		}
		if found, err := s.conn.Find(sock.Local, sock.Remote, 0); err != nil || found.Cookie != sock.Cookie {
			t.Errorf("%v, %v", found, err)
		}
		if err := s.conn.Destroy(sock); err != nil {
			t.Error(err)
		}
	}
	if seen != n {
		t.Errorf("%d sockets, want %d", seen, n)
	}
	for _, p := range all {
		if err := reads(t, p.client); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
}

// Who stops early, or whose context ends, leaves answers behind; the next one
// is not confused by them.
func TestListStopped(t *testing.T) {
	s := newSite(t)
	crowd(t, s, 800)
	f := Filter{States: StatesOf(Established)}
	for range 3 {
		for _, err := range s.conn.List(t.Context(), f, ListOptions{Info: true}) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		var last error
		for _, err := range s.conn.List(ctx, f, ListOptions{Info: true}) {
			n++
			last = err
			cancel()
		}
		cancel()
		if !errors.Is(last, context.Canceled) || n < 2 || n > 800 {
			t.Errorf("%d sockets, then %v", n, last)
		}
		if all := s.list(f, ListOptions{Info: true}); len(all) != 1600 {
			t.Errorf("%d sockets, want 1600", len(all))
		}
		if err := s.conn.CanDestroy(); err != nil {
			t.Error(err)
		}
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range s.conn.List(done, f, ListOptions{}) {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// crowd makes n connections to 127.0.0.1:2000 and returns them.
func crowd(t testing.TB, s *site, n int) []pair {
	t.Helper()
	l := s.listen("tcp4", "127.0.0.1:2000")
	all := make([]pair, n)
	for i := range all {
		all[i] = s.connect(l, "tcp4", "127.0.0.1:2000")
	}
	return all
}

// While others come and go by the thousand, everything that stays is listed.
func TestListWhileSocketsComeAndGo(t *testing.T) {
	s := newSite(t)
	stay := crowd(t, s, 500)
	churn := s.listen("tcp4", "127.0.0.1:2001")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- s.ns.Do(func() error {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp4", "127.0.0.1:2001")
				if err != nil {
					return err
				}
				a, err := churn.AcceptTCP()
				if err != nil {
					return err
				}
				if err := errors.Join(a.SetLinger(0), a.Close(), c.Close()); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	for range 30 {
		all, err := s.conn.Collect(t.Context(), Filter{LocalPorts: []PortRange{Port(2000)}, States: StatesOf(Established)}, ListOptions{Info: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != len(stay) {
			t.Errorf("%d sockets, want %d", len(all), len(stay))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	s := newSite(t)
	var last error
	for _, err := range s.conn.List(t.Context(), Filter{Family: 9}, ListOptions{}) {
		last = err
	}
	if last == nil || last.Error() != "sockdiag: Filter.Family is 9: want 0, IPv4 or IPv6" {
		t.Errorf("%v", last)
	}
	if _, err := s.conn.Collect(t.Context(), Filter{Interface: -1}, ListOptions{}); err == nil {
		t.Error("a wrong filter collects")
	}
	if err := errors.Join(s.conn.Close(), s.conn.Close()); err != nil {
		t.Error(err)
	}
	nobody := netip.MustParseAddrPort("192.0.2.1:1")
	_, err := s.conn.Find(nobody, nobody, 0)
	_, err2 := s.conn.Collect(t.Context(), Filter{}, ListOptions{})
	for _, err := range []error{err, err2, s.conn.Has(nil, 0, nil), s.conn.Destroy(Socket{Local: nobody, Remote: nobody, Cookie: 1}), s.conn.CanDestroy()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v; want net.ErrClosed", err)
		}
	}
}

// Sockets of one link: bound to it, or by link-local addresses.
func TestLinks(t *testing.T) {
	s := newSite(t)
	const lo = 1
	s.do(func() error {
		h, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		return h.AddAddress(lo, rtnl.Address{Prefix: netip.MustParsePrefix("fe80::1/64"), NoDAD: true})
	})
	until(t, "a route to the address", func() bool {
		return s.ns.Do(func() error {
			c, err := net.Dial("udp6", "[fe80::1%1]:9")
			if err != nil {
				return err
			}
			return c.Close()
		}) == nil
	})
	four := s.listen("tcp4", "127.0.0.1:1001")
	raw, err := four.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	if err := errors.Join(raw.Control(func(fd uintptr) {
		serr = syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, "lo")
	}), serr); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]pair{
		"bound":      s.connect(four, "tcp4", "127.0.0.1:1001"),
		"link-local": s.connect(s.listen("tcp6", "[fe80::1%1]:1002"), "tcp6", "[fe80::1%1]:1002"),
	} {
		t.Run(name, func(t *testing.T) {
			got := s.list(Filter{Interface: lo, States: Live, LocalPorts: []PortRange{{1001, 1002}}, Local: []netip.Prefix{Host(p.remote().Addr())}}, ListOptions{})
			if len(got) != 1 || got[0].Local != p.remote() || got[0].Remote != p.local() || got[0].Interface != lo {
				t.Fatalf("%+v", got)
			}
			if _, err := s.conn.Find(p.remote(), p.local(), 0); !errors.Is(err, ErrGone) {
				t.Errorf("without its link: %v; want ErrGone", err)
			}
			if found, err := s.conn.Find(p.remote(), p.local(), lo); err != nil || found.Cookie != got[0].Cookie {
				t.Errorf("%+v, %v", found, err)
			}
			if err := s.conn.Destroy(got[0]); err != nil {
				t.Error(err)
			}
			if err := reads(t, p.client); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other end reads: %v", err)
			}
		})
	}
	// Who is not bound is found by every link.
	p := s.connect(s.listen("tcp4", "127.0.0.1:1003"), "tcp4", "127.0.0.1:1003")
	for _, ifindex := range []int{0, lo, 77} {
		if _, err := s.conn.Find(p.remote(), p.local(), ifindex); err != nil {
			t.Errorf("by link %d: %v", ifindex, err)
		}
	}
}
