package node_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/pair"
	"github.com/holdfast-net/holdfast/lab"
)

// A couple is two nodes of a pair in a laboratory, a client and a backend.
type couple struct {
	t       *testing.T
	lab     *lab.Lab
	dir     string
	family  lab.Family
	address netip.Prefix
	nodes   [2]*member

	mu      sync.Mutex
	arrived []arrival
}

// An arrival is a connection as the backend sees it.
type arrival struct {
	net.Conn
	from netip.AddrPort
	end  chan error // how its stream ended; nil for well
}

// arrivals are those there were so far.
func (c *couple) arrivals() []arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.arrived)
}

// A member is one node of a couple.
type member struct {
	*couple
	name         string
	host         *lab.Host
	file, socket string
	more         string // groups beside front
	drain        string // of the service; "": none
	bare         bool   // without addresses, so far
	called       string // in the file; "": name
	process      *lab.Process
	admin        admin.Client
}

func newCouple(t *testing.T, f lab.Family) *couple {
	t.Helper()
	return newCoupleOn(t, f, lab.OneArm)
}

func newCoupleOn(t *testing.T, f lab.Family, layout func(lab.Size) (lab.Topology, error)) *couple {
	t.Helper()
	top, err := layout(lab.Size{Clients: 1, Nodes: 2, Backends: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Supported(top); err != nil {
		t.Skip(err)
	}
	l, err := lab.Start(t.Context(), top, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &couple{t: t, lab: l, family: f, address: lab.Address(f, 100)}
	c.dir, err = os.MkdirTemp("", "pair") //nolint:usetesting // unix sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pair.Init(filepath.Join(c.dir, "keys")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.nodes {
				if n.process != nil {
					t.Logf("%s:\n%s", n.name, n.process.Output())
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(c.dir)
	})
	for i := range c.nodes {
		name := fmt.Sprintf("node%d", i+1)
		n := &member{couple: c, name: name, host: l.Host(name), file: filepath.Join(c.dir, name+".yaml"), socket: filepath.Join(c.dir, name, "s")}
		if err := os.Mkdir(filepath.Join(c.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(n.path("may"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		n.admin.Socket = n.socket
		c.nodes[i] = n
		n.write()
	}
	ln, err := l.Host("backend1").Listen(t.Context(), "tcp", l.Host("backend1").AddrPort(f, 9000).String())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	var serving sync.WaitGroup
	go func() {
		defer close(served)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			a := arrival{conn, conn.RemoteAddr().(*net.TCPAddr).AddrPort(), make(chan error, 1)}
			c.mu.Lock()
			c.arrived = append(c.arrived, a)
			c.mu.Unlock()
			serving.Go(func() {
				defer conn.Close()
				_, err := io.Copy(conn, conn)
				a.end <- err
			})
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-served
		for _, a := range c.arrivals() { // a node that is dead ends none
			_ = a.Close()
		}
		serving.Wait()
	})
	return c
}

func (n *member) path(name string) string { return filepath.Join(n.dir, n.name, name) }

// write writes the node's file.
func (n *member) write() {
	n.t.Helper()
	i := slices.Index(n.nodes[:], n)
	text := fmt.Sprintf(`node: %[12]s
pair: {listen: "%[2]s", peer: "%[3]s", keys: %[4]s/keys/node%[5]d}
addresses:
  - name: front
    interface: eth0
    addresses: ["%[6]s"]
    vrrp: {id: 51, priority: %[7]d, interval: 100ms}
    track: {command: [test, -e, %[4]s/%[1]s/may], interval: 1s, fall: 2, rise: 1}
    notify:
      active: [/bin/sh, -c, 'echo "$HOLDFAST_GROUP $HOLDFAST_ROLE $HOLDFAST_BEFORE $HOLDFAST_CAUSE $HOLDFAST_EPOCH $HOLDFAST_ADDRESSES" >> %[4]s/%[1]s/told']
      backup: [/bin/sh, -c, 'echo "$HOLDFAST_GROUP $HOLDFAST_ROLE $HOLDFAST_BEFORE $HOLDFAST_CAUSE" >> %[4]s/%[1]s/told']
%[8]s
services:
  - name: web
    listen: "%[9]s"
    health: {none: {}}
    drain: {%[11]s}
    backends: [{name: b1, address: "%[10]s"}]
admin: {socket: %[4]s/%[1]s/s}
directories: {runtime: %[4]s/%[1]s}
`, n.name, n.host.AddrPort(n.family, 7420), n.other().host.AddrPort(n.family, 7420), n.dir, i+1, n.address, 200-50*i, n.more,
		netip.AddrPortFrom(n.address.Addr(), 80), n.lab.Host("backend1").AddrPort(n.family, 9000), n.drain, cmp.Or(n.called, n.name))
	if n.bare {
		head, rest, _ := strings.Cut(text, "addresses:\n")
		_, rest, _ = strings.Cut(rest, "\nservices:\n")
		text = head + "services:\n" + strings.Replace(rest, netip.AddrPortFrom(n.address.Addr(), 80).String(), ":81", 1)
	}
	if err := os.WriteFile(n.file, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *member) other() *member {
	if n.nodes[0] == n {
		if n.nodes[1] == nil { // while they are being made
			return &member{couple: n.couple, name: "node2", host: n.lab.Host("node2")}
		}
		return n.nodes[1]
	}
	return n.nodes[0]
}

func (n *member) start() {
	n.t.Helper()
	p, err := n.host.Start(lab.Command{Argv: []string{holdfast(n.t), "run", "-c", n.file}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.process = p
	n.await("it answers", func(admin.Status) bool { return true })
}

// group is the node's view of front; false where it does not answer.
func (n *member) group() (admin.AddressGroup, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	list, err := n.admin.Addresses(ctx)
	if err != nil || len(list) == 0 {
		return admin.AddressGroup{}, false
	}
	return list[0], true
}

// await waits until the node's status is so.
func (n *member) await(what string, so func(admin.Status) bool) {
	n.t.Helper()
	until(n.t, n.name+": "+what, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s, err := n.admin.Status(ctx)
		return err == nil && so(s)
	})
}

func (n *member) awaitRole(role string) admin.AddressGroup {
	n.t.Helper()
	var last admin.AddressGroup
	until(n.t, n.name+" is "+role, func() bool {
		g, ok := n.group()
		last = g
		return ok && g.Role == role
	})
	return last
}

// has reports whether the address is on the node's interface.
func (n *member) has() bool {
	n.t.Helper()
	out, err := n.host.Run(context.Background(), "ip", "-o", "addr", "show", "dev", "eth0")
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Contains(out, " "+n.address.String()+" ")
}

// elector is the number of its process.
func (n *member) elector() string {
	n.t.Helper()
	text, err := os.ReadFile(n.path("elector.lock"))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (n *member) signal(sig syscall.Signal) {
	n.t.Helper()
	if _, err := n.process.Signal(sig); err != nil {
		n.t.Fatal(err)
	}
}

// told is the last line that a notify command has written.
func (n *member) told() string {
	text, _ := os.ReadFile(n.path("told"))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// connect has the client talk to the service on the address.
func (c *couple) connect() net.Conn {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), within)
	defer cancel()
	conn, err := c.lab.Host("client1").Dial(ctx, "tcp", netip.AddrPortFrom(c.address.Addr(), 80).String())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	c.talk(conn)
	return conn
}

func (c *couple) talk(conn net.Conn) {
	c.t.Helper()
	_ = conn.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(conn, "hello"); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		c.t.Fatal(err)
	}
}

// wantReset waits for a connection to be told.
func (c *couple) wantReset(conn net.Conn) {
	c.t.Helper()
	_ = conn.SetDeadline(time.Now().Add(within))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("the client was told %v, want a reset", err)
	}
}

// settled waits until one node is active and the other backup, in sync.
func (c *couple) settled() (active, backup *member) {
	c.t.Helper()
	until(c.t, "one is active, one backup", func() bool {
		active, backup = nil, nil
		for _, n := range c.nodes {
			g, ok := n.group()
			switch {
			case ok && g.Role == admin.RoleActive && n.has():
				active = n
			case ok && g.Role == admin.RoleBackup && !n.has() && g.Peer != nil && g.Peer.Linked:
				backup = n
			}
		}
		return active != nil && backup != nil
	})
	return active, backup
}

func TestPair(t *testing.T) {
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		t.Run(f.String(), func(t *testing.T) { testPair(t, f) })
	}
}

func testPair(t *testing.T, f lab.Family) {
	c := newCouple(t, f)
	for _, n := range c.nodes {
		n.start()
	}
	active, backup := c.settled()
	if active != c.nodes[0] {
		t.Errorf("%s is active, want the larger priority", active.name)
	}
	until(t, "the backup's command has run", func() bool { return backup.told() == "front backup fault start" })
	until(t, "the active one's has", func() bool {
		return strings.HasPrefix(active.told(), "front active backup silence 1 "+c.address.String())
	})
	active.await("well", func(s admin.Status) bool {
		return s.Pair.State == "synced" && len(s.Pair.Differs) == 0 && s.Elector.State == "up"
	})

	t.Run("a command by hand is followed", func(t *testing.T) {
		if _, err := active.admin.ChangeBackend(t.Context(), "web", "b1", admin.BackendCommand{Do: admin.DoWeight, Weight: 7}); err != nil {
			t.Fatal(err)
		}
		backup.await("it follows", func(s admin.Status) bool {
			b := s.Services[0].Backends[0]
			return b.Weight == 7 && b.ByHand != nil && strings.HasSuffix(b.ByHand.By, " at "+active.name)
		})
	})

	t.Run("a release hands over, and tells", func(t *testing.T) {
		conn := c.connect()
		r, err := active.admin.Release(t.Context(), "front")
		if err != nil || len(r.Groups) != 1 || r.Groups[0].Owner != backup.name {
			t.Fatalf("the release says %+v, %v", r, err)
		}
		c.wantReset(conn)
		if g := backup.awaitRole(admin.RoleActive); g.Cause != admin.CauseHandover || g.Epoch != 2 {
			t.Errorf("the new owner says %+v", g)
		}
		c.connect()
		active, backup = c.settled()
		until(t, "a release by who does not own it names the owner", func() bool {
			_, err := backup.admin.Release(t.Context(), "front")
			return err != nil && strings.Contains(err.Error(), "the owner is "+active.name)
		})
	})

	t.Run("a killed daemon moves nothing", func(t *testing.T) {
		conn := c.connect()
		elector := active.elector()
		active.signal(syscall.SIGKILL)
		until(t, "it is gone", func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%d", active.process.PID()))
			return errors.Is(err, os.ErrNotExist)
		})
		// By its kernel, and not by a reset: nobody has accounted for its bytes.
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the client got a byte")
		}
		if !active.has() {
			t.Error("the address has gone with the daemon")
		}
		active.start()
		active.awaitRole(admin.RoleActive)
		if !active.has() || active.elector() != elector {
			t.Errorf("the elector is %s, was %s", active.elector(), elector)
		}
		if g, _ := backup.group(); g.Role != admin.RoleBackup {
			t.Errorf("the other node is %s", g.Role)
		}
		c.connect()
		// What was done by hand comes back from the other node.
		active.await("the weight set by hand", func(s admin.Status) bool { return s.Services[0].Backends[0].Weight == 7 })
	})

	t.Run("a frozen daemon loses the address", func(t *testing.T) {
		active.signal(syscall.SIGSTOP)
		if g := backup.awaitRole(admin.RoleActive); g.Epoch < 3 {
			t.Errorf("the new owner's epoch is %d", g.Epoch)
		}
		if active.has() {
			t.Error("both have the address")
		}
		active.signal(syscall.SIGCONT)
		active.awaitRole(admin.RoleBackup)
		active, backup = c.settled()
	})

	t.Run("a killed elector is replaced", func(t *testing.T) {
		elector := active.elector()
		if _, err := active.host.Run(t.Context(), "kill", "-9", elector); err != nil {
			t.Fatal(err)
		}
		until(t, "another runs", func() bool { return active.elector() != elector })
		active.await("it is attached", func(s admin.Status) bool { return s.Elector.State == "up" && len(s.Addresses) == 1 })
		active, backup = c.settled()
		c.connect()
	})

	t.Run("a tracked command that fails gives up", func(t *testing.T) {
		if err := os.Remove(active.path("may")); err != nil {
			t.Fatal(err)
		}
		backup.awaitRole(admin.RoleActive)
		active.await("it is in fault", func(s admin.Status) bool {
			return s.Addresses[0].Role == admin.RoleFault && slices.ContainsFunc(s.Problems, func(p admin.Problem) bool {
				return p.Code == admin.ProblemAddressFault && strings.Contains(p.Text, "the command test failed")
			})
		})
		if err := os.WriteFile(active.path("may"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		active.awaitRole(admin.RoleBackup)
		active, backup = c.settled()
	})

	t.Run("a reload adds a group and takes it away", func(t *testing.T) {
		conn := c.connect()
		second := lab.Address(f, 200)
		active.more = fmt.Sprintf("  - {name: own, interface: eth0, addresses: [%q]}\n", second)
		active.write()
		r, err := active.admin.Reload(t.Context())
		if err != nil || !slices.Contains(r.Changes, fmt.Sprintf("addresses own added (%s on eth0)", second)) {
			t.Fatalf("the reload says %+v, %v", r, err)
		}
		active.await("it owns both", func(s admin.Status) bool {
			return len(s.Addresses) == 2 && s.Addresses[0].Role == admin.RoleActive && s.Addresses[1].Role == admin.RoleActive
		})
		backup.await("the files differ", func(s admin.Status) bool { return slices.Equal(s.Pair.Differs, []string{"addresses.own"}) })
		active.more = ""
		active.write()
		if r, err := active.admin.Reload(t.Context()); err != nil || !slices.Contains(r.Changes, "addresses own removed") {
			t.Fatalf("the reload says %+v, %v", r, err)
		}
		active.await("one is left", func(s admin.Status) bool { return len(s.Addresses) == 1 })
		c.talk(conn) // it noticed nothing
		backup.await("the files agree", func(s admin.Status) bool { return len(s.Pair.Differs) == 0 })
	})

	t.Run("a move waits as drain says", func(t *testing.T) {
		active.drain = "idle: 300ms" // and no timeout
		active.write()
		if _, err := active.admin.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		quiet, busy := c.connect(), c.connect()
		released := make(chan error, 1)
		go func() {
			_, err := active.admin.Release(t.Context(), "front")
			released <- err
		}()
		told := make(chan error, 1)
		go func() {
			_ = quiet.SetDeadline(time.Now().Add(within))
			_, err := quiet.Read(make([]byte, 1))
			told <- err
		}()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for waits := true; waits; { // who is not idle has all the time there is
			c.talk(busy)
			select {
			case err := <-told:
				if waits = false; !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("who was idle was told %v, want a reset", err)
				}
			case err := <-released:
				t.Fatalf("the release did not wait for who was not idle: %v", err)
			case <-tick.C:
			}
		}
		c.talk(busy)
		_ = busy.Close()
		if err := <-released; err != nil {
			t.Error(err)
		}
		backup.awaitRole(admin.RoleActive)
		active.drain = ""
		active.write()
		if _, err := active.admin.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		active, backup = c.settled()
	})

	t.Run("SIGTERM is a planned release", func(t *testing.T) {
		conn := c.connect()
		elector := active.elector()
		active.signal(syscall.SIGTERM)
		c.wantReset(conn)
		if g := backup.awaitRole(admin.RoleActive); g.Cause != admin.CauseHandover {
			t.Errorf("the new owner says %s", g.Cause)
		}
		c.connect()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		if err := active.process.Wait(ctx); err != nil {
			t.Errorf("the node ended with %v", err)
		}
		until(t, "its elector has ended", func() bool {
			_, err := os.Stat("/proc/" + elector)
			return errors.Is(err, os.ErrNotExist)
		})
		// The last one has nobody to hand it to.
		backup.signal(syscall.SIGTERM)
		if err := backup.process.Wait(ctx); err != nil {
			t.Errorf("the other node ended with %v", err)
		}
		if active.has() || backup.has() {
			t.Error("the address is left behind")
		}
	})
}

// TestAddressesAlone has a node with addresses, and nothing else: no pair, no
// election, no service.
func TestAddressesAlone(t *testing.T) {
	top, err := lab.OneArm(lab.Size{Clients: 1, Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Supported(top); err != nil {
		t.Skip(err)
	}
	l, err := lab.Start(t.Context(), top, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "alone") //nolint:usetesting // unix sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	c := &couple{t: t, lab: l, dir: dir, address: lab.Address(lab.IPv4, 100)}
	n := &member{couple: c, name: "node1", host: l.Host("node1"), file: filepath.Join(dir, "f"), socket: filepath.Join(dir, "node1", "s")}
	n.admin.Socket = n.socket
	if err := os.Mkdir(filepath.Join(dir, "node1"), 0o700); err != nil {
		t.Fatal(err)
	}
	second := lab.Address(lab.IPv6, 100)
	text := fmt.Sprintf("node: node1\naddresses:\n  - {name: front, interface: eth0, addresses: [%q, %q]}\nadmin: {socket: %s/node1/s}\ndirectories: {runtime: %[3]s/node1}\n",
		c.address, second, dir)
	if err := os.WriteFile(n.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.await("it owns both families", func(s admin.Status) bool {
		return len(s.Addresses) == 1 && s.Addresses[0].Role == admin.RoleActive && len(s.Addresses[0].Present) == 2 && s.Pair == nil
	})
	client := l.Host("client1")
	for _, a := range []netip.Addr{c.address.Addr(), second.Addr()} {
		until(t, fmt.Sprintf("%v answers", a), func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			conn, err := client.Dial(ctx, "tcp", netip.AddrPortFrom(a, 9).String())
			if err == nil {
				_ = conn.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED) // nobody listens, and its kernel says so
		})
	}
	// Nothing here needs the daemon: its death moves nothing, for as long as it takes.
	elector := n.elector()
	n.signal(syscall.SIGKILL)
	<-n.process.Done() // a second: the elector holds its output open
	if !n.has() {
		t.Error("the address has gone with the daemon")
	}
	n.start()
	if n.awaitRole(admin.RoleActive); n.elector() != elector {
		t.Errorf("the elector is %s, was %s", n.elector(), elector)
	}
	r, err := n.admin.ReleaseNode(t.Context())
	if err != nil || len(r.Groups) != 1 || r.Groups[0].Owner != "" || !strings.Contains(r.Groups[0].Text, "withdrawn") {
		t.Errorf("the release says %+v, %v", r, err)
	}
	until(t, "it is withdrawn", func() bool { return !n.has() })
	n.await("that is a problem", func(s admin.Status) bool {
		return slices.ContainsFunc(s.Problems, func(p admin.Problem) bool { return p.Code == admin.ProblemAddressReleased })
	})
	if _, err := n.admin.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.awaitRole(admin.RoleActive)
	n.signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := n.process.Wait(ctx); err != nil {
		t.Error(err)
	}
	if n.has() {
		t.Error("the address is left behind")
	}
}
