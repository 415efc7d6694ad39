package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/config"
)

// notifyBound is how long a notify command may take.
const notifyBound = 5 * time.Minute

// A news is a role that a notify command is told of.
type news struct {
	group  config.AddressGroup
	change admin.RoleChange
}

// argv is the command for the role; empty for none.
func (n *news) argv() []string {
	switch n.change.To {
	case admin.RoleActive:
		return n.group.Notify.Active
	case admin.RoleBackup:
		return n.group.Notify.Backup
	default:
		return n.group.Notify.Fault
	}
}

func (n *news) environment() []string {
	addresses := make([]string, len(n.group.Addresses))
	for i, a := range n.group.Addresses {
		addresses[i] = a.String()
	}
	return []string{
		"HOLDFAST_GROUP=" + n.group.Name, "HOLDFAST_INTERFACE=" + n.group.Interface,
		"HOLDFAST_ADDRESSES=" + strings.Join(addresses, " "),
		"HOLDFAST_ROLE=" + n.change.To, "HOLDFAST_BEFORE=" + n.change.From, "HOLDFAST_CAUSE=" + n.change.Cause,
		"HOLDFAST_EPOCH=" + strconv.FormatUint(n.change.Epoch, 10),
	}
}

// A notifier runs the notify commands of one group, one at a time. Of roles that
// come while a command runs, the last is told.
type notifier struct {
	log   *slog.Logger
	event func(group, state, reason string)
	wake  chan struct{}

	mu     sync.Mutex
	next   *news
	closed bool   // nothing comes any more
	failed string // why the last command did; "" when it did not
	since  time.Time
}

func newNotifier(log *slog.Logger, event func(group, state, reason string)) *notifier {
	return &notifier{log: log, event: event, wake: make(chan struct{}, 1)}
}

// tell has the command of a role run when it is its turn.
func (n *notifier) tell(what news) {
	n.mu.Lock()
	n.next = &what
	n.mu.Unlock()
	n.rouse()
}

// close has run return when the last role was told.
func (n *notifier) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.rouse()
}

func (n *notifier) rouse() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// run runs commands until ctx ends, or close; the last role is told then, too.
func (n *notifier) run(ctx context.Context) {
	for {
		n.mu.Lock()
		next, closed := n.next, n.closed || ctx.Err() != nil
		n.next = nil
		n.mu.Unlock()
		switch {
		case next != nil:
			n.once(next)
			continue
		case closed:
			return
		}
		select {
		case <-n.wake:
		case <-ctx.Done():
		}
	}
}

// once runs one command. It does not end with the node, in whose last moment a role
// may change: who stops waits for it.
func (n *notifier) once(what *news) {
	argv := what.argv()
	var failed string
	if len(argv) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), notifyBound)
		began := time.Now()
		output, err := runProgram(ctx, argv, what.environment())
		cancel()
		attrs := []any{"group", what.group.Name, "role", what.change.To, "command", argv[0], "took", time.Since(began).Round(time.Millisecond).String()}
		if output != "" {
			attrs = append(attrs, "output", output)
		}
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("it did not end within %v, and was killed", notifyBound)
			}
			failed = fmt.Sprintf("the notify command %s for the role %s failed: %v", argv[0], what.change.To, err)
			if output != "" {
				failed += ": " + strings.ReplaceAll(output, "\n", "; ")
			}
			n.log.Error("notify command failed", append(attrs, "err", err)...)
			n.event(what.group.Name, admin.ProblemNotify, failed)
		} else {
			n.log.Info("notify command done", attrs...)
			n.event(what.group.Name, "notified", fmt.Sprintf("the notify command %s for the role %s is done", argv[0], what.change.To))
		}
	}
	n.mu.Lock()
	n.failed, n.since = failed, time.Now()
	n.mu.Unlock()
}

// problem is that the last command failed.
func (n *notifier) problem(group string) (admin.Problem, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return admin.Problem{Code: admin.ProblemNotify, Group: group, Text: n.failed, Since: n.since}, n.failed != ""
}
