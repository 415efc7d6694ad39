package elector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
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

func TestOneElectorForManyDaemons(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	pid := d.Info().PID
	if info := d.Info(); pid <= 1 || pid == os.Getpid() || !info.There || info.Version != "test" || time.Since(info.Started) > time.Minute {
		t.Errorf("the elector says of itself %+v", info)
	}
	if _, session, err := sys.Group(pid); err != nil || session != pid {
		t.Errorf("the elector is in session %d (%v), want its own", session, err)
	}
	d.status("life signs arrive", func(s vip.Status) bool { return s.Epoch >= 3 })
	d.SetWell("front", false, "no")
	d.status("it is not well", func(s vip.Status) bool { return s.Why == "false no" })
	d.Deliver([]byte("hello"))
	if b := next(t, "a beat comes back", d.beats); b != "hello" {
		t.Errorf("the beat is %q", b)
	}
	d.LinkDown()
	if b := next(t, "the link is down", d.beats); b != "link down" {
		t.Errorf("the beat is %q", b)
	}

	if _, err := newDaemon(t, dir, nil); err == nil || !strings.Contains(err.Error(), "another daemon is attached (pid "+fmt.Sprint(os.Getpid())+")") {
		t.Errorf("a second daemon got %v", err)
	}

	two := Settings{Node: "n", Groups: []Group{group("front"), group("back")}}
	two.Groups[1].Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}
	if err := d.Configure(t.Context(), two); err != nil {
		t.Error(err)
	}
	await(t, "two groups", func() bool { return len(d.Groups()) == 2 })
	bad := Settings{Groups: []Group{group("front")}}
	bad.Groups[0].Interface = "refused"
	if err := d.Configure(t.Context(), bad); err == nil || err.Error() != "the puppet refuses" {
		t.Errorf("settings that the owner refuses: %v", err)
	}
	bad.Groups[0].Interface = ""
	if err := d.Configure(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "Interface") {
		t.Errorf("settings that are wrong: %v", err)
	}

	// What happens while no daemon is there is told to the next.
	d.Deliver([]byte("own front"))
	if c := next(t, "the change", d.changes); c.Role != vip.Active || c.Cause != vip.CauseAlone {
		t.Errorf("the change is %+v", c)
	}
	d.end()
	next2 := open(t, dir, func(o *Options) { o.Settings = two })
	if got := next2.Info().PID; got != pid {
		t.Errorf("the next daemon has the elector %d, want %d", got, pid)
	}
	next2.status("its state is as it was", func(s vip.Status) bool { return s.Role == vip.Active && s.Why == "false no" })
}

func TestSettingsThatFail(t *testing.T) {
	dir := runtimeDir(t)
	_, err := newDaemon(t, dir, func(o *Options) { o.Settings.Groups[0].Interface = "refused" })
	if err == nil || err.Error() != "the puppet refuses" {
		t.Errorf("Open with settings that the owner refuses: %v", err)
	}
	if _, err := Open(t.Context(), Options{Runtime: filepath.Join(dir, "absent")}); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("a runtime directory that is not there: %v", err)
	}
	if _, err := Open(t.Context(), Options{Runtime: dir + strings.Repeat("/x", 60)}); err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("a runtime directory with too long a name: %v", err)
	}
	if _, err := Open(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "Options.Runtime") {
		t.Errorf("no runtime directory: %v", err)
	}
	gone := func() bool {
		c, err := net.Dial("unix", socketPath(dir))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}
	await(t, "the elector of a daemon that failed ends", gone)
}

func TestKilledElectorIsReplaced(t *testing.T) {
	d := open(t, runtimeDir(t), nil)
	d.SetWell("front", false, "still bad")
	d.status("it is not well", func(s vip.Status) bool { return s.Why == "false still bad" })
	first := d.Info().PID
	for range 3 {
		pid := d.Info().PID
		if err := sys.Signal(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if next(t, "it is lost", d.there) {
			t.Error("the first news is that it is there")
		}
		if !next(t, "it is there again", d.there) {
			t.Error("the second news is that it is lost")
		}
		await(t, "another runs", func() bool { i := d.Info(); return i.There && i.PID != pid })
		if p := d.Problems(); len(p) != len(d.Info().Lacks) {
			t.Errorf("problems after it was replaced: %+v", p)
		}
		d.status("the new one knows what is not well", func(s vip.Status) bool { return s.Why == "false still bad" })
	}
	d.reap()
	if err := sys.Signal(first, 0); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the first elector was not reaped: %v", err)
	}
}

