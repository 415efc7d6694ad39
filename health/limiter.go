//go:build linux

package health

import "fmt"

// Limiter bounds how many checks run at one moment, over all checkers that share
// it. Who waits is served in order. It is safe for concurrent use.
//
// A check that waits for its turn starts late, and later is what the bound of the
// package documentation becomes. It holds even when every backend is silent if the
// size is at least the number of backends x Timeout / Interval; Status.Delayed
// counts the checks that had to wait.
type Limiter struct {
	slots chan struct{}
}

// NewLimiter makes a limiter for that many checks at a time, 1 or more.
func NewLimiter(size int) (*Limiter, error) {
	if size < 1 {
		return nil, fmt.Errorf("health: a Limiter's size is %d, want 1 or more", size)
	}
	return &Limiter{slots: make(chan struct{}, size)}, nil
}
