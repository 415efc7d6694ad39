//go:build linux

package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/holdfast-net/holdfast/internal/sys"
)

// DialFunc connects, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dial is net.Dialer.DialContext with the kernel's defaults: no keepalive, no
// Multipath TCP, and no timeout but the context's and the kernel's.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, FallbackDelay: -1}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, address)
}

// Listen is net.Listen with the kernel's defaults: no keepalive on what it
// accepts, no Multipath TCP.
func Listen(network, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), network, address)
}

// DialWithin returns a DialFunc for TCP addresses (no names) whose sockets are
// made where do runs its function, which is a thread in another network
// namespace. Only making the socket and sending the first SYN happens there:
// the waiting does not hold the thread, so hundreds of connects that nobody
// answers cost no thread each.
func DialWithin(do func(func() error) error) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dialWithin(ctx, do, address)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Addr: addrText{network, address}, Err: err}
		}
		return c, nil
	}
}

func dialWithin(ctx context.Context, do func(func() error) error, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	var f *os.File
	if err := do(func() (err error) { f, err = sys.StartConnect(to); return err }); err != nil {
		return nil, err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetDeadline(longAgo) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		bits, perr := sys.PollNow(int(fd))
		if perr == nil && bits&(sys.PollOut|sys.PollErr|sys.PollHup) == 0 {
			return false
		}
		failed = perr
		if errno := sys.TakeError(int(fd)); errno != 0 {
			failed = os.NewSyscallError("connect", errno)
		}
		return true
	})
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// addrText is an address that was never resolved.
type addrText struct{ network, address string }

func (a addrText) Network() string { return a.network }
func (a addrText) String() string  { return a.address }

// failedTo says what failed with which address.
func failedTo(what, address string, err error) error {
	return fmt.Errorf("traffic: %s %s: %w", what, address, err)
}
