//go:build linux

package traffic

import (
	"bytes"
	"math/rand/v2"
	"sync"
)

// A stream is what one side of one connection sends: a window that moves over
// one block of random bytes, which all connections of a process share, and
// that starts at a place given by the connection's ID and the direction.
// Sending needs no copy and checking is one comparison of memory. The block's
// length is a prime, so that no loss or repetition of a buffer's worth of bytes,
// nor of several, can land on the same bytes again.
type stream struct{ start int64 }

const (
	blockLen = 1<<20 - 3 // prime
	chunkLen = 64 << 10  // the most that stream.at returns, and of one read or write
)

// block is blockLen bytes and, so that a slice need not wrap, the first
// chunkLen of them again.
var block = sync.OnceValue(func() []byte {
	b := make([]byte, blockLen+chunkLen)
	_, _ = rand.NewChaCha8([32]byte([]byte("holdfast checks every byte of it"))).Read(b[:blockLen])
	copy(b[blockLen:], b)
	return b
})

// direction tells the two streams of a connection apart.
type direction uint64

const (
	up   direction = 1 // client to server
	down direction = 2 // server to client
)

func newStream(id uint64, d direction) stream {
	return stream{start: int64(mix(id^uint64(d)*0x9e3779b97f4a7c15) % blockLen)}
}

// mix spreads a number over 64 bits (the finaliser of splitmix64), so that
// consecutive IDs start at unrelated places.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// at returns the n (at most chunkLen) bytes of the stream that begin at pos. The slice is shared: read only.
func (s stream) at(pos int64, n int) []byte {
	off := (s.start + pos) % blockLen
	return block()[off : off+int64(min(n, chunkLen))]
}

// check compares p with the stream at pos and returns the position of the first
// byte that differs, or -1.
func (s stream) check(pos int64, p []byte) int64 {
	for len(p) > 0 {
		want := s.at(pos, len(p))
		if !bytes.Equal(p[:len(want)], want) {
			for i := range want {
				if p[i] != want[i] {
					return pos + int64(i)
				}
			}
		}
		p, pos = p[len(want):], pos+int64(len(want))
	}
	return -1
}

// chunks holds buffers of chunkLen bytes for whoever reads in bulk.
var chunks = sync.Pool{New: func() any { return new([chunkLen]byte) }}

// newID makes a random, non-zero connection ID.
func newID() uint64 {
	for {
		if id := rand.Uint64(); id != 0 {
			return id
		}
	}
}

// derive makes the n-th ID of a seed.
func derive(seed uint64, n int) uint64 {
	return mix(mix(seed)+uint64(n)) | 1<<63 // never 0
}
