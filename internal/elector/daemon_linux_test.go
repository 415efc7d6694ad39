package elector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vip"
)

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
