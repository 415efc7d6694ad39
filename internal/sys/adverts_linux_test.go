package sys_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/netnstest"
	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// side is one end of a cable, in a namespace of its own.
type side struct {
	ns          *netns.NS
	index       int
	mac         [6]byte
	four, link6 netip.Addr
}

// cable makes two namespaces with an Ethernet link between them.
func cable(t testing.TB) (a, b side) {
	t.Helper()
	sides := [2]side{{ns: netnstest.New(t)}, {ns: netnstest.New(t)}}
	for i := range sides {
		n := byte(i + 1)
		sides[i].mac = [6]byte{2, 0, 0, 0, 0, n}
		sides[i].four = netip.AddrFrom4([4]byte{192, 0, 2, n})
		sides[i].link6 = netip.AddrFrom16([16]byte{0xfe, 0x80, 15: n})
	}
	err := sides[0].ns.Do(func() error {
		h, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		return sides[1].ns.WithFD(func(fd int) error {
			_, err := h.AddVeth(rtnl.Veth{Name: "eth0", MAC: sides[0].mac[:], PeerNS: fd, PeerName: "eth0", PeerMAC: sides[1].mac[:]})
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range sides {
		s := &sides[i]
		if err := s.ns.Do(func() error {
			h, err := rtnl.Open()
			if err != nil {
				return err
			}
			defer h.Close()
			if s.index, err = h.Index("eth0"); err != nil {
				return err
			}
			return errors.Join(
				h.SetState(s.index, true),
				h.AddAddress(s.index, rtnl.Address{Prefix: netip.PrefixFrom(s.four, 24)}),
				h.AddAddress(s.index, rtnl.Address{Prefix: netip.PrefixFrom(s.link6, 64), NoDAD: true}))
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sides {
		s.awaitRunning(t)
	}
	return sides[0], sides[1]
}

// awaitRunning waits until the link carries frames: the kernel notices some time
// after both ends are up, and drops without a word what is sent before.
func (s side) awaitRunning(t testing.TB) {
	t.Helper()
	if err := s.ns.Do(func() error {
		h, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(10 * time.Second); ; <-tick.C {
			if ok, err := h.Running(s.index); ok || err != nil {
				return err
			}
			if time.Now().After(end) {
				return errors.New("the link does not run after 10 s")
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func (s side) vrrp(t testing.TB, six bool) *sys.VRRPSocket {
	t.Helper()
	var sock *sys.VRRPSocket
	if err := s.ns.Do(func() (err error) { sock, err = sys.OpenVRRPSocket(s.index, six); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(sock.Close(), sock.Close()); err != nil {
			t.Error(err)
		}
	})
	return sock
}

func (s side) neighbours(t testing.TB) *sys.NeighbourSocket {
	t.Helper()
	var sock *sys.NeighbourSocket
	if err := s.ns.Do(func() (err error) { sock, err = sys.OpenNeighbourSocket(s.index); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(sock.Close(), sock.Close()); err != nil {
			t.Error(err)
		}
	})
	return sock
}

type receiver interface {
	FD() int
	Receive(*sys.Batch) (int, syscall.Errno)
}

// await waits until the socket has something, and receives it.
func await(t testing.TB, s receiver, b *sys.Batch) {
	t.Helper()
	e, err := sys.NewEpoll(1)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if errno := e.Add(s.FD(), sys.EventIn, 0); errno != 0 {
		t.Fatal(errno)
	}
	for {
		events, err := e.Wait(make([]sys.Event, 1), 10_000)
		if err != nil || len(events) == 0 {
			t.Fatalf("nothing has arrived in 10 s: %v", err)
		}
		if n, errno := s.Receive(b); errno == 0 && n > 0 {
			return
		} else if errno != syscall.EAGAIN {
			t.Fatal(errno)
		}
	}
}

// empty says that nothing waits.
func empty(t testing.TB, s receiver, b *sys.Batch) {
	t.Helper()
	if n, errno := s.Receive(b); errno != syscall.EAGAIN {
		t.Errorf("received %d messages (%v), want none", n, errno)
	}
}

func TestVRRPSocket(t *testing.T) {
	for _, six := range []bool{false, true} {
		t.Run(map[bool]string{false: "IPv4", true: "IPv6"}[six], func(t *testing.T) {
			a, b := cable(t)
			sa, sb := a.vrrp(t, six), b.vrrp(t, six)
			from, peer, group := a.four, b.four, netip.MustParseAddr("224.0.0.18")
			if six {
				from, peer, group = a.link6, b.link6, netip.MustParseAddr("ff02::12")
			}
			batch := sys.NewBatch(4, 256)

			// To the group, before the peer has joined it: it is for nobody.
			if errno := sa.Send([]byte("early"), from, group); errno != 0 {
				t.Fatal(errno)
			}
			if err := errors.Join(sa.Join(group), sb.Join(group)); err != nil {
				t.Fatal(err)
			}
			for n, to := range []netip.Addr{group, peer} {
				msg := []byte{byte(n), 'a', 'd', 'v', 'e', 'r', 't'}
				if errno := sa.Send(msg, from, to); errno != 0 {
					t.Fatal(errno)
				}
				await(t, sb, batch)
				d, ok := batch.Datagram(0)
				if !ok || batch.Len() != 1 || !bytes.Equal(d.Message, msg) || d.From != from || d.To != to || d.HopLimit != 255 {
					t.Errorf("%d messages, the first %v: %q from %v to %v, hop limit %d", batch.Len(), ok, d.Message, d.From, d.To, d.HopLimit)
				}
			}
			empty(t, sb, batch)
			empty(t, sa, batch) // its own do not come back

			// More than fits into the batch, and one that is too long for it.
			for i := range 5 {
				if errno := sa.Send(bytes.Repeat([]byte{byte(i)}, 100+100*(i/4)), from, peer); errno != 0 {
					t.Fatal(errno)
				}
			}
			short := sys.NewBatch(3, 150)
			await(t, sb, short)
			for !short.Full() { // the first event may come before the third message
				await(t, sb, short)
			}
			n, errno := sb.Receive(short)
			if errno != 0 || n != 2 || short.Full() || !short.Cut(1) {
				t.Errorf("the rest is %d messages (%v), full %v, cut %v", n, errno, short.Full(), short.Cut(1))
			}
			if d, ok := short.Datagram(1); ok {
				t.Errorf("half a message of %d bytes is a datagram", len(d.Message))
			}

			// What does not fit together is refused.
			if errno := sa.Send([]byte("x"), netip.Addr{}, peer); six != (errno == 0) && errno != syscall.EAFNOSUPPORT {
				t.Errorf("from nowhere: %v", errno)
			}
			for _, family := range []struct{ from, to netip.Addr }{{a.four, b.link6}, {a.link6, b.four}} {
				if errno := sa.Send([]byte("x"), family.from, family.to); errno != syscall.EAFNOSUPPORT {
					t.Errorf("from %v to %v: %v", family.from, family.to, errno)
				}
			}
			if errno := sa.Send([]byte("x"), netip.MustParseAddr(map[bool]string{false: "192.0.2.77", true: "fe80::77"}[six]), group); errno == 0 {
				t.Error("an advert left from an address that this machine does not have")
			}
			if err := sa.Join(peer); err == nil || !strings.Contains(err.Error(), peer.String()) {
				t.Errorf("joined a host's address: %v", err)
			}

			if n := testing.AllocsPerRun(100, func() {
				if errno := sa.Send([]byte("again"), from, peer); errno != 0 {
					t.Error(errno)
				}
				if _, errno := sb.Receive(batch); errno == 0 {
					for i := range batch.Len() {
						if _, ok := batch.Datagram(i); !ok {
							t.Error("no datagram")
						}
					}
				}
			}); n != 0 {
				t.Errorf("%v allocations for a message", n)
			}
		})
	}
}

// A socket sees its own link only.
func TestVRRPSocketLink(t *testing.T) {
	a, b := cable(t)
	var lo *sys.VRRPSocket
	if err := b.ns.Do(func() error {
		i, err := net.InterfaceByName("lo")
		if err != nil {
			return err
		}
		lo, err = sys.OpenVRRPSocket(i.Index, false)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer lo.Close()
	sa, sb := a.vrrp(t, false), b.vrrp(t, false)
	if errno := sa.Send([]byte("advert"), a.four, b.four); errno != 0 {
		t.Fatal(errno)
	}
	batch := sys.NewBatch(1, 64)
	await(t, sb, batch)
	empty(t, lo, batch)
}

func TestNeighbourSocket(t *testing.T) {
	a, b := cable(t)
	sa, sb := a.neighbours(t), b.neighbours(t)
	batch := sys.NewBatch(8, 128)

	// An ARP request by hand: the peer's kernel answers, and both sides see what
	// they should.
	ask := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, a.mac[:]...)
	ask = append(ask, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
	ask = append(append(ask, a.mac[:]...), a.four.AsSlice()...)
	ask = append(append(ask, 0, 0, 0, 0, 0, 0), b.four.AsSlice()...)
	if errno := sa.Send(ask); errno != 0 {
		t.Fatal(errno)
	}
	isARP := func(frame []byte, op byte) bool {
		return len(frame) >= 42 && frame[12] == 0x08 && frame[13] == 0x06 && frame[21] == op
	}
	seen := func(s receiver, op byte) (frame []byte, outgoing bool) {
		t.Helper()
		for {
			await(t, s, batch)
			for i := range batch.Len() {
				if frame, outgoing := batch.Frame(i); isARP(frame, op) {
					return bytes.Clone(frame), outgoing
				}
			}
		}
	}
	if frame, outgoing := seen(sb, 1); outgoing || !bytes.Equal(frame, ask) {
		t.Errorf("the peer sees the request as %x, outgoing %v", frame, outgoing)
	}
	// The request that the socket has sent itself is not seen, so the first is
	// the answer.
	if frame, outgoing := seen(sa, 2); outgoing || !bytes.Equal(frame[22:28], b.mac[:]) {
		t.Errorf("the answer is seen as %x, outgoing %v", frame, outgoing)
	}
	sb2 := b.neighbours(t) // another one, to find the peer's own frames in both
	if errno := sa.Send(ask); errno != 0 {
		t.Fatal(errno)
	}
	if frame, outgoing := seen(sb2, 2); !outgoing {
		t.Errorf("the peer's own answer is not seen as outgoing: %x", frame)
	}

	// Other traffic is filtered: a TCP connection in IPv6 leaves only neighbour
	// discovery behind.
	var ln net.Listener
	zone := func(a netip.Addr) string { return net.JoinHostPort(a.WithZone("eth0").String(), "7") }
	if err := b.ns.Do(func() (err error) { ln, err = net.Listen("tcp", zone(b.link6)); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := a.ns.Do(func() error {
		c, err := net.DialTimeout("tcp", zone(b.link6), 10*time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	types := make(map[byte]bool)
	for {
		n, errno := sa.Receive(batch)
		if errno == syscall.EAGAIN {
			break
		}
		for i := range n {
			switch frame := batch.Bytes(i); {
			case frame[12] == 0x86 && frame[20] == 58 && (frame[54] == 135 || frame[54] == 136):
				types[frame[54]] = true
			case frame[12] != 0x08 || frame[13] != 0x06:
				t.Errorf("the filter lets %x pass", frame)
			}
		}
	}
	if !types[135] || !types[136] {
		t.Errorf("neighbour discovery of the connection was not seen: %v", types)
	}
	if n, err := sa.Dropped(); n != 0 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if errno := sa.Send(ask); errno != 0 {
			t.Error(errno)
		}
		if _, errno := sb.Receive(batch); errno != 0 && errno != syscall.EAGAIN {
			t.Error(errno)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a frame", n)
	}
}

// A frame of a VLAN is not the link's, although its tag is taken off before the
// socket sees it; one with a priority only is.
func TestNeighbourSocketVLAN(t *testing.T) {
	a, b := cable(t)
	sa, sb := a.neighbours(t), b.neighbours(t)
	arp := func(n byte, tag ...byte) []byte {
		f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, a.mac[:]...)
		f = append(append(f, tag...), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
		return append(f, append(make([]byte, 19), n)...)
	}
	for _, frame := range [][]byte{
		arp(1, 0x81, 0, 0, 5),    // VLAN 5
		arp(2, 0x81, 0, 0xe0, 0), // priority 7
		arp(3, 0x81, 0, 0xe0, 1), // VLAN 1, priority 7
		arp(4),
	} {
		if errno := sa.Send(frame); errno != 0 {
			t.Fatal(errno)
		}
	}
	batch := sys.NewBatch(8, 128)
	var seen []byte
	for len(seen) == 0 || seen[len(seen)-1] != 4 {
		await(t, sb, batch)
		for i := range batch.Len() {
			if f := batch.Bytes(i); f[12] == 0x08 && f[13] == 0x06 {
				seen = append(seen, f[41])
			}
		}
	}
	if !bytes.Equal(seen, []byte{2, 4}) {
		t.Errorf("seen are the frames %v, want 2 and 4", seen)
	}
}

// A switch that has forgotten where a host is sends everybody what is for it: an
// answer to that host tells this one nothing.
func TestNeighbourSocketOtherHost(t *testing.T) {
	a, b := cable(t)
	sa, sb := a.neighbours(t), b.neighbours(t)
	reply := func(to [6]byte, n byte) []byte {
		f := append(append(to[:], a.mac[:]...), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2)
		return append(f, append(make([]byte, 19), n)...)
	}
	advertisement := func(to [6]byte, n byte) []byte {
		f := append(append(to[:], a.mac[:]...), 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255)
		f = append(append(f, a.link6.AsSlice()...), b.link6.AsSlice()...)
		return append(f, append([]byte{136, 0, 0, 0, 0x60}, append(make([]byte, 18), n)...)...)
	}
	other, everybody := [6]byte{2, 0, 0, 0, 0, 9}, [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for _, frame := range [][]byte{
		reply(other, 1), advertisement(other, 2),
		reply(b.mac, 3), advertisement(b.mac, 4), reply(everybody, 5),
	} {
		if errno := sa.Send(frame); errno != 0 {
			t.Fatal(errno)
		}
	}
	batch := sys.NewBatch(8, 128)
	var seen []byte
	for len(seen) == 0 || seen[len(seen)-1] != 5 {
		await(t, sb, batch)
		for i := range batch.Len() {
			if f := batch.Bytes(i); bytes.Equal(f[6:12], a.mac[:]) && (f[12] == 0x08 || f[54] == 136) {
				seen = append(seen, f[len(f)-1])
			}
		}
	}
	if !bytes.Equal(seen, []byte{3, 4, 5}) {
		t.Errorf("seen are the frames %v, want 3, 4 and 5", seen)
	}
}

// What the kernel dropped because nobody received is told once.
func TestNeighbourSocketDropped(t *testing.T) {
	a, b := cable(t)
	sa, sb := a.neighbours(t), b.neighbours(t)
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, a.mac[:]...)
	frame = append(frame, 0x08, 0x06)
	frame = append(frame, make([]byte, 100)...)
	// Frames arrive some time after they were sent.
	for dropped := uint64(0); dropped == 0; {
		for range 1000 {
			if errno := sa.Send(frame); errno != 0 && errno != syscall.ENOBUFS && errno != syscall.EAGAIN {
				t.Fatal(errno)
			}
		}
		var err error
		if dropped, err = sb.Dropped(); err != nil || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	// What is told is told once: soon, nothing is left to tell.
	for {
		n, err := sb.Dropped()
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
}

func TestBootAlarm(t *testing.T) {
	a, err := sys.NewBootAlarm()
	if err != nil {
		t.Fatal(err)
	}
	e, err := sys.NewEpoll(1)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if errno := e.Add(a.FD(), sys.EventIn, 7); errno != 0 {
		t.Fatal(errno)
	}
	events := make([]sys.Event, 1)
	wait := func(ms int) bool {
		t.Helper()
		got, err := e.Wait(events[:1], ms)
		if err != nil {
			t.Fatal(err)
		}
		return len(got) == 1 && got[0].Key == 7
	}
	if wait(0) {
		t.Error("an alarm that is not set goes off")
	}
	at := sys.BootTime() + int64(20*time.Millisecond)
	if err := a.Set(at); err != nil {
		t.Fatal(err)
	}
	if !wait(10_000) || sys.BootTime() < at {
		t.Errorf("the alarm went off %v before its time", time.Duration(at-sys.BootTime()))
	}
	if !wait(0) {
		t.Error("nobody has cleared it, and it is silent")
	}
	a.Clear()
	a.Clear() // never blocks
	if wait(0) {
		t.Error("it is cleared, and goes on")
	}
	for _, past := range []int64{at, 1, -5} {
		if err := a.Set(past); err != nil || !wait(10_000) {
			t.Errorf("set to %d, which has passed, it does not go off: %v", past, err)
		}
	}
	if err := a.Set(sys.BootTime() + int64(time.Hour)); err != nil || wait(0) {
		t.Errorf("set to later, the former alarm goes on: %v", err)
	}
	if err := a.Set(0); err != nil || wait(0) {
		t.Errorf("unset: %v", err)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
}

// priorities counts the threads of this process by policy and priority, as ps
// reads them.
func priorities(t *testing.T) map[string]int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]int)
	for _, task := range tasks {
		stat, err := os.ReadFile("/proc/self/task/" + task.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
		found[fields[38]+"/"+fields[37]]++ // policy/priority
	}
	return found
}

// The scheduling of a process is tried in one that ends, as its own test binary.
func TestRealtime(t *testing.T) {
	if os.Getenv("HOLDFAST_TEST_REALTIME") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRealtime$", "-test.v")
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_REALTIME=1")
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "--- SKIP") {
			t.Skipf("%s", out)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	runtime.LockOSThread()
	if n, err := sys.Scheduling(); n != 0 || err != nil {
		t.Fatalf("the priority is %d at the start, %v", n, err)
	}
	if err := sys.SetRealtime(7); errors.Is(err, syscall.EPERM) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if n, err := sys.Scheduling(); n != 7 || err != nil {
		t.Errorf("the priority is %d, want 7, %v", n, err)
	}
	if got := priorities(t); got["2/7"] != 1 || len(got) < 2 {
		t.Errorf("one thread was to change: %v", got)
	}
	if err := sys.SetRealtimeAll(9); err != nil {
		t.Fatal(err)
	}
	if got := priorities(t); len(got) != 1 || got["2/9"] == 0 {
		t.Errorf("all threads were to change: %v", got)
	}
	if err := sys.SetRealtimeAll(0); err != nil {
		t.Fatal(err)
	}
	if got := priorities(t); len(got) != 1 || got["0/0"] == 0 {
		t.Errorf("all threads were to change back: %v", got)
	}
	for _, n := range []int{-1, 100} {
		if err := sys.SetRealtime(n); err == nil {
			t.Errorf("priority %d is taken", n)
		}
	}
	if err := sys.LockMemory(); err != nil {
		t.Errorf("lock memory: %v", err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(status, []byte("VmLck:")) || bytes.Contains(status, []byte("VmLck:\t       0 kB")) {
		t.Errorf("no memory is locked:\n%s", status)
	}
	if err := sys.UnlockMemory(); err != nil {
		t.Error(err)
	}

	// Who may not is told what is missing. Only this thread loses what it has:
	// with the race detector, no call reaches all.
	header := struct{ version, pid uint32 }{version: 0x20080522}
	var none [6]uint32
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0); errno != 0 {
		t.Fatal(errno)
	}
	if err := sys.SetRealtime(7); err == nil || !strings.Contains(err.Error(), "CAP_SYS_NICE") {
		t.Errorf("without capabilities: %v", err)
	}
	if err := syscall.Setrlimit(8 /* RLIMIT_MEMLOCK */, &syscall.Rlimit{Cur: 65536, Max: 65536}); err != nil {
		t.Fatal(err)
	}
	if err := sys.LockMemory(); err == nil || !strings.Contains(err.Error(), "CAP_IPC_LOCK") {
		t.Errorf("without capabilities: %v", err)
	}
	for name, err := range map[string]error{
		"adverts":    func() error { _, err := sys.OpenVRRPSocket(1, false); return err }(),
		"neighbours": func() error { _, err := sys.OpenNeighbourSocket(1); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "CAP_NET_RAW") {
			t.Errorf("%s without capabilities: %v", name, err)
		}
	}
}
