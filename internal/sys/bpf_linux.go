package sys

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return -1, errno
		}
	}
}

// SharedArray is an eBPF array map of 64-bit words that is mapped into this
// process: what is stored in Words is what programs see at once.
type SharedArray struct {
	Words []uint64 // access with sync/atomic

	file *os.File
	mem  []byte
}

// NewSharedArray makes an array of n words, all zero.
func NewSharedArray(n int) (*SharedArray, error) {
	attr := struct{ mapType, keySize, valueSize, maxEntries, flags uint32 }{
		unix.BPF_MAP_TYPE_ARRAY, 4, 8 * uint32(n), 1, unix.BPF_F_MMAPABLE,
	}
	fd, err := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, fmt.Errorf("create eBPF array: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ebpf-array")
	page := os.Getpagesize()
	mem, err := unix.Mmap(fd, 0, (8*n+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map eBPF array: %w", err)
	}
	return &SharedArray{Words: unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), n), file: f, mem: mem}, nil
}

// Close unmaps the array. Programs that use it keep it.
func (a *SharedArray) Close() error {
	if a.mem == nil {
		return nil
	}
	err := unix.Munmap(a.mem)
	a.mem, a.Words = nil, nil
	if cerr := a.file.Close(); err == nil {
		err = cerr
	}
	return err
}

// LoadWord gives the two instructions that load the address of Words[i] into
// register dst.
func (a *SharedArray) LoadWord(dst uint8, i int) []BPFInsn {
	return []BPFInsn{
		{Op: unix.BPF_LD | unix.BPF_DW | unix.BPF_IMM, Regs: unix.BPF_PSEUDO_MAP_VALUE<<4 | dst, Imm: int32(a.file.Fd())},
		{Imm: int32(8 * i)},
	}
}

// BPFInsn is one eBPF instruction as the kernel wants it.
type BPFInsn struct {
	Op   uint8
	Regs uint8 // destination in the low half, source in the high one
	Off  int16
	Imm  int32
}

// The structures below are the kernel's on 64-bit machines.
const _ = uint(unsafe.Sizeof(uintptr(0)) - 8)

// LoadClassifier loads a program that judges frames (BPF_PROG_TYPE_SCHED_CLS).
func LoadClassifier(name string, insns []BPFInsn) (*os.File, error) {
	license := []byte("Dual MIT/GPL\x00")
	log := make([]byte, 64<<10)
	attr := struct {
		progType, insnCnt                      uint32
		insns, license                         unsafe.Pointer
		logLevel, logSize                      uint32
		logBuf                                 unsafe.Pointer
		kernVersion, flags                     uint32
		name                                   [16]byte
		ifindex, attachType, btfFD, recordSize uint32
	}{
		progType: unix.BPF_PROG_TYPE_SCHED_CLS, insnCnt: uint32(len(insns)),
		insns: unsafe.Pointer(&insns[0]), license: unsafe.Pointer(&license[0]),
	}
	copy(attr.name[:15], name)
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil { // again, for what the verifier has to say
		attr.logLevel, attr.logSize, attr.logBuf = 1, uint32(len(log)), unsafe.Pointer(&log[0])
		fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	}
	if err != nil {
		return nil, fmt.Errorf("load eBPF program %s: %w: %s", name, err, unix.ByteSliceToString(log))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// AttachTCX puts a program on a link of the calling thread's network
// namespace: on what comes in, or on what goes out. It stays as long as the
// link, also when prog is closed.
func AttachTCX(prog *os.File, ifindex int, egress bool) error {
	attr := struct {
		ifindex, progFD, attachType, flags, replace, relative uint32
		revision                                              uint64
	}{ifindex: uint32(ifindex), progFD: uint32(prog.Fd()), attachType: unix.BPF_TCX_INGRESS}
	if egress {
		attr.attachType = unix.BPF_TCX_EGRESS
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach eBPF program to link %d: %w", ifindex, err)
	}
	return nil
}
