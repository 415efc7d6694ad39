//go:build linux

package relay

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-net/holdfast/internal/sys"
)

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct{ in, out, err string }{
		{in: "10.0.0.1:80", out: "10.0.0.1:80"},
		{in: "[2001:db8::1]:80", out: "[2001:db8::1]:80"},
		{in: "[::ffff:10.0.0.1]:80", out: "10.0.0.1:80"},
		{in: "[fe80::1%eth0]:80", out: "[fe80::1%eth0]:80"},
		{in: "unix:/run/x.sock", out: "unix:/run/x.sock"},
		{in: "unix:", err: "path of the unix socket is missing"},
		{in: "unix:/" + strings.Repeat("x", 107), err: "at most 107 bytes"},
		{in: "unix:/a\x00b", err: "NUL"},
		{in: "example.com:80", err: "want IP:PORT"},
		{in: "10.0.0.1", err: "want IP:PORT"},
		{in: "10.0.0.1:70000", err: "want IP:PORT"},
		{in: "", err: "want IP:PORT"},
	} {
		a, err := ParseAddress(tt.in)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v, want an error about %q", tt.in, err, tt.err)
			}
		case err != nil || a.String() != tt.out:
			t.Errorf("%q: %v, %v", tt.in, a, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1:80", "[::1]:0", "unix:/x", "unix:", ":80", "[fe80::1%lo]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if (err == nil) != a.IsValid() {
			t.Fatalf("%q: %v, %v", s, a, err)
		}
		if err != nil {
			return
		}
		if b, err := ParseAddress(a.String()); err != nil || b != a {
			t.Fatalf("%q became %q, which is %v, %v", s, a, b, err)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	r, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	good := ServiceOptions{Listen: []Address{MustParseAddress("127.0.0.1:0")}}
	for field, spoil := range map[string]func(*ServiceOptions){
		"Listen":          func(o *ServiceOptions) { o.Listen = nil },
		"Listen[0]":       func(o *ServiceOptions) { o.Listen = []Address{{}} },
		"OnBackendLost":   func(o *ServiceOptions) { o.OnBackendLost = 9 },
		"ConnectTimeout":  func(o *ServiceOptions) { o.ConnectTimeout = time.Microsecond },
		"IdleTimeout":     func(o *ServiceOptions) { o.IdleTimeout = -1 },
		"DeadPeerTimeout": func(o *ServiceOptions) { o.DeadPeerTimeout = time.Second },
		"Drain":           func(o *ServiceOptions) { o.Drain.Idle = -1 },
		"Allow[0]":        func(o *ServiceOptions) { o.Allow = []netip.Prefix{{}} },
		"Backlog":         func(o *ServiceOptions) { o.Backlog = -1 },
		"Backends[0]":     func(o *ServiceOptions) { o.Backends = []Backend{{Name: "x"}} },
		"Backends":        func(o *ServiceOptions) { o.Backends = twice("x", 1) },
		"Weight":          func(o *ServiceOptions) { o.Backends = twice("", -1)[:1] },
	} {
		o := good
		spoil(&o)
		if _, err := r.Listen(o); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: the error is %v", field, err)
		}
	}
	if _, err := New(Options{Loops: -1}); err == nil {
		t.Error("a negative number of loops is accepted")
	}
}

func twice(name string, weight int) []Backend {
	b := Backend{Name: name + "b", Address: MustParseAddress("127.0.0.1:1"), Weight: weight}
	return []Backend{b, b}
}

func TestAllow(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, b.addr())
		wantRefused(t, s.Addrs()[0])
		if e := g.end(t, 0); e.Cause != CauseNotAllowed {
			t.Errorf("the end is %+v", e)
		}
	})
}

// TestTimers compares the heap with a plain map under random use.
func TestTimers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var heap timers
		pairs := make([]*pair, 20)
		for i := range pairs {
			pairs[i] = &pair{timer: noTimer}
		}
		model := map[*pair]int64{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			p := pairs[rapid.IntRange(0, len(pairs)-1).Draw(t, "pair")]
			if rapid.Bool().Draw(t, "remove") {
				heap.remove(p)
				delete(model, p)
			} else {
				due := rapid.Int64Range(1, 50).Draw(t, "due")
				heap.set(p, due)
				if old, ok := model[p]; !ok || due < old {
					model[p] = due
				}
			}
			earliest, some := int64(0), false
			for _, due := range model {
				if !some || due < earliest {
					earliest, some = due, true
				}
			}
			if got, ok := heap.next(); ok != some || got != earliest || len(heap) != len(model) {
				t.Fatalf("next is %d %v, want %d %v; %d in the heap, %d in the model", got, ok, earliest, some, len(heap), len(model))
			}
		}
	})
}

