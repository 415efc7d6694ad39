package gate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/announce"
	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/internal/usertest"
)

// The test binary is an owner too, whose process can be stopped and killed.
const (
	envOwner = "HOLDFAST_GATE_TEST_OWNER" // interface, address
	envProbe = "HOLDFAST_GATE_TEST_PROBE"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envOwner) != "":
		err := own(strings.Fields(os.Getenv(envOwner)))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case os.Getenv(envProbe) != "":
		r := Probe()
		fmt.Printf("%s|%s|%s\n", r.Answer, r.Evidence, r.Remedy)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// childLease is how long the owner's process may be silent: longer than a busy
// machine keeps it from running.
const childLease = 2 * time.Second

// own renews an address's lease for as long as it has it.
func own(args []string) error {
	index, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	g, err := Open(index)
	if err != nil {
		return err
	}
	until := soon(childLease)
	if err := g.Set(addr, Entry{Mode: Own, Until: until}); err != nil {
		return err
	}
	fmt.Println("owns")
	for range time.Tick(time.Millisecond) {
		now := sys.BootTime()
		if now >= until {
			fmt.Println("lost")
			select {}
		}
		until = now + int64(childLease)
		if err := g.Renew(addr, until); err != nil {
			return err
		}
	}
	return nil
}

// An address speaks while its lease runs, and neither a moment longer nor
// sooner than the grace after it again.
func TestLease(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		owner.give(netip.PrefixFrom(addr, owner.own.BitLen()))
		const grace = time.Second
		g := owner.withGrace(grace)
		both := []string{addr.String(), owner.own.String()}
		speaks := func(when string) {
			t.Helper()
			if by := client.answered(addr, owner); !slices.Equal(by, [][6]byte{owner.mac}) {
				t.Errorf("%s: who asks for the address is answered by %x, want %x", when, by, owner.mac)
			}
			if heard := owner.hears(client, addr, owner.own); !slices.Equal(heard, both) {
				t.Errorf("%s: the owner hears %v, want %v", when, heard, both)
			}
			if heard := client.hearsFrom(owner, addr, owner.own); !slices.Equal(heard, both) {
				t.Errorf("%s: the client hears from %v, want %v", when, heard, both)
			}
		}
		silent := func(when string) {
			t.Helper()
			if by := client.answered(addr, owner); by != nil {
				t.Errorf("%s: who asks for the address is answered by %x", when, by)
			}
			if heard := owner.hears(client, addr, owner.own); !slices.Equal(heard, both[1:]) {
				t.Errorf("%s: the owner hears %v", when, heard)
			}
			if heard := client.hearsFrom(owner, addr, owner.own); !slices.Equal(heard, both[1:]) {
				t.Errorf("%s: the client hears from %v", when, heard)
			}
		}
		speaks("before the gate knows it")
		must(t, g.Set(addr, Entry{Mode: Own, Until: soon(time.Hour)}))
		speaks("with a lease")
		if c := counters(t, g); c != (Counters{}) {
			t.Errorf("with a lease: %+v was counted", c)
		}
		must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
		silent("closed")
		c := counters(t, g)
		if c.ClosedIn != 1 || c.ClosedOut != 1 || c.AsksIn == 0 {
			t.Errorf("closed: counted %+v", c)
		}
		must(t, g.Delete(addr))
		speaks("deleted")

		// The end of a lease, to the frame: whoever is answered has asked before it.
		until := soon(50 * time.Millisecond)
		must(t, g.Set(addr, Entry{Mode: Own, Until: until}))
		for {
			before := sys.BootTime()
			by := client.answered(addr, owner)
			if before >= until && sys.BootTime() < until+int64(grace) && by != nil {
				t.Fatalf("asked %v after the end of the lease, and answered", time.Duration(before-until))
			}
			if sys.BootTime() >= until {
				break
			}
		}
		if by := client.answered(addr, owner); by != nil && sys.BootTime() < until+int64(grace) {
			t.Errorf("answered by %x after the end of the lease", by)
		}
		if heard := client.hearsFrom(owner, addr, owner.own); len(heard) != 1 && sys.BootTime() < until+int64(grace) {
			t.Errorf("heard from %v after the end of the lease", heard)
		}
		// And of the grace.
		for {
			by := client.answered(addr, owner)
			after := sys.BootTime()
			if by != nil {
				if after < until+int64(grace) {
					t.Fatalf("answered %v before the end of the grace", time.Duration(until+int64(grace)-after))
				}
				break
			}
			if after > until+int64(grace)+int64(patience) {
				t.Fatal("the grace does not end")
			}
		}
		speaks("after the grace")
	})
}

