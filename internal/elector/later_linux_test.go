package elector

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/vip"
)

// TestSyncedHoldsForLaterGroups has a group come after its daemon has said that
// this node does not have everything yet.
func TestSyncedHoldsForLaterGroups(t *testing.T) {
	d := open(t, runtimeDir(t), nil)
	d.SetSynced(false)
	two := Settings{Node: "n", Groups: []Group{group("front"), group("back")}}
	two.Groups[1].Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("2001:db8::2/64")}
	if err := d.Configure(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	all := func(why string) func() bool {
		return func() bool {
			groups := d.Groups()
			return len(groups) == 2 && !slices.ContainsFunc(groups, func(s vip.Status) bool { return s.Why != why })
		}
	}
	await(t, "both groups know it", all("false synced"))
	d.SetSynced(true)
	await(t, "both groups know that it has", all("true synced"))
}

// TestOnElectorMayAsk has who is told of another elector ask the client: whoever
// holds a lock while he does so, and takes it when he is told, must not wait for
// ever.
func TestOnElectorMayAsk(t *testing.T) {
	var client atomic.Pointer[Client]
	told := make(chan string, 8)
	d := open(t, runtimeDir(t), func(o *Options) {
		o.OnElector = func(there bool, why string) {
			if c := client.Load(); c != nil && there {
				c.SetWell("front", false, "told")
			}
			told <- why
		}
	})
	client.Store(d.Client)
	pid := d.Info().PID
	if err := sys.Signal(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next(t, "it is lost", told)
	if why := next(t, "it is there again", told); !strings.Contains(why, "one runs again") {
		t.Errorf("it says %q", why)
	}
	d.status("what was said meanwhile holds", func(s vip.Status) bool { return s.Why == "false told" })
}

// TestGoneInTheMiddleOfAStep has a daemon go, or stop, in the middle of each step
// of a release: nothing waits for it longer than a step may take.
func TestGoneInTheMiddleOfAStep(t *testing.T) {
	for w := vip.Draining; w <= vip.AfterWithdraw; w++ {
		for _, stops := range []bool{false, true} {
			name := w.String() + ", it goes"
			if stops {
				name = w.String() + ", it stops"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir := runtimeDir(t)
				began := make(chan struct{}, 16)
				with := func(o *Options) {
					o.Settings.Groups[0].Steps = true
					o.OnStep = func(ctx context.Context, e vip.Event) error {
						if e.When == w {
							began <- struct{}{}
							<-ctx.Done()
						}
						return ctx.Err()
					}
				}
				d := open(t, dir, with)
				d.Deliver([]byte("own front"))
				next(t, "it owns", d.changes)
				done := make(chan error, 1)
				go func() { done <- d.Release(context.Background(), "front", "a test") }()
				next(t, "the step began", began)
				at := time.Now()
				if stops {
					_ = d.Stop(context.Background(), "a test") // says that the step was not done
					next(t, "Run returns", d.ended)
				} else {
					d.end()
					d = open(t, dir, with)
				}
				next(t, "the release is answered", done)
				if !stops {
					d.status("the next daemon finds it given up", func(s vip.Status) bool { return s.Role != vip.Active })
				}
				if took := time.Since(at); took > 3*StepBound+time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}
