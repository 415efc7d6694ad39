package socktrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// probeEnv makes the test binary say what Probe answers.
const probeEnv = "HOLDFAST_TEST_PROBE"

func TestMain(m *testing.M) {
	if os.Getenv(probeEnv) != "" {
		r := Probe()
		fmt.Fprintf(os.Stdout, "%s\n%s\n", r.Answer, r.Remedy)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// What Open needs is what its document says, and no more.
func TestRights(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("it takes root, and setpriv, to run a program with fewer capabilities")
	}
	for _, c := range []struct {
		keep string
		want probe.Answer
	}{
		{"-all,+bpf,+perfmon", probe.Yes},
		{"-all,+sys_admin", probe.Yes}, // it stands for both
		{"-all,+bpf,+net_admin", probe.No},
		{"-all,+perfmon,+net_admin", probe.No},
		{"-all", probe.No},
	} {
		cmd := exec.CommandContext(t.Context(), setpriv, "--bounding-set", c.keep, "--inh-caps", "-all", os.Args[0])
		cmd.Env = append(os.Environ(), probeEnv+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		answer, remedy, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if answer != c.want.String() {
			t.Errorf("with %s: %s, want %s (%s)", c.keep, answer, c.want, remedy)
		}
		if c.want == probe.No && !strings.Contains(remedy, "CAP_BPF and CAP_PERFMON") {
			t.Errorf("with %s the remedy is %q", c.keep, remedy)
		}
	}
}

func eachFamily(t *testing.T, f func(t *testing.T, w *world)) {
	for _, family := range families {
		t.Run(family, func(t *testing.T) { f(t, newWorld(t, family)) })
	}
}

// Who connects to the address and who is connected from it are told, with the
// numbers that stood in their SYNs; and when they have ended.
func TestChanges(t *testing.T) {
	eachFamily(t, func(t *testing.T, w *world) {
		syns := w.syns()
		_, changes := w.watch()
		l := w.listen()
		client, server := w.connect(l, w.client())

		e := w.next(changes)
		if e.Kind != Established || !e.is(w.port(l), local(client)) {
			t.Fatalf("told: %s; want who was accepted from %s", e, local(client))
		}
		first, second := <-syns, <-syns
		if first.from != local(client) || second.from != w.port(l) {
			t.Fatalf("SYNs of %s and %s", first.from, second.from)
		}
		if e.Acknowledged != second.seq+1 || e.NextSend != second.seq+1 || e.NextReceive != first.seq+1 {
			t.Errorf("told: %s; the numbers of the SYNs are %d here and %d there", e, second.seq, first.seq)
		}
		if now := sys.BootTime(); e.At > now || e.At < now-int64(patience) {
			t.Errorf("told of %d, and it is %d", e.At, now)
		}

		// Both ends leave, one by one; the socket remains for as long as either waits.
		w.must(client.CloseWrite())
		w.must(server.SetReadDeadline(time.Now().Add(patience)))
		if _, err := server.Read(make([]byte, 1)); err == nil {
			t.Error("the server reads what nobody sent")
		}
		w.must(server.Close())
		w.must(client.Close())
		last := w.next(changes)
		if last.Kind != Closed || last.Cookie != e.Cookie || !last.is(e.Local, e.Remote) {
			t.Errorf("told: %s; want the end of %s", last, e)
		}
		// Each side's end has a number of its own.
		if last.Acknowledged != e.Acknowledged+1 || last.NextSend != e.NextSend+1 || last.NextReceive != e.NextReceive+1 {
			t.Errorf("told: %s; the last numbers after %s", last, e)
		}

		// And in the other direction, as a proxy's leg to its backend.
		there := w.client()
		other := &world{TB: t, ns: w.ns, addr: there}
		backend := other.listen()
		leg, accepted := other.connect(backend, w.addr)
		e = w.next(changes)
		if e.Kind != Established || !e.is(local(leg), local(accepted)) {
			t.Fatalf("told: %s; want who connected from %s", e, local(leg))
		}
		first, second = <-syns, <-syns
		if e.Acknowledged != first.seq+1 || e.NextReceive != second.seq+1 {
			t.Errorf("told: %s; the numbers of the SYNs are %d here and %d there", e, first.seq, second.seq)
		}
		// The other end resets it.
		w.must(accepted.SetLinger(0))
		w.must(accepted.Close())
		if last := w.next(changes); last.Kind != Closed || last.Cookie != e.Cookie {
			t.Errorf("told: %s; want the end of %s", last, e)
		}
	})
}

// A half-closed connection is connected, whichever side has ended, and how.
func TestHalfClosed(t *testing.T) {
	eachFamily(t, func(t *testing.T, w *world) {
		tr, changes := w.watch()
		l := w.listen()
		eof := func(c *net.TCPConn) {
			t.Helper()
			w.must(c.SetReadDeadline(time.Now().Add(patience)))
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Fatalf("read %d bytes, %v; want the end", n, err)
			}
		}
		for _, serverFirst := range []bool{true, false} {
			client, server := w.connect(l, w.client())
			e := w.next(changes)
			one, two := client, server
			if serverFirst {
				one, two = server, client
			}
			w.must(one.CloseWrite())
			eof(two)
			if list := w.all(tr); len(list) != 1 || list[0].Cookie != e.Cookie {
				t.Errorf("server first %v: the list is %v", serverFirst, list)
			}
			if _, err := two.Write(make([]byte, 1000)); err != nil {
				t.Error(err)
			}
			w.must(two.Close())
			if err := one.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Error(err)
			}
			for b := make([]byte, 4096); ; {
				if _, err := one.Read(b); err != nil {
					break
				}
			}
			w.must(one.Close())
			if last := w.next(changes); last.Kind != Closed || last.Cookie != e.Cookie {
				t.Errorf("server first %v: told: %s; want the end of %s", serverFirst, last, e)
			}
			if list := w.all(tr); len(list) != 0 {
				t.Errorf("server first %v: the list is %v at the end", serverFirst, list)
			}
		}
	})
}

