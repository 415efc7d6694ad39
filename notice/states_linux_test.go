package notice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/gate"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/sockdiag"
)

// run runs a program in a host.
func run(t testing.TB, h *lab.Host, argv ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := h.Run(ctx, argv...); err != nil {
		t.Fatal(err)
	}
}

// A client whose firewall drops what does not belong to a connection, as it
// knows it. Only who knows numbers of both ends gets through; nobody else does harm.
func TestFirewall(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed (Debian package nftables)")
	}
	families(t, func(t *testing.T, f lab.Family) {
		l := pairOfNodes(t)
		node, host := l.Host("node1"), l.Host("client1")
		run(t, host, "nft", "table inet firewall {\nchain in {\ntype filter hook input priority 0; policy accept;\nct state invalid drop\n}\n}\n")
		vip := own(t, node, f)
		s := serve(t, node, vip)
		seen, err := node.Capture("eth0", lab.CaptureFilter{Port: port})
		if err != nil {
			t.Fatal(err)
		}
		const bound = 250 * time.Millisecond
		teller := startTeller(t, node, Options{Bound: bound})
		for _, known := range knowledge {
			client, served := s.join(t, host)
			exchange(t, client, served, 3000)
			c := connection(served)
			c.Start = startOf(t, seen, c, 3000, known)
			vanish(t, node, served)
			r := tellOne(t, teller, c)
			// New kernels let pass what looks old, and of random numbers one in four does.
			sure := known&KnownNumbers != 0 || known == KnownISN|KnownRemoteISN
			if r.Verdict == Told {
				reset(t, client)
				continue
			}
			if sure || r.Verdict != Unreachable {
				t.Errorf("known %04b: %v (%v)", known, r.Verdict, r.Err)
			}
			quiet(t, client)
			if r.Took < bound || r.Tries > 4 {
				t.Errorf("known %04b: after %v and %d tickles", known, r.Took, r.Tries)
			}
		}
	})
}

// A middlebox that has forgotten the connection, and drops its segments, or
// answers them in the client's name.
func TestMiddleboxForgot(t *testing.T) {
	families(t, func(t *testing.T, f lab.Family) {
		top, err := lab.OneArm(lab.Size{FarClients: 1, Nodes: 1})
		if err != nil {
			t.Fatal(err)
		}
		top.Host("router").Role = lab.Middlebox
		l := startLab(t, top)
		node := l.Host("node1")
		vip := own(t, node, f)
		s := serve(t, node, vip)
		seen, err := node.Capture("eth0", lab.CaptureFilter{Port: port})
		if err != nil {
			t.Fatal(err)
		}
		teller := startTeller(t, node, Options{Bound: 250 * time.Millisecond})
		for _, known := range knowledge {
			client, served := s.join(t, l.Host("far1"))
			exchange(t, client, served, 3000)
			c := connection(served)
			c.Start = startOf(t, seen, c, 3000, known)
			vanish(t, node, served)
			for then, want := range map[lab.Strangers]Verdict{lab.DropStrangers: Unreachable, lab.ResetStrangers: Gone} {
				if _, err := l.Host("router").Forget(then); err != nil {
					t.Fatal(err)
				}
				r := tellOne(t, teller, c)
				// A RST that is sent at once, by numbers that are final, was before its answer.
				if known&Final != 0 && want == Gone {
					want = Told
				}
				if r.Verdict != want {
					t.Errorf("%v, known %04b: %v (%v), want %v", then, known, r.Verdict, r.Err, want)
				}
				quiet(t, client)
			}
		}
	})
}

