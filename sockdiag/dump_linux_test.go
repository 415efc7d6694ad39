package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// scripted is a kernel whose answers are written down: for each dump a list of
// datagrams.
type scripted struct {
	t     *testing.T
	dumps [][]datagram
	seq   uint32
	now   []datagram // of the dump that is under way
}

type datagram struct {
	msgs []sys.NetlinkMessage
	err  error
}

func (k *scripted) Ask(kind uint16, dump bool, _ []byte) (uint32, error) {
	if len(k.now) > 0 {
		return 0, syscall.EBUSY // as the kernel does
	}
	if !dump || kind != sys.DiagByFamily || len(k.dumps) == 0 {
		k.t.Errorf("asked for %d, dump %t, with %d dumps left", kind, dump, len(k.dumps))
		return 0, syscall.EINVAL
	}
	k.now, k.dumps = k.dumps[0], k.dumps[1:]
	k.seq++
	return k.seq, nil
}

func (k *scripted) Receive(msgs []sys.NetlinkMessage) ([]sys.NetlinkMessage, error) {
	if len(k.now) == 0 {
		k.t.Error("received when there is nothing")
		return msgs, syscall.EAGAIN
	}
	d := k.now[0]
	k.now = k.now[1:]
	for _, m := range d.msgs {
		m.Seq += k.seq // 0: of this dump
		msgs = append(msgs, m)
	}
	return msgs, d.err
}

func (k *scripted) Close() error { return nil }

// The pieces of a script.
func of(msgs ...sys.NetlinkMessage) datagram { return datagram{msgs: msgs} }

func told(cookie byte) sys.NetlinkMessage {
	b := message(afInet, netip.MustParseAddrPort("192.0.2.1:80"), netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), uint16(cookie)))
	binary.NativeEndian.PutUint64(b[messageID+idCookie:], 0)
	binary.NativeEndian.PutUint32(b[messageID+idCookie:], uint32(cookie))
	return sys.NetlinkMessage{Type: sys.DiagByFamily, Body: b}
}

func interrupted(m sys.NetlinkMessage) sys.NetlinkMessage {
	m.Flags = 0x10 // NLM_F_DUMP_INTR
	return m
}

func ends(code int32) sys.NetlinkMessage {
	return sys.NetlinkMessage{Type: syscall.NLMSG_DONE, Body: binary.NativeEndian.AppendUint32(nil, uint32(code))}
}

func refuses(code int32) sys.NetlinkMessage {
	return sys.NetlinkMessage{Type: syscall.NLMSG_ERROR, Body: binary.NativeEndian.AppendUint32(nil, uint32(code))}
}