// The numbers on demand are those of this moment, of sockets that were there
// before the Tracer, too.
func TestNumbers(t *testing.T) {
	eachFamily(t, func(t *testing.T, w *world) {
		l := w.listen()
		client, server := w.connect(l, w.client())
		tr, _ := w.watch()

		list := w.all(tr)
		if len(list) != 1 || !list[0].is(w.port(l), local(client)) {
			t.Fatalf("the list is %v; want the connection of %s", list, local(client))
		}
		before := list[0]
		if before.Acknowledged != before.NextSend {
			t.Errorf("nothing was sent: %+v", before)
		}
		if _, err := client.Write(make([]byte, 1234)); err != nil {
			t.Fatal(err)
		}
		// Nobody reads, which is no matter: the kernel has it.
		const much = 100_000
		w.must(client.SetReadDeadline(time.Now().Add(patience)))
		go func() { server.Write(make([]byte, much)) }()
		for b, n := make([]byte, much), 0; n < much; {
			k, err := client.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
		var after Socket
		for end := time.Now().Add(patience); after.Acknowledged-before.Acknowledged != much; {
			after = w.all(tr)[0]
			if time.Now().After(end) {
				t.Fatalf("after %d bytes: %+v, before: %+v", much, after, before)
			}
		}
		if after.NextReceive-before.NextReceive != 1234 || after.NextSend != after.Acknowledged || after.At <= before.At || after.Cookie != before.Cookie {
			t.Errorf("%+v, before: %+v", after, before)
		}

		// From another namespace they cannot be read, instead of being none.
		for _, err := range tr.Sockets() {
			if !errors.Is(err, errElsewhere) {
				t.Errorf("read from another namespace: %v", err)
			}
		}
	})
}

// Sockets of other namespaces at the same address, and other addresses here,
// are never told of.
func TestOthers(t *testing.T) {
	eachFamily(t, func(t *testing.T, w *world) {
		tr, changes := w.watch()
		elsewhere := newWorld(t, map[bool]string{true: "IPv4", false: "IPv6"}[w.addr.Is4()])
		theirs, changesThere := elsewhere.watch()
		there := elsewhere.listen()
		loopback := (&world{TB: t, ns: w.ns, addr: w.client()})
		beside := loopback.listen()
		for range 20 {
			c, s := elsewhere.connect(there, elsewhere.client())
			c.Close()
			s.Close()
			c, s = loopback.connect(beside, loopback.addr)
			c.Close()
			s.Close()
		}
		if list := w.all(tr); len(list) != 0 {
			t.Errorf("the list is %v", list)
		}
		// What is told now is told first.
		client, _ := w.connect(w.listen(), w.client())
		if e := w.next(changes); e.Remote != local(client) {
			t.Errorf("told: %s", e)
		}
		elsewhere.next(changesThere) // who watched there was told
		if n, err := theirs.Lost(); n != 0 || err != nil {
			t.Errorf("lost %d, %v", n, err)
		}
	})
}

// Addresses come and go.
func TestSetAddresses(t *testing.T) {
	w := newWorld(t, "IPv4")
	tr := w.trace(Options{})
	changes := w.follow(tr)
	l := w.listen()
	early, _ := w.connect(l, w.client())
	w.must(tr.SetAddresses([]netip.Addr{w.addr}))
	if list := w.all(tr); len(list) != 1 || list[0].Remote != local(early) {
		t.Errorf("the list is %v", list)
	}
	client, _ := w.connect(l, w.client())
	if e := w.next(changes); e.Remote != local(client) {
		t.Errorf("told: %s; the one before was not watched", e)
	}
	// A mapped address is the same one.
	w.must(tr.SetAddresses([]netip.Addr{netip.AddrFrom16(w.addr.As16()), netip.MustParseAddr("fe80::1%lo")}))
	client, _ = w.connect(l, w.client())
	if e := w.next(changes); e.Remote != local(client) {
		t.Errorf("told: %s", e)
	}
	w.must(tr.SetAddresses(nil))
	if list := w.all(tr); len(list) != 0 {
		t.Errorf("the list is %v", list)
	}
	w.connect(l, w.client())
	w.must(tr.SetAddresses([]netip.Addr{w.addr}))
	client, _ = w.connect(l, w.client())
	if e := w.next(changes); e.Remote != local(client) {
		t.Errorf("told: %s; the one before was not watched", e)
	}

	for _, bad := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if err := tr.SetAddresses([]netip.Addr{bad}); err == nil {
			t.Errorf("%s can be watched", bad)
		}
	}
	many := make([]netip.Addr, Addresses+1)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	if err := tr.SetAddresses(many); err == nil || !strings.Contains(err.Error(), fmt.Sprint(Addresses)) {
		t.Errorf("%d addresses: %v", len(many), err)
	}
	w.must(tr.SetAddresses(many[1:]))
	w.must(tr.Close())
	if err := tr.SetAddresses(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := tr.Lost(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	w.in(func() error {
		for _, err := range tr.Sockets() {
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		return nil
	})
	for _, size := range []int{1, 4095, 5000, 1 << 30, -1} {
		if _, err := Open(Options{Buffer: size}); err == nil {
			t.Errorf("a buffer of %d bytes", size)
		}
	}
}

// What finds no room is counted, and those who are connected are known anyway.
func TestOverflow(t *testing.T) {
	eachFamily(t, func(t *testing.T, w *world) {
		tr := w.trace(Options{Addresses: []netip.Addr{w.addr}, Buffer: 4096})
		l := w.listen()
		const many = 300
		w.crowd(l, many)
		lost, err := tr.Lost()
		if err != nil {
			t.Fatal(err)
		}
		if lost == 0 || lost >= many {
			t.Errorf("%d changes of %d lost in a buffer of 4096 bytes", lost, many)
		}
		ports := make(map[uint16]bool)
		cookies := make(map[uint64]bool)
		for _, s := range w.all(tr) {
			ports[s.Remote.Port()], cookies[s.Cookie] = true, true
		}
		if len(ports) != many || len(cookies) != many {
			t.Errorf("%d ports and %d cookies in the list, and %d are connected", len(ports), len(cookies), many)
		}
		// The buffer is read, and what comes now has room.
		told := 0
		for events := make([]Event, 7); uint64(told) < many-lost; {
			n, err := tr.Read(events)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events[:n] {
				if !ports[e.Remote.Port()] || !cookies[e.Cookie] {
					t.Errorf("told: %s", e)
				}
			}
			told += n
		}
		client := w.dial(w.client(), w.port(l))
		var events [2]Event
		if n, err := tr.Read(events[:]); n != 1 || err != nil || events[0].Remote != local(client) {
			t.Errorf("told: %v, %v; want %s", events[:n], err, local(client))
		}
		if now, err := tr.Lost(); now != lost || err != nil {
			t.Errorf("lost %d, %d before, %v", now, lost, err)
		}
	})
}

// Of a crowd that comes and goes at the same time nobody is missed, and each is
// told in order.
func TestCrowd(t *testing.T) {
	w := newWorld(t, "IPv6")
	tr, changes := w.watch()
	l := w.listen()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	const workers, each = 8, 250
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			w.in(func() error {
				for range each {
					c, err := dial(w.client(), w.port(l))
					if err != nil {
						return err
					}
					c.Read(make([]byte, 1))
					c.Close()
				}
				return nil
			})
		})
	}
	wg.Wait()
	open := make(map[uint64]Event)
	begun := 0
	for ended := 0; ended < workers*each; {
		e := w.next(changes)
		switch e.Kind {
		case Established:
			begun++
			open[e.Cookie] = e
		case Closed:
			if b, ok := open[e.Cookie]; !ok || b.Remote != e.Remote || b.At > e.At {
				t.Fatalf("told: %s, after %s", e, b)
			}
			delete(open, e.Cookie)
			ended++
		}
	}
	if begun != workers*each || len(open) != 0 {
		t.Errorf("%d began, and %d of them have not ended; want %d", begun, len(open), workers*each)
	}
	if n, err := tr.Lost(); n != 0 || err != nil {
		t.Errorf("lost %d, %v", n, err)
	}
}