// Whatever becomes of the owner's process, the address falls silent. The next
// process finds the lease as it was.
func TestProcess(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		owner.give(netip.PrefixFrom(addr, owner.own.BitLen()))
		var cmd *exec.Cmd
		var says *bufio.Scanner
		in(t, owner.ns, func() error {
			cmd = exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", envOwner, owner.index, addr))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			says = bufio.NewScanner(out)
			return cmd.Start()
		})
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		line := func() string {
			if !says.Scan() {
				t.Fatal("the owner's process has ended")
			}
			return says.Text()
		}
		if got := line(); got != "owns" {
			t.Fatal(got)
		}
		// It lives on renewals.
		for end := soon(childLease + childLease/4); sys.BootTime() < end; {
			if by := client.answered(addr, owner); !slices.Equal(by, [][6]byte{owner.mac}) {
				t.Fatalf("the process lives, and the address is answered for by %x", by)
			}
		}
		must(t, cmd.Process.Signal(syscall.SIGSTOP))
		owner.await(func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
			return err == nil && strings.Contains(string(stat), ") T ")
		})
		past(t, soon(childLease))
		if by := client.answered(addr, owner); by != nil {
			t.Errorf("the process is stopped for a lease, and the address is answered for by %x", by)
		}
		must(t, cmd.Process.Signal(syscall.SIGCONT))
		if got := line(); got != "lost" {
			t.Fatal(got)
		}
		if by := client.answered(addr, owner); by != nil {
			t.Errorf("the process goes on without a lease, and the address is answered for by %x", by)
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if by := client.answered(addr, owner); by != nil {
			t.Errorf("the process is dead, and the address is answered for by %x", by)
		}
		g := owner.gate()
		e, ok, err := g.Entry(addr)
		if err != nil || !ok || e.Mode != Own || e.Until > sys.BootTime() {
			t.Fatalf("the next process finds %+v, %v, %v, want the lease that has ended", e, ok, err)
		}
		if by := client.answered(addr, owner); by != nil {
			t.Errorf("the next process is there, without a lease, and the address is answered for by %x", by)
		}
		must(t, g.Renew(addr, soon(time.Hour)))
		if by := client.answered(addr, owner); !slices.Equal(by, [][6]byte{owner.mac}) {
			t.Errorf("the next process has a lease, and the address is answered for by %x", by)
		}
	})
}

