//go:build linux

package health

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A checker that takes another's place does not forget what that one knew.
func TestStartsFromState(t *testing.T) {
	check := Check{Interval: time.Second, Timeout: time.Second, Fall: 3, Rise: 2}
	for _, tt := range []struct {
		from  State
		does  dial
		after time.Duration // of the change
		to    State
	}{
		{Unknown, answers, 0, Up},
		{Unknown, refuses, 0, Down},
		{Down, answers, time.Second, Up},
		{Up, refuses, 2 * time.Second, Down},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			c, changes := simulated(t, check, never, tt.does, func(o *Options) { o.State = tt.from })
			if got := c.Status().State; got != tt.from {
				t.Errorf("a checker that starts from %v says %v", tt.from, got)
			}
			wait(time.Minute)
			got := changes.all()
			if len(got) != 1 || got[0].From != tt.from || got[0].State != tt.to || got[0].At.Sub(began) != tt.after {
				t.Errorf("from %v: %+v, want %v after %v", tt.from, got, tt.to, tt.after)
			}
		})
	}
	if _, err := New(Options{Address: "192.0.2.1:80", State: 3}); err == nil || !strings.Contains(err.Error(), "State") {
		t.Errorf("New with a bad State: %v", err)
	}
}

func TestPing(t *testing.T) {
	for _, kind := range []Kind{TCP, None} {
		synctest.Test(t, func(t *testing.T) {
			goOn := make(chan struct{})
			c, _ := simulated(t, Check{Kind: kind}, never, answers, func(o *Options) { o.OnChange = func(Change) { <-goOn } })
			synctest.Wait()
			ping := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				return c.Ping(ctx)
			}
			if err := ping(); (kind == TCP) != errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: while OnChange blocks: %v", kind, err)
			}
			close(goOn)
			if err := ping(); err != nil {
				t.Errorf("%v: %v", kind, err)
			}
			_ = c.Close()
			if err := ping(); err != nil {
				t.Errorf("%v: closed: %v", kind, err)
			}
		})
	}
	c, err := New(Options{Address: "192.0.2.1:80"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Ping(ctx); err == nil {
		t.Error("a checker that does not run answered")
	}
}