// crowd makes n connections that stay.
func (w *world) crowd(l *net.TCPListener, n int) {
	w.Helper()
	var list []net.Conn
	w.Cleanup(func() {
		for _, c := range list {
			c.Close()
		}
	})
	w.in(func() error {
		for range n {
			c, err := dial(w.client(), w.port(l))
			if err != nil {
				return err
			}
			w.must(c.SetLinger(0))
			list = append(list, c)
			s, err := l.Accept()
			if err != nil {
				return err
			}
			list = append(list, s)
		}
		return nil
	})
}

// A syn is one that was seen on the loopback interface.
type syn struct {
	from netip.AddrPort
	seq  uint32
}

// syns reads the SYNs that the world sends to itself.
func (w *world) syns() <-chan syn {
	var tap *sys.PacketSocket
	w.in(func() (err error) {
		const everything = 0x06
		tap, err = sys.OpenPacketSocket(1, []sys.FilterInsn{{Op: everything, K: 0xffff}})
		return err
	})
	all, ended := make(chan syn, 1000), make(chan struct{})
	w.Cleanup(func() { tap.Close(); <-ended })
	go func() {
		defer close(ended)
		for b := make([]byte, 2048); ; {
			n, _, outgoing, err := tap.Receive(b)
			if err != nil {
				return
			}
			if outgoing || n < 14 {
				continue // every frame is seen twice
			}
			if s, ok := parseSYN(b[12:n]); ok {
				all <- s
			}
		}
	}()
	return all
}

// parseSYN reads a frame from its Ethernet type on.
func parseSYN(b []byte) (s syn, ok bool) {
	var from netip.Addr
	switch ip := b[2:]; {
	case b[0] == 0x08 && b[1] == 0 && len(ip) >= 20 && ip[9] == syscall.IPPROTO_TCP:
		from = netip.AddrFrom4([4]byte(ip[12:]))
		b = ip[int(ip[0]&15)*4:]
	case b[0] == 0x86 && b[1] == 0xdd && len(ip) >= 40 && ip[6] == syscall.IPPROTO_TCP:
		from = netip.AddrFrom16([16]byte(ip[8:]))
		b = ip[40:]
	default:
		return s, false
	}
	if len(b) < 20 || b[13]&2 == 0 {
		return s, false
	}
	return syn{netip.AddrPortFrom(from, binary.BigEndian.Uint16(b)), binary.BigEndian.Uint32(b[4:])}, true
}
