//go:build linux

package relay

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// How a side of a random connection ends.
type finale int

const (
	fins         finale = iota // sends everything, half-closes, reads to the end
	resets                     // sends everything, then closes with a RST
	leavesUnread               // sends everything, then closes without reading
	finaleKinds
)

// A part is what one side of a random connection does, and what it saw.
type part struct {
	key    uint64 // of the bytes it sends
	size   int
	chunk  int
	pause  time.Duration // between reads: a slow reader
	finale finale

	sent   int   // bytes the kernel took
	got    int   // bytes received, all checked
	end    error // how reading ended: io.EOF, ECONNRESET ...; nil if it did not read to the end
	wrong  error // a byte that was not what the other side sent
	halfOK bool  // it half-closed after everything was sent
}

// keyed is a stretch of the endless stream of a key: a block of random bytes,
// over and over, from a place that the key says.
func keyed(key uint64, off, n int) []byte {
	start := (int(key%uint64(len(block))) + off) % len(block)
	if start+n <= len(block) {
		return block[start : start+n]
	}
	return append(block[start:len(block):len(block)], block[:n-(len(block)-start)]...)
}

// block's length is prime, so that no power of two hides a shift.
var block = random(1_000_003)

func (p *part) play(c *net.TCPConn, other uint64) {
	var wg sync.WaitGroup
	if p.finale != leavesUnread {
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := c.Read(buf)
				if n > 0 && p.wrong == nil && string(buf[:n]) != string(keyed(other, p.got, n)) {
					p.wrong = fmt.Errorf("wrong bytes between %d and %d", p.got, p.got+n)
				}
				p.got += n
				if err != nil {
					p.end = err
					return
				}
				if p.pause > 0 {
					<-time.After(p.pause)
				}
			}
		})
	}
	for p.sent < p.size {
		n, err := c.Write(keyed(p.key, p.sent, min(p.chunk, p.size-p.sent)))
		p.sent += n
		if err != nil {
			break
		}
	}
	switch p.finale {
	case fins:
		p.halfOK = c.CloseWrite() == nil && p.sent == p.size
		wg.Wait()
	case resets:
		c.SetLinger(0)
	case leavesUnread:
	}
	c.Close()
	wg.Wait()
}

func randomPart(rng *rand.Rand) *part {
	p := &part{key: rng.Uint64(), finale: finale(rng.IntN(int(finaleKinds)))}
	switch rng.IntN(4) {
	case 0:
	case 1:
		p.size = rng.IntN(2000)
	case 2:
		p.size = rng.IntN(300_000)
	case 3:
		p.size = rng.IntN(3 << 20)
	}
	p.chunk = 1 + rng.IntN(100_000)
	if p.size > 0 && p.size/p.chunk > 300 {
		p.chunk = p.size/300 + 1
	}
	if rng.IntN(4) == 0 {
		p.pause = time.Duration(rng.IntN(3000)) * time.Microsecond
	}
	return p
}

// TestRandomConnections plays many connections at once whose sides send, stop,
// half-close, reset and leave at random, and holds what each saw against what
// the other did.
func TestRandomConnections(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		g, b := newRig(t), newBackend(t, host)
		s := g.service(t, host, ServiceOptions{}, b.addr())
		const seed = 20261120
		const n = 150
		slots := make(chan struct{}, 24)
		var wg sync.WaitGroup
		for i := range n {
			slots <- struct{}{}
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			client, server := randomPart(rng), randomPart(rng)
			cc := dial(t, s.Addrs()[0]).(*net.TCPConn)
			sc := b.next(t) // the relay takes clients in their order
			wg.Go(func() {
				defer func() { <-slots }()
				var both sync.WaitGroup
				both.Go(func() { client.play(cc, server.key) })
				both.Go(func() { server.play(sc, client.key) })
				both.Wait()
				for _, problem := range []error{
					client.judge(server), server.judge(client),
				} {
					if problem != nil {
						t.Errorf("connection %d of seed %d: %v\nclient %+v\nserver %+v", i, seed, problem, *client, *server)
					}
				}
				// The upload's promise: an end of stream for a client that had
				// half-closed means that the backend's kernel had everything. A
				// backend that reads to the end must then have read everything.
				if client.end == io.EOF && client.halfOK && server.finale == fins && server.got != client.size {
					t.Errorf("connection %d of seed %d: the client was lied to\nclient %+v\nserver %+v", i, seed, *client, *server)
				}
			})
		}
		wg.Wait()
		for i := range n {
			g.end(t, i)
		}
		if left := s.Live(); left != 0 {
			t.Errorf("%d connections are left", left)
		}
	})
}

// judge holds what p saw against what other did.
func (p *part) judge(other *part) error {
	switch {
	case p.wrong != nil:
		return p.wrong
	case p.got > other.sent:
		return fmt.Errorf("%d bytes arrived of %d sent", p.got, other.sent)
	case p.finale != fins:
		return nil // it did not wait to see
	case errors.Is(p.end, os.ErrDeadlineExceeded):
		return errors.New("it hung")
	case p.end == io.EOF && p.sent < p.size:
		return nil // told by a write; Linux lets reads return an end of stream then
	case p.end == io.EOF && p.got != other.size:
		return fmt.Errorf("a stream of %d bytes ended well after %d", other.size, p.got)
	case p.end == io.EOF && other.finale == resets:
		return errors.New("a reset became an end of stream")
	case p.end != io.EOF && !errors.Is(p.end, syscall.ECONNRESET):
		return fmt.Errorf("reading ended with %w", p.end)
	case p.end != io.EOF && other.finale == fins && p.halfOK && other.halfOK:
		return errors.New("both sides ended well, and one saw a reset")
	}
	return nil
}
