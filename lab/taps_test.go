//go:build linux

package lab

import (
	"errors"
	"io"
	"os"
	"sync"
	"testing"
)

// A link of TAP devices carries what somebody carries from one to the other.
func TestTaps(t *testing.T) {
	top := oneArm(t, Size{Clients: 1, Backends: 1})
	top.Link("client1", 0).Taps = true
	eachFamily(t, top, func(t *testing.T, l *Lab, f Family) {
		client := l.Host("client1")
		link := client.Links()[0]
		host, sw, err := link.Taps()
		if err != nil {
			t.Fatal(err)
		}
		var wire sync.WaitGroup
		carry := func(to, from *os.File) {
			buf := make([]byte, 1<<16)
			for {
				n, err := from.Read(buf)
				if err != nil {
					if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
						t.Errorf("read: %v", err)
					}
					return
				}
				if _, err := to.Write(buf[:n]); err != nil && !errors.Is(err, os.ErrClosed) {
					t.Logf("write: %v", err) // the other end is going
				}
			}
		}
		wire.Go(func() { carry(sw, host) })
		wire.Go(func() { carry(host, sw) })
		c := dial(t, client, echo(t, l.Host("backend1"), f))
		speaks(t, "through TAP devices", c)
		must(link.Block(FromHost))(t)
		silent(t, "blocked", c)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		wire.Wait()
	})
}