// Ends that are about to end anyway.
func TestEndingEnds(t *testing.T) {
	for _, strict := range []bool{false, true} {
		families(t, func(t *testing.T, f lab.Family) {
			top, err := lab.OneArm(lab.Size{Clients: 1, Nodes: 1})
			if err != nil {
				t.Fatal(err)
			}
			if strict {
				top.Host("client1").Sysctls = []lab.Sysctl{{Name: "net.ipv4.tcp_rfc1337", Value: "1"}}
			}
			l := startLab(t, top)
			node, host := l.Host("node1"), l.Host("client1")
			vip := own(t, node, f)
			s := serve(t, node, vip)
			seen, err := node.Capture("eth0", lab.CaptureFilter{Port: port})
			if err != nil {
				t.Fatal(err)
			}
			teller := startTeller(t, node, Options{})
			for _, known := range []Known{0, KnownISN, KnownNumbers} {
				// The client has ended, and waits for late segments (TIME_WAIT).
				client, served := s.join(t, host)
				exchange(t, client, served, 1000)
				c := connection(served)
				c.Start = startOf(t, seen, c, 1000, known)
				client.Close()
				if _, err := io.Copy(io.Discard, served); err != nil {
					t.Fatal(err)
				}
				served.Close()
				awaitState(t, host, c, sockdiag.TimeWait)
				r := tellOne(t, teller, c)
				switch {
				case strict && known == 0:
					// What it says to a second bare ACK looks like silence.
					if r.Verdict == Gone || r.Confirmed {
						t.Errorf("TIME_WAIT with tcp_rfc1337, known %04b: %v, confirmed %v", known, r.Verdict, r.Confirmed)
					}
				case strict && (r.Verdict != Refused || !errors.Is(r.Err, ErrHeld)):
					t.Errorf("TIME_WAIT with tcp_rfc1337, known %04b: %v, %v", known, r.Verdict, r.Err)
				case !strict:
					wantVerdict(t, r, Told)
				}
				// The client has ended, and the server did not (FIN_WAIT_2).
				client, served = s.join(t, host)
				exchange(t, client, served, 1000)
				c = connection(served)
				c.Start = startOf(t, seen, c, 1000, known)
				client.Close()
				if _, err := io.Copy(io.Discard, served); err != nil {
					t.Fatal(err)
				}
				awaitState(t, host, c, sockdiag.FinWait2, sockdiag.TimeWait)
				vanish(t, node, served)
				wantVerdict(t, tellOne(t, teller, c), Told)
			}
		})
	}
}

