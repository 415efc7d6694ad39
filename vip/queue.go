package vip

import "sync/atomic"

// queue hands things from any goroutine to one that takes them all. It has no
// lock: who pushes can be held up by the scheduler at any point without holding
// up the loop.
type queue[T any] struct {
	last   atomic.Pointer[entry[T]]
	length atomic.Int64
}

type entry[T any] struct {
	what   T
	before *entry[T]
}

// push adds an element.
func (q *queue[T]) push(what T) {
	e := &entry[T]{what: what}
	q.length.Add(1)
	for {
		e.before = q.last.Load()
		if q.last.CompareAndSwap(e.before, e) {
			return
		}
	}
}

// take appends what was pushed to out, in the order in which it was.
func (q *queue[T]) take(out []T) []T {
	start := len(out)
	for e := q.last.Swap(nil); e != nil; e = e.before {
		out = append(out, e.what)
	}
	for i, j := start, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	q.length.Add(int64(start - len(out)))
	return out
}
