package vip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func startLab(t *testing.T, top lab.Topology) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a laboratory needs root")
	}
	l, err := lab.Start(t.Context(), top, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func oneArm(t *testing.T, s lab.Size) *lab.Lab {
	t.Helper()
	top, err := lab.OneArm(s)
	if err != nil {
		t.Fatal(err)
	}
	return startLab(t, top)
}

// node is an Owner that runs in a host of the laboratory.
type node struct {
	t     *testing.T
	host  *lab.Host
	owner *Owner
	ended chan error
	stop  context.CancelFunc

	mu      sync.Mutex
	changed *sync.Cond
	changes []Change
}

// startNode runs an Owner in a host until the test ends.
func startNode(t *testing.T, host *lab.Host, opts Options) *node {
	t.Helper()
	n := newNode(t, host, opts)
	n.start()
	return n
}

func newNode(t *testing.T, host *lab.Host, opts Options) *node {
	t.Helper()
	n := &node{t: t, host: host, ended: make(chan error, 1)}
	n.changed = sync.NewCond(&n.mu)
	opts.OnChange = func(c Change) {
		n.mu.Lock()
		n.changes = append(n.changes, c)
		n.mu.Unlock()
		n.changed.Broadcast()
	}
	if testing.Verbose() {
		opts.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", host.Name())
	}
	var err error
	if n.owner, err = New(opts); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) start() {
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() {
		n.ended <- n.host.Do(func() error { return n.owner.Run(ctx) })
		n.changed.Broadcast()
	}()
	n.t.Cleanup(n.close)
}

// close ends the Owner as its user would.
func (n *node) close() {
	n.t.Helper()
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	if err := <-n.ended; err != nil {
		n.t.Errorf("%s: Run: %v", n.host.Name(), err)
	}
	if err := n.owner.Close(); err != nil {
		n.t.Error(err)
	}
}

// leave ends the Owner as SIGKILL would, as far as the kernel can tell, and
// gives what another could resume with.
func (n *node) leave() []byte {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	b, err := n.owner.Hand(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	n.close()
	return b
}

// wait waits for a change, of those so far and later.
func (n *node) wait(what string, match func(Change) bool) Change {
	n.t.Helper()
	return n.waitFrom(0, what, match)
}

// mark is the place behind what has changed so far, for waitFrom.
func (n *node) mark() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.changes)
}

func (n *node) waitFrom(from int, what string, match func(Change) bool) Change {
	n.t.Helper()
	late := time.AfterFunc(patience, n.changed.Broadcast)
	defer late.Stop()
	deadline := time.Now().Add(patience)
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if i := slices.IndexFunc(n.changes[min(from, len(n.changes)):], match); i >= 0 {
			return n.changes[from+i]
		}
		if !time.Now().Before(deadline) {
			n.t.Fatalf("%s: %s did not come; it has told: %v", n.host.Name(), what, texts(n.changes))
		}
		n.changed.Wait()
	}
}

func texts(changes []Change) (out []string) {
	for _, c := range changes {
		out = append(out, fmt.Sprintf("%s %s %v (%s) %s", c.Group, c.Kind, c.Role, c.Cause, c.Text))
	}
	return out
}

func becomes(r Role) func(Change) bool {
	return func(c Change) bool { return c.Kind == KindRole && c.Role == r }
}

func says(k Kind) func(Change) bool {
	return func(c Change) bool { return c.Kind == k }
}

// status gives the only group's.
func (n *node) status() Status {
	n.t.Helper()
	list := n.owner.Status()
	if len(list) != 1 {
		n.t.Fatalf("%d groups, want one", len(list))
	}
	return list[0]
}

// addresses are what the host's kernel has on an interface.
func (n *node) addresses(iface string) []netip.Addr {
	n.t.Helper()
	return addressesOf(n.t, n.host, iface)
}