func TestFrozenElector(t *testing.T) {
	d := open(t, runtimeDir(t), nil)
	d.status("life signs arrive", func(s vip.Status) bool { return s.Epoch >= 1 })
	pid := d.Info().PID
	signal := func(sig syscall.Signal) {
		if err := sys.Signal(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT)
	says := func(what string) bool {
		return slices.ContainsFunc(d.Problems(), func(p Problem) bool { return strings.Contains(p.Text, what) })
	}
	await(t, "that is a problem", func() bool { return says("it is frozen") })
	ctx, cancel := context.WithTimeout(t.Context(), killAfter/2)
	defer cancel()
	if err := d.Release(ctx, "front", "a test"); err == nil || !strings.Contains(err.Error(), "it is frozen") {
		t.Errorf("a release meanwhile: %v, want it refused at once", err)
	}
	for range 3 * maxOrdered { // nobody waits for a frozen elector
		d.Deliver(make([]byte, 1024))
	}
	signal(syscall.SIGCONT)
	await(t, "it is none any more", func() bool { return !says("it is frozen") })
	if d.Info().PID != pid {
		t.Error("the elector was replaced")
	}
}

// TestFrozenAtAttach has a daemon find an elector that does not answer.
func TestFrozenAtAttach(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	d.Deliver([]byte("own front")) // so that it does not end
	next(t, "it owns", d.changes)
	pid := d.Info().PID
	d.end()
	if err := sys.Signal(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir, nil)
	if got := second.Info().PID; got == pid {
		t.Error("the second daemon has the frozen elector")
	}
}

func TestSteps(t *testing.T) {
	type asked struct {
		e   vip.Event
		end error
	}
	did := make(chan asked, 16)
	release := make(chan struct{})
	d := open(t, runtimeDir(t), func(o *Options) {
		o.Settings.Groups[0].Steps, o.Settings.Groups[0].Drain = true, 200*time.Millisecond
		o.OnStep = func(ctx context.Context, e vip.Event) error {
			var err error
			switch e.When {
			case vip.Draining:
				<-ctx.Done() // it takes all the time there is
				err = ctx.Err()
			case vip.BeforeWithdraw:
				<-release
			}
			did <- asked{e, err}
			if e.When == vip.AfterWithdraw {
				return errors.New("something is left")
			}
			return nil
		}
	})
	d.Deliver([]byte("own front"))
	next(t, "it owns", d.changes)
	done := make(chan error, 1)
	go func() { done <- d.Release(context.Background(), "front", "a test") }()
	if a := next(t, "drain", did); a.e.When != vip.Draining || a.end == nil || !a.e.Planned || a.e.Group != "front" {
		t.Errorf("the first step is %+v", a)
	}
	select {
	case <-did:
		t.Error("a step began before the one in front of it had ended")
	case <-done:
		t.Error("the release did not wait for its steps")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if a := next(t, "tell", did); a.e.When != vip.BeforeWithdraw {
		t.Errorf("the second step is %+v", a)
	}
	if a := next(t, "clean", did); a.e.When != vip.AfterWithdraw {
		t.Errorf("the third step is %+v", a)
	}
	if err := next(t, "the answer", done); err == nil || err.Error() != "something is left" {
		t.Errorf("the release says %v", err)
	}
	if c := next(t, "the change", d.changes); c.Cause != vip.CauseReleased {
		t.Errorf("the change is %+v", c)
	}
}

// TestStepThatHangs has a daemon that never does what it is asked for, and one
// that goes in the middle of it.
func TestStepThatHangs(t *testing.T) {
	dir := runtimeDir(t)
	began := make(chan struct{}, 4)
	hang := func(o *Options) {
		o.Settings.Groups[0].Steps = true
		o.OnStep = func(ctx context.Context, _ vip.Event) error {
			began <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
	}
	d := open(t, dir, hang)
	d.Deliver([]byte("own front"))
	next(t, "it owns", d.changes)
	err := d.Release(context.Background(), "front", "a test")
	if err == nil || strings.Count(err.Error(), "deadline exceeded")+strings.Count(err.Error(), "did not finish it") != 2 {
		t.Errorf("a release whose steps hang says %v", err)
	}
	for len(began) > 0 {
		<-began
	}
	d.Deliver([]byte("own front"))
	await(t, "it owns again", func() bool { return next(t, "a change", d.changes).Role == vip.Active })
	done := make(chan error, 1)
	go func() { done <- d.Release(context.Background(), "front", "a test") }()
	next(t, "the step began", began)
	d.end()
	if err := next(t, "the answer", done); !errors.Is(err, ErrDown) {
		t.Errorf("a release whose daemon goes says %v", err)
	}
	d = open(t, dir, hang)
	for c := next(t, "a change", d.changes); c.Cause != vip.CauseReleased; c = next(t, "a change", d.changes) {
	}
}

func TestStop(t *testing.T) {
	d := open(t, runtimeDir(t), nil)
	d.Deliver([]byte("own front"))
	next(t, "it owns", d.changes)
	pid := d.Info().PID
	if err := d.Stop(context.Background(), "a test"); err != nil {
		t.Error(err)
	}
	next(t, "Run returns", d.ended)
	if c := next(t, "the release", d.changes); c.Cause != vip.CauseReleased {
		t.Errorf("the change is %+v", c)
	}
	if c := next(t, "the end", d.changes); c.Text != "the last words" {
		t.Errorf("the last change is %+v", c)
	}
	await(t, "the process ends", func() bool { d.reap(); return sys.Signal(pid, 0) != nil })
	if err := d.Stop(context.Background(), "again"); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

// TestReplaced has a daemon of another build find an elector: it becomes the
// daemon's program, and keeps its number and what it owns.
func TestReplaced(t *testing.T) {
	dir := runtimeDir(t)
	other := filepath.Join(dir, "other")
	if out, err := exec.Command("cp", "--", os.Args[0], other).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	old := exec.Command(other, "elector", "--runtime", dir)
	old.Stderr = os.Stderr
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	defer old.Wait()
	await(t, "it listens", func() bool {
		c, err := net.Dial("unix", socketPath(dir))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	raw := &link{in: &receiver{conn: dial(t, dir)}}
	raw.conn, raw.pid = raw.in.conn, 0
	if _, err := (&Client{o: Options{}}).greet(raw); err != nil {
		t.Fatal(err)
	}
	if err := configureNow(raw, Settings{Node: "n", Groups: []Group{group("front")}}); err != nil {
		t.Fatal(err)
	}
	b, err := appendFrame(nil, &message{Beat: &beat{Data: []byte("own front")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.conn.Write(b); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := raw.in.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Change != nil && m.Change.Role == vip.Active {
			break
		}
	}
	_ = raw.conn.Close()

	began := time.Now()
	d := open(t, dir, nil)
	t.Logf("attached to another program after %v", time.Since(began))
	if got := d.Info().PID; got != old.Process.Pid {
		t.Errorf("the elector is process %d, want %d", got, old.Process.Pid)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", old.Process.Pid))
	if own, _ := os.Readlink("/proc/self/exe"); err != nil || exe != own {
		t.Errorf("its program is %s (%v), want %s", exe, err, own)
	}
	defer kill(old.Process.Pid)
	d.status("it owns what it owned", func(s vip.Status) bool { return s.Role == vip.Active && s.Priority == 2 })
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", old.Process.Pid)); err == nil && len(open) > 14 {
		t.Errorf("it has %d descriptors", len(open))
	}
}

// TestReplacedByWhatDoesNotRun has an elector be asked to become files that the
// kernel does not execute: it stays what it is, with what it owns, and keeps
// nothing of the tries.
func TestReplacedByWhatDoesNotRun(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	pid := d.Info().PID
	defer kill(pid)
	d.Deliver([]byte("own front"))
	d.status("it owns", func(s vip.Status) bool { return s.Role == vip.Active })
	descriptors := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := descriptors()
	name := filepath.Join(dir, "text")
	if err := os.WriteFile(name, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	for lives := uint8(2); lives < 7; lives++ {
		d.mu.Lock()
		conn := d.link.conn
		d.mu.Unlock()
		text, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := appendFrame(nil, &message{Replace: &replace{}})
		if err == nil {
			err = sys.WriteWithFile(conn, b, text)
		}
		if err = errors.Join(err, text.Close()); err != nil {
			t.Fatal(err)
		}
		d.status("it goes on", func(s vip.Status) bool { return s.Role == vip.Active && s.Priority == lives })
	}
	if got := d.Info().PID; got != pid {
		t.Errorf("the elector is process %d, was %d", got, pid)
	}
	await(t, fmt.Sprintf("it has %d descriptors again", before), func() bool { return descriptors() <= before })
}

func dial(t *testing.T, dir string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", socketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

func TestGarbageOnTheSocket(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	frame := func(text string) string {
		return string([]byte{0, 0, byte(len(text) >> 8), byte(len(text))}) + text
	}
	for name, text := range map[string]string{
		"no frame":     "GET / HTTP/1.1\r\n\r\n",
		"too long":     "\x7f\xff\xff\xff",
		"too short":    "\x00\x00\x00\x01x",
		"no JSON":      frame("hello"),
		"no hello":     frame(`{"alive":{}}`),
		"nothing":      frame(`{}`),
		"half a frame": frame(`{"hello":{}}`)[:8],
	} {
		c := dial(t, dir)
		if _, err := c.Write([]byte(text)); err != nil {
			t.Error(err)
		}
		_ = c.CloseWrite()
		got, err := io.ReadAll(c)
		if len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s was answered with %q, %v", name, got, err)
		}
	}
	d.Deliver([]byte("well"))
	if b := next(t, "the daemon is heard", d.beats); b != "well" {
		t.Errorf("the beat is %q", b)
	}
	d.end()

	// A daemon that says what none says is cut off, and the next one is served.
	for name, text := range map[string]string{
		"an unknown part": frame(`{"hallo":{}}`), "an unknown field": frame(`{"alive":{"x":1}}`), "two parts": frame(`{"alive":{},"link_down":{}}`),
		"an elector's": frame(`{"status":{"groups":[]}}`), "more behind it": frame(`{"alive":{}} {}`), "replace without a program": frame(`{"replace":{}}`),
	} {
		c := dial(t, dir)
		l := &link{conn: c, in: &receiver{conn: c}}
		if _, err := (&Client{}).greet(l); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Write([]byte(text)); err != nil {
			t.Error(err)
		}
		for {
			if _, err := l.in.next(); err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: %v", name, err)
				}
				break
			}
		}
	}
	open(t, dir, nil)
}

// TestSlowDaemon has a daemon that reads nothing: the owner is not held up, what
// is lost is counted, and another daemon takes its place.
func TestSlowDaemon(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	d.Deliver([]byte("own front"))
	next(t, "it owns", d.changes)
	d.end()
	c := dial(t, dir)
	l := &link{conn: c, in: &receiver{conn: c}}
	if _, err := (&Client{}).greet(l); err != nil {
		t.Fatal(err)
	}
	b, err := appendFrame(nil, &message{Beat: &beat{Data: []byte("flood front")}})
	if err == nil {
		_, err = c.Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	second := open(t, dir, nil)
	second.status("it is served", func(s vip.Status) bool { return s.Role == vip.Active })
	if n := len(second.changes); n > maxLoss+8 {
		t.Errorf("%d changes were kept for it", n)
	}
}

// TestWithoutCapabilities has an elector that may not be a real-time process.
func TestWithoutCapabilities(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("it takes root, and setpriv, to run a program with fewer capabilities")
	}
	less := "-sys_nice,-ipc_lock,-sys_resource"
	d := open(t, runtimeDir(t), func(o *Options) {
		o.Program = []string{setpriv, "--bounding-set", less, "--inh-caps", less, os.Args[0], "elector"}
	})
	i := d.Info()
	if i.RealTime || len(i.Lacks) == 0 || !strings.Contains(strings.Join(i.Lacks, "\n"), "CAP_SYS_NICE") {
		t.Errorf("without CAP_SYS_NICE it says of itself %+v", i)
	}
	if !slices.ContainsFunc(d.Problems(), func(p Problem) bool { return strings.Contains(p.Text, "real-time priority") }) {
		t.Errorf("the problems are %+v", d.Problems())
	}
	d.Deliver([]byte("works"))
	next(t, "it works all the same", d.beats)
}

// TestRealTime looks at what a process has become that may.
func TestRealTime(t *testing.T) {
	d := open(t, runtimeDir(t), nil)
	i := d.Info()
	if !i.RealTime {
		t.Skipf("this machine gives no real-time priority: %s", i.Lacks)
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", i.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", i.PID, task.Name()))
		if err != nil {
			continue // a thread that has ended
		}
		// Fields 40 and 41 are rt_priority and policy; 2 is SCHED_RR.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if f[37] != fmt.Sprint(priority) || f[38] != "2" {
			t.Errorf("thread %s has policy %s and priority %s", task.Name(), f[38], f[37])
		}
	}
	if len(tasks) < 2 {
		t.Errorf("it has %d threads", len(tasks))
	}
}

func TestOneElectorForADirectory(t *testing.T) {
	dir := runtimeDir(t)
	d := open(t, dir, nil)
	d.Deliver([]byte("own front")) // so that it does not end
	next(t, "it owns", d.changes)
	if err := os.Remove(socketPath(dir)); err != nil { // so that another is started
		t.Fatal(err)
	}
	pid := d.Info().PID
	d.end()
	if _, err := newDaemon(t, dir, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("is held by another elector (pid %d)", pid)) {
		t.Errorf("a second elector got %v", err)
	}
	if sys.Signal(pid, 0) != nil {
		t.Fatal("the first elector has ended")
	}
	// Without its lock nobody finds it, and nothing keeps another from running.
	if err := os.Remove(lockPath(dir)); err != nil {
		t.Fatal(err)
	}
	await(t, "it ends", func() bool { sys.ReapEnded(pid); return sys.Signal(pid, 0) != nil })
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"--runtime"}, {"--runtime", "x", "more"}, {"--nonsense"}, {"--ready", "x", "--runtime", "y"}} {
		if err := start([]string{"x"}, args, "test", io.Discard, patience, newPuppet); err == nil {
			t.Errorf("%q were taken", args)
		}
	}
}

func FuzzFrames(f *testing.F) {
	for _, m := range []*message{
		{Hello: &hello{Protocol: 1, Build: "b"}},
		{Configure: &configure{ID: 1, Settings: Settings{Node: "n", Groups: []Group{group("front")}}}},
		{Status: &status{Groups: []vip.Status{{Group: "front", Role: vip.Active}}}},
		{Step: &step{ID: 3, Event: vip.Event{Group: "front", When: vip.Draining}, Bound: time.Second}},
		{Change: &vip.Change{Group: "front", Kind: vip.KindRole}}, {Beat: &beat{Data: []byte{1, 2}}}, {Alive: &alive{}},
	} {
		b, err := appendFrame(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := readFrame(strings.NewReader(string(b)), nil)
		if err != nil {
			return
		}
		if len(text) > len(b) {
			t.Fatalf("%d bytes of %d", len(text), len(b))
		}
		if m, err := decodeFirst(text); err == nil && m == nil {
			t.Fatal("neither a message nor an error")
		}
		m, err := decode(text)
		if err != nil {
			if m != nil {
				t.Fatal("a message and an error")
			}
			return
		}
		again, err := appendFrame(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		text2, err := readFrame(strings.NewReader(string(again)), nil)
		if err != nil {
			t.Fatal(err)
		}
		m2, err := decode(text2)
		if err != nil {
			t.Fatalf("%s was read and written as %s, which cannot be read: %v", text, text2, err)
		}
		if third, err := appendFrame(nil, m2); err != nil || string(third) != string(again) {
			t.Fatalf("%s became %s and then %s", text, again, third)
		}
	})
}
