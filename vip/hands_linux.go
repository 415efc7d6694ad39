package vip

import (
	"fmt"
	"os"

	"github.com/holdfast-net/holdfast/internal/netns"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// job is something that may block in the kernel. do runs on the thread of the
// hands, done afterwards on the loop. What do finds out is passed on in
// variables of its closure.
type job struct{ do, done func() }

// hands do what may block in the kernel, one job after the other, on a thread
// of their own in the loop's network namespace. Address changes wait for the
// lock of rtnetlink, which whoever opens a packet socket or takes a link away
// holds for many milliseconds; no advert waits with them.
type hands struct {
	jobs  queue[job]
	wake  chan struct{}
	ended queue[func()]
	loop  *sys.Waker
}

func newHands(loop *sys.Waker) *hands {
	return &hands{wake: make(chan struct{}, 1), loop: loop}
}

// do hands a job over.
func (h *hands) do(do, done func()) {
	h.jobs.push(job{do, done})
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run does jobs until stop is closed and none is left.
func (h *hands) run(stop <-chan struct{}) {
	var batch []job
	for {
		batch = h.jobs.take(batch[:0])
		for i, j := range batch {
			j.do()
			if j.done != nil {
				h.ended.push(j.done)
				h.loop.Wake()
			}
			batch[i] = job{}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-h.wake:
		case <-stop:
			if h.jobs.length.Load() == 0 {
				return
			}
		}
	}
}

// inside runs f on a goroutine that has a thread to itself, in the network
// namespace that ns refers to. The returned channel gives an error if that
// failed, and is closed when f has returned.
func inside(ns *os.File, f func()) <-chan error {
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		err := netns.Within(ns, func() error {
			f()
			return nil
		})
		if err != nil {
			ended <- fmt.Errorf("vip: a second thread in the network namespace: %w", err)
		}
	}()
	return ended
}
