// Package tail keeps the end of what a program says, for whoever waits for a
// word of it or has to explain why it failed.
package tail

import "sync"

// Size is how many bytes a buffer keeps: 64 kB.
const Size = 64 << 10

// Buffer keeps the last [Size] bytes that were written to it. The zero value is
// empty and ready; all methods may be called at the same time.
type Buffer struct {
	mu      sync.Mutex
	buf     []byte
	changed chan struct{} // closed at the next write; nil: nobody waits for that
}

// Write never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - Size; over > 0 {
		b.buf = append(b.buf[:0], b.buf[over:]...)
	}
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return len(p), nil
}

// String gives what is kept.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}

// Changed returns a channel that is closed at the next write. Ask for it before
// looking at the text.
func (b *Buffer) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}
