//go:build linux

package api

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"time"
)

// A gate lets only so many in at a time; the last quarter is for the privileged.
type gate struct {
	mu       sync.Mutex
	now, max int
}

func (g *gate) enter(privileged bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now >= g.max || !privileged && g.now >= g.max-g.max/4 {
		return false
	}
	g.now++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now--
}

// A limitedListener bounds the connections that are open, as each takes a
// descriptor from those that carry clients. Those beyond are told so.
type limitedListener struct {
	net.Listener
	server   *Server
	refusals gate
	wg       sync.WaitGroup
}

type limitedConn struct {
	net.Conn
	peer  peer
	leave func()
}

// Accept waits for a connection that there is room for.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := identify(c)
		if l.server.connections.enter(l.server.rights.Load().mayChange(p)) {
			return &limitedConn{Conn: c, peer: p, leave: sync.OnceFunc(l.server.connections.leave)}, nil
		}
		l.refuse(c)
	}
}

// Close closes the connection, which makes room for another.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}

// The bounds on those who are told that there is no room.
const (
	maxRefusals   = 16
	refuseTimeout = time.Second
)

// refuse answers that there is no room, without holding up the others.
func (l *limitedListener) refuse(c net.Conn) {
	if !l.refusals.enter(true) {
		c.Close()
		return
	}
	l.wg.Go(func() {
		defer l.refusals.leave()
		defer c.Close()
		if c.SetDeadline(time.Now().Add(refuseTimeout)) != nil {
			return
		}
		// An answer before the question is a fault to some clients.
		head := make([]byte, 0, 2048)
		for !bytes.Contains(head, []byte("\r\n\r\n")) && len(head) < cap(head) {
			n, err := c.Read(head[len(head):cap(head)])
			if head = head[:len(head)+n]; err != nil {
				return
			}
		}
		text := encode(errBusy("connections", maxConnections))
		fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\n%s: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
			headerAPI, apiVersion, len(text), text)
	})
}

// wait waits until everybody was told.
func (l *limitedListener) wait() { l.wg.Wait() }
