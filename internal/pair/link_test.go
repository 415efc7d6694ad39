package pair

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("waited %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// families are the loopback addresses of each family.
var families = []struct {
	name      string
	one, two  netip.Addr
	elsewhere netip.Addr // where strangers come from
}{
	{"IPv4", netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.12"), netip.MustParseAddr("127.0.0.66")},
	{"IPv6", netip.MustParseAddr("::1"), netip.MustParseAddr("::1"), netip.MustParseAddr("::1")},
}

// inFamilies runs a test for each family.
func inFamilies(t *testing.T, test func(t *testing.T, one, two, elsewhere netip.Addr)) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) { test(t, f.one, f.two, f.elsewhere) })
	}
}

// freePort returns an address with a port that nobody listens on.
func freePort(t *testing.T, a netip.Addr) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// makeKeys makes the keys of a pair.
func makeKeys(t *testing.T) [2]*Keys {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := Init(dir); err != nil {
		t.Fatal(err)
	}
	var keys [2]*Keys
	for i := range keys {
		var err error
		if keys[i], err = LoadKeys(nodeDir(dir, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// testNode is one end of a link in a test.
type testNode struct {
	t    *testing.T
	o    Options
	link *Link
	end  context.CancelFunc
	done chan error

	mu     sync.Mutex
	states []string
	beats  []string
	peers  []Peer
	aliens map[string]int
}

// pairOptions are those of two nodes that are each other's peer.
func pairOptions(t *testing.T, one, two netip.Addr) [2]Options {
	t.Helper()
	keys := makeKeys(t)
	at := [2]netip.AddrPort{freePort(t, one), freePort(t, two)}
	var o [2]Options
	for i := range o {
		o[i] = Options{
			Listen: at[i], Peer: at[1-i], Keys: keys[i], Node: fmt.Sprintf("lb%d", i+1), Version: "test",
			Digest: []byte{byte(i)}, Silence: 2 * time.Second, BeatAge: 5 * time.Second,
		}
	}
	return o
}

func startNode(t *testing.T, o Options) *testNode {
	t.Helper()
	n := &testNode{t: t, o: o, done: make(chan error, 1), aliens: make(map[string]int)}
	o.Logger = slog.New(slog.NewTextHandler(testLog{t, o.Node}, nil))
	o.OnState = func(s State) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.states = append(n.states, s.State)
	}
	o.OnBeat = func(b []byte) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.beats = append(n.beats, string(b))
	}
	o.OnPeer = func(p Peer) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.peers = append(n.peers, p)
	}
	o.OnAlien = func(_ netip.AddrPort, reason string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.aliens[reason]++
	}
	var err error
	if n.link, err = New(o); err != nil {
		t.Fatal(err)
	}
	if err := n.link.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.end = cancel
	go func() { n.done <- n.link.Run(ctx) }()
	t.Cleanup(n.stop)
	return n
}

// stop ends the node as its program's end does; it may be called twice.
func (n *testNode) stop() {
	n.end()
	select {
	case err := <-n.done:
		if err != nil {
			n.t.Errorf("Run of %s: %v", n.o.Node, err)
		}
		n.done <- nil
	case <-time.After(patience):
		n.t.Errorf("Run of %s does not end", n.o.Node)
	}
}

func (n *testNode) wait(state string) {
	n.t.Helper()
	eventually(n.t, n.o.Node+" is not "+state, func() bool { return n.link.State().State == state })
}

func (n *testNode) gotBeats() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.beats...)
}

type testLog struct {
	t    *testing.T
	node string
}

func (w testLog) Write(p []byte) (int, error) {
	w.t.Logf("%s: %s", w.node, bytes.TrimSpace(p))
	return len(p), nil
}

func startPair(t *testing.T, o [2]Options) [2]*testNode {
	t.Helper()
	n := [2]*testNode{startNode(t, o[0]), startNode(t, o[1])}
	n[0].wait(Synced)
	n[1].wait(Synced)
	return n
}

func TestLink(t *testing.T) {
	inFamilies(t, func(t *testing.T, one, two, _ netip.Addr) {
		n := startPair(t, pairOptions(t, one, two))
		for i, node := range n {
			s := node.link.State()
			if want := n[1-i].o.Node; s.Peer.Node != want || s.Peer.Version != "test" || !bytes.Equal(s.Peer.Digest, []byte{byte(1 - i)}) {
				t.Errorf("%s sees the peer %+v, want %s", node.o.Node, s.Peer, want)
			}
			eventually(t, "no round trip was measured", func() bool { return node.link.State().RTT > 0 })
		}
		for i := range 100 {
			if err := n[i%2].link.SendBeat(fmt.Appendf(nil, "beat %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		for i, node := range n {
			eventually(t, "beats are missing", func() bool { return len(node.gotBeats()) == 50 })
			for j, b := range node.gotBeats() {
				if want := fmt.Sprintf("beat %d", 2*j+1-i); b != want {
					t.Fatalf("%s got %q as beat %d, want %q", node.o.Node, b, j, want)
				}
			}
		}
		if err := n[0].link.SetDigest([]byte("new")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new digest does not come", func() bool { return string(n[1].link.State().Peer.Digest) == "new" })

		n[0].stop()
		n[1].wait(Down)
		eventually(t, "the reason is not told", func() bool { return n[1].link.State().Error != "" })
	})
}
