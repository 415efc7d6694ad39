package sys

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory is an anonymous file mapped into the process and shared with every
// process that holds its descriptor, so that its content outlives this one. It
// owns both. Methods are not safe for concurrent use with Close.
type Memory struct {
	fd   int
	data []byte
	size int
}

// NewMemory reserves limit bytes of address space for a memory file that has
// size bytes now and can grow up to limit. Reserved space costs nothing.
func NewMemory(name string, size, limit int) (*Memory, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	data, err := unix.Mmap(fd, 0, limit, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mapping %d MiB for %s: %w", limit>>20, name, os.NewSyscallError("mmap", err))
	}
	m := &Memory{fd: fd, data: data}
	if err := m.Grow(size); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// OpenMemory maps the memory file behind fd as it is now and takes ownership
// of fd. It is for whoever picks up what another process left.
func OpenMemory(fd int) (*Memory, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	data, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &Memory{fd: fd, data: data, size: int(st.Size)}, nil
}

// Fd returns the descriptor, which stays m's.
func (m *Memory) Fd() int { return m.fd }

// Size returns how many bytes are backed by the file.
func (m *Memory) Size() int { return m.size }

// Bytes returns the n bytes at off. They must lie within Size.
func (m *Memory) Bytes(off, n int) []byte { return m.data[off : off+n : off+n] }

// Word returns the 64-bit word at off, which must be a multiple of eight and
// lie within Size.
func (m *Memory) Word(off int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&m.data[off]))
}

// Grow makes the file size bytes long, if it is shorter.
func (m *Memory) Grow(size int) error {
	if size <= m.size {
		return nil
	}
	if size > len(m.data) {
		return fmt.Errorf("memory file: %d bytes asked for, %d reserved", size, len(m.data))
	}
	if err := unix.Ftruncate(m.fd, int64(size)); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	m.size = size
	return nil
}

// Discard gives the pages of a range back to the system; they read as zero.
// Offsets must be multiples of the page size.
func (m *Memory) Discard(off, n int) {
	// A failure leaves the pages in use: nothing is lost but memory.
	_ = unix.Madvise(m.data[off:off+n], unix.MADV_REMOVE)
}

// Close unmaps the memory and closes the descriptor.
func (m *Memory) Close() error {
	err := unix.Munmap(m.data)
	m.data = nil
	if e := unix.Close(m.fd); err == nil {
		err = e
	}
	return os.NewSyscallError("close memory", err)
}