// A planned takeover: what has begun stays, what begins goes to the peer, whom
// nobody sees until it owns the address; at the end everything goes there.
func TestHanding(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		p := netip.PrefixFrom(addr, owner.own.BitLen())
		owner.give(p)
		g, h := owner.gate(), peer.gate()
		until := soon(time.Hour)
		must(t, g.Set(addr, Entry{Mode: Own, Until: until}),
			h.Set(addr, Entry{Mode: Closed, Until: until}))
		owner.serve(addr, "owner")
		old := client.dial(addr)
		if got := ask(t, old, "one"); got != "owner:one" {
			t.Fatalf("before: %q", got)
		}

		must(t, h.Set(addr, Entry{Mode: Taking, Until: until, Peer: owner.mac}))
		peer.give(p)
		peer.serve(addr, "peer")
		must(t, g.Set(addr, Entry{Mode: Handing, Until: until, Peer: peer.mac}))

		// The peer must ask where the client is, and the client must not learn
		// from it where the address might be.
		peer.ip("neigh", "flush", "dev", "eth0")
		fresh := client.dial(addr)
		if got := ask(t, fresh, "two"); got != "peer:two" {
			t.Errorf("a new connection while the address is handed over: %q", got)
		}
		if got := ask(t, old, "three"); got != "owner:three" {
			t.Errorf("an old connection while the address is handed over: %q", got)
		}
		asked := false
		client.upToNow(func(frame []byte, outgoing bool) {
			n, ok := announce.ParseNeighbour(frame)
			if !ok || outgoing || n.From != peer.mac || n.Kind != announce.Asks {
				return
			}
			asked = asked || n.Sender.IsUnspecified() && n.Target == client.own
			if n.Sender == addr {
				t.Errorf("the peer asks in the address's name: %+v", n)
			}
		})
		if !asked {
			t.Error("the peer has asked in nobody's name where the client is, or this host does not understand it")
		}
		mac, ok, err := client.rt.Neighbour(client.index, addr)
		if err != nil || !ok || mac != owner.mac {
			t.Errorf("the client believes the address at %x (%v, %v), want %x", mac, ok, err, owner.mac)
		}
		if by := client.answered(addr, peer); !slices.Equal(by, [][6]byte{owner.mac}) {
			t.Errorf("while the address is handed over it is answered for by %x", by)
		}
		c, d := counters(t, g), counters(t, h)
		if c.Handed < 3 || c.PassedOn != 0 {
			t.Errorf("the owner has counted %+v", c)
		}
		if d.Unnamed == 0 || d.NotFromPeer != 0 {
			t.Errorf("the peer has counted %+v, want a neighbour asked for without naming the address", d)
		}
		// What the peer hears by itself it does not take.
		client.ip("neigh", "replace", addr.String(), "lladdr", hex(peer.mac), "dev", "eth0")
		if heard := peer.hears(client, addr, peer.own); slices.Contains(heard, addr.String()) {
			t.Errorf("the peer takes frames that the owner has not sent on: %v", heard)
		}
		if d := counters(t, h); d.NotFromPeer != 1 {
			t.Errorf("the peer has counted %+v", d)
		}
		client.ip("neigh", "replace", addr.String(), "lladdr", hex(owner.mac), "dev", "eth0")

		// The peer has it now, and no announcement has reached the client.
		must(t, h.Set(addr, Entry{Mode: Own, Until: until}),
			g.Set(addr, Entry{Mode: Passing, Until: until, Peer: peer.mac}))
		if got := ask(t, fresh, "four"); got != "peer:four" {
			t.Errorf("a connection of the peer's, passed on: %q", got)
		}
		if got := ask(t, client.dial(addr), "five"); got != "peer:five" {
			t.Errorf("a new connection, passed on: %q", got)
		}
		if heard := peer.hears(client, addr); !slices.Equal(heard, []string{addr.String()}) {
			t.Errorf("the peer hears %v of what is passed on", heard)
		}
		if heard := client.hearsFrom(owner, addr, owner.own); slices.Contains(heard, addr.String()) {
			t.Error("whoever passes frames on still sends from the address")
		}
		if by := client.answered(addr, owner); !slices.Equal(by, [][6]byte{peer.mac}) {
			t.Errorf("an address that is passed on is answered for by %x, want %x", by, peer.mac)
		}
		if c := counters(t, g); c.PassedOn == 0 || c.ClosedOut == 0 {
			t.Errorf("the former owner has counted %+v", c)
		}
		// Two that pass to each other do not play ball.
		must(t, h.Set(addr, Entry{Mode: Passing, Until: until, Peer: owner.mac}))
		before := counters(t, h).ClosedIn
		client.say(netip.Addr{}, netip.AddrPortFrom(addr, 9), "nobody")
		peer.await(func() bool { return counters(t, h).ClosedIn == before+1 })
	})
}

func hex(mac [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}

// A client's port that is used again is a new connection, also where the old one
// has not been forgotten yet.
func TestHandingOfAUsedPort(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		p := netip.PrefixFrom(addr, owner.own.BitLen())
		owner.give(p)
		g, h := owner.gate(), peer.gate()
		until := soon(time.Hour)
		must(t, g.Set(addr, Entry{Mode: Own, Until: until}),
			h.Set(addr, Entry{Mode: Taking, Until: until, Peer: owner.mac}))
		peer.give(p)
		peer.serve(addr, "peer")
		owner.serve(addr, "owner")
		c := client.dial(addr)
		port := c.LocalAddr().(*net.TCPAddr).AddrPort()
		ask(t, c, "bye") // the owner ends it first
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("after the end: %d, %v", n, err)
		}
		must(t, c.Close())
		owner.await(func() (waits bool) {
			in(t, owner.ns, func() error {
				out, err := exec.CommandContext(t.Context(), "ss", "-Htn", "state", "time-wait").Output()
				waits = strings.Contains(string(out), fmt.Sprint(":", port.Port()))
				return err
			})
			return waits
		})
		must(t, g.Set(addr, Entry{Mode: Handing, Until: until, Peer: peer.mac}))
		again := client.dialFrom(port, addr)
		for range 3 {
			if got := ask(t, again, "two"); got != "peer:two" {
				t.Errorf("the port is used again, and the answer is %q", got)
			}
		}
	})
}

