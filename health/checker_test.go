//go:build linux

package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

type dial = func(ctx context.Context, network, address string) (net.Conn, error)

// What a simulated backend does with a connect.
func answers(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	_ = there.Close()
	return here, nil
}

func refuses(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func isSilent(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// comesBackLate is what a process sees that did not run meanwhile.
func comesBackLate(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	time.Sleep(time.Second)
	return nil, ctx.Err()
}

func answersAfter(delay time.Duration) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case <-time.After(delay):
			return answers(ctx, network, address)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// backend is a simulated one: dial is its network.
type backend struct {
	mu     sync.Mutex
	does   dial
	starts []time.Time // of connects
}

func newBackend(does dial) *backend { return &backend{does: does} }

func (b *backend) becomes(does dial) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.does = does
}

func (b *backend) dial(ctx context.Context, network, address string) (net.Conn, error) {
	b.mu.Lock()
	b.starts = append(b.starts, time.Now())
	does := b.does
	b.mu.Unlock()
	return does(ctx, network, address)
}

// recorder keeps changes.
type recorder struct {
	mu   sync.Mutex
	kept []Change
}

func (r *recorder) add(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, c)
}

func (r *recorder) all() []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept
}

// simulated runs a checker with that dial until the test function returns; to be
// called in a bubble.
func simulated(t *testing.T, check Check, random func() float64, dial dial, more ...func(*Options)) (*Checker, *recorder) {
	t.Helper()
	changes := &recorder{}
	options := Options{Name: "b", Address: "192.0.2.1:80", Check: check, OnChange: changes.add}
	for _, change := range more {
		change(&options)
	}
	c, err := newChecker(options, environment{dial: dial, random: random})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(t.Context()) }()
	t.Cleanup(func() {
		_ = c.Close()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c, changes
}

func never() float64 { return 0 } // no jitter: the whole gap

func wait(d time.Duration) {
	time.Sleep(d) // in a bubble: simulated time
	synctest.Wait()
}

// The bound of the package documentation, at random moments, with random
// settings, in simulated time: exactly, without a margin.
func TestDownWithinBound(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		check := Check{
			Interval: time.Duration(1+rng.IntN(1000)) * time.Millisecond,
			Timeout:  time.Duration(1+rng.IntN(1000)) * time.Millisecond,
			Fall:     1 + rng.IntN(5),
		}
		bound := check.Interval + time.Duration(check.Fall-1)*max(check.Interval, check.Timeout) + check.Timeout
		if check.Timeout <= check.Interval && bound != check.Interval*time.Duration(check.Fall)+check.Timeout {
			t.Fatal("the two forms of the bound differ")
		}
		synctest.Test(t, func(t *testing.T) {
			fault := time.Now().Add(time.Duration(1 + rng.Int64N(int64(5*check.Interval))))
			b := newBackend(func(ctx context.Context, network, address string) (net.Conn, error) {
				if time.Now().Before(fault) {
					return answers(ctx, network, address)
				}
				return isSilent(ctx, network, address)
			})
			c, changes := simulated(t, check, rng.Float64, b.dial)
			wait(time.Until(fault.Add(bound)))
			if len(changes.all()) != 2 {
				t.Fatalf("seed %d, %+v: %d changes at the bound, want up and down; status %+v", seed, check, len(changes.all()), c.Status())
			}
			down := changes.all()[1]
			if down.State != Down || !errors.Is(down.Cause, os.ErrDeadlineExceeded) {
				t.Errorf("seed %d: %+v", seed, down)
			}
			if down.FirstFailedStart.Before(fault) || down.At.Sub(down.LastFailedStart) != check.Timeout {
				t.Errorf("seed %d: fault %v, but first failed check began %v; last %v, decided %v", seed, fault, down.FirstFailedStart, down.LastFailedStart, down.At)
			}
			if least := time.Duration(check.Fall) * check.Timeout; down.At.Sub(down.FirstFailedStart) < least {
				t.Errorf("seed %d: decided after %v, %d checks take %v", seed, down.At.Sub(down.FirstFailedStart), check.Fall, least)
			}
		})
	}
}

