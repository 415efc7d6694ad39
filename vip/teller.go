package vip

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// maxUntold is how many changes wait for a slow OnChange; those of role, of
// which there are few, are kept beyond it.
const maxUntold = 1024

// teller tells changes on a goroutine of its own, so that whoever is told can
// be as slow as he likes.
type teller struct {
	onChange func(Change)
	log      *slog.Logger
	waiting  queue[Change]
	wake     chan struct{}
	lost     atomic.Uint64
}

func newTeller(onChange func(Change), log *slog.Logger) *teller {
	return &teller{onChange: onChange, log: log, wake: make(chan struct{}, 1)}
}

// tell hands a change over and returns.
func (t *teller) tell(c Change) {
	if c.Kind != KindRole && t.waiting.length.Load() >= maxUntold {
		t.lost.Add(1)
		return
	}
	t.waiting.push(c)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run tells until stop is closed and nothing is left.
func (t *teller) run(stop <-chan struct{}) {
	var batch []Change
	for {
		batch = t.waiting.take(batch[:0])
		for _, c := range batch {
			level := slog.LevelInfo
			switch c.Kind {
			case KindConflict, KindForged, KindStep, KindLate, KindRefused, KindAdverts:
				level = slog.LevelWarn
			}
			t.log.Log(context.Background(), level, "group: "+string(c.Kind), "group", c.Group, "role", c.Role, "before", c.From, "epoch", c.Epoch, "cause", c.Cause, "what", c.Text)
			if t.onChange != nil {
				t.onChange(c)
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-t.wake:
		case <-stop:
			if t.waiting.length.Load() == 0 {
				return
			}
		}
	}
}
