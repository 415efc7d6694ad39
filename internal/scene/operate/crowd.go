//go:build linux

package operate

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// A crowd is more clients than a node has room for. They connect and say
// nothing; some of those that are let in send a byte now and then.
type crowd struct {
	address string
	patient time.Duration // a reset that comes later than this is no refusal: the place was taken, and given up

	mu      sync.Mutex
	open    map[net.Conn]bool // value: it dribbles
	arrived int
	refused []time.Duration // from the connect to the RST
	freed   []time.Duration // as refused, of those that had a place
	dribble int             // of the freed, those that had dribbled
	odd     []string        // what came of others
	wg      sync.WaitGroup  // of readers
}

func newCrowd(address string, patient time.Duration) *crowd {
	return &crowd{address: address, patient: patient, open: make(map[net.Conn]bool)}
}

// rush lets n clients connect as fast as they can, from several hosts, and
// returns when all have tried.
func (c *crowd) rush(ctx context.Context, n int, dials ...traffic.DialFunc) {
	const workers = 64
	turns := make(chan traffic.DialFunc)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for dial := range turns {
				c.arrive(ctx, dial)
			}
		})
	}
	for i := range n {
		turns <- dials[i%len(dials)]
	}
	close(turns)
	wg.Wait()
}

func (c *crowd) arrive(ctx context.Context, dial traffic.DialFunc) {
	ctx, cancel := context.WithTimeout(ctx, scene.GiveUp)
	defer cancel()
	at := time.Now()
	conn, err := dial(ctx, "tcp", c.address)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrived++
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		c.refused = append(c.refused, time.Since(at)) // told before the connect was seen to succeed
	case err != nil:
		c.odd = append(c.odd, err.Error())
	default:
		c.open[conn] = false
		c.wg.Go(func() { c.stay(conn, at) })
	}
}

// stay waits until the client is told.
func (c *crowd) stay(conn net.Conn, since time.Time) {
	n, err := io.Copy(io.Discard, conn)
	took := time.Since(since)
	conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	dribbles := c.open[conn]
	delete(c.open, conn)
	switch {
	case errors.Is(err, net.ErrClosed):
	case !errors.Is(err, syscall.ECONNRESET) || n > 0:
		c.odd = append(c.odd, errors.Join(errors.New("an end that is no reset"), err).Error())
	case took < c.patient:
		c.refused = append(c.refused, took)
	default:
		c.freed = append(c.freed, took)
		if dribbles {
			c.dribble++
		}
	}
}

// crowded is how a crowd stands.
type crowded struct {
	arrived, open, dribbled int
	refused, freed          []time.Duration
	odd                     []string
}

// now tells how it stands.
func (c *crowd) now() crowded {
	c.mu.Lock()
	defer c.mu.Unlock()
	return crowded{c.arrived, len(c.open), c.dribble, slices.Clone(c.refused), slices.Clone(c.freed), slices.Clone(c.odd)}
}

// drip makes every tenth of those that have a place send a byte each period,
// until ctx is over. It returns how many, at once.
func (c *crowd) drip(ctx context.Context, period time.Duration) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var slow []net.Conn
	i := 0
	for conn := range c.open {
		if i%10 == 0 {
			slow = append(slow, conn)
			c.open[conn] = true
		}
		i++
	}
	c.wg.Go(func() {
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		for {
			for _, conn := range slow {
				// One that is told is noticed by its reader.
				_, _ = conn.Write([]byte{'a'})
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return len(slow)
}

// close ends what is left, and waits for it.
func (c *crowd) close() {
	c.mu.Lock()
	for conn := range c.open {
		conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}