func TestRhythm(t *testing.T) {
	gaps := func(starts []time.Time) (gaps []time.Duration) {
		for i := range starts[1:] {
			gaps = append(gaps, starts[i+1].Sub(starts[i]))
		}
		return gaps
	}
	t.Run("jitter shortens only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 1))
			b := newBackend(answersAfter(5 * time.Millisecond))
			begin := time.Now()
			simulated(t, Check{Interval: time.Second}, rng.Float64, b.dial)
			wait(100 * time.Second)
			if !b.starts[0].Equal(begin) {
				t.Errorf("the first check came after %v, want at once", b.starts[0].Sub(begin))
			}
			for i, gap := range gaps(b.starts) {
				if gap > time.Second || i > 0 && gap < 900*time.Millisecond {
					t.Errorf("gap %d is %v", i, gap)
				}
			}
		})
	})
	t.Run("start to start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(answersAfter(300 * time.Millisecond))
			simulated(t, Check{Interval: time.Second}, never, b.dial)
			wait(10 * time.Second)
			for i, gap := range gaps(b.starts) {
				if gap != time.Second {
					t.Errorf("gap %d is %v, want the interval however long a check takes", i, gap)
				}
			}
		})
	})
	t.Run("a long check is followed at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(answersAfter(700 * time.Millisecond))
			simulated(t, Check{Interval: 100 * time.Millisecond}, never, b.dial)
			wait(10 * time.Second)
			for i, gap := range gaps(b.starts) {
				if gap != 700*time.Millisecond {
					t.Errorf("gap %d is %v, want 700ms", i, gap)
				}
			}
		})
	})
	t.Run("checkers started together spread", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tenths := map[int]int{}
			begin := time.Now()
			// With 1000 of them, Go 1.26's race detector itself fails now and
			// then (a CHECK in tsan_rtl.cpp), one run in 25.
			backends := make([]*backend, 200)
			for i := range backends {
				backends[i] = newBackend(answers)
				rng := rand.New(rand.NewPCG(uint64(i), 1))
				simulated(t, Check{Interval: time.Second}, rng.Float64, backends[i].dial)
			}
			wait(time.Second)
			for i := range backends {
				tenths[int(backends[i].starts[1].Sub(begin)/(100*time.Millisecond))]++
			}
			for tenth, n := range tenths {
				if tenth < 10 && (n < 5 || n > 40) {
					t.Errorf("%d of 200 second checks in tenth %d of the interval", n, tenth)
				}
			}
		})
	})
}

func TestFirstResultDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(refuses)
		result := make(chan struct{}) // held back until somebody has looked
		c, changes := simulated(t, Check{}, never, func(ctx context.Context, network, address string) (net.Conn, error) {
			<-result
			return b.dial(ctx, network, address)
		})
		synctest.Wait()
		if s := c.Status(); s.State != Unknown {
			t.Errorf("before the first result: %v", s.State)
		}
		close(result)
		synctest.Wait()
		if len(changes.all()) != 1 || changes.all()[0].State != Down || changes.all()[0].From != Unknown {
			t.Fatalf("%+v, want down by the first result", changes.all())
		}
		if cause := changes.all()[0].Cause; !errors.Is(cause, syscall.ECONNREFUSED) || !strings.Contains(cause.Error(), "tcp check of b at 192.0.2.1:80: connect: connection refused") {
			t.Errorf("cause: %v", cause)
		}
		b.becomes(answers)
		wait(2 * time.Second)
		if s := c.Status(); s.State != Up || s.Cause != nil || s.Checks != 3 || s.Failures != 1 {
			t.Errorf("after two successes: %+v", s)
		}
	})
}

func TestReport(t *testing.T) {
	t.Run("counts in the row", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(answers)
			c, changes := simulated(t, Check{}, never, b.dial)
			wait(100 * time.Millisecond)
			for i, kind := range []EvidenceKind{Refused, Reset, ConnectTimeout} {
				if len(changes.all()) != 1 {
					t.Fatalf("changed after %d reports: %+v", i, changes.all())
				}
				c.Report(Evidence{Kind: kind, Err: errDead})
				wait(time.Millisecond)
			}
			if len(changes.all()) != 2 || changes.all()[1].State != Down || !errors.Is(changes.all()[1].Cause, errDead) {
				t.Fatalf("after three reports: %+v", changes.all())
			}
			c.Report(Evidence{Kind: Refused})
			wait(2 * time.Second)
			if s := c.Status(); s.State != Up || s.Reported != 3 {
				t.Errorf("%+v, want up again, three reports counted", s)
			}
		})
	})
	t.Run("acts while a check hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(answers)
			c, changes := simulated(t, Check{Timeout: time.Minute, Fall: 1}, never, b.dial)
			wait(500 * time.Millisecond)
			b.becomes(isSilent)
			wait(time.Second)
			c.Report(Evidence{Kind: Refused})
			synctest.Wait()
			if len(changes.all()) != 2 {
				t.Errorf("%+v, want down although a check is under way", changes.all())
			}
		})
	})
	t.Run("a flood does not block", func(t *testing.T) {
		c, err := New(Options{Address: "192.0.2.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			c.Report(Evidence{Kind: Refused})
		}
	})
	t.Run("nothing for kind none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, changes := simulated(t, Check{Kind: None}, never, nil)
			for range 10 {
				c.Report(Evidence{Kind: Refused})
			}
			wait(time.Hour)
			if s := c.Status(); len(changes.all()) != 0 || s.State != Unknown {
				t.Errorf("%+v, %+v, want nothing", s, changes.all())
			}
		})
	})
}

