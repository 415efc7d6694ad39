//go:build linux

package relay

import (
	"errors"
	"syscall"
)

// How a stream is over, as its reader sees it once every byte was read.
type over uint8

const (
	notOver  over = iota
	overFIN       // end of stream
	overRST       // the peer reset the connection, before or after an end of stream
	overDead      // the peer's host fell silent
)

// overBy sorts the error of a socket call.
func overBy(errno syscall.Errno) over {
	switch {
	case errors.Is(errno, syscall.ECONNRESET), errors.Is(errno, syscall.EPIPE), errors.Is(errno, syscall.ECONNABORTED):
		return overRST
	}
	return overDead // ETIMEDOUT, EHOSTUNREACH, ENETUNREACH ...: what the kernel says of a peer it gave up
}

// stream is what the ending rules look at, for one direction.
type stream struct {
	over   over
	held   bool // bytes were read and are not written yet
	acked  bool // the sink's kernel has acknowledged every byte written
	passed bool // the end of stream was passed on to the sink
	meant  bool // the source still listens after its end of stream: it has not crashed
	broken bool // the sink takes nothing any more; what it sent before is still being read
}

// delivered reports whether everything that the source sent is safe with the
// sink's kernel. An end that was passed on was passed on after that.
func (s stream) delivered() bool { return !s.broken && (s.passed || !s.held && s.acked) }

// settled reports whether nothing more can become of what the source sent.
func (s stream) settled() bool { return s.broken || s.delivered() }

// action is what the ending rules ask for. Rules are asked again after each
// until they ask to wait.
type action uint8

const (
	actWait         action = iota // for bytes to be delivered, or a side to end
	actEndBackend                 // pass the client's end of stream to the backend
	actEndClient                  // pass the backend's end of stream to the client
	actClose                      // both streams ended well: close both sockets
	actResetClient                // the backend reset: RST to the client, close both
	actResetBackend               // the client reset: RST to the backend, close both
	actResetBoth                  // a host is silent: RST to both
)

// decide is the truth about endings (DESIGN, section 3), and pure: in is the
// client's stream to the backend, out the backend's to the client. answered
// says that a client which has not ended its stream yet is not owed a word
// about bytes it sent: see [pair.answered].
func decide(in, out stream, answered bool) action {
	switch {
	case in.over == overDead || out.over == overDead:
		// Nobody is there to deliver to, and nothing of what came is whole.
		return actResetBoth
	case out.over == overRST:
		if in.over == overRST || out.settled() {
			return actResetClient
		}
		return actWait
	case in.over == overRST:
		if in.settled() {
			return actResetBackend
		}
		return actWait
	case in.over == overFIN && !in.passed && in.delivered():
		return actEndBackend
	case out.over == overFIN && !out.passed && out.delivered() &&
		// The client reads this end as "all is well": say it only when every
		// byte of its own has arrived, or while it goes on talking to a backend
		// that goes on listening.
		(in.over == notOver && out.meant || in.delivered() && (in.passed || in.over == notOver && answered)):
		return actEndClient
	case in.passed && out.passed:
		return actClose
	}
	return actWait
}
