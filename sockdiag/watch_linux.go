package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Watch is told of every TCP socket of one network namespace, that of the thread
// that opened it, when the kernel frees it. That is when its last descriptor is
// closed and nothing is left to be sent, or when it enters TimeWait; a connection
// that was reset is freed only when its program closes it. It is for one goroutine
// at a time; Close may be called by another.
type Watch struct {
	w    *sys.DiagWatch
	msgs []sys.NetlinkMessage
}

// WatchOptions say how a Watch is opened.
type WatchOptions struct {
	// Buffer is how many bytes the kernel keeps for a reader that is late: some
	// 1.3 KB for each socket. Default 8 MiB; 4 KiB to 256 MiB. Without CAP_NET_ADMIN the
	// kernel bounds it by net.core.rmem_max.
	Buffer int
}

// The bounds of WatchOptions.Buffer.
const (
	defaultBuffer = 8 << 20
	minBuffer     = 4 << 10
	maxBuffer     = 256 << 20
)

// OpenWatch begins to watch. It needs no rights. Of what is freed before it
// returns nothing is told.
func OpenWatch(o WatchOptions) (*Watch, error) {
	if o.Buffer == 0 {
		o.Buffer = defaultBuffer
	}
	if o.Buffer < minBuffer || o.Buffer > maxBuffer {
		return nil, fmt.Errorf("sockdiag: WatchOptions.Buffer is %d: want %d to %d bytes", o.Buffer, minBuffer, maxBuffer)
	}
	w, err := sys.OpenDiagWatch(sys.DiagDestroyed4|sys.DiagDestroyed6, o.Buffer)
	if err != nil {
		return nil, fmt.Errorf("sockdiag: watch: %w", err)
	}
	return &Watch{w: w}, nil
}

// Destroyed goes through the sockets as they are freed, with their last Info and
// Cookie, and without Inode and UID; it waits for the next one. State is Closed as
// a rule. Go by the Cookie: of a socket that its own program has reset (SO_LINGER
// with 0) the kernel has forgotten the addresses and the remote port by then. One
// that neither connected nor listened is told, too; the end of TimeWait or
// SynReceived is not, as those are no whole sockets.
//
// ErrOverflow says that some were lost; everything that had been kept is told
// before it, so that a listing that is made then is newer than what was lost. It
// does not end the sequence. Every other error does: that of ctx, net.ErrClosed,
// or one of the kernel. Under want of memory the kernel may tell nothing of a
// socket, and nothing of that.
func (w *Watch) Destroyed(ctx context.Context) iter.Seq2[Socket, error] {
	return func(yield func(Socket, error) bool) {
		release := w.w.StopWith(ctx)
		defer release()
		overflow := false
		for {
			if err := ctx.Err(); err != nil {
				yield(Socket{}, err)
				return
			}
			// Once it has lost one, the kernel drops all until everything it kept is
			// read, and does not say so again.
			var more, lost bool
			var err error
			w.msgs, more, lost, err = w.w.Receive(w.msgs[:0], !overflow)
			overflow = overflow || lost
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				continue // ctx is done
			case errors.Is(err, os.ErrClosed):
				yield(Socket{}, fmt.Errorf("sockdiag: watch: %w", net.ErrClosed))
				return
			case err != nil:
				yield(Socket{}, fmt.Errorf("sockdiag: watch: %w", err))
				return
			}
			for _, m := range w.msgs {
				if m.Type != sys.DiagByFamily {
					continue
				}
				s, err := decode(m.Body)
				if err != nil {
					yield(Socket{}, fmt.Errorf("sockdiag: watch: %w", err))
					return
				}
				if !yield(s, nil) {
					return
				}
			}
			if overflow && !more {
				overflow = false
				if !yield(Socket{}, fmt.Errorf("sockdiag: watch: %w", ErrOverflow)) {
					return
				}
			}
		}
	}
}

// Close ends the subscription, and a Destroyed that waits.
func (w *Watch) Close() error { return w.w.Close() }
