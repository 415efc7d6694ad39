package notice

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// startOf learns a connection's numbers from what was on the link, once Remote
// has acknowledged the n bytes that Local has sent.
func startOf(t testing.TB, c *lab.Capture, of Connection, n uint32, known Known) Start {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s := Start{Known: known}
	if _, err := c.Await(ctx, func(g lab.Segment) bool {
		switch {
		case g.Source == of.Local && g.Destination == of.Remote:
			if g.Flags&lab.SYN != 0 {
				s.ISN, s.Next = g.Seq, g.Seq+1+n
				return false
			}
			if int32(g.Ack-s.Receive) > 0 {
				s.Receive = g.Ack
			}
		case g.Source == of.Remote && g.Destination == of.Local:
			if g.Flags&lab.SYN != 0 {
				s.RemoteISN, s.Receive = g.Seq, g.Seq
				return false
			}
			s.Acknowledged = g.Ack
		default:
			return false
		}
		return s.Next != 0 && s.Acknowledged == s.Next && s.Receive == s.RemoteISN+1+n
	}); err != nil {
		t.Fatalf("what %v and %v said to each other was not captured: %v", of.Local, of.Remote, err)
	}
	return s
}

// vanish closes sockets of a host without a word to their other ends.
func vanish(t testing.TB, h *lab.Host, sockets ...*net.TCPConn) {
	t.Helper()
	if _, err := h.Mute(); err != nil {
		t.Fatal(err)
	}
	for _, c := range sockets {
		c.SetLinger(0)
		c.Close()
	}
	if _, err := h.Unmute(); err != nil {
		t.Fatal(err)
	}
}

// exchange makes both ends send and receive n bytes.
func exchange(t testing.TB, a, b net.Conn, n int) {
	t.Helper()
	for _, ends := range [][2]net.Conn{{a, b}, {b, a}} {
		ends[0].SetDeadline(time.Now().Add(limit))
		ends[1].SetDeadline(time.Now().Add(limit))
		wrote := make(chan error, 1)
		go func() { _, err := ends[0].Write(make([]byte, n)); wrote <- err }()
		if _, err := io.ReadFull(ends[1], make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
	}
	a.SetDeadline(time.Time{})
	b.SetDeadline(time.Time{})
}

// quiet shows that the connection's client hears nothing: neither data nor an
// end.
func quiet(t testing.TB, client net.Conn) {
	t.Helper()
	client.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := client.Read(make([]byte, 1)); n != 0 || !isTimeout(err) {
		t.Errorf("client %v reads %d bytes and %v, want silence", client.LocalAddr(), n, err)
	}
	client.SetReadDeadline(time.Time{})
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// reset shows that the client is reset soon.
func reset(t testing.TB, client net.Conn) {
	t.Helper()
	client.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client %v ends with %v, want a reset", client.LocalAddr(), err)
	}
}

func tellOne(t testing.TB, teller *Teller, c Connection) Result {
	t.Helper()
	var got Result
	n := 0
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	sum := teller.Tell(ctx, []Connection{c}, func(r Result) { got = r; n++ })
	if n != 1 || sum.Count(got.Verdict) != 1 {
		t.Errorf("%d results, %+v", n, sum)
	}
	t.Logf("%v -> %v, known %04b: %v, confirmed %v, %v, after %v, %d tickles, %d segments", c.Local, c.Remote, c.Start.Known, got.Verdict, got.Confirmed, got.Err, got.Took, got.Tries, sum.Segments)
	return got
}

func wantVerdict(t testing.TB, r Result, want Verdict) {
	t.Helper()
	if r.Verdict != want || want == Told && !r.Confirmed {
		t.Errorf("%v is %v (confirmed %v, %v), want %v", r.Connection.Remote, r.Verdict, r.Confirmed, r.Err, want)
	}
}

var knowledge = []Known{0, KnownISN, KnownRemoteISN, KnownISN | KnownRemoteISN, KnownNumbers, KnownNumbers | Final}

func families(t *testing.T, f func(*testing.T, lab.Family)) {
	for _, family := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(family.String(), func(t *testing.T) { f(t, family) })
	}
}

