package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/config"
)

// A row counts results of one kind in a row. It is pure.
type row struct {
	fall, rise int
	known      bool // the first result has come
	well       bool
	n          int // results against well, in a row
}

// result takes one, and reports whether well has changed, or is known now.
func (r *row) result(good bool) (changed bool) {
	if !r.known {
		r.known, r.well = true, good
		return true
	}
	if good == r.well {
		r.n = 0
		return false
	}
	r.n++
	limit := r.fall
	if good {
		limit = r.rise
	}
	if r.n < limit {
		return false
	}
	r.well, r.n = good, 0
	return true
}

// A tracker runs the command of a group.
type tracker struct {
	group string
	track config.Track
	role  func() string
	tell  func(ok bool, why string)
	end   context.CancelFunc // guarded by addresses.mu; nil: it does not run

	mu    sync.Mutex
	shown admin.Track
}

// sameTrack reports whether two commands are the same.
func sameTrack(a, b config.Track) bool {
	return slices.Equal(a.Command, b.Command) && a.Interval == b.Interval && a.Fall == b.Fall && a.Rise == b.Rise
}

// newTracker makes a tracker that does not run. Until its first result the group
// is as it was.
func newTracker(group string, track config.Track, role func() string, tell func(ok bool, why string)) *tracker {
	return &tracker{
		group: group, track: track, role: role, tell: tell,
		shown: admin.Track{What: "command", Well: false, Since: time.Now(), Reason: "it has not ended yet for the first time"},
	}
}

// status is what is known of the command.
func (t *tracker) status() admin.Track {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown
}

// run runs the command again and again until ctx ends.
func (t *tracker) run(ctx context.Context) {
	r := row{fall: t.track.Fall, rise: t.track.Rise}
	ticker := time.NewTicker(t.track.Interval)
	defer ticker.Stop()
	for {
		err := t.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if r.result(err == nil) {
			t.changed(r.well, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// once runs the command, for one interval at most.
func (t *tracker) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.track.Interval)
	defer cancel()
	output, err := runProgram(ctx, t.track.Command, []string{"HOLDFAST_GROUP=" + t.group, "HOLDFAST_ROLE=" + t.role()})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("it did not end within %v", t.track.Interval)
	}
	if output != "" {
		err = fmt.Errorf("%w: %s", err, strings.ReplaceAll(output, "\n", "; "))
	}
	return err
}

func (t *tracker) changed(well bool, err error) {
	why := ""
	if !well {
		why = fmt.Sprintf("the command %s failed: %v", t.track.Command[0], err)
	}
	t.mu.Lock()
	t.shown.Well, t.shown.Since, t.shown.Reason = well, time.Now(), why
	t.mu.Unlock()
	t.tell(well, why)
}
