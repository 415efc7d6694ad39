//go:build linux

package lab

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// eachFamily runs f in a lab of its own for IPv4 and for IPv6.
func eachFamily(t *testing.T, top Topology, f func(t *testing.T, l *Lab, family Family)) {
	for _, family := range families {
		t.Run(family.String(), func(t *testing.T) { f(t, start(t, top), family) })
	}
}

func silent(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if err := say(c, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %v, want silence", what, err)
	}
}

func speaks(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if err := say(c, 10*time.Second); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestCutAndRestore(t *testing.T) {
	eachFamily(t, oneArm(t, Size{Clients: 1, Backends: 1}), func(t *testing.T, l *Lab, f Family) {
		client, backend := l.Host("client1"), l.Host("backend1")
		c := dial(t, client, echo(t, backend, f))
		speaks(t, "before", c)
		link := backend.Links()[0]
		must(link.Cut())(t)
		out := must(backend.Run(bounded(t), "ip", "-br", "link", "show", "eth0"))(t)
		if !strings.Contains(out, "NO-CARRIER") {
			t.Errorf("the host does not see that its cable is out: %s", out)
		}
		silent(t, "cut", c)
		must(link.Restore())(t)
		// The line that was lost is still on its way; its echo comes first.
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(c, make([]byte, len("how do you do\n"))); err != nil {
			t.Errorf("restored: %v", err)
		}
		speaks(t, "restored", c)
	})
}

func TestBlockOneDirection(t *testing.T) {
	eachFamily(t, oneArm(t, Size{Clients: 1, Backends: 1}), func(t *testing.T, l *Lab, f Family) {
		client, backend := l.Host("client1"), l.Host("backend1")
		c := dial(t, client, echo(t, backend, f))
		speaks(t, "before", c)
		link := client.Links()[0]
		must(link.Block(ToHost))(t)
		silent(t, "blocked", c)
		if n := link.Dropped(ToHost); n == 0 {
			t.Error("nothing was dropped towards the host: the question did not get through")
		}
		if n := link.Dropped(FromHost); n != 0 {
			t.Errorf("%d frames from the host were dropped", n)
		}
	})
}

// A fault of memory holds from one frame to the next: no frame that is sent
// after Mute has returned gets out.
func TestMuteIsImmediate(t *testing.T) {
	l := start(t, oneArm(t, Size{Clients: 1, Backends: 1}))
	client, backend := l.Host("client1"), l.Host("backend1")
	heard := must(client.Links()[0].Capture(CaptureFilter{Addr: backend.Addr(IPv4)}))(t)
	c := dial(t, client, echo(t, backend, IPv4))
	speaks(t, "before", c)
	for range 5 {
		at := must(backend.Mute())(t)
		muted := time.Now()
		silent(t, "muted", c)
		for _, s := range heard.Segments() {
			if s.Source.Addr() == backend.Addr(IPv4) && s.Time.After(muted) {
				t.Errorf("%v after Mute returned: %v", s.Time.Sub(muted), s)
			}
		}
		if took := muted.Sub(at); took > 10*time.Millisecond {
			t.Logf("Mute took %v", took)
		}
		must(backend.Unmute())(t)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(c, make([]byte, len("how do you do\n"))); err != nil {
			t.Fatal(err)
		}
	}
	if n := heard.Lost(); n != 0 {
		t.Errorf("the capture lost %d segments", n)
	}
}

func TestNothingIsSentByADyingHost(t *testing.T) {
	eachFamily(t, oneArm(t, Size{Clients: 1, Backends: 1}), func(t *testing.T, l *Lab, f Family) {
		client, backend := l.Host("client1"), l.Host("backend1")
		// A real program, whose kernel would send FIN or RST at its end.
		p := must(backend.Start(Command{Argv: []string{
			"python3", "-u", "-c", `
import socket, sys
s = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready")
c, _ = s.accept()
while True:
    c.sendall(c.recv(4096))
`, backend.Addr(f).String()}}))(t)
		if err := p.Await(bounded(t), "ready"); err != nil {
			t.Fatal(err)
		}
		heard := must(client.Capture("eth0", CaptureFilter{Addr: backend.Addr(f), Port: 7}))(t)
		c := dial(t, client, backend.AddrPort(f, 7).String())
		speaks(t, "before", c)
		must(backend.Die())(t)
		died := time.Now()
		silent(t, "dead", c)
		for _, s := range heard.Segments() {
			if s.Source.Port() == 7 && (s.Flags&(FIN|RST) != 0 || s.Time.After(died)) {
				t.Errorf("the dead host sent %v", s)
			}
		}
		// The connection that this process holds there would speak again.
		for what, raise := range map[string]func() (time.Time, error){"Restore": backend.Links()[0].Restore, "Unmute": backend.Unmute} {
			if _, err := raise(); err == nil {
				t.Errorf("%s raised the dead", what)
			}
		}
	})
}

func TestAddressByHand(t *testing.T) {
	eachFamily(t, oneArm(t, Size{Clients: 1, Nodes: 1}), func(t *testing.T, l *Lab, f Family) {
		client, node := l.Host("client1"), l.Host("node1")
		vip := Address(f, 100)
		must(node.AddAddress("eth0", vip))(t)
		ln := must(node.Listen(t.Context(), "tcp", net.JoinHostPort(vip.Addr().String(), "80")))(t)
		defer ln.Close()
		c := dial(t, client, ln.Addr().String())
		peer := must(ln.Accept())(t)
		defer peer.Close()
		must(node.RemoveAddress("eth0", vip))(t)
		// The address is gone without a word to those who talked to it.
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want silence", err)
		}
		if _, err := node.RemoveAddress("eth0", vip); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("removing it again: %v", err)
		}
	})
}

