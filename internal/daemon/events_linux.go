package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/relay"
)

// An Event is one line of the event stream: a connection that ended, or a
// backend that changed. The names of its fields are the configuration's words
// and stable; a field that means nothing for the kind of event is left out.
type Event struct {
	Event   string    `json:"event"` // "connection", "backend" or "lost"
	Time    time.Time `json:"time"`
	Service string    `json:"service,omitempty"`
	Backend string    `json:"backend,omitempty"`

	// Of a connection that ended.
	*ConnectionEnd `json:",omitempty"`

	// Of a backend that changed.
	*BackendChange `json:",omitempty"`

	// Count says how many events were lost before this one, because they could
	// not be written as fast as they came.
	Count uint64 `json:"count,omitempty"`
}

// ConnectionEnd is how a connection ended.
type ConnectionEnd struct {
	ID          uint64      `json:"id"`
	Client      string      `json:"client"`
	Engine      string      `json:"engine"` // "relay"
	Cause       relay.Cause `json:"cause"`
	By          relay.Side  `json:"by"`
	Age         float64     `json:"age"` // seconds
	BytesIn     uint64      `json:"bytes_in"`
	BytesOut    uint64      `json:"bytes_out"`
	Undelivered uint64      `json:"undelivered"`
	ToldClient  relay.Told  `json:"told_client"`
	ToldBackend relay.Told  `json:"told_backend"`
	Attempts    int         `json:"attempts"`
	Detail      string      `json:"detail,omitempty"`
}

// BackendChange is what became of a backend.
type BackendChange struct {
	Address relay.Address `json:"address"`
	State   string        `json:"state"` // "up" or "down"
	Reason  string        `json:"reason,omitempty"`
}

func endEvent(e *relay.End) Event {
	return Event{
		Event: "connection", Time: e.Began.Add(e.Age), Service: e.Service, Backend: e.Backend,
		ConnectionEnd: &ConnectionEnd{
			ID: e.ID, Client: e.Client, Engine: engine, Cause: e.Cause, By: e.By, Age: e.Age.Seconds(),
			BytesIn: e.BytesIn, BytesOut: e.BytesOut, Undelivered: e.Undelivered,
			ToldClient: e.ToldClient, ToldBackend: e.ToldBackend, Attempts: e.Attempts, Detail: e.Detail,
		},
	}
}

// engine is what carries the connections.
const engine = "relay"

// maxWaiting bounds the events that wait to be written: some 20 MB.
const maxWaiting = 1 << 16

// eventWriter writes events as JSON lines without ever making the sender wait:
// the event loops are among them.
type eventWriter struct {
	w io.Writer

	mu      sync.Mutex
	waiting []Event
	lost    uint64
	dead    bool          // nobody writes any more
	wake    chan struct{} // holds one
}

func newEventWriter(w io.Writer) *eventWriter {
	return &eventWriter{w: w, wake: make(chan struct{}, 1)}
}

// send queues e; a nil writer discards it.
func (w *eventWriter) send(e Event) {
	if w == nil {
		return
	}
	w.mu.Lock()
	switch {
	case w.dead:
	case len(w.waiting) < maxWaiting:
		w.waiting = append(w.waiting, e)
	default:
		w.lost++
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// discard makes send do nothing, once nobody writes any more.
func (w *eventWriter) discard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead, w.waiting = true, nil
}

// run writes until ctx is cancelled and nothing waits any more, or until
// writing fails.
func (w *eventWriter) run(ctx context.Context) error {
	var batch []Event
	for {
		w.mu.Lock()
		batch, w.waiting = w.waiting, batch[:0]
		lost := w.lost
		w.lost = 0
		w.mu.Unlock()
		if len(batch) == 0 && lost == 0 {
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
			}
			// What was sent before the cancellation is still written.
			select {
			case <-w.wake:
				continue
			default:
				return nil
			}
		}
		if err := w.write(batch, lost); err != nil {
			return err
		}
		clear(batch)
	}
}

func (w *eventWriter) write(batch []Event, lost uint64) error {
	var text []byte
	for _, e := range batch {
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("event: %w", err)
		}
		text = append(append(text, line...), '\n')
	}
	if lost > 0 {
		line, err := json.Marshal(Event{Event: "lost", Time: time.Now(), Count: lost})
		if err != nil {
			return fmt.Errorf("event: %w", err)
		}
		text = append(append(text, line...), '\n')
	}
	if _, err := w.w.Write(text); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}