// A frame for somebody else that a switch floods is not sent on.
func TestOnlyOwnFramesAreSentOn(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		must(t, g.Set(addr, Entry{Mode: Passing, Until: soon(time.Hour), Peer: peer.mac}))
		// The switch sends frames for nobody to the owner.
		owner.hears(client, owner.own) // the client knows it
		client.ip("neigh", "replace", addr.String(), "lladdr", hex(owner.mac), "dev", "eth0")
		client.say(netip.Addr{}, netip.AddrPortFrom(addr, 9), "passed on")
		owner.await(func() bool { return counters(t, g).PassedOn == 1 })
		client.ip("neigh", "replace", addr.String(), "lladdr", "ff:ff:ff:ff:ff:ff", "dev", "eth0")
		client.say(netip.Addr{}, netip.AddrPortFrom(addr, 9), "to everybody")
		owner.await(func() bool { return counters(t, g).ClosedIn == 1 })
		if c := counters(t, g); c.PassedOn != 1 {
			t.Errorf("counted %+v", c)
		}
	})
}

// Fragments are judged by their address, as everything else, and so is what has
// extension headers.
func TestFragments(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
		client.ip("neigh", "replace", addr.String(), "lladdr", hex(owner.mac), "dev", "eth0")
		client.say(netip.Addr{}, netip.AddrPortFrom(addr, 9), strings.Repeat("long ", 800))
		owner.await(func() bool { return counters(t, g).ClosedIn == 3 })
	})
}

// A frame with a VLAN tag belongs to another interface: this one's gate leaves
// it alone, in and out.
func TestVLAN(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
		// An announcement of the address, its source and target.
		plain := announce.Announce(nil, owner.mac, addr, false)
		tagged := slices.Concat(plain[:12], []byte{0x81, 0x00, 0, 5}, plain[12:])
		claims := func() (seen int) {
			client.upToNow(nil)
			for _, frame := range [][]byte{tagged, plain} {
				owner.send.Send(frame)
			}
			if errno := owner.send.Send(announce.Ask(nil, owner.mac, owner.own, client.own)); errno != 0 {
				t.Fatal(errno)
			}
			client.frames(func(frame []byte, outgoing bool) bool {
				if !outgoing && bytes.HasSuffix(frame, plain[14:]) {
					seen++
				}
				n, ok := announce.ParseNeighbour(frame)
				return ok && !outgoing && n.Kind == announce.Asks && n.Target == client.own
			})
			return seen
		}
		if n := claims(); n != 1 {
			t.Errorf("%d claims have left, want the one with a tag", n)
		}
		if c := counters(t, g); c.ClaimsOut != 1 {
			t.Errorf("counted %+v", c)
		}
		// A question with a tag, and one without.
		question := announce.Ask(nil, client.mac, client.own, addr)
		for _, frame := range [][]byte{slices.Concat(question[:12], []byte{0x81, 0x00, 0, 5}, question[12:]), question} {
			if errno := client.send.Send(frame); errno != 0 {
				t.Fatal(errno)
			}
		}
		client.answered(owner.own, owner) // both have arrived
		if c := counters(t, g); c.AsksIn != 1 {
			t.Errorf("counted %+v", c)
		}
	})
}

// attached lists the programs on a host's interface, by name.
func (h *host) attached(d direction) (names []string) {
	h.t.Helper()
	in(h.t, h.ns, func() error {
		list, err := link.QueryPrograms(link.QueryOptions{Target: h.index, Attach: d.place})
		if err != nil {
			return err
		}
		for _, a := range list.Programs {
			p, err := openProgram(a.ID)
			if err != nil {
				return err
			}
			names = append(names, p)
		}
		return nil
	})
	return names
}

