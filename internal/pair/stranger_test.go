package pair

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// forge makes a certificate that says what it is told to, with a key of its own.
func forge(t *testing.T, cluster ClusterID, n int, from, until time.Time) (tls.Certificate, ed25519.PublicKey) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until,
		Subject: pkix.Name{CommonName: nodeName(n), Organization: []string{certOrganization}, OrganizationalUnit: []string{cluster.String()}},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, pub, priv)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}, pub
}

// dialFrom connects from an address.
func dialFrom(t *testing.T, from netip.Addr, to netip.AddrPort) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patience}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// gone waits until the other end has closed, and returns what it sent.
func gone(t *testing.T, c net.Conn) []byte {
	t.Helper()
	b, err := io.ReadAll(c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Fatal("a stranger is kept")
	}
	return b
}

// TestStrangers: whoever is not the peer gets nothing, is counted by what he is,
// and the link between the nodes does not notice.
func TestStrangers(t *testing.T) {
	inFamilies(t, func(t *testing.T, one, two, elsewhere netip.Addr) {
		n := startPair(t, pairOptions(t, one, two))
		node := n[0]
		others := makeKeys(t)
		year := time.Hour * 24 * 365
		wrong, _ := forge(t, node.o.Keys.Cluster, 2, time.Now().Add(-year), time.Now().Add(year))
		alone, _ := forge(t, ClusterID{}, 2, time.Now().Add(-year), time.Now().Add(year))
		stolen := tls.Certificate{Certificate: n[1].o.Keys.cert.Certificate, PrivateKey: wrong.PrivateKey}
		notOurs, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "www"}},
			&x509.Certificate{}, wrong.PrivateKey.(ed25519.PrivateKey).Public(), wrong.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		withTLS := func(certs ...tls.Certificate) func(t *testing.T, c net.Conn) {
			return func(t *testing.T, c net.Conn) {
				s := tls.Client(c, &tls.Config{Certificates: certs, InsecureSkipVerify: true, NextProtos: []string{"holdfast-pair"}})
				_ = s.Handshake() // TLS 1.3: the client does not wait for what the server thinks of him
				_, _ = s.Write(hello{oldest: 1, latest: 1, cluster: node.o.Keys.Cluster, number: 2, node: "me"}.appendTo(nil))
				if b := gone(t, s); len(b) > 0 {
					t.Errorf("a stranger got %x", b)
				}
			}
		}
		raw := func(b []byte) func(t *testing.T, c net.Conn) {
			return func(t *testing.T, c net.Conn) {
				_, _ = c.Write(b)
				_ = c.(*net.TCPConn).CloseWrite()
				gone(t, c)
			}
		}
		random := make([]byte, 4096)
		_, _ = rand.Read(random)
		long := make([]byte, 64<<10) // a greeting of TLS that does not end
		for i := 0; i+5+16384 < len(long); i += 5 + 16384 {
			copy(long[i:], []byte{22, 3, 1, 0x40, 0})
			if i == 0 {
				copy(long[5:], []byte{1, 0, 0xff, 0xff})
			}
		}
		for _, tt := range []struct {
			name, reason string
			visit        func(t *testing.T, c net.Conn)
		}{
			{"no certificate", AlienNoKey, withTLS()},
			{"a key of his own, for this pair", AlienKey, withTLS(wrong)},
			{"a node of another pair", AlienCluster, withTLS(others[1].cert)},
			{"a node of no pair", AlienCluster, withTLS(alone)},
			{"a certificate of something else", AlienKey, withTLS(tls.Certificate{Certificate: [][]byte{notOurs}, PrivateKey: wrong.PrivateKey})},
			{"the peer's certificate without its key", AlienKey, withTLS(stolen)},
			{"this node's own key", AlienSelf, withTLS(node.o.Keys.cert)},
			{"nothing", AlienGarbage, raw(nil)},
			{"random bytes", AlienGarbage, raw(random)},
			{"a web browser", AlienGarbage, raw([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))},
			{"a greeting without an end", AlienGarbage, raw(long)},
			{"a frame without TLS", AlienGarbage, raw(appendBeat(nil, []byte("active")))},
			{"TLS 1.2", AlienGarbage, func(t *testing.T, c net.Conn) {
				s := tls.Client(c, &tls.Config{Certificates: []tls.Certificate{n[1].o.Keys.cert}, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
				if s.Handshake() == nil {
					t.Error("TLS 1.2 is spoken")
				}
				gone(t, c)
			}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				before := node.link.State()
				tt.visit(t, dialFrom(t, elsewhere, node.o.Listen))
				eventually(t, "he is not counted as "+tt.reason, func() bool {
					return node.link.State().Counters.Strangers[tt.reason] == before.Counters.Strangers[tt.reason]+1
				})
				after := node.link.State()
				if after.State != Synced || after.Since != before.Since || after.Counters.Connects != before.Counters.Connects {
					t.Errorf("the link was %v and is %v", before, after)
				}
			})
		}
		node.mu.Lock()
		defer node.mu.Unlock()
		for reason, times := range node.aliens {
			if times > 1 {
				t.Errorf("%s was told %d times within %v", reason, times, tellAliens)
			}
		}
	})
}

