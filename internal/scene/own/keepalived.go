//go:build linux

package own

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"time"

	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/programs"
)

// routerID is the number of the virtual router, and instance its name in the
// files of keepalived.
const (
	routerID = 51
	instance = "front"
)

// A router is how a node of keepalived takes part.
type router struct {
	priority  uint8
	interval  time.Duration
	unicast   bool
	noPreempt bool
	addresses []netip.Prefix
}

// keepalived runs one on a node, counted from 0. The error is exec.ErrNotFound
// where it is not installed.
func (a *arena) keepalived(ctx context.Context, h *lab.Host, v router, peers ...netip.Addr) (*programs.Keepalived, error) {
	dir, err := a.dirOf("keepalived-" + h.Name())
	if err != nil {
		return nil, err
	}
	i := programs.VRRPInstance{
		Name: instance, Interface: "eth0", ID: routerID, Priority: v.priority, Interval: v.interval, Addresses: v.addresses, NoPreempt: v.noPreempt,
	}
	if v.unicast {
		i.Source, i.Peers = h.Addr(a.Family), peers
	}
	return programs.StartKeepalived(ctx, programs.Options{Dir: dir, Start: func(c programs.Command) (programs.Process, error) {
		return h.Start(lab.Command{Argv: c.Argv, Dir: c.Dir, User: c.User})
	}}, programs.KeepalivedConfig(i), instance)
}

// A rival is what came of a fault on a pair of keepalived.
type rival struct {
	claimed, near, far time.Duration // as takeover has them
	old, new           int           // answers of the frozen owner and of the new one while both answered
}

// besideKeepalived plays a fault on the owner of a pair of keepalived with
// adverts every interval. nil where keepalived is not installed.
func besideKeepalived(ctx context.Context, e *scene.Env, interval, freeze time.Duration) (_ *rival, err error) {
	a, err := newArena(ctx, e, arenaPlan{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.serve(ctx); err != nil {
		return nil, err
	}
	for i, h := range a.nodes {
		k, err := a.keepalived(ctx, h, router{priority: uint8(200 - i), interval: interval, addresses: []netip.Prefix{a.vip}})
		if errors.Is(err, exec.ErrNotFound) {
			return nil, nil //nolint:nilnil // not installed: there is nothing to compare with
		}
		if err != nil {
			return nil, err
		}
		if i == 0 {
			if err := k.Await(ctx, instance, programs.KeepalivedMaster); err != nil {
				return nil, err
			}
		}
	}
	t, err := a.startTakeover(ctx, probesPerSecond)
	if err != nil {
		return nil, err
	}
	if freeze == 0 {
		if err := t.play(ctx, a.nodes[0].Die); err != nil {
			return nil, err
		}
		return &rival{claimed: t.claimed, near: t.near, far: t.far}, nil
	}
	end, err := a.asks(ctx, "client2", 5*time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := t.play(ctx, a.nodes[0].Freeze); err != nil {
		return nil, err
	}
	if err := scene.Pause(ctx, freeze); err != nil {
		return nil, err
	}
	r := &rival{claimed: t.claimed, near: t.near, far: t.far}
	first := t.at.Add(t.claimed)
	for _, s := range a.watch.Seen() {
		switch {
		case s.Time.Before(first) || !s.Claims(a.vip.Addr()):
		case s.Host == a.nodes[0].Name():
			r.old++
		default:
			r.new++
		}
	}
	if n := a.watch.Lost(); n != 0 {
		return nil, fmt.Errorf("the watch has lost %d frames", n)
	}
	return r, nil
}