// pass puts a program that lets everything pass on both directions.
func (h *host) pass(name string) {
	h.t.Helper()
	in(h.t, h.ns, func() error {
		prog, err := sys.LoadClassifier(name, []sys.BPFInsn{{Op: 0xb7, Imm: -1}, {Op: 0x95}})
		if err != nil {
			return err
		}
		defer prog.Close()
		return errors.Join(sys.AttachTCX(prog, h.index, false), sys.AttachTCX(prog, h.index, true))
	})
}

// Programs of others stay where they are, before us or after; an older version
// of our own is replaced in its place.
func TestOtherPrograms(t *testing.T) {
	owner, _, client := hosts(t, "IPv4")
	addr := floating["IPv4"].Addr()
	owner.give(floating["IPv4"])
	owner.pass("one")
	in(t, owner.ns, func() error {
		prog, err := sys.LoadClassifier(directions[0].program, []sys.BPFInsn{{Op: 0xb7, Imm: -1}, {Op: 0x95}})
		if err != nil {
			return err
		}
		defer prog.Close()
		return sys.AttachTCX(prog, owner.index, false)
	})
	owner.pass("two")
	g := owner.gate()
	want := [2][]string{{"one", "holdfast_in", "two"}, {"holdfast_out", "one", "two"}}
	check := func(when string) {
		t.Helper()
		for i, d := range directions {
			if got := owner.attached(d); !slices.Equal(got, want[i]) {
				t.Errorf("%s: %v, want %v", when, got, want[i])
			}
		}
	}
	check("opened")
	must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
	second := owner.gate()
	check("opened again")
	if by := client.answered(addr, owner); by != nil {
		t.Error("the second process has opened the address")
	}
	// Two processes, one gate: the first still counts as attached, and what one
	// guards the other leaves guarded.
	for _, g := range []*Gate{g, second} {
		in(t, owner.ns, func() error {
			ok, err := g.Attached()
			if !ok {
				t.Error("a process's gate is not attached any more because another one shares it")
			}
			return err
		})
	}
	in(t, owner.ns, second.Detach)
	check("left by the one that guards nothing")
	if by := client.answered(addr, owner); by != nil {
		t.Error("whoever left has opened the other's address")
	}
	in(t, owner.ns, g.Detach)
	want = [2][]string{{"one", "two"}, {"one", "two"}}
	check("left by both")
	if by := client.answered(addr, owner); by == nil {
		t.Error("the address is closed although the gate has gone")
	}
	in(t, owner.ns, g.Detach) // again: nothing to do
}

// Of several that open the gate at the same time all have the same one.
func TestOpenAtOnce(t *testing.T) {
	owner, _, _ := hosts(t, "IPv4")
	const n = 8
	gates := make(chan *Gate, n)
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := owner.ns.Do(func() error {
				g, err := Open(owner.index)
				if err == nil {
					gates <- g
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(gates)
	for _, d := range directions {
		if got := owner.attached(d); !slices.Equal(got, []string{d.program}) {
			t.Errorf("attached: %v", got)
		}
	}
	addr, e := floating["IPv4"].Addr(), Entry{Mode: Own, Until: soon(time.Hour) &^ 7}
	first := true
	for g := range gates {
		if first {
			must(t, g.Set(addr, e))
			first = false
		}
		if got, ok, err := g.Entry(addr); err != nil || !ok || got != e {
			t.Errorf("one of them finds %+v, %v, %v", got, ok, err)
		}
		must(t, g.Close())
	}
}

// While one process after the other takes the gate over, a closed address is
// not answered for once.
func TestTakeoverHasNoGap(t *testing.T) {
	owner, _, client := hosts(t, "IPv4")
	addr := floating["IPv4"].Addr()
	owner.give(floating["IPv4"])
	g := owner.gate()
	must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range 20 {
			if err := owner.ns.Do(func() error {
				next, err := Open(owner.index)
				if err != nil {
					return err
				}
				return next.Close()
			}); err != nil {
				t.Error(err)
			}
		}
	}()
	asked := 0
	for running := true; running; asked++ {
		select {
		case <-over:
			running = false
		default:
		}
		if by := client.answered(addr, owner); by != nil {
			t.Fatalf("question %d was answered", asked)
		}
	}
	t.Logf("%d questions during 20 takeovers", asked)
}

// An interface that is removed and made again has no gate.
func TestInterfaceGone(t *testing.T) {
	owner, _, client := hosts(t, "IPv4")
	addr := floating["IPv4"].Addr()
	g := owner.gate()
	must(t, g.Set(addr, Entry{Mode: Closed, Until: soon(time.Hour)}))
	attached := func(g *Gate) (ok bool) {
		t.Helper()
		in(t, owner.ns, func() (err error) { ok, err = g.Attached(); return err })
		return ok
	}
	if !attached(g) {
		t.Error("a gate that was just opened is not attached")
	}
	index := strconv.Itoa(owner.index)
	owner.ip("link", "delete", "eth0")
	if attached(g) {
		t.Error("attached to an interface that is gone")
	}
	must(t, g.Renew(addr, soon(time.Hour))) // has no effect, and does no harm
	in(t, owner.ns, func() error {
		if _, err := Open(owner.index); !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), index) {
			t.Errorf("opened on an interface that is gone: %v", err)
		}
		return nil
	})
	owner.ip("link", "add", "eth0", "index", index, "type", "veth", "peer", "name", "other")
	if attached(g) {
		t.Error("attached to an interface that was made anew")
	}
	again := owner.gate()
	if _, ok, err := again.Entry(addr); ok || err != nil {
		t.Errorf("a new interface's gate knows the address already (%v)", err)
	}
	if !attached(again) {
		t.Error("a gate that was opened again is not attached")
	}
	in(t, owner.ns, g.Detach) // has nothing left to take off
	if !attached(again) {
		t.Error("whoever left the old interface has taken the new one's programs")
	}
	_ = client
}