// awaitState waits until the connection's remote end is in one of the states.
func awaitState(t testing.TB, h *lab.Host, c Connection, states ...sockdiag.State) {
	t.Helper()
	if err := h.Do(func() error {
		d, err := sockdiag.Open()
		if err != nil {
			return err
		}
		defer d.Close()
		for until := time.Now().Add(limit); ; {
			s, err := d.Find(c.Remote, c.Local, 0)
			for _, want := range states {
				if err == nil && s.State == want {
					return nil
				}
			}
			if time.Now().After(until) {
				return fmt.Errorf("the end is %v, %w", s.State, err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// A server that has received a SYN, and whose client died then: it would send
// its answer again for a minute. It has no connection, and says so by a RST, unless the tickle
// acknowledges its SYN; then it answers, and is reset. The client's address is on no host.
func TestSynReceived(t *testing.T) {
	families(t, func(t *testing.T, f lab.Family) {
		l := pairOfNodes(t)
		node, backend := l.Host("node1"), l.Host("client1")
		vip := lab.Address(f, vipNumber).Addr()
		mac := node.Links()[0].MAC()
		run(t, backend, "ip", "neigh", "replace", vip.String(), "lladdr", net.HardwareAddr(mac[:]).String(), "dev", "eth0", "nud", "permanent")
		ln, err := backend.Listen(t.Context(), "tcp", backend.AddrPort(f, port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		seen, err := node.Capture("eth0", lab.CaptureFilter{Port: port})
		if err != nil {
			t.Fatal(err)
		}
		teller := startTeller(t, node, Options{})
		c := Connection{Local: netip.AddrPortFrom(vip, 5555), Remote: backend.AddrPort(f, port), Start: Start{Known: KnownISN, ISN: 0xfffffff0}}
		if err := node.Do(func() error {
			out, err := sys.OpenPacketSender()
			if err != nil {
				return err
			}
			defer out.Close()
			box := sys.NewOutbox(f == lab.IPv6, 1, MaxPacket)
			syn, err := (Segment{From: c.Local, To: c.Remote, Seq: c.Start.ISN, Flags: SYN, Window: 1000}).AppendTo(box.Next())
			if err != nil {
				return err
			}
			box.Add(syn, c.Local.Addr(), c.Remote.Addr())
			if n, errno := out.Send(box, 0); n != 1 {
				return errno
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		awaitState(t, backend, c, sockdiag.SynReceived)
		wantVerdict(t, tellOne(t, teller, c), Gone)
		answer, err := seen.Await(t.Context(), func(g lab.Segment) bool {
			return g.Destination == c.Local && g.Flags == lab.SYN|lab.ACK
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Start.Known, c.Start.RemoteISN = KnownISN|KnownRemoteISN, answer.Seq
		wantVerdict(t, tellOne(t, teller, c), Told)
	})
}

// The gate lets nobody speak for an address whose lease has ended, not even
// this; and it does not stand in the way of its owner.
func TestGate(t *testing.T) {
	if r := gate.Probe(); r.Remedy != "" {
		t.Skip(r)
	}
	families(t, func(t *testing.T, f lab.Family) {
		l := pairOfNodes(t)
		node := l.Host("node1")
		vip := own(t, node, f)
		var g *gate.Gate
		if err := node.Do(func() (err error) {
			i, err := net.InterfaceByName("eth0")
			if err == nil {
				g, err = gate.Open(i.Index)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		set := func(m gate.Mode) {
			if err := g.Set(vip, gate.Entry{Mode: m, Until: sys.BootTime() + int64(time.Minute)}); err != nil {
				t.Fatal(err)
			}
		}
		set(gate.Own)
		s := serve(t, node, vip)
		teller := startTeller(t, node, Options{Bound: 250 * time.Millisecond})
		for _, here := range []bool{true, false} {
			for _, host := range []string{"client1", "far1"} {
				client, served := s.join(t, l.Host(host))
				vanish(t, node, served)
				if !here {
					if _, err := node.RemoveAddress("eth0", lab.Address(f, vipNumber)); err != nil {
						t.Fatal(err)
					}
				}
				c := connection(served)
				set(gate.Closed)
				wantVerdict(t, tellOne(t, teller, c), Unreachable)
				quiet(t, client)
				set(gate.Own)
				wantVerdict(t, tellOne(t, teller, c), Told)
				reset(t, client)
				if !here {
					own(t, node, f)
				}
			}
		}
	})
}

// Sockets of a program that knows nothing of this are ended while their address
// is here, those of one client stay.
func TestDestroy(t *testing.T) {
	families(t, func(t *testing.T, f lab.Family) {
		l := pairOfNodes(t)
		node := l.Host("node1")
		vip := own(t, node, f)
		s := serve(t, node, vip)
		teller := startTeller(t, node, Options{})
		kept, keptServer := s.join(t, l.Host("client1"))
		var ended sync.WaitGroup
		var servers []*net.TCPConn
		n := 0
		for _, host := range []string{"client1", "far1"} {
			for _, w := range ways {
				client, served := s.join(t, l.Host(host))
				end := w.begin(t, client, served)
				servers = append(servers, served)
				n++
				ended.Go(func() {
					if err := end(); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
						t.Errorf("%s, %s: it ends with %v, want a reset", host, w.name, err)
					}
				})
			}
		}
		mine := kept.LocalAddr().(*net.TCPAddr).AddrPort()
		sum, err := teller.Destroy(t.Context(), []netip.Addr{vip, netip.MustParseAddr("192.0.2.1")},
			func(s sockdiag.Socket) bool { return s.Remote == mine },
			func(r Result) {
				t.Logf("%v: %v confirmed %v after %v, %d tickles, %v", r.Connection.Remote, r.Verdict, r.Confirmed, r.Took, r.Tries, r.Err)
				wantVerdict(t, r, Told)
			})
		if err != nil || sum.Count(Told) != n {
			t.Errorf("%+v, %v; want %d told", sum, err, n)
		}
		ended.Wait()
		for _, c := range servers {
			// Who had read the end of stream sees no error in reading.
			if _, err := c.Write([]byte("x")); err == nil {
				t.Errorf("the server of %v can still write", c.RemoteAddr())
			}
		}
		exchange(t, kept, keptServer, 1000)
		if _, err := teller.Destroy(t.Context(), nil, nil, nil); err != nil {
			t.Error(err)
		}
	})
}

// Many connections are told, again and again, beside others that live: at the
// new owner of the address, and at a program that is bound to a link.
func TestBystanders(t *testing.T) {
	families(t, func(t *testing.T, f lab.Family) {
		l := pairOfNodes(t)
		node := l.Host("node1")
		vip := own(t, node, f)
		s := serve(t, node, vip)
		var bound *server
		if err := node.Do(func() error {
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				var err error
				return errors.Join(c.Control(func(fd uintptr) {
					err = syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, "eth0")
				}), err)
			}}
			lc.SetMultipathTCP(false)
			ln, err := lc.Listen(t.Context(), "tcp", netip.AddrPortFrom(vip, 8080).String())
			bound = &server{ln, make(chan net.Conn, 1)}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer bound.Close()
		alive := make(map[netip.AddrPort]bool)
		elsewhere := netip.AddrPortFrom(l.Host("client1").Addr(f), 9)
		teller := startTeller(t, node, Options{Alive: func(_, remote netip.AddrPort) bool { return remote == elsewhere }})
		type pair struct{ client, served *net.TCPConn }
		var living []pair
		for _, host := range []string{"client1", "far1"} {
			for range 10 {
				c, a := s.join(t, l.Host(host))
				living = append(living, pair{c, a})
			}
			c, err := l.Host(host).Dial(t.Context(), "tcp", bound.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			a, err := bound.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			defer a.Close()
			living = append(living, pair{c.(*net.TCPConn), a.(*net.TCPConn)})
		}
		all := []Connection{{Local: netip.AddrPortFrom(vip, port), Remote: elsewhere}}
		alive[elsewhere] = true
		for _, p := range living {
			all = append(all, connection(p.served))
			alive[connection(p.served).Remote] = true
		}
		rounds := 100
		if testing.Short() {
			rounds = 10
		}
		for range rounds {
			round := append([]Connection(nil), all...)
			var clients []net.Conn
			var servers []*net.TCPConn
			for _, host := range []string{"client1", "far1"} {
				for range 5 {
					c, a := s.join(t, l.Host(host))
					clients, servers = append(clients, c), append(servers, a)
					round = append(round, connection(a))
				}
			}
			vanish(t, node, servers...)
			teller.Tell(t.Context(), round, func(r Result) {
				want := Told
				if alive[r.Connection.Remote] {
					want = Alive
				}
				wantVerdict(t, r, want)
			})
			for _, c := range clients {
				reset(t, c)
			}
			for _, p := range living {
				exchange(t, p.client, p.served, 10)
			}
			if t.Failed() {
				return
			}
		}
	})
}

// Thousands of neighbours that are not there any more do not keep those that
// are from being told.
func TestDeadNeighbours(t *testing.T) {
	families(t, func(t *testing.T, f lab.Family) {
		l := pairOfNodes(t)
		node := l.Host("node1")
		vip := own(t, node, f)
		s := serve(t, node, vip)
		teller := startTeller(t, node, Options{Bound: 300 * time.Millisecond})
		var gone []Connection
		for n := 200; n < 250; n++ {
			for p := range 60 {
				gone = append(gone, Connection{
					Local:  netip.AddrPortFrom(vip, port),
					Remote: netip.AddrPortFrom(lab.Address(f, n).Addr(), uint16(1000+p)),
				})
			}
		}
		dead := len(gone)
		var clients []net.Conn
		var servers []*net.TCPConn
		for _, host := range []string{"client1", "far1"} {
			for range 10 {
				c, a := s.join(t, l.Host(host))
				clients, servers, gone = append(clients, c), append(servers, a), append(gone, connection(a))
			}
		}
		vanish(t, node, servers...)
		sum := teller.Tell(t.Context(), gone, nil)
		t.Logf("%+v", sum)
		if sum.Count(Told) != len(clients) || sum.Count(Unreachable) != dead {
			t.Errorf("%+v, want %d told and %d unreachable", sum, len(clients), dead)
		}
		for _, c := range clients {
			reset(t, c)
		}
	})
}

// Link-local addresses mean something on one link only.
func TestLinkLocal(t *testing.T) {
	l := pairOfNodes(t)
	linkLocal := func(h *lab.Host) (a netip.Addr) {
		if err := h.Do(func() error {
			i, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			addrs, err := i.Addrs()
			if err != nil {
				return err
			}
			for _, x := range addrs {
				if n, ok := x.(*net.IPNet); ok && n.IP.IsLinkLocalUnicast() && n.IP.To4() == nil {
					a, _ = netip.AddrFromSlice(n.IP)
					a = a.WithZone(fmt.Sprint(i.Index))
					return nil
				}
			}
			return fmt.Errorf("%s has no link-local address", h.Name())
		}); err != nil {
			t.Fatal(err)
		}
		return a
	}
	node := l.Host("node1")
	s := serve(t, node, linkLocal(node))
	client := linkLocal(l.Host("client1"))
	teller := startTeller(t, node, Options{})
	// Zones are of the host that looks.
	c, err := l.Host("client1").Dial(t.Context(), "tcp", netip.AddrPortFrom(linkLocal(node).WithZone(client.Zone()), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served := (<-s.accepted).(*net.TCPConn)
	gone := Connection{
		Local:  netip.AddrPortFrom(linkLocal(node), port),
		Remote: netip.AddrPortFrom(client.WithZone(linkLocal(node).Zone()), connection(served).Remote.Port()),
	}
	wantVerdict(t, tellOne(t, teller, gone), Alive)
	vanish(t, node, served)
	wantVerdict(t, tellOne(t, teller, gone), Told)
	reset(t, c)
}
