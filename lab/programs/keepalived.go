//go:build linux

package programs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/probe"
)

// VRRPInstance is one vrrp_instance of keepalived, version 3 of the protocol.
type VRRPInstance struct {
	Name      string // as it is called in the log; required
	Interface string // required
	ID        uint8
	Priority  uint8
	Interval  time.Duration  // of adverts, whole hundredths of a second
	Addresses []netip.Prefix // of one family; IPv6: the first should be a link-local one
	NoPreempt bool           // a router that has come back lets the present owner be
	Source    netip.Addr     // of adverts to Peers
	Peers     []netip.Addr   // adverts go to these alone; none: to the multicast group
}

// write adds the instance to a configuration.
func (i VRRPInstance) write(b *strings.Builder) {
	fmt.Fprintf(b, "vrrp_instance %s {\n  state BACKUP\n  interface %s\n  virtual_router_id %d\n  priority %d\n  advert_int %.2f\n",
		i.Name, i.Interface, i.ID, i.Priority, i.Interval.Seconds())
	if i.NoPreempt {
		b.WriteString("  nopreempt\n")
	}
	if len(i.Peers) > 0 {
		fmt.Fprintf(b, "  unicast_src_ip %s\n  unicast_peer {\n", i.Source)
		for _, p := range i.Peers {
			fmt.Fprintf(b, "    %s\n", p)
		}
		b.WriteString("  }\n")
	}
	b.WriteString("  virtual_ipaddress {\n")
	for _, a := range i.Addresses {
		fmt.Fprintf(b, "    %s\n", a)
	}
	b.WriteString("  }\n}\n")
}

// KeepalivedConfig is a keepalived.conf with these instances and nothing else.
func KeepalivedConfig(instances ...VRRPInstance) string {
	var b strings.Builder
	b.WriteString("global_defs {\n  vrrp_version 3\n}\n")
	for _, i := range instances {
		i.write(&b)
	}
	return b.String()
}

// Keepalived is one that runs.
type Keepalived struct{ Server }

// The states of an instance, as keepalived calls them.
const (
	KeepalivedMaster = "MASTER"
	KeepalivedBackup = "BACKUP"
	KeepalivedFault  = "FAULT"
)

// StartKeepalived starts a keepalived with this configuration, which
// [KeepalivedConfig] writes or the caller does. It runs in the foreground, with
// its files in Options.Dir, does nothing but VRRP, and is ready when each of the
// named instances has begun as a backup. Options but Dir and Start mean nothing
// to it.
func StartKeepalived(ctx context.Context, o Options, config string, instances ...string) (*Keepalived, error) {
	path, err := probe.Program("keepalived", "keepalived", "/usr/sbin/keepalived")
	if err != nil {
		return nil, fmt.Errorf("programs: %w", err)
	}
	if o.Start == nil {
		o.Start = startHere
	}
	file, err := o.write("keepalived.conf", config)
	if err != nil {
		return nil, err
	}
	process, err := o.Start(Command{
		Argv: []string{
			path, "--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file", file,
			"--pid", filepath.Join(o.Dir, "keepalived.pid"), "--vrrp_pid", filepath.Join(o.Dir, "vrrp.pid"),
		},
		Dir: o.Dir,
	})
	if err != nil {
		return nil, fmt.Errorf("programs: starting keepalived: %w", err)
	}
	k := &Keepalived{Server{Name: "keepalived", Process: process, stop: syscall.SIGTERM}}
	for _, name := range instances {
		if err := k.Await(ctx, name, KeepalivedBackup); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	return k, nil
}

// State is the state that an instance has entered last, as the log says it; ""
// before the first.
func (k *Keepalived) State(instance string) string {
	log := k.Process.Output()
	_, rest, ok := cutLast(log, "("+instance+") Entering ")
	if !ok {
		return ""
	}
	state, _, ok := strings.Cut(rest, " STATE")
	if !ok || strings.Contains(state, "\n") {
		return "" // half a line
	}
	return state
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Await waits until an instance is in a state.
func (k *Keepalived) Await(ctx context.Context, instance, state string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for k.State(instance) != state {
		select {
		case <-tick.C:
		case <-k.Process.Done():
			return fmt.Errorf("programs: keepalived ended before instance %s was %s; it said: %s", instance, state, said(k.Process))
		case <-ctx.Done():
			return fmt.Errorf("programs: keepalived: instance %s is not %s but %q: %w; it said: %s", instance, state, k.State(instance), ctx.Err(), said(k.Process))
		}
	}
	return nil
}