func TestRefusals(t *testing.T) {
	owner, peer, _ := hosts(t, "IPv4")
	g := owner.gate()
	a := netip.MustParseAddr("fe80::1%eth0")
	for name, err := range map[string]error{
		"there is no Mode(7)":      g.Set(a, Entry{Mode: 7}),
		"needs the Ethernet":       g.Set(a, Entry{Mode: Handing, Until: 1}),
		"ffffffffffff is none":     g.Set(a, Entry{Mode: Passing, Until: 1, Peer: [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}),
		"lies before the start":    g.Set(a, Entry{Mode: Own, Until: -1}),
		"it is no address":         g.Set(netip.Addr{}, Entry{Mode: Own, Until: 1}),
		"it has not been set":      g.Renew(a, 1),
		"renew 10.0.0.1: it has":   g.Renew(netip.MustParseAddr("10.0.0.1"), 1),
		"delete invalid IP: it is": g.Delete(netip.Addr{}),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
	must(t, g.Delete(a)) // is not there: no error
	e := Entry{Mode: Handing, Until: soon(time.Hour) &^ 7, Peer: peer.mac}
	must(t, g.Set(a, e))
	if err := g.Renew(a, -1); err == nil {
		t.Error("a lease was renewed until before the start of the machine")
	}
	if got, ok, err := g.Entry(netip.MustParseAddr("fe80::1")); err != nil || !ok || got != e {
		t.Errorf("%+v, %v, %v, want %+v", got, ok, err, e)
	}
	mapped := netip.MustParseAddr("::ffff:10.0.0.7")
	must(t, g.Set(mapped, e))
	if _, ok, err := g.Entry(mapped.Unmap()); !ok || err != nil {
		t.Errorf("an IPv4 address is not found that was set as an IPv6 socket writes it (%v)", err)
	}
	// Until it is full, and when one has left there is room again.
	must(t, g.Delete(a), g.Delete(mapped))
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }
	for i := range Addresses {
		must(t, g.Set(at(i), e))
	}
	if err := g.Set(a, e); err == nil || !strings.Contains(err.Error(), "4096 addresses") {
		t.Errorf("one more than there is room for: %v", err)
	}
	must(t, g.Delete(at(77)), g.Set(a, e))
	must(t, g.Close(), g.Close())
	for _, err := range []error{g.Set(a, e), g.Renew(a, 1), g.Delete(a)} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	if _, err := g.Counters(); err == nil {
		t.Error("after Close counters are read")
	}
	// What it knew is there still.
	if got, ok, err := owner.gate().Entry(a); err != nil || !ok || got != e {
		t.Errorf("the next process finds %+v, %v, %v", got, ok, err)
	}
}

func TestNoEthernet(t *testing.T) {
	owner, _, _ := hosts(t, "IPv4")
	in(t, owner.ns, func() error {
		if g, err := Open(loopback); err == nil || !strings.Contains(err.Error(), "lo has no Ethernet") {
			t.Errorf("opened on the loopback interface: %v, %v", g, err)
		}
		return nil
	})
}

// While an entry changes between two that both close the address, no frame
// passes.
func TestBetween(t *testing.T) {
	eachFamily(t, func(t *testing.T, owner, peer, client *host, addr netip.Addr) {
		g := owner.gate()
		later, over := soon(time.Hour), soon(-time.Second)
		entries := []Entry{
			{Mode: Own, Until: over}, {Mode: Closed, Until: later}, {Mode: Handing, Until: over, Peer: peer.mac},
			{Mode: Taking, Until: over, Peer: peer.mac}, {Mode: Closed, Until: later}, {Mode: Passing, Until: over, Peer: peer.mac},
		}
		must(t, g.Set(addr, entries[0]))
		stop, done := make(chan struct{}), make(chan struct{})
		changes := 0
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, e := range entries {
					if err := g.Set(addr, e); err != nil {
						t.Error(err)
					}
					changes++
				}
			}
		}()
		frame := packet(client.mac, owner.mac, addr, client.own, udp, make([]byte, 8))
		passed := 0
		o := ebpf.RunOptions{Data: frame}
		for range 20000 {
			verdict, err := g.objects.HoldfastOut.Run(&o)
			if err != nil {
				t.Error(err)
				break
			}
			if verdict != drop {
				passed++
			}
		}
		close(stop)
		<-done
		if passed > 0 {
			t.Errorf("%d frames have passed during %d changes", passed, changes)
		}
	})
}

