package connected

import (
	"context"
	"errors"
	"iter"
	"net/netip"

	"github.com/holdfast-net/holdfast/internal/socktrace"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/sockdiag"
)

// system is the kernel of this machine.
func system() kernel {
	return kernel{
		trace: func(addrs []netip.Addr) (tracer, error) {
			t, err := socktrace.Open(socktrace.Options{Addresses: addrs})
			if err != nil {
				r := socktrace.Judge(err)
				return nil, errors.New(r.Evidence + ": " + r.Remedy)
			}
			return t, nil
		},
		list: func() (lister, error) {
			c, err := sockdiag.Open()
			if err != nil {
				return nil, err
			}
			return list{c}, nil
		},
		boot: sys.BootTime,
	}
}

// list is the kernel's list of sockets.
type list struct{ *sockdiag.Conn }

// connectedStates are the states in which the other end may wait for this one, as in
// socktrace.
var connectedStates = sockdiag.StatesOf(sockdiag.Established, sockdiag.FinWait1, sockdiag.FinWait2,
	sockdiag.CloseWait, sockdiag.LastAck, sockdiag.Closing)

func (l list) sockets(ctx context.Context, addrs []netip.Addr) iter.Seq2[socktrace.Socket, error] {
	return func(yield func(socktrace.Socket, error) bool) {
		if len(addrs) == 0 {
			return // a filter without addresses admits all
		}
		f := sockdiag.Filter{States: connectedStates}
		for _, a := range addrs {
			f.Local = append(f.Local, sockdiag.Host(a))
		}
		at := sys.BootTime()
		for s, err := range l.List(ctx, f, sockdiag.ListOptions{}) {
			if !yield(socktrace.Socket{Local: s.Local, Remote: s.Remote, Cookie: s.Cookie, At: at}, err) {
				return
			}
		}
	}
}
