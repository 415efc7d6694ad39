package socktrace

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// Bounds of Options.Buffer.
const (
	defaultBuffer = 1 << 20
	maxBuffer     = 1 << 28
)

// Options describe a Tracer.
type Options struct {
	Addresses []netip.Addr // those to watch at first; see [Tracer.SetAddresses]
	// Buffer is the size of the ring buffer in bytes, a power of two, at least
	// 4096 and that of a page, at most 256 MiB: default 1 MiB, which has room
	// for 13,000 changes, so that who reads may be late by a second at 6,000
	// short connections in a second.
	Buffer int
}

// A Tracer watches the sockets of one network namespace. Its methods may be
// called at the same time, [Tracer.Read] by one goroutine only.
type Tracer struct {
	netns   uint64
	objects programsObjects
	changes *ringbuf.Reader
	state   link.Link
	sockets *link.Iter
	record  ringbuf.Record

	mu        sync.Mutex
	addresses map[netip.Addr]struct{}
	closed    bool
}

// Open begins to watch the sockets of the calling thread's network namespace.
// It needs CAP_BPF and CAP_PERFMON, and a kernel with its own type
// information; see [Probe].
func Open(o Options) (*Tracer, error) {
	t, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("socket trace: %w", err)
	}
	return t, nil
}

func open(o Options) (_ *Tracer, err error) {
	switch {
	case o.Buffer == 0:
		o.Buffer = defaultBuffer
	case o.Buffer < max(4096, os.Getpagesize()) || o.Buffer > maxBuffer || o.Buffer&(o.Buffer-1) != 0:
		return nil, fmt.Errorf("a ring buffer of %d bytes: give it a power of two from %d to %d", o.Buffer, max(4096, os.Getpagesize()), maxBuffer)
	}
	t := &Tracer{addresses: make(map[netip.Addr]struct{})}
	if t.netns, err = sys.NetNSCookie(); err != nil {
		return nil, err
	}
	spec, err := loadPrograms()
	if err != nil {
		return nil, err
	}
	spec.Maps[programsMapHfChanges].MaxEntries = uint32(o.Buffer)
	if err := spec.Variables[programsVarNetns].Set(t.netns); err != nil {
		return nil, err
	}
	if err := spec.LoadAndAssign(&t.objects, nil); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if t.changes, err = ringbuf.NewReader(t.objects.HfChanges); err != nil {
		return nil, fmt.Errorf("map ring buffer: %w", err)
	}
	if t.sockets, err = link.AttachIter(link.IterOptions{Program: t.objects.HoldfastSockets}); err != nil {
		return nil, fmt.Errorf("attach to the table of sockets: %w", err)
	}
	if t.state, err = link.AttachTracing(link.TracingOptions{Program: t.objects.HoldfastState}); err != nil {
		return nil, fmt.Errorf("attach to inet_sock_set_state: %w", err)
	}
	if err := t.setAddresses(o.Addresses); err != nil {
		return nil, err
	}
	return t, nil
}

// SetAddresses watches these addresses from now on, and no others; zones are
// ignored. What changed before at one that is new has not been seen: ask
// [Tracer.Sockets] afterwards. On an error some of the changes may be made.
func (t *Tracer) SetAddresses(addrs []netip.Addr) error {
	if err := t.setAddresses(addrs); err != nil {
		return fmt.Errorf("socket trace: %w", err)
	}
	return nil
}

func (t *Tracer) setAddresses(addrs []netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return os.ErrClosed
	}
	wanted := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		if !a.IsValid() || a.IsUnspecified() {
			return fmt.Errorf("watch %s: give it the address of a host", a)
		}
		wanted[a.Unmap().WithZone("")] = struct{}{}
	}
	if len(wanted) > Addresses {
		return fmt.Errorf("watch %d addresses: at most %d have room", len(wanted), Addresses)
	}
	for a := range t.addresses {
		if _, ok := wanted[a]; ok {
			continue
		}
		if err := t.objects.HfAddresses.Delete(a.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("watch %s no longer: %w", a, err)
		}
		delete(t.addresses, a)
	}
	for a := range wanted {
		if _, ok := t.addresses[a]; ok {
			continue
		}
		if err := t.objects.HfAddresses.Put(a.As16(), uint8(1)); err != nil {
			return fmt.Errorf("watch %s: %w", a, err)
		}
		t.addresses[a] = struct{}{}
	}
	return nil
}

