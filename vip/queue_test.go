package vip

import (
	"log/slog"
	"sync"
	"testing"
)

// Everything that is pushed is taken once, what one goroutine pushes in order.
func TestQueue(t *testing.T) {
	var q queue[[2]int]
	const pushers, each = 8, 1000
	var wg sync.WaitGroup
	for p := range pushers {
		wg.Go(func() {
			for i := range each {
				q.push([2]int{p, i})
			}
		})
	}
	next := make([]int, pushers)
	for n := 0; n < pushers*each; {
		for _, e := range q.take(nil) {
			if next[e[0]] != e[1] {
				t.Fatalf("pusher %d: element %d, want %d", e[0], e[1], next[e[0]])
			}
			next[e[0]]++
			n++
		}
	}
	wg.Wait()
	if left := q.take(nil); len(left) > 0 || q.length.Load() != 0 {
		t.Errorf("%d are left, length %d", len(left), q.length.Load())
	}
}

// Who is slow loses changes, but none of role, and knows how many.
func TestTeller(t *testing.T) {
	told := make(map[Kind]int)
	hold := make(chan struct{})
	var begun sync.Once
	started := make(chan struct{})
	tl := newTeller(func(c Change) {
		begun.Do(func() { close(started) })
		<-hold
		told[c.Kind]++
	}, slog.New(slog.DiscardHandler))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); tl.run(stop) }()
	tl.tell(Change{Kind: KindLink})
	<-started // it is held; the rest waits
	const extra = 10
	for range maxUntold + extra {
		tl.tell(Change{Kind: KindLink})
	}
	for range 5 {
		tl.tell(Change{Kind: KindRole})
	}
	close(hold)
	close(stop)
	<-ended
	if told[KindRole] != 5 || told[KindLink] != maxUntold+1 || tl.lost.Load() != extra {
		t.Errorf("told %v, lost %d", told, tl.lost.Load())
	}
}
