package pair

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// alienError is why the other end of a connection is not the peer.
type alienError struct {
	reason string
	err    error
}

func (e *alienError) Error() string { return e.err.Error() }

// Unwrap returns what was wrong.
func (e *alienError) Unwrap() error { return e.err }

// tlsConfig is the same for both ends: TLS 1.3, both prove themselves, nothing
// is resumed, and the only thing that counts is whether the other end has the
// key that is pinned, which verify says. No clock is asked.
func (k *Keys) tlsConfig() *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{k.cert},
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13, // its suites are fixed
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		NextProtos:             []string{"holdfast-pair"},
		ClientAuth:             tls.RequestClientCert, // whether it is the one is for verify to say, with a better reason
		InsecureSkipVerify:     true,                  // of chains, names and dates; verify takes their place
		SessionTicketsDisabled: true,
	}
}

// verify is called in the handshake of either end, before the other one has
// proved that it has the key: TLS checks that next.
func (k *Keys) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return &alienError{AlienNoKey, errors.New("it has no certificate")}
	}
	id, err := parseIdentity(s.PeerCertificates[0].Raw)
	switch {
	case err != nil:
		return &alienError{AlienKey, fmt.Errorf("it has %w", err)}
	case id.key.Equal(k.peer):
		return nil
	case id.key.Equal(k.own):
		return &alienError{AlienSelf, errors.New("it has this node's own key: both nodes were given the same directory of keys; give one of them the other directory that `holdfast pair init` made")}
	case id.cluster != k.Cluster:
		return &alienError{AlienCluster, fmt.Errorf("it is a node of pair %s, and this one is of pair %s: give both nodes the directories of one run of `holdfast pair init`", id.cluster, k.Cluster)}
	}
	return &alienError{AlienKey, fmt.Errorf("its key is %s, and the peer's is %s", fingerprint(id.key), k.PeerFingerprint())}
}

// timed is a connection that ends when nothing comes for some time.
type timed struct {
	net.Conn
	left    int           // bytes that may be read; not counted once silence is set
	silence time.Duration // 0: whoever set a deadline knows better
}

// errFaster is that the peer has made a connection while this node made one.
var errFaster = errors.New("the peer was faster")

var errTooMuch = errors.New("more bytes than a greeting has")

