package sys

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MapWords is an eBPF array map (BPF_F_MMAPABLE, values of whole 64-bit words
// without padding between them) as memory of this process.
type MapWords struct {
	Words []uint64 // access with sync/atomic

	mem []byte
}

// MapArray maps the first n words of the array that fd stands for. The map
// stays as long as the memory is mapped, also when fd is closed.
func MapArray(fd, n int) (*MapWords, error) {
	page := os.Getpagesize()
	mem, err := unix.Mmap(fd, 0, (8*n+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map eBPF array: %w", err)
	}
	return &MapWords{Words: unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), n), mem: mem}, nil
}

// Close unmaps the array. Words must not be used after it.
func (m *MapWords) Close() error {
	if m.mem == nil {
		return nil
	}
	err := unix.Munmap(m.mem)
	m.mem, m.Words = nil, nil
	return err
}