// The address has left this machine by hand, its sockets could not say it, and
// nobody else has it: what the clients answer still comes here, and the RST
// bears their own numbers.
func TestAddressNotHere(t *testing.T) {
	families(t, func(t *testing.T, f lab.Family) {
		l := pairOfNodes(t)
		node := l.Host("node1")
		vip := own(t, node, f)
		s := serve(t, node, vip)
		seen, err := node.Capture("eth0", lab.CaptureFilter{Port: port})
		if err != nil {
			t.Fatal(err)
		}
		teller := startTeller(t, node, Options{})
		var clients []net.Conn
		var servers []*net.TCPConn
		var gone []Connection
		for _, host := range []string{"client1", "far1"} {
			for range knowledge {
				client, served := s.join(t, l.Host(host))
				exchange(t, client, served, 3000)
				clients, gone = append(clients, client), append(gone, connection(served))
				servers = append(servers, served)
			}
		}
		for i := range gone {
			gone[i].Start = startOf(t, seen, gone[i], 3000, knowledge[i%len(knowledge)])
		}
		// While sockets have them, they live.
		teller.Tell(t.Context(), gone, func(r Result) { wantVerdict(t, r, Alive) })
		if _, err := node.RemoveAddress("eth0", lab.Address(f, vipNumber)); err != nil {
			t.Fatal(err)
		}
		vanish(t, node, servers...)
		for i := range gone {
			quiet(t, clients[i])
			wantVerdict(t, tellOne(t, teller, gone[i]), Told)
			reset(t, clients[i])
		}
	})
}

// A client that is not there, one that was never connected, and one that lives.
func TestVerdicts(t *testing.T) {
	families(t, func(t *testing.T, f lab.Family) {
		l := pairOfNodes(t)
		node := l.Host("node1")
		vip := own(t, node, f)
		s := serve(t, node, vip)
		const bound = 700 * time.Millisecond
		teller := startTeller(t, node, Options{Bound: bound})

		client, served := s.join(t, l.Host("client1"))
		living := connection(served)
		wantVerdict(t, tellOne(t, teller, living), Alive)
		exchange(t, client, served, 1000)

		stranger := living
		stranger.Remote = netip.AddrPortFrom(living.Remote.Addr(), 9)
		wantVerdict(t, tellOne(t, teller, stranger), Gone)

		// On the link: nobody answers for its neighbour. Behind the router: silence.
		for _, addr := range []netip.Addr{lab.Address(f, 222).Addr(), l.Host("far1").Addr(f)} {
			if addr == l.Host("far1").Addr(f) {
				if _, err := l.Host("far1").Links()[0].Cut(); err != nil {
					t.Fatal(err)
				}
			}
			stranger.Remote = netip.AddrPortFrom(addr, 9)
			r := tellOne(t, teller, stranger)
			wantVerdict(t, r, Unreachable)
			if r.Took < bound || r.Tries != 5 {
				t.Errorf("unreachable after %v and %d tickles, want %v and 5", r.Took, r.Tries, bound)
			}
		}
		exchange(t, client, served, 1000)
	})
}

// Systems that have other TCP options.
func TestOtherEnds(t *testing.T) {
	families(t, func(t *testing.T, f lab.Family) {
		for _, x := range []struct {
			name    string
			sysctls []lab.Sysctl
		}{
			{"no timestamps", []lab.Sysctl{{Name: "net.ipv4.tcp_timestamps", Value: "0"}}},
			{"no SACK", []lab.Sysctl{{Name: "net.ipv4.tcp_sack", Value: "0"}}},
			{"no D-SACK", []lab.Sysctl{{Name: "net.ipv4.tcp_dsack", Value: "0"}}},
			{"none of them", []lab.Sysctl{{Name: "net.ipv4.tcp_timestamps", Value: "0"}, {Name: "net.ipv4.tcp_sack", Value: "0"}, {Name: "net.ipv4.tcp_window_scaling", Value: "0"}}},
		} {
			t.Run(x.name, func(t *testing.T) {
				top, err := lab.OneArm(lab.Size{Clients: 1, Nodes: 1})
				if err != nil {
					t.Fatal(err)
				}
				top.Host("client1").Sysctls = x.sysctls
				l := startLab(t, top)
				node := l.Host("node1")
				vip := own(t, node, f)
				s := serve(t, node, vip)
				seen, err := node.Capture("eth0", lab.CaptureFilter{Port: port})
				if err != nil {
					t.Fatal(err)
				}
				teller := startTeller(t, node, Options{})
				for _, here := range []bool{true, false} {
					for _, known := range knowledge {
						client, served := s.join(t, l.Host("client1"))
						exchange(t, client, served, 3000)
						c := connection(served)
						c.Start = startOf(t, seen, c, 3000, known)
						vanish(t, node, served)
						if !here {
							if _, err := node.RemoveAddress("eth0", lab.Address(f, vipNumber)); err != nil {
								t.Fatal(err)
							}
						}
						quiet(t, client)
						r := tellOne(t, teller, c)
						wantVerdict(t, r, Told)
						reset(t, client)
						if !here {
							own(t, node, f)
						}
					}
				}
			})
		}
	})
}