func TestRenewalAllocatesNothing(t *testing.T) {
	owner, _, _ := hosts(t, "IPv6")
	g := owner.gate()
	a, e := floating["IPv6"].Addr(), Entry{Mode: Own, Until: soon(time.Hour)}
	must(t, g.Set(a, e))
	if n := testing.AllocsPerRun(1000, func() {
		if g.Set(a, e) != nil || g.Renew(a, e.Until) != nil {
			t.Fail()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestProbe(t *testing.T) {
	owner, _, _ := hosts(t, "IPv4")
	in(t, owner.ns, func() error {
		if r := Probe(); r.Answer != probe.Yes || r.Remedy != "" || r.Evidence == "" || r.For == "" {
			t.Errorf("as root: %+v", r)
		}
		return nil
	})
	cmd := exec.Command(usertest.Program(t, "probe"))
	cmd.Env = append(os.Environ(), envProbe+"=1")
	usertest.Nobody(cmd)
	out, err := cmd.CombinedOutput()
	if answer := strings.Split(string(out), "|"); err != nil || len(answer) != 3 || answer[0] != "no" || !strings.Contains(answer[2], "CAP_BPF") {
		t.Errorf("as nobody: %q, %v", out, err)
	}
	// With everything but CAP_SYS_ADMIN: setpriv is of util-linux, as mount is.
	cmd = exec.Command("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", os.Args[0])
	cmd.Env = append(os.Environ(), envProbe+"=1")
	out, err = cmd.CombinedOutput()
	if answer := strings.Split(string(out), "|"); err != nil || len(answer) != 3 || answer[0] != "no" || !strings.Contains(answer[2], "CAP_SYS_ADMIN") {
		t.Errorf("without CAP_SYS_ADMIN: %q, %v", out, err)
	}
	for _, c := range []struct {
		step   string
		err    error
		answer probe.Answer
		remedy string
	}{
		{"load", syscall.ENOSYS, probe.No, "CONFIG_BPF_SYSCALL"},
		{"attach", fmt.Errorf("list programs: %w", syscall.EINVAL), probe.No, "Linux 6.6"},
		{"find", fmt.Errorf("by its number: %w", syscall.EPERM), probe.No, "CAP_SYS_ADMIN"},
		{"load", syscall.ENOMEM, probe.CouldNotTell, "short of something"},
	} {
		if r := judge(c.step, c.err); r.Answer != c.answer || !strings.Contains(r.Remedy, c.remedy) {
			t.Errorf("%s: %v: %+v", c.step, c.err, r)
		}
	}
}
