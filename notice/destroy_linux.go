package notice

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/holdfast-net/holdfast/sockdiag"
)

// Destroy ends the sockets of this machine whose connections are at one of the local
// addresses, while the addresses are still here, and sees to it that their other
// ends learn of it: their programs get ECONNABORTED, the kernel sends a RST, and then it goes on
// as with Tell, so that an end that missed the RST, or had not received all that was
// sent before it, is told again. Keep the addresses until it returns. Those that listen stay.
//
// Sockets for which keep says true stay; nil keeps none. It is called for each socket
// before the first one is destroyed, from the calling goroutine. What is Unreachable was
// sent the kernel's RST all the same.
//
// It needs CAP_NET_ADMIN, and a kernel with CONFIG_INET_DIAG_DESTROY: without, or if
// the sockets cannot be listed, it has done nothing and returns an error (sockdiag.ErrNotPermitted,
// sockdiag.ErrUnsupported, sockdiag.ErrInterrupted).
func (t *Teller) Destroy(ctx context.Context, local []netip.Addr, keep func(sockdiag.Socket) bool, each func(Result)) (Summary, error) {
	if len(local) == 0 {
		return Summary{}, nil
	}
	f := sockdiag.Filter{States: sockdiag.Live}
	for _, a := range local {
		f.Local = append(f.Local, sockdiag.Host(a))
	}
	k := &task{ended: []bool{}}
	refused, err := t.destroy(ctx, f, keep, k)
	if err != nil {
		return Summary{}, fmt.Errorf("notice: %w", err)
	}
	sum := t.do(ctx, k, each)
	for _, r := range refused {
		sum.Results[r.Verdict]++
		if each != nil {
			each(r)
		}
	}
	return sum, nil
}

// destroy ends what f admits, and notes it in the task.
func (t *Teller) destroy(ctx context.Context, f sockdiag.Filter, keep func(sockdiag.Socket) bool, k *task) (refused []Result, err error) {
	t.destroying.Lock()
	defer t.destroying.Unlock()
	if t.destroyer == nil {
		return nil, ErrClosed
	}
	if err := t.destroyer.CanDestroy(); err != nil {
		return nil, err
	}
	all, err := t.destroyer.Collect(ctx, f, sockdiag.ListOptions{})
	if err != nil {
		return nil, err
	}
	if keep != nil {
		n := 0
		for _, s := range all {
			if !keep(s) {
				all[n] = s
				n++
			}
		}
		all = all[:n]
	}
	for _, s := range all {
		c := Connection{Local: s.Local, Remote: s.Remote}
		switch err := t.destroyer.Destroy(s); {
		case err == nil, errors.Is(err, sockdiag.ErrGone):
			// One that had ended meanwhile has said so to its other end, or not.
			k.connections, k.ended = append(k.connections, c), append(k.ended, err == nil)
		default:
			refused = append(refused, Result{Connection: c, Verdict: Refused, Err: fmt.Errorf("notice: %w", err)})
		}
	}
	return refused, nil
}
