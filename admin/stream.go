package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strconv"
	"time"
)

// Watch yields the status at once and then every so often, 100ms to 1h, 0 for a
// second, until ctx ends or the node does. An error is the last to be yielded;
// a node that stops ends it without one.
func (c *Client) Watch(ctx context.Context, every time.Duration) iter.Seq2[Status, error] {
	q := make(url.Values)
	if every != 0 {
		q.Set("every", every.String())
	}
	return stream[Status](ctx, c, "/v1/watch", q)
}

// Follow yields the events that fit f as they come, until ctx ends or the node
// does: those behind the one with the number after, or with 0 those from now on
// and the newest f.Limit before. Where some are missing, there is one of
// [EventLost]. An error is the last to be yielded; a node that stops ends it
// without one. Whoever wants to go on with the node's next life calls it again,
// with the number of the last event: the node notices that it is of an earlier
// one if it is greater than its own, and 0 begins anew.
func (c *Client) Follow(ctx context.Context, f Filter, after uint64) iter.Seq2[Event, error] {
	q := f.query()
	q.Set("follow", "1")
	if after > 0 {
		q.Set("after", strconv.FormatUint(after, 10))
	}
	return stream[Event](ctx, c, "/v1/events", q)
}

var errSilent = errors.New("not even a heartbeat in " + silence.String())

// stream yields what server-sent events carry.
func stream[T any](ctx context.Context, c *Client, path string, q url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		res, err := c.do(ctx, "GET", path, q, nil)
		if err != nil {
			yield(none, err)
			return
		}
		defer res.Body.Close()
		watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
		defer watchdog.Stop()
		err = readStream(res.Body, func() { watchdog.Reset(silence) }, func(data []byte) error {
			var v T
			if err := json.Unmarshal(data, &v); err != nil {
				return err
			}
			watchdog.Stop() // the time that the reader takes is its own
			defer watchdog.Reset(silence)
			if !yield(v, nil) {
				return errEnough
			}
			return nil
		})
		switch {
		case err == nil, errors.Is(err, errEnough):
		case context.Cause(ctx) == errSilent: //nolint:errorlint // this very one
			yield(none, &UnreachableError{Socket: c.Path(), Why: errSilent.Error(), Remedy: "look at the node's log (journalctl -u holdfast)", Err: errSilent})
		case ctx.Err() != nil:
			yield(none, context.Cause(ctx))
		default:
			yield(none, fmt.Errorf("the node at %s broke the stream off: %w", c.Path(), err))
		}
	}
}

// errEnough ends a stream whose reader has enough.
var errEnough = errors.New("enough")

// maxStreamLine bounds one event: the status of some 50,000 backends.
const maxStreamLine = 64 << 20

// readStream reads server-sent events (see the HTML standard): alive is called
// for each line, and data for each event. The end of the stream is no error.
func readStream(r io.Reader, alive func(), data func([]byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxStreamLine)
	var event []byte
	for lines.Scan() {
		alive()
		line := lines.Bytes()
		if len(line) == 0 {
			if len(event) > 0 {
				if err := data(event); err != nil {
					return err
				}
				event = event[:0]
			}
			continue
		}
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			event = append(append(event, bytes.TrimPrefix(value, []byte(" "))...), '\n')
		}
	}
	return lines.Err()
}