// Read reads, by a deadline of its own.
func (c *timed) Read(p []byte) (int, error) {
	if c.silence > 0 {
		if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
		return c.Conn.Read(p)
	}
	if c.left == 0 {
		return 0, &alienError{AlienGarbage, errTooMuch}
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// conn is a connection to the peer, who has proved that he is.
type conn struct {
	raw   *net.TCPConn
	timed *timed
	tls   *tls.Conn
	r     *bufio.Reader
	peer  Peer

	digest []byte // what we said is ours
	adopt  bool   // the first to be said is that this is the link

	stop chan struct{} // closed when the writer is to end
	last bye           // what it says then; the zero bye: nothing
}

// establish makes a connection to the peer of a TCP connection, or fails with
// the reason why it is none. It closes raw if it fails, and when ctx ends before
// it is done.
func (l *Link) establish(ctx context.Context, raw *net.TCPConn, dialled bool) (_ *conn, err error) {
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer func() {
		if err != nil || !stop() {
			raw.Close()
		}
	}()
	if err := raw.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, err
	}
	if err := tune(raw, l.o.Silence); err != nil {
		return nil, err
	}
	c := &conn{raw: raw, timed: &timed{Conn: raw, left: handshakeBytes}, stop: make(chan struct{})}
	config, pinned := l.tls.Clone(), false
	config.VerifyConnection = func(s tls.ConnectionState) error {
		err := l.o.Keys.verify(s)
		pinned = err == nil
		return err
	}
	if dialled {
		c.tls = tls.Client(c.timed, config)
	} else {
		c.tls = tls.Server(c.timed, config)
	}
	if err := c.tls.HandshakeContext(ctx); err != nil {
		err = explainHandshake(err)
		if a, ok := errors.AsType[*alienError](err); ok && pinned && a.reason == AlienGarbage {
			return nil, &alienError{AlienKey, fmt.Errorf("it shows the peer's certificate, and does not prove that it has the key: %w", err)}
		}
		return nil, err
	}
	c.r = bufio.NewReaderSize(c.tls, 32<<10)
	// Before the greeting either may turn back. After it, what node 2 has
	// offered is for node 1 to take or leave.
	if dialled && l.Connected() {
		return nil, errFaster
	}
	if err := l.greet(c); err != nil {
		return nil, explainHandshake(err)
	}
	if l.o.Keys.Number == 2 { // node 1 chooses
		if err := c.awaitAdoption(); err != nil {
			return nil, err
		}
	} else if dialled && l.Connected() {
		return nil, errFaster
	} else {
		c.adopt = true
	}
	c.timed.silence = l.o.Silence
	return c, nil
}

// greet says who we are, and hears who the peer is.
func (l *Link) greet(c *conn) error {
	l.mu.Lock()
	mine := hello{
		oldest: protocolMin, latest: protocolMax, cluster: l.o.Keys.Cluster, number: uint8(l.o.Keys.Number),
		node: l.o.Node, version: l.o.Version, digest: l.digest,
	}
	l.mu.Unlock()
	c.digest = mine.digest
	if _, err := c.tls.Write(mine.appendTo(nil)); err != nil {
		return err
	}
	h, payload, _, err := readFrame(c.r, nil)
	if err != nil {
		return err
	}
	if h.kind == kindBye {
		return byeError(payload)
	}
	if h.kind != kindHello {
		return &frameError{h.kind, "the first frame must be a hello"}
	}
	yours, err := parseHello(payload)
	if err != nil {
		return err
	}
	if err := mine.accepts(yours); err != nil {
		// So that its log says why, too. That it cannot be said changes nothing.
		_, _ = c.tls.Write(bye{byeRefused, err.Error()}.appendTo(nil))
		return err
	}
	from, _ := netip.ParseAddrPort(c.raw.RemoteAddr().String())
	c.peer = Peer{Node: yours.node, Version: yours.version, Digest: yours.digest, Address: from}
	return nil
}

// accepts says whether two nodes can be a pair.
func (h hello) accepts(peer hello) error {
	switch {
	case peer.cluster != h.cluster:
		return &alienError{AlienCluster, fmt.Errorf("it is a node of pair %s, and this one is of pair %s: give both nodes the directories of one run of `holdfast pair init`", peer.cluster, h.cluster)}
	case peer.number == h.number:
		return &alienError{AlienSelf, fmt.Errorf("it is node %d of the pair, as this one is: give one of them the other directory that `holdfast pair init` made", peer.number)}
	case peer.node == h.node:
		return &alienError{AlienName, fmt.Errorf("both nodes have the name %q: give them different names (node:)", h.node)}
	case peer.latest < h.oldest:
		return &alienError{AlienVersion, fmt.Errorf("node %s speaks the link's protocol up to version %d, and this one from %d on: update holdfast there (it is %s)", peer.node, peer.latest, h.oldest, peer.version)}
	case peer.oldest > h.latest:
		return &alienError{AlienVersion, fmt.Errorf("node %s speaks the link's protocol from version %d on, and this one up to %d: update holdfast here (there it is %s)", peer.node, peer.oldest, h.latest, peer.version)}
	}
	return nil
}

// awaitAdoption waits for node 1 to say that this connection is the link.
func (c *conn) awaitAdoption() error {
	h, payload, _, err := readFrame(c.r, nil)
	switch {
	case err != nil:
		return fmt.Errorf("node 1 of the pair did not take the connection: %w", err)
	case h.kind == kindBye:
		return byeError(payload)
	case h.kind != kindAdopt:
		return &frameError{h.kind, "node 1 must say first that it takes the connection"}
	}
	return parseAdopt(payload)
}

// closedError is that the peer ended the link, and said why.
type closedError struct{ bye }

func (e *closedError) Error() string {
	switch e.reason {
	case byeStopping:
		return "the peer's program ends"
	case byeReplaced:
		return "the peer has a newer connection"
	case byeMalformed:
		return "the peer could not read this node: " + e.text
	}
	return "the peer refuses this node: " + e.text
}

func byeError(payload []byte) error {
	m, err := parseBye(payload)
	if err != nil {
		return err
	}
	return &closedError{m}
}

// explainHandshake gives what went wrong before the peer was known the reason of
// a stranger.
func explainHandshake(err error) error {
	if _, ok := errors.AsType[*alienError](err); ok {
		return err
	}
	if e, ok := errors.AsType[*closedError](err); ok {
		return e
	}
	if _, ok := errors.AsType[*UnknownFrameError](err); ok {
		return &alienError{AlienVersion, err}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &alienError{AlienSlow, fmt.Errorf("it did not prove who it is in %v", handshakeTime)}
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &alienError{AlienGarbage, errors.New("it closed the connection before it proved who it is")}
	}
	if a, ok := errors.AsType[*net.OpError](err); ok && a.Op == "remote error" { // how crypto/tls gives an alert
		return &alienError{AlienRefuses, fmt.Errorf("it refuses this node's key (%w): both nodes need the directories of one run of `holdfast pair init`", a.Err)}
	}
	return &alienError{AlienGarbage, err}
}
