//go:build linux

package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// account is what the kernel's counters and the ledger say of one direction.
type account struct {
	read, written uint64
	held          []byte
}

// accountOf derives the account of a direction the way a successor would: from
// the two sockets and the memory file alone.
func accountOf(mem *sys.Memory, entry, direction int, read, written uint64) (account, error) {
	a := account{read: read, written: written}
	if read < written {
		return a, fmt.Errorf("direction %d: %d bytes written, but only %d read", direction, written, read)
	}
	if read == written {
		return a, nil
	}
	off := headerSize + entry*entrySize + entryFlow + 16*direction
	slot, base := mem.Word(off).Load(), mem.Word(off+8).Load()
	slotsOff := int(mem.Word(40).Load())
	if slot == 0 || base > written || read-base > slotSize {
		return a, fmt.Errorf("direction %d: slot %d from %d on cannot hold %d to %d", direction, slot, base, written, read)
	}
	data := mem.Bytes(slotsOff+int(slot-1)*slotSize, slotSize)
	a.held = bytes.Clone(data[written-base : read-base])
	return a, nil
}

// audit compares, on the pair's loop, what the relay believes with what the
// kernel's counters and the ledger say.
func audit(p *pair) error {
	client, err := positionOf(p.client.fd, false, p.out.passed)
	if err != nil {
		return err
	}
	backend, err := positionOf(p.backend.fd, true, p.in.passed)
	if err != nil {
		return err
	}
	for _, d := range []struct {
		name          string
		f             *flow
		read, written uint64
	}{{"in", &p.in, client.received, backend.sent}, {"out", &p.out, backend.received, client.sent}} {
		if d.f.read != d.read || d.f.written != d.written {
			return fmt.Errorf("%s: the relay counts %d read and %d written, the kernel %d and %d", d.name, d.f.read, d.f.written, d.read, d.written)
		}
		direction := 0
		if d.f == &p.out {
			direction = 1
		}
		a, err := accountOf(p.loop.store.mem, int(p.entry), direction, d.read, d.written)
		if err != nil {
			return err
		}
		var held []byte
		if d.f.held() {
			held = p.loop.store.bytes(d.f.slot)[d.f.off:d.f.end]
		}
		if !bytes.Equal(a.held, held) {
			return fmt.Errorf("%s: the ledger points to %d bytes, the relay holds %d", d.name, len(a.held), len(held))
		}
	}
	return nil
}

func (g *rig) audit(t *testing.T, what string) {
	t.Helper()
	var mu sync.Mutex
	var err error
	n := 0
	g.ask(func(l *loop) {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range pairsOf(l) {
			if p.stage == stageOpen {
				n++
				err = errors.Join(err, audit(p))
			}
		}
	})
	if err != nil || n != 1 {
		t.Fatalf("%s: %d connections; %v", what, n, err)
	}
}

// TestAccountAtEveryByte sends a stream a byte at a time, and stops it at each:
// at every boundary the kernel's counters, the ledger and the relay agree.
func TestAccountAtEveryByte(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		client := dial(t, s.Addrs()[0])
		server := b.next(t)
		pass(t, client, server, []byte{0}) // the backend may know of the connection before the relay does
		g.audit(t, "the first byte in")
		for i := range 400 {
			pass(t, client, server, []byte{byte(i)})
			g.audit(t, fmt.Sprintf("%d bytes in", i+1))
			pass(t, server, client, []byte{byte(i)})
			g.audit(t, fmt.Sprintf("%d bytes out", i+1))
		}
		client.(*net.TCPConn).CloseWrite()
		wantEOF(t, server)
		g.audit(t, "client's end passed on")
		for i := range 100 {
			pass(t, server, client, []byte{byte(i)})
			g.audit(t, "behind the client's end")
		}
	})
}