// TestSlowStrangers: who says nothing is waited for, but by few, not for long,
// and never in the peer's place.
func TestSlowStrangers(t *testing.T) {
	f := families[0] // in IPv6, loopback has one address, which is the peer's too
	o := pairOptions(t, f.one, f.two)
	node := startNode(t, o[0])
	var crowd []net.Conn
	for range maxStrangers {
		crowd = append(crowd, dialFrom(t, f.elsewhere, o[0].Listen))
	}
	for range 5 {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.elsewhere, 0)), Timeout: patience}
		c, err := d.Dial("tcp", o[0].Listen.String())
		if errors.Is(err, syscall.ECONNRESET) {
			continue // turned away before the dialler looked
		}
		if err != nil {
			t.Fatal(err)
		}
		gone(t, c)
		c.Close()
	}
	eventually(t, "a crowd is let in", func() bool { return node.link.State().Counters.Strangers[AlienCrowd] == 5 })

	// The peer comes from its own address, past the crowd.
	peer := startNode(t, o[1])
	node.wait(Synced)
	peer.wait(Synced)

	for _, c := range crowd {
		if b := gone(t, c); len(b) > 0 {
			t.Errorf("a silent stranger got %x", b)
		}
	}
	eventually(t, "they are not counted", func() bool { return node.link.State().Counters.Strangers[AlienSlow] == maxStrangers })
	if s := node.link.State(); s.State != Synced || s.Counters.Connects != 1 {
		t.Errorf("the link suffered: %+v", s)
	}
}

// TestReplay: what was recorded of a real session is worth nothing afterwards.
func TestReplay(t *testing.T) {
	inFamilies(t, func(t *testing.T, one, two, elsewhere netip.Addr) {
		o := pairOptions(t, one, two)
		tap := startWire(t, one, o[0].Listen)
		o[1].Peer = tap.address()
		o[0].Peer = freePort(t, two) // node 1 finds nobody: node 2 calls, through the tap
		n := [2]*testNode{startNode(t, o[0]), startNode(t, o[1])}
		n[0].wait(Synced)
		n[1].wait(Synced)
		for range 10 {
			if err := n[1].link.SendBeat([]byte("active")); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "beats are missing", func() bool { return len(n[0].gotBeats()) == 10 })
		n[1].stop()
		n[0].wait(Down)
		recorded := tap.recorded()
		if len(recorded) < 500 {
			t.Fatalf("the tap has %d bytes", len(recorded))
		}
		before := n[0].link.State().Counters
		c := dialFrom(t, elsewhere, o[0].Listen)
		_, _ = c.Write(recorded)
		gone(t, c)
		eventually(t, "a recording is not counted", func() bool {
			after := n[0].link.State().Counters.Strangers
			return after[AlienGarbage]+after[AlienKey] == before.Strangers[AlienGarbage]+before.Strangers[AlienKey]+1
		})
		if got := n[0].gotBeats(); len(got) != 10 || n[0].link.Connected() {
			t.Errorf("a recording was believed: %d beats", len(got))
		}
	})
}

// TestClocks: the dates of certificates, which is what clocks are held against,
// are of no importance.
func TestClocks(t *testing.T) {
	for _, tt := range []struct {
		name        string
		from, until time.Time
	}{
		{"not valid any more", time.Unix(0, 0), time.Unix(1, 0)},
		{"not valid yet", time.Now().AddDate(100, 0, 0), time.Now().AddDate(101, 0, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := pairOptions(t, families[0].one, families[0].two)
			for i := range o {
				k := *o[i].Keys
				k.cert, k.own = forge(t, k.Cluster, i+1, tt.from, tt.until)
				o[i].Keys = &k
			}
			o[0].Keys.peer, o[1].Keys.peer = o[1].Keys.own, o[0].Keys.own
			startPair(t, o)
		})
	}
}

// TestWrongPeers: what is wrong between the nodes themselves is said at both.
func TestWrongPeers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spoil  func(t *testing.T, o *[2]Options)
		reason string
		error  string
	}{
		{"both have one directory", func(_ *testing.T, o *[2]Options) { o[1].Keys = o[0].Keys }, AlienRefuses, "own key"},
		{"keys of two runs", func(t *testing.T, o *[2]Options) { o[1].Keys = makeKeys(t)[1] }, AlienRefuses, "of pair"},
		{"one name", func(_ *testing.T, o *[2]Options) { o[1].Node = o[0].Node }, AlienName, "different names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := pairOptions(t, families[0].one, families[0].two)
			tt.spoil(t, &o)
			for _, n := range []*testNode{startNode(t, o[0]), startNode(t, o[1])} {
				eventually(t, "it is not said", func() bool {
					s := n.link.State()
					return strings.Contains(s.Error, tt.error) || strings.Contains(s.Error, "refuses this node")
				})
				eventually(t, "it is not counted", func() bool { return n.link.State().Counters.Strangers[tt.reason] > 0 })
				if n.link.State().State != Down {
					t.Error("the link is up")
				}
			}
		})
	}
}