// TestStoreNeverSharesASlot takes and gives slots and entries at random.
func TestStoreNeverSharesASlot(t *testing.T) {
	s, err := newStore("test", 64)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	rapid.Check(t, func(t *rapid.T) {
		var held []int32
		var marks []byte
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "take") {
				slot, err := s.take()
				if err != nil {
					if len(held) < s.maxSlots {
						t.Fatal(err)
					}
					continue
				}
				mark := byte(len(held) + 1)
				b := s.bytes(slot)
				b[0], b[len(b)-1] = mark, mark
				held, marks = append(held, slot), append(marks, mark)
			} else if n := len(held); n > 0 {
				if b := s.bytes(held[n-1]); b[0] != marks[n-1] || b[len(b)-1] != marks[n-1] {
					t.Fatal("somebody else wrote into a slot that is held")
				}
				s.give(held[n-1])
				held, marks = held[:n-1], marks[:n-1]
			}
		}
		for _, slot := range held {
			s.give(slot)
		}
	})
	for i := range 64 {
		if _, ok := s.open(uint64(i + 1)); !ok {
			t.Fatalf("there is no entry number %d of 64", i+1)
		}
	}
	if _, ok := s.open(99); ok {
		t.Fatal("there are more entries than there is room for")
	}
}

// TestDerive is the arithmetic of positions, state by state.
func TestDerive(t *testing.T) {
	for _, tt := range []struct {
		name             string
		info             sys.TCPInfo
		unread, unacked  int
		connected, ended bool
		want             position
	}{
		{"accepted, quiet", sys.TCPInfo{State: sys.TCPEstablished}, 0, 0, false, false, position{}},
		{"connected, quiet: the SYN counts", sys.TCPInfo{State: sys.TCPEstablished, BytesAcked: 1}, 0, 0, true, false, position{}},
		{"bytes unread and unacknowledged", sys.TCPInfo{State: sys.TCPEstablished, BytesAcked: 11, BytesReceived: 20}, 5, 7, true, false, position{15, 17}},
		{"the peer's FIN counts", sys.TCPInfo{State: sys.TCPCloseWait, BytesReceived: 21, BytesAcked: 3}, 4, 0, false, false, position{16, 3}},
		{"our FIN, not acknowledged", sys.TCPInfo{State: sys.TCPFinWait1, BytesAcked: 3}, 0, 1, false, true, position{0, 3}},
		{"our FIN, acknowledged", sys.TCPInfo{State: sys.TCPFinWait2, BytesAcked: 4}, 0, 0, false, true, position{0, 3}},
		{"both FINs", sys.TCPInfo{State: sys.TCPLastAck, BytesReceived: 11, BytesAcked: 4}, 0, 1, true, true, position{10, 3}},
	} {
		got, err := derive(tt.info, tt.unread, tt.unacked, tt.connected, tt.ended)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
	if _, err := derive(sys.TCPInfo{State: sys.TCPClosed}, 0, 0, false, false); err == nil {
		t.Error("a closed socket has a position")
	}
}

// TestNothingIsLeft opens and ends connections of every kind and counts
// descriptors before and after.
func TestNothingIsLeft(t *testing.T) {
	count := func() int {
		n, err := sys.OpenFiles()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close() // the runtime's own poller has its descriptors from here on
	}
	before := count()
	t.Run("run", func(t *testing.T) {
		dir := t.TempDir()
		g, b := newRig(t), newBackend(t, "127.0.0.1")
		s := g.service(t, "127.0.0.1", ServiceOptions{}, b.addr(), "unix:"+filepath.Join(dir, "nobody"))
		for range 10 {
			client := dial(t, s.Addrs()[0])
			server := b.next(t)
			pass(t, client, server, random(100_000))
		}
		front := MustParseAddress("unix:" + filepath.Join(dir, "front"))
		g.service(t, "", ServiceOptions{Listen: []Address{front}}, b.addr())
		dial(t, front)
		if _, err := g.Listen(ServiceOptions{Listen: []Address{front}}); err == nil {
			t.Error("a unix socket can be bound twice")
		}
		g.Close()
		if _, err := os.Lstat(front.Path()); !os.IsNotExist(err) {
			t.Errorf("the unix socket's file is left: %v", err)
		}
	})
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// startChild starts the test binary again, with its mission in the environment.
// The caller ends it: by closing stdin, and waiting.
func startChild(tb testing.TB, env string, args ...string) (cmd *exec.Cmd, stdin io.WriteCloser, lines *bufio.Reader) {
	tb.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	return cmd, stdin, bufio.NewReader(stdout)
}
