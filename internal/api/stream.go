//go:build linux

package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/journal"
)

// events answers with a list, or with a stream.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "service", "backend", "client", "limit", "after", "follow")
	var f admin.Filter
	var follow bool
	if err == nil {
		f, err = filter(q)
	}
	if err == nil {
		follow, err = flag(q, "follow")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if follow {
		s.follow(w, r, f, q)
		return
	}
	if !s.requests.enter(s.rights.Load().mayChange(peerOf(r.Context()))) {
		s.fail(w, r, errBusy("requests", maxRequests))
		return
	}
	defer s.requests.leave()
	s.finish(w, r)(s.listEvents(f, q))
}

func (s *Server) listEvents(f admin.Filter, q url.Values) (any, error) {
	var from uint64
	if q.Has("after") {
		var err error
		if from, err = after(q); err != nil {
			return nil, err
		}
	}
	events, err := s.node.Events(f, from)
	return admin.Events{Events: list(events)}, err
}

// follow streams events. The id of each is its number and the beginning of its
// journal, so that a browser that comes back after the node has started again
// (Last-Event-ID) is not taken for one that has seen this journal's events.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, f admin.Filter, q url.Values) {
	fl, err := s.follower(f, q, r.Header.Get("Last-Event-ID"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer fl.Close()
	began := strconv.FormatInt(fl.Began().UnixMilli(), 10)
	s.stream(w, r, func(ctx context.Context, out *bytes.Buffer) error {
		events, err := fl.Next(ctx)
		for i := range events {
			if seq := events[i].Seq; seq > 0 {
				fmt.Fprintf(out, "id: %d@%s\n", seq, began)
			}
			data(out, &events[i])
		}
		return err
	})
}

// follower begins where the client says: by the id of the event that it saw
// last, by the key after, or now.
func (s *Server) follower(f admin.Filter, q url.Values, lastID string) (*journal.Follower, error) {
	from := uint64(journal.Now)
	var err error
	if q.Has("after") {
		if from, err = after(q); err != nil {
			return nil, err
		}
	}
	if lastID == "" {
		return s.node.Follow(f, from)
	}
	seq, began, stamped := strings.Cut(lastID, "@")
	if from, err = strconv.ParseUint(seq, 10, 64); err != nil {
		return nil, invalid("Last-Event-ID is %q, want the id of an event of this stream", lastID)
	}
	fl, err := s.node.Follow(f, from)
	if err != nil || !stamped || began == strconv.FormatInt(fl.Began().UnixMilli(), 10) {
		return fl, err
	}
	if err := fl.Close(); err != nil {
		return nil, err
	}
	return s.node.Follow(f, math.MaxUint64-1) // of another journal
}

// watch streams the status.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "every")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	period, err := every(q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := time.Now() // the first at once
	s.stream(w, r, func(ctx context.Context, out *bytes.Buffer) error {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		next = time.Now().Add(period)
		data(out, complete(s.node.Status()))
		return nil
	})
}

// data writes one event of a stream.
func data(out *bytes.Buffer, v any) {
	out.WriteString("data: ")
	out.Write(encode(v)) // one line
	out.WriteByte('\n')
}

// stream answers with server-sent events until the client or the node goes. next
// waits until ctx ends or there is something to write.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, next func(ctx context.Context, out *bytes.Buffer) error) {
	if !s.streams.enter(s.rights.Load().mayChange(peerOf(r.Context()))) {
		s.fail(w, r, errBusy("streams", maxStreams))
		return
	}
	defer s.streams.leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for a proxy in between
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		s.log.Debug("a stream keeps the deadline of a request", "err", err)
	}
	var out bytes.Buffer
	out.WriteString(": this stream has a comment every so often, which says that the node lives\n\n")
	for {
		if out.Len() > 0 {
			// Whoever does not read for so long is cut off: the error comes too late for an answer.
			if err := rc.SetWriteDeadline(time.Now().Add(s.patience)); err != nil {
				s.log.Debug("a stream keeps the deadline of a request", "err", err)
			}
			_, err := w.Write(out.Bytes())
			if err == nil {
				err = rc.Flush()
			}
			if err != nil {
				s.log.Debug("a stream is no longer read", "path", r.URL.Path, "by", peerOf(r.Context()).String(), "err", err)
				panic(http.ErrAbortHandler) // it is cut, and must not look complete
			}
			out.Reset()
		}
		if ctx.Err() != nil {
			return
		}
		waiting, done := context.WithTimeout(ctx, s.heartbeat)
		err := next(waiting, &out)
		done()
		switch {
		case err == nil, ctx.Err() != nil:
		case errors.Is(err, context.DeadlineExceeded):
			out.WriteString(":\n\n")
		default:
			return // the journal is closed: the node ends
		}
	}
}
