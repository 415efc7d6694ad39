package notice

// fifo is a queue of entries.
type fifo struct {
	refs []ref
	head int
}

func (q *fifo) len() int { return len(q.refs) - q.head }

func (q *fifo) push(r ref) {
	// What was popped makes room before the slice grows.
	if q.head > 0 && len(q.refs) == cap(q.refs) {
		q.refs = q.refs[:copy(q.refs, q.refs[q.head:])]
		q.head = 0
	}
	q.refs = append(q.refs, r)
}

func (q *fifo) pop() (ref, bool) {
	if q.head == len(q.refs) {
		q.refs, q.head = q.refs[:0], 0
		return ref{}, false
	}
	q.head++
	return q.refs[q.head-1], true
}

func (q *fifo) clear() { *q = fifo{} }

// timer is an instant at which an entry is to be looked at.
type timer struct {
	at  int64
	ref ref
}

// timers is a heap of them: the earliest is first.
type timers struct{ heap []timer }

func (t *timers) first() (timer, bool) {
	if len(t.heap) == 0 {
		return timer{}, false
	}
	return t.heap[0], true
}

func (t *timers) push(x timer) {
	t.heap = append(t.heap, x)
	h := t.heap
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if h[up].at <= h[i].at {
			break
		}
		h[up], h[i] = h[i], h[up]
		i = up
	}
}

func (t *timers) pop() {
	h := t.heap
	n := len(h) - 1
	h[0] = h[n]
	t.heap = h[:n]
	h = t.heap
	for i := 0; ; {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < n && h[c].at < h[least].at {
				least = c
			}
		}
		if least == i {
			return
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

func (t *timers) clear() { t.heap = nil }