// TestAccepts: what is compared of two greetings.
func TestAccepts(t *testing.T) {
	mine := hello{oldest: 2, latest: 4, cluster: ClusterID{1}, number: 1, node: "a"}
	good := hello{oldest: 3, latest: 7, cluster: ClusterID{1}, number: 2, node: "b"}
	if err := mine.accepts(good); err != nil {
		t.Errorf("a peer: %v", err)
	}
	for reason, change := range map[string]func(h *hello){
		AlienCluster: func(h *hello) { h.cluster = ClusterID{2} },
		AlienSelf:    func(h *hello) { h.number = 1 },
		AlienName:    func(h *hello) { h.node = "a" },
		AlienVersion: func(h *hello) { h.oldest, h.latest = 5, 7 },
	} {
		h := good
		change(&h)
		if a, ok := errors.AsType[*alienError](mine.accepts(h)); !ok || a.reason != reason {
			t.Errorf("%s: %v", reason, mine.accepts(h))
		}
	}
	old := good
	old.oldest, old.latest = 1, 1
	if a, ok := errors.AsType[*alienError](mine.accepts(old)); !ok || a.reason != AlienVersion {
		t.Errorf("a peer that is too old: %v", mine.accepts(old))
	}
}

// TestGuard: places and rates, by the clock that it is given.
func TestGuard(t *testing.T) {
	peer, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	g := newGuard(peer)
	now := time.Unix(1000, 0)
	for i := range maxStrangers + 1 {
		if ok := g.admit(other, now); ok != (i < maxStrangers) {
			t.Fatalf("stranger %d: %t", i+1, ok)
		}
	}
	for i := range maxFromPeer + 1 {
		if ok := g.admit(netip.MustParseAddr("::ffff:192.0.2.1"), now); ok != (i < maxFromPeer) {
			t.Fatalf("peer %d: %t", i+1, ok)
		}
	}
	for range maxStrangers {
		g.leave(other)
	}
	for i := range strangerRate - maxStrangers + 1 {
		ok := g.admit(other, now.Add(999*time.Millisecond))
		if ok != (i < strangerRate-maxStrangers) {
			t.Fatalf("stranger %d of the second: %t", i+1, ok)
		}
		if ok {
			g.leave(other)
		}
	}
	if !g.admit(other, now.Add(time.Second)) {
		t.Error("nobody is admitted in the next second")
	}
	if !g.admit(other, now.Add(-time.Hour)) {
		t.Error("a clock that was set back keeps everybody out")
	}
	told := 0
	for i := range 100 {
		if _, say := g.alien(AlienSlow, now.Add(time.Duration(i)*time.Second)); say {
			told++
		}
	}
	if told != 10 || g.counts[AlienSlow] != 100 {
		t.Errorf("100 in 100 s: told %d times, counted %d", told, g.counts[AlienSlow])
	}
}

// wire carries connections to an address, as long as it is not cut or frozen.
type wire struct {
	t  *testing.T
	l  net.Listener
	to netip.AddrPort

	mu     sync.Mutex
	free   *sync.Cond // no longer frozen, or over
	frozen bool
	over   bool
	conns  map[net.Conn]bool
	record bytes.Buffer // towards to
	wg     sync.WaitGroup
}

func startWire(t *testing.T, at netip.Addr, to netip.AddrPort) *wire {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, l: l, to: to, conns: make(map[net.Conn]bool)}
	w.free = sync.NewCond(&w.mu)
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		l.Close()
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
		w.cut()
		w.wg.Wait()
	})
	return w
}

func (w *wire) address() netip.AddrPort { return w.l.Addr().(*net.TCPAddr).AddrPort() }

func (w *wire) accept() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to.String())
		if err != nil {
			c.Close()
			continue
		}
		w.mu.Lock()
		over := w.over
		w.conns[c], w.conns[out] = true, true
		w.mu.Unlock()
		if over {
			w.cut()
		}
		w.wg.Go(func() { w.carry(out, c, true) })
		w.wg.Go(func() { w.carry(c, out, false) })
	}
}

func (w *wire) carry(to, from net.Conn, record bool) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		w.mu.Lock()
		for w.frozen && !w.over {
			w.free.Wait()
		}
		if record {
			w.record.Write(b[:n])
		}
		w.mu.Unlock()
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// cut ends what goes through it; new connections can be made.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
	clear(w.conns)
	w.free.Broadcast()
}

// freeze holds everything, as a network does that loses every packet.
func (w *wire) freeze(frozen bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = frozen
	w.free.Broadcast()
}

func (w *wire) recorded() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.record.Bytes())
}
