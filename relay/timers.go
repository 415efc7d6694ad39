//go:build linux

package relay

// timers is a binary heap of pairs by their due time. A pair is in it at most
// once and remembers its place. Times only need to be early: a pair whose due
// time has moved on is put back when it comes up.
type timers []*pair

const noTimer = -1

// set makes sure that p comes up at due or before.
func (t *timers) set(p *pair, due int64) {
	if p.timer == noTimer {
		p.timer, p.due = len(*t), due
		*t = append(*t, p)
		t.up(p.timer)
	} else if due < p.due {
		p.due = due
		t.up(p.timer)
	}
}

// next returns the earliest due time.
func (t timers) next() (due int64, ok bool) {
	if len(t) == 0 {
		return 0, false
	}
	return t[0].due, true
}

// remove takes p out.
func (t *timers) remove(p *pair) {
	i := p.timer
	if i == noTimer {
		return
	}
	p.timer = noTimer
	last := len(*t) - 1
	moved := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	if i == last {
		return
	}
	(*t)[i] = moved
	moved.timer = i
	t.up(i)
	t.down(moved.timer)
}

func (t timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if t[parent].due <= t[i].due {
			return
		}
		t.swap(i, parent)
		i = parent
	}
}

func (t timers) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t) {
			return
		}
		if right := child + 1; right < len(t) && t[right].due < t[child].due {
			child = right
		}
		if t[i].due <= t[child].due {
			return
		}
		t.swap(i, child)
		i = child
	}
}

func (t timers) swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = i, j
}