func TestScriptedDumps(t *testing.T) {
	empty := []datagram{of(ends(0))} // the IPv6 sockets, as a rule
	late := told(9)
	late.Seq--
	for _, tt := range []struct {
		name    string
		dumps   [][]datagram
		list    []uint64 // cookies, as List gives them
		listErr error
		collect []uint64
		collErr error
	}{
		{"in pieces", [][]datagram{{of(told(1), told(2)), of(told(3)), of(ends(0))}, {of(told(4), ends(0))}},
			[]uint64{1, 2, 3, 4}, nil, []uint64{1, 2, 3, 4}, nil},
		{"nothing", [][]datagram{empty, empty}, nil, nil, nil, nil},
		{"twice, and of another dump", [][]datagram{{of(told(1), late), of(told(2), told(1), ends(0))}, empty},
			[]uint64{1, 2, 1}, nil, []uint64{1, 2}, nil},
		{"interrupted: told, and once more", [][]datagram{
			{of(told(1)), of(interrupted(told(2)), ends(0))}, {of(told(5), ends(0))},
			{of(told(1), told(3), told(2), ends(0))}, empty,
		}, []uint64{1, 2, 5}, ErrInterrupted, []uint64{1, 3, 2}, nil},
		{"interrupted, said at the end", [][]datagram{
			{of(told(1)), of(interrupted(ends(0)))}, empty, {of(told(1), ends(0))}, empty,
		}, []uint64{1}, ErrInterrupted, []uint64{1}, nil},
		{"interrupted always", [][]datagram{
			{of(interrupted(told(1)), ends(0))}, empty, {of(interrupted(told(2)), ends(0))}, empty,
			{of(interrupted(told(3)), ends(0))}, empty, {of(interrupted(told(4)), ends(0))}, empty,
		}, []uint64{1}, ErrInterrupted, []uint64{4}, ErrInterrupted},
		{"refused", [][]datagram{{of(refuses(-int32(syscall.EPERM)))}}, nil, ErrNotPermitted, nil, ErrNotPermitted},
		{"the dump fails at its end", [][]datagram{{of(told(1)), of(ends(-int32(syscall.ENOMEM)))}}, []uint64{1}, syscall.ENOMEM, nil, syscall.ENOMEM},
		{"cannot", [][]datagram{{of(refuses(-int32(syscall.EOPNOTSUPP)))}}, nil, ErrUnsupported, nil, ErrUnsupported},
		{"nobody there who lists", [][]datagram{{of(refuses(-int32(syscall.ENOENT)))}}, nil, ErrUnsupported, nil, ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cookies := func(all []Socket) (list []uint64) {
				for _, s := range all {
					list = append(list, s.Cookie)
				}
				return list
			}
			c := &Conn{dump: &scripted{t: t, dumps: slices.Clone(tt.dumps)}}
			var all []Socket
			var err error
			for s, lerr := range c.List(t.Context(), Filter{}, ListOptions{}) {
				if err != nil {
					t.Error("the error was not the last")
				}
				if err = lerr; lerr == nil {
					all = append(all, s)
				}
			}
			if got := cookies(all); !slices.Equal(got, tt.list) || !errors.Is(err, tt.listErr) {
				t.Errorf("List: %d, %v; want %d, %v", got, err, tt.list, tt.listErr)
			}
			c = &Conn{dump: &scripted{t: t, dumps: slices.Clone(tt.dumps)}}
			all, err = c.Collect(t.Context(), Filter{}, ListOptions{})
			if got := cookies(all); !slices.Equal(got, tt.collect) || !errors.Is(err, tt.collErr) {
				t.Errorf("Collect: %d, %v; want %d, %v", got, err, tt.collect, tt.collErr)
			}
		})
	}
}

// What an earlier listing has left over is read before the next one asks: the
// kernel refuses a dump while one is under way.
func TestRestIsRead(t *testing.T) {
	dump := []datagram{of(told(1), told(2)), of(told(3)), of(ends(0))}
	next := []datagram{of(told(4), ends(0))}
	empty := []datagram{of(ends(0))}
	c := &Conn{dump: &scripted{t: t, dumps: [][]datagram{dump, dump, dump, next, empty}}}
	for range c.List(t.Context(), Filter{}, ListOptions{}) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range c.List(ctx, Filter{}, ListOptions{}) {
		cancel() // is seen behind the first piece
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("%v", last)
	}
	// A rest is not read for who has no time, and not lost either.
	for _, err := range c.List(ctx, Filter{}, ListOptions{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	// A receive that fails leaves its rest as well.
	broken := c.dump.(*scripted)
	broken.now = []datagram{{err: syscall.ENOBUFS}, of(ends(0))}
	for _, err := range c.List(t.Context(), Filter{}, ListOptions{}) {
		if !errors.Is(err, syscall.ENOBUFS) {
			t.Errorf("%v", err)
		}
	}
	broken.dumps = broken.dumps[1:]
	all, err := c.Collect(t.Context(), Filter{}, ListOptions{})
	if err != nil || len(all) != 1 || all[0].Cookie != 4 {
		t.Errorf("%v, %v", texts(all), err)
	}
}

// One that comes twice is as it was told last.
func TestCollectLatest(t *testing.T) {
	later := told(1)
	later.Body[messageState] = byte(TimeWait)
	c := &Conn{dump: &scripted{t: t, dumps: [][]datagram{{of(told(1), told(2)), of(later, ends(0))}, {of(ends(0))}}}}
	all, err := c.Collect(t.Context(), Filter{}, ListOptions{})
	if err != nil || len(all) != 2 || all[0].State != TimeWait || all[1].State != CloseWait {
		t.Errorf("%v, %v", texts(all), err)
	}
}
