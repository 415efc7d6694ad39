//go:build linux

package wire

import "sync"

// waiting is a frame under way.
type waiting struct {
	at     int64
	n      uint64 // its place among those that are due together
	copies int
	cut    bool
	buf    *buffer
}

// frames is a heap of frames, the next one due first. container/heap would box
// every one of them.
type frames []waiting

func (h frames) before(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].n < h[j].n
}

// push adds a frame and reports whether it is the next one due.
func (h *frames) push(f waiting) (first bool) {
	*h = append(*h, f)
	s := *h
	i := len(s) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !s.before(i, parent) {
			return false
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
	return true
}

// pop takes out the next frame due.
func (h *frames) pop() waiting {
	s := *h
	f := s[0]
	last := len(s) - 1
	s[0], s[last] = s[last], waiting{}
	s = s[:last]
	*h = s
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return f
		}
		if child+1 < last && s.before(child+1, child) {
			child++
		}
		if !s.before(child, i) {
			return f
		}
		s[i], s[child] = s[child], s[i]
		i = child
	}
}

// buffer holds a frame under way. Frames of an ordinary MTU share a pool.
type buffer struct{ b []byte }

const pooled = 2048

var pool = sync.Pool{New: func() any { return &buffer{b: make([]byte, pooled)} }}

// take returns a buffer of n bytes.
func take(n int) *buffer {
	if n > pooled {
		return &buffer{b: make([]byte, n)}
	}
	buf := pool.Get().(*buffer)
	buf.b = buf.b[:n]
	return buf
}

// give returns a buffer to the pool, if it is from there.
func give(buf *buffer) {
	if cap(buf.b) == pooled {
		pool.Put(buf)
	}
}
