//go:build linux

package lab

import (
	"fmt"
	"sync"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// MAC is the address of the host's end of the link.
func (k *Link) MAC() [6]byte { return [6]byte(k.mac) }

// Sender sends frames from a host that its kernel knows nothing of.
type Sender struct {
	mu     sync.Mutex
	socket *sys.NeighbourSocket // nil: closed
}

// Sender opens one on the host's end of the link. Opening takes up to 20 ms. The
// lab closes it at the latest.
func (k *Link) Sender() (*Sender, error) {
	s := &Sender{}
	err := k.host.Do(func() (err error) {
		s.socket, err = sys.OpenNeighbourSocket(k.index)
		return err
	})
	if err == nil {
		err = k.lab.onClose(s.Close)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: sender in %s: %w", k.spec.Host, err)
	}
	return s, nil
}

// Send sends one whole Ethernet frame.
func (s *Sender) Send(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket == nil {
		return fmt.Errorf("lab: send: %w", ErrClosed)
	}
	if errno := s.socket.Send(frame); errno != 0 {
		return fmt.Errorf("lab: send: %w", errno)
	}
	return nil
}

// Close closes the sender. It may be called again.
func (s *Sender) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket == nil {
		return nil
	}
	err := s.socket.Close()
	s.socket = nil
	return err
}
