package node

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
)

const (
	reapInterval = time.Second

	// reapAfter is for how many looks a child that may have been started by this
	// program is left to who started it.
	reapAfter = 5
)

// reap frees what the programs of checks leave behind, where this process is the
// first of its container: it inherits every orphan, and nobody else frees them.
// Elsewhere it does nothing.
func (n *node) reap(ctx context.Context) {
	if os.Getpid() != 1 {
		return
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	ticker := time.NewTicker(reapInterval)
	defer ticker.Stop()
	seen, looks := 0, 0
	for {
		pid := n.reapOrphans(seen, looks >= reapAfter)
		select {
		case <-ctx.Done():
			return
		case <-ended: // not a look: there may be many in a moment
		case <-ticker.C:
			looks++
		}
		if pid != seen {
			seen, looks = pid, 0
		}
	}
}

// reapOrphans frees every orphan, up to the first child that may be of this
// program, which it returns. That is freed as well where it is stuck and old.
func (n *node) reapOrphans(stuck int, old bool) (next int) {
	for last := 0; ; {
		pid, err := sys.ExitedChild()
		if err != nil || pid == 0 || pid == last { // the same again: it cannot be freed
			return 0
		}
		last = pid
		if started(pid) && (pid != stuck || !old) {
			return pid
		}
		sys.ReapEnded(pid)
	}
}

// started reports whether this program may have started a child: what it starts
// leads a process group of its own, in this program's session.
func started(pid int) bool {
	group, session, err := sys.Group(pid)
	_, own, ownErr := sys.Group(0)
	return err == nil && ownErr == nil && group == pid && session == own
}
