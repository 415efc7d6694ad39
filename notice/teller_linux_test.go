package notice

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/netnstest"
)

// tellerAlone makes a Teller in a namespace that has only a loopback interface.
func tellerAlone(t *testing.T, o Options) *Teller {
	t.Helper()
	var teller *Teller
	if err := netnstest.New(t).Do(func() (err error) { teller, err = New(o); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := teller.Close(); err != nil {
			t.Error(err)
		}
	})
	return teller
}

func TestOptions(t *testing.T) {
	for _, x := range []struct {
		o    Options
		want string
	}{
		{Options{Rate: MinRate - 1}, "Options.Rate: 99"},
		{Options{Rate: MaxRate + 1}, "Options.Rate"},
		{Options{Bound: MinBound - 1}, "Options.Bound"},
		{Options{Bound: MaxBound + 1}, "Options.Bound"},
	} {
		if _, err := New(x.o); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%+v: %v, want it to name %s", x.o, err, x.want)
		}
	}
}

// nowhere is n connections that nobody answers for: there is no route.
func nowhere(n int) []Connection {
	var cs []Connection
	for i := range n {
		cs = append(cs, Connection{Local: local4, Remote: netip.AddrPortFrom(remote4.Addr(), uint16(1000+i))})
	}
	return cs
}

// Whatever ends a call, everything that it was given has one result.
func TestEveryResult(t *testing.T) {
	collect := func(teller *Teller, ctx context.Context, cs []Connection) map[Verdict]int {
		got := make(map[Verdict]int)
		sum := teller.Tell(ctx, cs, func(r Result) { got[r.Verdict]++ })
		n := 0
		for v, count := range got {
			n += count
			if sum.Count(v) != count {
				t.Errorf("%d %v, the summary says %d", count, v, sum.Count(v))
			}
		}
		if n != len(cs) {
			t.Errorf("%d results of %d", n, len(cs))
		}
		return got
	}
	t.Run("no route", func(t *testing.T) {
		teller := tellerAlone(t, Options{Bound: 50 * time.Millisecond})
		ended := make(chan error, 1)
		go func() { ended <- teller.Run(context.Background()) }()
		cs := nowhere(100)
		cs = append(cs, cs[0], Connection{}, Connection{Local: local4, Remote: remote6}, Connection{Local: local6, Remote: remote6})
		var errs []error
		sum := teller.Tell(t.Context(), cs, func(r Result) { errs = append(errs, r.Err) })
		if sum.Count(Unreachable) != 102 || sum.Count(Refused) != 2 || sum.Segments != 0 {
			t.Errorf("%+v", sum)
		}
		for _, err := range errs {
			if err == nil {
				t.Error("unreachable without a reason, though nothing could be sent")
			}
		}
		if got := collect(teller, t.Context(), nil); len(got) != 0 {
			t.Errorf("nothing gives %v", got)
		}
		if err := teller.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := collect(teller, t.Context(), nowhere(3)); got[Undecided] != 3 {
			t.Errorf("after Close: %v", got)
		}
		if err := teller.Run(t.Context()); err == nil {
			t.Error("Run a second time")
		}
	})
	t.Run("the context ends", func(t *testing.T) {
		teller := tellerAlone(t, Options{Bound: MaxBound})
		run, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- teller.Run(run) }()
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		first := make(chan map[Verdict]int)
		go func() { first <- collect(teller, t.Context(), nowhere(20)) }() // the same, by another call
		time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
		teller.Tell(ctx, nowhere(10), func(r Result) {
			if r.Verdict != Undecided || !errors.Is(r.Err, why) {
				t.Errorf("%v, %v", r.Verdict, r.Err)
			}
		})
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := <-first; got[Undecided] != 20 {
			t.Errorf("the other call: %v", got)
		}
	})
	t.Run("Run is never called", func(t *testing.T) {
		teller := tellerAlone(t, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if got := collect(teller, ctx, nowhere(5)); got[Undecided] != 5 {
			t.Errorf("%v", got)
		}
		time.AfterFunc(10*time.Millisecond, func() { teller.Close() })
		if got := collect(teller, t.Context(), nowhere(5)); got[Undecided] != 5 {
			t.Errorf("closed: %v", got)
		}
	})
}
