package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/relay"
)

// A counter adds up ends. The event loops call it: its lock is held for an
// addition, or for a copy of a few dozen sums.
type counter struct {
	mu       sync.Mutex
	ends     map[endKind]*admin.Ends
	bytesIn  uint64
	bytesOut uint64
}

// An endKind is a way in which connections of a service end.
type endKind struct {
	service string
	cause   relay.Cause
	by      relay.Side
}

func (c *counter) add(e *relay.End) {
	kind := endKind{e.Service, e.Cause, e.By}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.ends[kind]
	if n == nil {
		if c.ends == nil {
			c.ends = make(map[endKind]*admin.Ends)
		}
		n = &admin.Ends{Service: e.Service, Cause: e.Cause.String(), By: e.By.String()}
		c.ends[kind] = n
	}
	n.Count++
	n.Undelivered += e.Undelivered
	if e.ToldClient == relay.ToldRST {
		n.ToldClient++
	}
	if e.ToldBackend == relay.ToldRST {
		n.ToldBackend++
	}
	c.bytesIn += e.BytesIn
	c.bytesOut += e.BytesOut
}

// Ends are the ends of connections since the start: one entry for each service,
// cause and side that occurred, in that order. Services that are gone stay.
func (d *Daemon) Ends() []admin.Ends {
	c := &d.counter
	c.mu.Lock()
	list := make([]admin.Ends, 0, len(c.ends))
	for _, n := range c.ends {
		list = append(list, *n)
	}
	c.mu.Unlock()
	slices.SortFunc(list, func(a, b admin.Ends) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.By, b.By))
	})
	return list
}

// Totals are the sums over all connections that have ended.
func (d *Daemon) Totals() admin.Totals {
	c := &d.counter
	c.mu.Lock()
	defer c.mu.Unlock()
	t := admin.Totals{BytesIn: c.bytesIn, BytesOut: c.bytesOut, ByCause: make(map[string]uint64)}
	for _, n := range c.ends {
		t.Connections += n.Count
		t.ByCause[n.Cause] += n.Count
	}
	return t
}

// totals make one readable line.
type totals admin.Totals

// LogValue says how many ended by which cause, the most frequent first.
func (t totals) LogValue() slog.Value {
	causes := make([]string, 0, len(t.ByCause))
	for c := range t.ByCause {
		causes = append(causes, c)
	}
	slices.SortFunc(causes, func(a, b string) int {
		return cmp.Or(cmp.Compare(t.ByCause[b], t.ByCause[a]), cmp.Compare(a, b))
	})
	for i, c := range causes {
		causes[i] = fmt.Sprintf("%s=%d", c, t.ByCause[c])
	}
	return slog.GroupValue(
		slog.Uint64("connections", t.Connections), slog.Uint64("bytes_in", t.BytesIn), slog.Uint64("bytes_out", t.BytesOut),
		slog.String("ends", strings.Join(causes, " ")),
	)
}

// refusals are the causes that mean a client got nothing, and no fault of its own.
var refusals = []relay.Cause{relay.CauseNoBackend, relay.CauseUnreachable, relay.CauseResources}

// refusalInterval is how often clients that got nothing are reported; at a
// flood, one line for each would be the next problem.
const refusalInterval = 5 * time.Second

// reportRefusals logs how many clients were turned away, while there are any.
func (d *Daemon) reportRefusals(ctx context.Context) {
	ticker := time.NewTicker(refusalInterval)
	defer ticker.Stop()
	before := make(map[string]uint64)
	report := func() {
		now := d.Totals().ByCause
		var parts []string
		for _, c := range refusals {
			if n := now[c.String()] - before[c.String()]; n > 0 {
				parts = append(parts, fmt.Sprintf("%s=%d", c, n))
			}
		}
		before = now
		if len(parts) > 0 {
			d.log.Warn("clients were refused", "within", refusalInterval.String(), "causes", strings.Join(parts, " "))
		}
	}
	for {
		select {
		case <-ctx.Done():
			report()
			return
		case <-ticker.C:
			report()
		}
	}
}