// TestAccountOfHeldBytes lets the kernel take only so many bytes of what was
// read, for every number of them: the rest is held, and accounted for.
func TestAccountOfHeldBytes(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		const size = 300
		for take := range size {
			g := &rig{more: make(chan struct{}, 16)}
			r, err := New(Options{Loops: 1})
			if err != nil {
				t.Fatal(err)
			}
			g.Relay = r
			l := r.loops[0]
			room := take
			l.kernel.send = func(fd int, p []byte) (int, syscall.Errno) {
				if room == 0 {
					return 0, syscall.EAGAIN
				}
				n, errno := sys.Send(fd, p[:min(len(p), room)])
				room -= n
				return n, errno
			}
			done := make(chan error, 1)
			go func() { done <- r.Run(t.Context()) }()
			b := newBackend(t, host)
			s := g.service(t, host, ServiceOptions{}, b.addr())
			client := dial(t, s.Addrs()[0])
			server := b.next(t)
			data := random(size)
			if _, err := client.Write(data); err != nil {
				t.Fatal(err)
			}
			awaitHeld(t, g)
			g.audit(t, fmt.Sprintf("%d of %d bytes taken", take, size))
			g.ask(func(l *loop) {
				p := l.pairs.first
				if held := p.in.read - p.in.written; held != size-uint64(take) {
					t.Errorf("%d bytes are held, want %d", held, size-take)
				}
				room = 1 << 30
				p.backend.writable = true
				p.advance()
			})
			got := make([]byte, size)
			if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("the stream did not arrive whole: %v", err)
			}
			client.Close()
			server.Close()
			r.Close()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// awaitHeld waits until the relay holds what the kernel did not take.
func awaitHeld(t *testing.T, g *rig) {
	t.Helper()
	for range 10_000 {
		var held atomic.Bool
		g.ask(func(l *loop) {
			if list := pairsOf(l); len(list) == 1 && list[0].in.held() {
				held.Store(true)
			}
		})
		if held.Load() {
			return
		}
	}
	t.Fatal("the relay never held anything")
}

const crashEnv = "HOLDFAST_TEST_CRASH"

// TestSurvivesSIGKILL kills relays at random moments of a transfer both ways.
// What they had read and not written is found from the kernel's counters and
// the ledger; with it the streams are continued here, and arrive whole.
func TestSurvivesSIGKILL(t *testing.T) {
	if os.Getenv(crashEnv) != "" {
		crashChild(t)
		return
	}
	each(t, func(t *testing.T, host string) {
		held := 0
		for i := range 8 {
			held += surviveOne(t, host, rand.New(rand.NewPCG(7, uint64(i))))
		}
		if held == 0 {
			t.Error("no run had bytes in the relay when it was killed: the test shows nothing")
		}
	})
}

// tcpPair makes a connection over loopback. near is the end of the side that
// accepted or, if dialled says so, connected; far is the other one.
func tcpPair(t *testing.T, host string, dialled bool) (near *os.File, far net.Conn) {
	t.Helper()
	b := newBackend(t, host)
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(t.Context(), "tcp", b.addr())
	if err != nil {
		t.Fatal(err)
	}
	keep, far := c, net.Conn(b.next(t))
	if !dialled {
		keep, far = far, keep
	}
	near, err = keep.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	keep.Close()
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

func surviveOne(t *testing.T, host string, rng *rand.Rand) (held int) {
	clientLeg, client := tcpPair(t, host, false)
	backendLeg, server := tcpPair(t, host, true)

	cmd := exec.Command(os.Args[0], "-test.run=^TestSurvivesSIGKILL$")
	cmd.Env = append(os.Environ(), crashEnv+"=1")
	cmd.ExtraFiles = []*os.File{clientLeg, backendLeg}
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 16)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	memFD, _ := strconv.Atoi(string(bytes.TrimSpace(line[:n])))

	const size = 8 << 20
	up, down := random(size), random(size)
	gotUp, gotDown := make(chan []byte, 1), make(chan []byte, 1)
	read := func(c net.Conn, out chan<- []byte, pause time.Duration) {
		var all []byte
		buf := make([]byte, 64<<10)
		for len(all) < size {
			n, err := c.Read(buf)
			all = append(all, buf[:n]...)
			if err != nil {
				break
			}
			if pause > 0 && len(all)%(1<<20) < n {
				<-time.After(pause) // a reader that lags makes the relay hold
			}
		}
		out <- all
	}
	client.SetDeadline(time.Now().Add(30 * time.Second))
	go client.Write(up)
	go server.Write(down)
	go read(server, gotUp, time.Millisecond)
	go read(client, gotDown, time.Millisecond)

	<-time.After(time.Duration(rng.IntN(10_000)) * time.Microsecond) // the moment of the crash
	// Stopped first, so that its memory can be opened; then killed.
	cmd.Process.Signal(syscall.SIGSTOP)
	memFile, err := syscall.Open(fmt.Sprintf("/proc/%d/fd/%d", cmd.Process.Pid, memFD), syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := sys.OpenMemory(memFile)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	cmd.Process.Kill()
	cmd.Wait()

	cl, err := positionOf(int(clientLeg.Fd()), false, false)
	if err != nil {
		t.Fatal(err)
	}
	bl, err := positionOf(int(backendLeg.Fd()), true, false)
	if err != nil {
		t.Fatal(err)
	}
	in, err := accountOf(mem, 0, 0, cl.received, bl.sent)
	if err != nil {
		t.Fatal(err)
	}
	out, err := accountOf(mem, 0, 1, bl.received, cl.sent)
	if err != nil {
		t.Fatal(err)
	}
	// Carry on by hand. Fd has made the files blocking.
	carry := func(held []byte, from, to *os.File) {
		to.Write(held)
		io.Copy(to, io.NewSectionReader(readerAt{from}, 0, 1<<62))
	}
	go carry(in.held, clientLeg, backendLeg)
	go carry(out.held, backendLeg, clientLeg)
	if !bytes.Equal(<-gotUp, up) {
		t.Error("the upload did not survive")
	}
	if !bytes.Equal(<-gotDown, down) {
		t.Error("the download did not survive")
	}
	return len(in.held) + len(out.held)
}

// readerAt reads a file in order, whatever the offset: it keeps io.Copy from
// using splice, whose pipe could hide bytes.
type readerAt struct{ f *os.File }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return r.f.Read(p) }

// crashChild relays between descriptors 3 and 4 until it is killed.
func crashChild(t *testing.T) {
	r, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Listen(ServiceOptions{
		Listen:   []Address{MustParseAddress("127.0.0.1:0")},
		Backends: []Backend{{Name: "b", Address: MustParseAddress("127.0.0.1:9"), Weight: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l := r.loops[0]
	l.post(func() {
		entry, _ := l.store.open(1)
		p := &pair{loop: l, service: s, id: 1, entry: entry, in: flow{slot: noSlot}, out: flow{slot: noSlot}, timer: noTimer, target: s.targets["b"]}
		p.client = leg{pair: p, fd: 3, side: ByClient, tcp: true}
		p.backend = leg{pair: p, fd: 4, side: ByBackend, tcp: true}
		l.pairs.add(p)
		s.pairs[l.number].add(p)
		l.watch(&p.client)
		l.watch(&p.backend)
		p.opened()
	})
	fmt.Println(l.store.mem.Fd())
	r.Run(t.Context())
}
