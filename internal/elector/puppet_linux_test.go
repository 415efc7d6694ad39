package elector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vip"
)

// patience of an elector in tests that has lost its daemon.
const patience = 300 * time.Millisecond

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "elector" {
		if err := start(os.Args[:2], os.Args[2:], "test", os.Stderr, patience, newPuppet); err != nil {
			fmt.Fprintln(os.Stderr, "elector:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// A puppet is an owner that does what it is told, and shows in its status what
// that was.
type puppet struct {
	o       vip.Options
	handing chan struct{}
	taken   *os.File // what it has of the kernel until Close

	mu sync.Mutex
	memory
}

type memory struct {
	Groups []vip.Group
	Alives int
	Wells  map[string]string
	Active map[string]bool
	Lives  int // programs that it has been
}

func newPuppet(o vip.Options) (owner, error) {
	taken, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	p := &puppet{o: o, handing: make(chan struct{}), taken: taken}
	p.Wells, p.Active = make(map[string]string), make(map[string]bool)
	if len(o.Resume) > 0 {
		if err := json.Unmarshal(o.Resume, &p.memory); err != nil {
			return nil, err
		}
	}
	p.Lives++
	return p, p.Configure(o.Groups)
}

func (p *puppet) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		p.o.OnChange(vip.Change{Group: "-", Kind: vip.KindLate, Text: "the last words"})
	case <-p.handing:
	}
	return nil
}

func (p *puppet) Close() error { return p.taken.Close() }

func (p *puppet) Configure(groups []vip.Group) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(groups) > 0 && groups[0].Interface == "refused" {
		return errors.New("the puppet refuses")
	}
	p.Groups = groups
	return nil
}

func (p *puppet) SetWell(group string, ok bool, why string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Wells[group] = fmt.Sprint(ok, " ", why)
	return nil
}

func (p *puppet) Alive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Alives++
}

// Deliver sends a beat back, and takes some as a command.
func (p *puppet) Deliver(beat []byte) error {
	command, group, _ := strings.Cut(string(beat), " ")
	p.mu.Lock()
	switch command {
	case "own":
		p.Active[group] = true
		defer p.o.OnChange(vip.Change{Group: group, Kind: vip.KindRole, Role: vip.Active, At: time.Now(), Cause: vip.CauseAlone})
	case "flood":
		for range 100_000 {
			p.o.OnBeat(beat)
			p.o.OnChange(vip.Change{Group: group, Kind: vip.KindLate, Text: strings.Repeat("x", 500)})
		}
	}
	p.mu.Unlock()
	p.o.OnBeat(beat)
	return nil
}

func (p *puppet) SetSynced(group string, ok bool) error { return p.SetWell(group, ok, "synced") }

func (p *puppet) LinkDown() { p.o.OnBeat([]byte("link down")) }

func (p *puppet) Release(ctx context.Context, group string) error {
	var errs []error
	for _, w := range []vip.When{vip.Draining, vip.BeforeWithdraw, vip.AfterWithdraw} {
		for _, s := range p.o.Steps {
			if s.When == w {
				errs = append(errs, s.Do(ctx, vip.Event{Group: group, When: w, Planned: true}))
			}
		}
	}
	p.mu.Lock()
	delete(p.Active, group)
	p.mu.Unlock()
	p.o.OnChange(vip.Change{Group: group, Kind: vip.KindRole, Role: vip.Backup, From: vip.Active, At: time.Now(), Cause: vip.CauseReleased})
	return errors.Join(errs...)
}

func (p *puppet) Hand(context.Context) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.handing)
	return json.Marshal(p.memory)
}

func (p *puppet) Status() []vip.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []vip.Status
	for _, g := range p.Groups {
		st := vip.Status{
			Group: g.Name, Interface: g.Interface, Epoch: uint64(p.Alives), Priority: uint8(p.Lives), Why: p.Wells[g.Name],
			Since: time.Unix(0, 0),
		}
		if p.Active[g.Name] {
			st.Role = vip.Active
		}
		list = append(list, st)
	}
	return list
}

func (p *puppet) Lost() uint64 { return 0 }

func group(name string) Group {
	return Group{Group: vip.Group{
		Name: name, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
	}}
}

// A daemon is a client with what it was told.
type daemon struct {
	*Client
	t       *testing.T
	changes chan vip.Change
	beats   chan string
	there   chan bool
	end     func()
	ended   chan struct{}
}

func newDaemon(t *testing.T, dir string, change func(*Options)) (*daemon, error) {
	t.Helper()
	d := &daemon{
		t: t, changes: make(chan vip.Change, 1<<18), beats: make(chan string, 1<<18), there: make(chan bool, 64), ended: make(chan struct{}),
	}
	o := Options{
		Program: []string{os.Args[0], "elector"}, Runtime: dir, Settings: Settings{Node: "n", Groups: []Group{group("front")}},
		OnChange:  func(c vip.Change) { d.changes <- c },
		OnBeat:    func(b []byte) { d.beats <- string(b) },
		OnElector: func(there bool, _ string) { d.there <- there },
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c, err := Open(ctx, o)
	if err != nil {
		cancel()
		return nil, err
	}
	d.Client = c
	go func() {
		defer close(d.ended)
		if err := c.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	d.end = func() {
		cancel()
		<-d.ended
	}
	t.Cleanup(func() {
		pid := d.Info().PID
		d.end()
		kill(pid) // it may own what keeps it
		await(t, "the elector ends", func() bool { sys.ReapEnded(pid); return pid == 0 || sys.Signal(pid, 0) != nil })
	})
	return d, nil
}

func open(t *testing.T, dir string, change func(*Options)) *daemon {
	t.Helper()
	d, err := newDaemon(t, dir, change)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// runtimeDir is short enough for a socket.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "elector") //nolint:usetesting // t.TempDir has the test's name in it: too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// await waits until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !so() {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func next[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("not within 20 s: %s", what)
	}
	panic("unreachable")
}

// status waits for one of the first group that is so.
func (d *daemon) status(what string, so func(vip.Status) bool) {
	d.t.Helper()
	await(d.t, what, func() bool { g := d.Groups(); return len(g) > 0 && so(g[0]) })
}