// Read waits for changes and puts those that are there into events, in the
// order in which they happened. Whoever lets some time pass between two calls
// saves the sockets' programs the time of waking it. It ends with an error
// that is os.ErrClosed after Close.
func (t *Tracer) Read(events []Event) (n int, err error) {
	for n < len(events) {
		if err := t.changes.ReadInto(&t.record); err != nil {
			if errors.Is(err, ringbuf.ErrClosed) {
				err = os.ErrClosed
			}
			return n, fmt.Errorf("socket trace: read changes: %w", err)
		}
		e, err := parse(t.record.RawSample)
		if err != nil {
			return n, fmt.Errorf("socket trace: %w", err)
		}
		events[n] = e
		n++
		if t.record.Remaining == 0 {
			break
		}
	}
	return n, nil
}

// Lost says how many changes found no room since Open, because nobody read
// those before. Whoever sees it grow asks [Tracer.Sockets].
func (t *Tracer) Lost() (n uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, fmt.Errorf("socket trace: %w", os.ErrClosed)
	}
	if err := t.objects.Lost.Get(&n); err != nil {
		return 0, fmt.Errorf("socket trace: read counter: %w", err)
	}
	return n, nil
}

// errElsewhere says that the table of another network namespace would be read.
var errElsewhere = errors.New("the calling thread is in another network namespace than the one that is watched")

// Sockets walks the connected sockets at the addresses that are watched, each
// with its exact numbers at the moment that it names. The calling thread must be
// in the network namespace of [Open]. A socket that lives from the beginning of
// the walk to its end is in it once; an older kernel may miss one, or name it
// twice, where others that hash alike come and go. An error ends the walk.
func (t *Tracer) Sockets() iter.Seq2[Socket, error] {
	return func(yield func(Socket, error) bool) {
		if err := t.walk(func(s Socket) bool { return yield(s, nil) }); err != nil {
			yield(Socket{}, fmt.Errorf("socket trace: read the table of sockets: %w", err))
		}
	}
}

func (t *Tracer) walk(yield func(Socket) bool) error {
	netns, err := sys.NetNSCookie()
	if err != nil {
		return err
	}
	if netns != t.netns {
		return errElsewhere
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return os.ErrClosed
	}
	f, err := t.sockets.Open()
	t.mu.Unlock()
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(patient{f}, 32<<10) // what the kernel gives at once
	var b [toldSize]byte
	for {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		e, err := parse(b[:])
		if err != nil {
			return err
		}
		if !yield(e.Socket) {
			return nil
		}
	}
}

// patient goes on where the kernel has looked at a million sockets and found
// none to tell of.
type patient struct{ io.Reader }

func (p patient) Read(b []byte) (int, error) {
	for {
		n, err := p.Reader.Read(b)
		if n > 0 || !errors.Is(err, syscall.EAGAIN) {
			return n, err
		}
	}
}

// Close ends the watch, and a [Tracer.Read] that waits.
func (t *Tracer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	var errs []error
	if t.state != nil {
		errs = append(errs, t.state.Close())
	}
	if t.sockets != nil {
		errs = append(errs, t.sockets.Close())
	}
	if t.changes != nil {
		errs = append(errs, t.changes.Close())
	}
	return errors.Join(append(errs, t.objects.Close())...)
}

// Where things lie in struct told of bpf/socktrace.c.
const (
	toldCookie       = 0
	toldAt           = 8
	toldLocal        = 16
	toldRemote       = 32
	toldLocalPort    = 48
	toldRemotePort   = 50
	toldKind         = 52
	toldAcknowledged = 56
	toldNextSend     = 60
	toldNextReceive  = 64
	toldSize         = 72
)

func parse(b []byte) (Event, error) {
	if len(b) < toldSize {
		return Event{}, fmt.Errorf("%d bytes about a socket, and not %d", len(b), toldSize)
	}
	number := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	end := func(addr, port int) netip.AddrPort {
		a := netip.AddrFrom16([16]byte(b[addr:])).Unmap()
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[port:]))
	}
	e := Event{Kind: Kind(number(toldKind)), Socket: Socket{
		Local: end(toldLocal, toldLocalPort), Remote: end(toldRemote, toldRemotePort),
		Cookie:       binary.NativeEndian.Uint64(b[toldCookie:]),
		At:           int64(binary.NativeEndian.Uint64(b[toldAt:])),
		Acknowledged: number(toldAcknowledged), NextSend: number(toldNextSend), NextReceive: number(toldNextReceive),
	}}
	if e.Kind != Established && e.Kind != Closed {
		return Event{}, fmt.Errorf("a change of kind %d, which there is not", e.Kind)
	}
	return e, nil
}