func TestMiddleboxForgets(t *testing.T) {
	top := oneArm(t, Size{FarClients: 1, Backends: 1})
	top.Host("router").Role = Middlebox
	for _, then := range []Strangers{DropStrangers, ResetStrangers} {
		t.Run(then.String(), func(t *testing.T) {
			eachFamily(t, top, func(t *testing.T, l *Lab, f Family) {
				c := dial(t, l.Host("far1"), echo(t, l.Host("backend1"), f))
				speaks(t, "before", c)
				must(l.Host("router").Forget(then))(t)
				if then == DropStrangers {
					silent(t, "forgotten", c)
				} else if err := say(c, 10*time.Second); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("forgotten: %v, want a reset", err)
				}
				speaks(t, "a new connection", dial(t, l.Host("far1"), echo(t, l.Host("backend1"), f)))
			})
		})
	}
	l := start(t, oneArm(t, Size{Clients: 1}))
	if _, err := l.Host("client1").Forget(DropStrangers); err == nil {
		t.Error("a plain host forgot connections")
	}
}

// The same seed loses the same frames of the same sequence. A frame of the
// kernel's own among them (a multicast report, seconds after an interface came
// up) is one of the sequence, so a run that had one is no evidence: try again.
func TestLossIsRepeatable(t *testing.T) {
	arrived := func(seed uint64) (numbers []byte) {
		top := oneArm(t, Size{Clients: 1, Backends: 1})
		for i := range top.Hosts {
			// IPv6 reports its multicast groups at moments of its own.
			top.Hosts[i].Sysctls = []Sysctl{{"net.ipv6.conf.all.disable_ipv6", "1"}}
		}
		l := must(Start(t.Context(), top, Options{Seed: seed}))(t)
		defer l.Close()
		from, to := l.Host("client1"), l.Host("backend1")
		var in, out net.PacketConn
		listen := func(h *Host) (pc net.PacketConn) {
			if err := h.Do(func() (err error) {
				pc, err = net.ListenPacket("udp", net.JoinHostPort(h.Addr(IPv4).String(), "9"))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return pc
		}
		in, out = listen(to), listen(from)
		defer in.Close()
		defer out.Close()
		send := func(n byte) {
			if _, err := out.WriteTo([]byte{n}, in.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		receive := func() byte {
			buf := make([]byte, 1)
			in.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, _, err := in.ReadFrom(buf); err != nil {
				t.Fatal(err)
			}
			return buf[0]
		}
		send(0) // the neighbours know each other from here on
		receive()
		link := from.Links()[0]
		must(link.SetLoss(FromHost, 0.3))(t)
		for n := range byte(200) {
			send(1 + n)
		}
		must(link.SetLoss(FromHost, 0))(t)
		send(255)
		for n := receive(); n != 255; n = receive() {
			numbers = append(numbers, n)
		}
		if lost := 200 - len(numbers); lost != int(link.Dropped(FromHost)) {
			t.Logf("%d lost, %d counted", lost, link.Dropped(FromHost))
			return nil
		}
		return numbers
	}
	if os.Geteuid() != 0 {
		t.Skip("a laboratory needs root")
	}
	var one, again []byte
	for range 5 {
		if one, again = arrived(1), arrived(1); one != nil && slices.Equal(one, again) {
			break
		}
	}
	if one == nil || !slices.Equal(one, again) {
		t.Fatalf("seed 1 lost others the second time, in five trials:\n%v\n%v", one, again)
	}
	if other := arrived(2); slices.Equal(one, other) {
		t.Error("seeds 1 and 2 lost the same")
	}
	if n := len(one); n < 110 || n > 170 {
		t.Errorf("%d of 200 arrived at a loss of 0.3", n)
	}
}

func TestFaultsRefuseNonsense(t *testing.T) {
	l := start(t, oneArm(t, Size{Clients: 1}))
	h := l.Host("client1")
	k := h.Links()[0]
	for _, rate := range []float64{-0.1, 1.1} {
		if _, err := k.SetLoss(FromHost, rate); err == nil || !strings.Contains(err.Error(), "rate") {
			t.Errorf("SetLoss(%v): %v", rate, err)
		}
	}
	if _, err := k.Block(7); err == nil {
		t.Error("Block in direction 7: no error")
	}
	if _, err := h.AddAddress("eth7", netip.MustParsePrefix("10.0.0.1/8")); err == nil {
		t.Error("an address on an interface that is not there: no error")
	}
	if _, _, err := k.Taps(); err == nil {
		t.Error("a veth link gave TAP devices")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := k.Block(FromHost); !errors.Is(err, ErrClosed) {
		t.Errorf("Block after Close: %v", err)
	}
	if err := h.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do after Close: %v", err)
	}
	if _, err := h.Start(Command{Argv: []string{"true"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Start after Close: %v", err)
	}
}
