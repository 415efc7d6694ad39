package vip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// course is what a group is going through: a takeover, a release or a loss.
// Whatever comes next for the group ends it, and with it the steps that it
// waits for.
type course struct {
	ctx    context.Context
	cancel context.CancelFunc
	left   int           // steps that have not ended
	bound  time.Duration // of steps Draining; 0: there are none
	epoch  uint64
	over   bool // nothing more will be done
}

// begin starts a course and ends the one before.
func (g *group) begin() *course {
	if g.course != nil {
		g.course.cancel()
	}
	c := &course{epoch: g.epoch()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	g.course = c
	return c
}

// steps runs others' steps of one place and goes on with then on the loop when
// all have ended or run out of time, unless another course has begun meanwhile.
// Where there are none it goes on at once.
func (g *group) steps(c *course, when When, cause Cause, planned bool, then func()) {
	e := Event{Group: g.spec.Name, Addresses: g.spec.Addresses, When: when, Epoch: c.epoch, Cause: cause, Planned: planned}
	c.left = 0
	for _, s := range g.loop.steps {
		if s.When != when || when == Draining && c.bound <= 0 {
			continue
		}
		if when == Draining {
			s.Bound = min(s.Bound, c.bound)
		}
		c.left++
		g.loop.background.Go(func() {
			err := s.run(c.ctx, e, &g.loop.background)
			g.loop.post(func() { g.stepEnded(c, s, err, then) })
		})
	}
	if c.left == 0 {
		then()
	}
}

func (g *group) stepEnded(c *course, s Step, err error, then func()) {
	if err != nil && g.course == c {
		g.tell(KindStep, fmt.Sprintf("step %s (%s): %v", s.Name, s.When, err))
	}
	if c.left--; c.left == 0 && g.course == c {
		then()
	}
}

// run does the step and waits for it as long as it may take. One that does not
// return when ctx ends is not waited for here, but by the end of Run.
func (s Step) run(ctx context.Context, e Event, background *sync.WaitGroup) error {
	ctx, cancel := context.WithTimeout(ctx, s.Bound)
	ended := make(chan error, 1)
	background.Go(func() {
		defer cancel()
		ended <- s.Do(ctx, e)
	})
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		select {
		case err = <-ended: // it has just ended, and cancelled
		default:
		}
	}
	if ctx.Err() == context.DeadlineExceeded {
		return errors.Join(fmt.Errorf("it has not ended within %v; the order went on without it", s.Bound), err)
	}
	return err
}