func TestLateVerdictsAreNotCounted(t *testing.T) {
	check := Check{Interval: 10 * time.Second, Timeout: time.Second, Fall: 1}
	t.Run("repeated at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(answers)
			c, changes := simulated(t, check, never, b.dial)
			synctest.Wait()
			b.becomes(comesBackLate)
			wait(10*time.Second + (2*maxDistrusted-1)*time.Second)
			b.becomes(answers)
			wait(time.Second)
			if s := c.Status(); s.State != Up || s.Distrusted != maxDistrusted || s.Failures != 0 || s.Checks != maxDistrusted+2 || len(changes.all()) != 1 {
				t.Errorf("%+v, %+v: want %d verdicts distrusted and the repetition at once", s, changes.all(), maxDistrusted)
			}
		})
	})
	t.Run("but not for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, changes := simulated(t, check, never, comesBackLate)
			wait((maxDistrusted + 1) * 2 * time.Second)
			if s := c.Status(); s.State != Down || s.Distrusted != maxDistrusted || len(changes.all()) != 1 {
				t.Errorf("%+v, want down after %d distrusted verdicts", s, maxDistrusted)
			}
		})
	})
	t.Run("a late refusal is a refusal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := simulated(t, check, never, func(context.Context, string, string) (net.Conn, error) {
				time.Sleep(900 * time.Millisecond)
				return nil, syscall.ECONNREFUSED
			})
			wait(time.Second)
			if s := c.Status(); s.State != Down || s.Distrusted != 0 {
				t.Errorf("%+v, want down", s)
			}
		})
	})
	t.Run("lack of means", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBackend(answers)
			b.becomes(func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}
			})
			c, changes := simulated(t, check, never, b.dial)
			wait(25 * time.Second)
			b.becomes(answers)
			wait(10 * time.Second)
			if s := c.Status(); s.State != Up || s.Distrusted != 3 || len(changes.all()) != 1 {
				t.Errorf("%+v, %+v: want three verdicts distrusted, then up", s, changes.all())
			}
		})
	})
	t.Run("who waits in OnChange is late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			// The process stands still from the first result on, while a client's
			// connect times out.
			b := newBackend(answers)
			started := time.Now()
			c, changes := simulated(t, check, never, b.dial, func(o *Options) {
				inner := o.OnChange
				o.OnChange = func(change Change) { inner(change); time.Sleep(time.Minute) }
			})
			wait(30 * time.Second)
			c.Report(Evidence{Kind: ConnectTimeout, Started: started.Add(time.Second)})
			wait(time.Minute)
			if s := c.Status(); s.State != Up || len(changes.all()) != 1 {
				t.Errorf("%+v, %+v: want the reported timeout not counted", s, changes.all())
			}
		})
	})
}

func TestLimiter(t *testing.T) {
	if _, err := NewLimiter(0); err == nil {
		t.Error("NewLimiter took 0")
	}
	synctest.Test(t, func(t *testing.T) {
		limiter, err := NewLimiter(2)
		if err != nil {
			t.Fatal(err)
		}
		var now, most atomic.Int32
		var statuses []func() Status
		for i := range 10 {
			c, _ := simulated(t, Check{Interval: 10 * time.Second}, never, func(ctx context.Context, _, _ string) (net.Conn, error) {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(100 * time.Millisecond)
				now.Add(-1)
				return nil, fmt.Errorf("backend %d is dead", i)
			}, func(o *Options) { o.Limiter = limiter })
			statuses = append(statuses, c.Status)
			synctest.Wait()
		}
		wait(450 * time.Millisecond) // 10 checks of 100 ms, two at a time
		if n := most.Load(); n != 2 {
			t.Errorf("%d checks at a time, want 2", n)
		}
		var delayed uint64
		wait(50 * time.Millisecond)
		for i, status := range statuses {
			s := status()
			delayed += s.Delayed
			if s.State != Down {
				t.Errorf("checker %d: %+v after 500 ms, want its turn to be over", i, s)
			}
		}
		if delayed != 8 {
			t.Errorf("%d were delayed, want 8", delayed)
		}
	})
}

func TestRunAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newOne := func() *Checker {
			b := newBackend(isSilent)
			c, err := newChecker(Options{Address: "192.0.2.1:80", OnChange: func(c Change) {
				t.Errorf("a broken-off check was counted: %+v", c)
			}}, environment{dial: b.dial, random: never})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := newOne()
		_ = c.Close()
		_ = c.Close()
		if err := c.Run(t.Context()); err != nil {
			t.Errorf("Run after Close: %v", err)
		}
		if err := c.Run(t.Context()); err == nil {
			t.Error("Run worked twice")
		}

		c = newOne()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		wait(500 * time.Millisecond)
		cancel()
		begin := time.Now()
		if err := <-done; err != nil || time.Since(begin) != 0 {
			t.Errorf("Run ended %v after its context: %v", time.Since(begin), err)
		}
	})
}
