package daemon

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-net/holdfast/relay"
)

// Totals are sums over all connections that have ended.
type Totals struct {
	Connections uint64
	BytesIn     uint64 // from clients
	BytesOut    uint64 // from backends
	ByCause     map[relay.Cause]uint64
}

// counter adds up ends; the event loops call it.
type counter struct {
	mu     sync.Mutex
	totals Totals
}

func (c *counter) add(e *relay.End) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.totals.ByCause == nil {
		c.totals.ByCause = make(map[relay.Cause]uint64)
	}
	c.totals.Connections++
	c.totals.BytesIn += e.BytesIn
	c.totals.BytesOut += e.BytesOut
	c.totals.ByCause[e.Cause]++
}

func (c *counter) sum() Totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.totals
	t.ByCause = make(map[relay.Cause]uint64, len(c.totals.ByCause))
	for cause, n := range c.totals.ByCause {
		t.ByCause[cause] = n
	}
	return t
}

// LogValue makes the sums one readable line.
func (t Totals) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Uint64("connections", t.Connections), slog.Uint64("bytes_in", t.BytesIn), slog.Uint64("bytes_out", t.BytesOut),
		slog.String("ends", t.ends()),
	)
}

// ends says how many ended by which cause, the most frequent first.
func (t Totals) ends() string {
	causes := make([]relay.Cause, 0, len(t.ByCause))
	for c := range t.ByCause {
		causes = append(causes, c)
	}
	slices.SortFunc(causes, func(a, b relay.Cause) int {
		if t.ByCause[a] != t.ByCause[b] {
			return int(t.ByCause[b]) - int(t.ByCause[a])
		}
		return int(a) - int(b)
	})
	parts := make([]string, len(causes))
	for i, c := range causes {
		parts[i] = fmt.Sprintf("%s=%d", c, t.ByCause[c])
	}
	return strings.Join(parts, " ")
}

// refusals are the causes that mean a client got nothing, and no fault of its own.
var refusals = []relay.Cause{relay.CauseNoBackend, relay.CauseUnreachable, relay.CauseResources}
