package vrrp_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/programs"
	"github.com/holdfast-net/holdfast/vrrp"
)

// speaker runs a Router on a link of a lab's host: the smallest program that is
// a VRRP router, without the addresses.
type speaker struct {
	t         *testing.T
	host      *lab.Host
	socket    *sys.VRRPSocket
	to        netip.Addr
	family    vrrp.Family
	addresses []netip.Addr
	done      chan struct{}

	mu      sync.Mutex
	router  *vrrp.Router
	heard   []vrrp.Advert
	refused []error
	hops    []int
	sent    int
	changed chan struct{} // closed at each change of what is above
	ends    bool
	wake    *sys.Waker
}

func newSpeaker(t *testing.T, h *lab.Host, c vrrp.Config, addresses []netip.Addr, peer netip.Addr) *speaker {
	t.Helper()
	s := &speaker{t: t, host: h, to: peer, addresses: addresses, done: make(chan struct{}), changed: make(chan struct{})}
	s.family = vrrp.FamilyOf(addresses[0])
	six := s.family == vrrp.IPv6
	source := h.Addr(map[bool]lab.Family{false: lab.IPv4, true: lab.IPv6}[six])
	err := h.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if six && !peer.IsValid() { // to the group adverts come from the link-local address
			all, err := link.Addrs()
			if err != nil {
				return err
			}
			for _, a := range all {
				if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
					source = p.Addr()
				}
			}
		}
		if s.socket, err = sys.OpenVRRPSocket(link.Index, six); err != nil || peer.IsValid() {
			return err
		}
		s.to = map[bool]netip.Addr{false: vrrp.GroupIPv4, true: vrrp.GroupIPv6}[six]
		return s.socket.Join(s.to)
	})
	if err != nil {
		t.Fatal(err)
	}
	if six {
		c.Source6 = source
	} else {
		c.Source4 = source
	}
	if s.router, err = vrrp.NewRouter(c); err != nil {
		t.Fatal(err)
	}
	e, err := sys.NewEpoll(4)
	if err != nil {
		t.Fatal(err)
	}
	alarm, err := sys.NewBootAlarm()
	if err != nil {
		t.Fatal(err)
	}
	if s.wake, err = sys.NewWaker(e, 0); err != nil {
		t.Fatal(err)
	}
	for _, fd := range []int{alarm.FD(), s.socket.FD()} {
		if errno := e.Add(fd, sys.EventIn, 1); errno != 0 {
			t.Fatal(errno)
		}
	}
	go s.run(e, alarm)
	t.Cleanup(func() {
		s.with(func(*vrrp.Router) []vrrp.Action { s.ends = true; return nil })
		<-s.done
		if err := errors.Join(s.wake.Close(), alarm.Close(), e.Close(), s.socket.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// with does something with the router, between two events of its loop.
func (s *speaker) with(f func(*vrrp.Router) []vrrp.Action) {
	s.mu.Lock()
	s.do(f(s.router))
	s.mu.Unlock()
	s.wake.Wake()
}

func (s *speaker) run(e *sys.Epoll, alarm *sys.BootAlarm) {
	defer close(s.done)
	batch := sys.NewBatch(16, vrrp.MaxSize+60)
	events := make([]sys.Event, 4)
	for {
		s.mu.Lock()
		if s.ends {
			s.mu.Unlock()
			return
		}
		at, ok := s.router.Deadline()
		if !ok {
			at = 0
		}
		s.mu.Unlock()
		if err := alarm.Set(at); err != nil {
			s.t.Error(err)
			return
		}
		if _, err := e.Wait(events, -1); err != nil {
			s.t.Error(err)
			return
		}
		s.wake.Clear()
		alarm.Clear()
		n, _ := s.socket.Receive(batch)
		s.mu.Lock()
		for i := range n {
			d, ok := batch.Datagram(i)
			if !ok {
				continue
			}
			a, err := vrrp.Parse(d.Message, d.From, d.To)
			if err != nil {
				s.refused = append(s.refused, err)
				continue
			}
			s.heard, s.hops = append(s.heard, a), append(s.hops, d.HopLimit)
			s.do(s.router.Receive(sys.BootTime(), d.From, a))
		}
		s.do(s.router.Expire(sys.BootTime()))
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

func (s *speaker) advert(priority uint8) vrrp.Advert {
	c := s.router.Config()
	return vrrp.Advert{Family: s.family, ID: c.ID, Priority: priority, Interval: c.Interval, Addresses: s.addresses}
}

func (s *speaker) do(actions []vrrp.Action) {
	from := s.router.Config().Source4
	if s.family == vrrp.IPv6 {
		from = s.router.Config().Source6
	}
	for _, a := range actions {
		if a.Do != vrrp.Advertise {
			continue
		}
		msg, err := s.advert(a.Priority).AppendTo(nil, from, s.to)
		if err != nil {
			s.t.Error(err)
			return
		}
		if errno := s.socket.Send(msg, from, s.to); errno != 0 {
			s.t.Errorf("sending an advert: %v", errno)
		}
		s.sent++
	}
}

// await waits until something holds.
func (s *speaker) await(ctx context.Context, what string, holds func() bool) {
	s.t.Helper()
	for {
		s.mu.Lock()
		ok, changed := holds(), s.changed
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			s.t.Fatalf("in vain waited until %s", what)
		}
	}
}

// keepalived in both roles: it follows our adverts and our farewell, and we
// follow its; by multicast and by unicast, in both families.
func TestKeepalived(t *testing.T) {
	top, err := lab.OneArm(lab.Size{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Supported(top); err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		name    string
		family  lab.Family
		unicast bool
		bare    bool // no link-local address in the list, which keepalived wants as it has it itself
	}{
		{name: "IPv4/multicast", family: lab.IPv4},
		{name: "IPv4/unicast", family: lab.IPv4, unicast: true},
		{name: "IPv6/multicast", family: lab.IPv6},
		{name: "IPv6/unicast", family: lab.IPv6, unicast: true},
		{name: "IPv6/global addresses only", family: lab.IPv6, bare: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, err := lab.Start(ctx, top, lab.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			us, him := l.Host("node1"), l.Host("node2")
			const id, interval = 51, 50 * time.Millisecond
			vip := lab.Address(c.family, 100)
			instance := programs.VRRPInstance{
				Name: "front", Interface: "eth0", ID: id, Priority: 100, Interval: interval, Addresses: []netip.Prefix{vip}, NoPreempt: true,
			}
			ours := []netip.Addr{vip.Addr()}
			if c.family == lab.IPv6 && !c.bare {
				ours = []netip.Addr{vrrp.LinkLocal(id), vip.Addr()}
				instance.Addresses = []netip.Prefix{netip.PrefixFrom(vrrp.LinkLocal(id), 64), vip}
			}
			var peer netip.Addr
			if c.unicast {
				peer = him.Addr(c.family)
				instance.Source, instance.Peers = peer, []netip.Addr{us.Addr(c.family)}
			}
			router := newSpeaker(t, us, vrrp.Config{ID: id, Priority: 200, Interval: interval}, ours, peer)
			router.with(func(r *vrrp.Router) []vrrp.Action { return r.Startup(sys.BootTime()) })
			router.await(ctx, "we are active", func() bool { return router.router.State() == vrrp.Active })

			k, err := programs.StartKeepalived(ctx, programs.Options{Dir: t.TempDir(), Start: func(c programs.Command) (programs.Process, error) {
				return him.Start(lab.Command{Argv: c.Argv, Dir: c.Dir, User: c.User})
			}}, programs.KeepalivedConfig(instance), "front")
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					router.with(func(r *vrrp.Router) []vrrp.Action {
						at, _ := r.Deadline()
						t.Logf("we are %v for another %v, have sent %d and heard %d adverts, refused %v; keepalived says:\n%s",
							r.State(), time.Duration(at-sys.BootTime()), router.sent, len(router.heard), router.refused, k.Process.Output())
						return nil
					})
				}
			})

			// On a machine that others use too, either side may be late and the other
			// take over for a moment. So what must hold must hold in one of a few
			// attempts, and our own takeovers are held off while we only listen.
			lost := func() int { return strings.Count(k.Process.Output(), "Entering MASTER") }
			hold := func(r *vrrp.Router) { r.Hold(sys.BootTime() + int64(time.Hour)) }

			// Our adverts keep it a backup for many times its patience.
			for attempt := 0; ; attempt++ {
				if err := k.Await(ctx, "front", programs.KeepalivedBackup); err != nil {
					t.Fatal(err)
				}
				before, sent := lost(), 0
				router.with(func(*vrrp.Router) []vrrp.Action { sent = router.sent; return nil })
				router.await(ctx, "we have sent 20 more adverts", func() bool { return router.sent >= sent+20 })
				if lost() == before {
					break
				}
				if attempt == 5 {
					t.Fatal("keepalived does not stay a backup while it gets our adverts")
				}
			}
			// Our farewell makes it the master, and its adverts keep us a backup.
			var silent vrrp.Instant
			router.with(func(r *vrrp.Router) []vrrp.Action {
				actions := r.Release(sys.BootTime())
				silent, _ = r.Deadline()
				hold(r)
				return actions
			})
			if err := k.Await(ctx, "front", programs.KeepalivedMaster); err != nil {
				t.Fatal(err)
			}
			router.await(ctx, "20 of its adverts have come", func() bool { return len(router.heard) >= 20 })
			router.with(func(r *vrrp.Router) []vrrp.Action {
				r.Hold(0)
				if at, _ := r.Deadline(); r.State() != vrrp.Backup || at < silent+20*int64(interval)/2 {
					t.Errorf("its adverts do not count: we are %v until %v, without any it was %v", r.State(), time.Duration(at), time.Duration(silent))
				}
				if d := router.advert(200).Contradicts(router.heard[0]); d != 0 {
					t.Errorf("we disagree in %v: %+v", d, router.heard[0])
				}
				// With preemption we do not listen to a lower priority, take over, and
				// it yields to ours.
				c := r.Config()
				c.Preempt = true
				actions, err := r.Change(sys.BootTime(), c)
				if err != nil {
					t.Error(err)
				}
				return slices.Clone(actions)
			})
			router.await(ctx, "we are active again", func() bool { return router.router.State() == vrrp.Active })
			if err := k.Await(ctx, "front", programs.KeepalivedBackup); err != nil {
				t.Fatal(err)
			}
			// Silence without a farewell lets it take over too.
			heard := 0
			router.with(func(r *vrrp.Router) []vrrp.Action {
				heard = len(router.heard)
				actions := slices.Clone(r.StepDown(sys.BootTime()))
				c := r.Config()
				c.Preempt = false
				if _, err := r.Change(sys.BootTime(), c); err != nil {
					t.Error(err)
				}
				hold(r)
				return actions
			})
			if err := k.Await(ctx, "front", programs.KeepalivedMaster); err != nil {
				t.Fatal(err)
			}
			router.await(ctx, "its advert has come", func() bool { return len(router.heard) > heard })
			// Its own end is a farewell, after which we need not wait for its silence.
			if err := k.Close(); err != nil {
				t.Error(err)
			}
			router.await(ctx, "its farewell has come", func() bool { return router.heard[len(router.heard)-1].Priority == vrrp.PriorityStop })
			router.with(func(r *vrrp.Router) []vrrp.Action {
				r.Hold(0)
				if at, _ := r.Deadline(); at > sys.BootTime()+int64(vrrp.Skew(200, interval)) {
					t.Errorf("after its farewell we wait another %v", time.Duration(at-sys.BootTime()))
				}
				return nil
			})
			router.await(ctx, "we are active after its end", func() bool { return router.router.State() == vrrp.Active })

			router.with(func(*vrrp.Router) []vrrp.Action {
				if len(router.refused) > 0 {
					t.Errorf("refused: %v", router.refused)
				}
				for _, hops := range router.hops {
					if hops != vrrp.HopLimit && !(c.unicast && c.family == lab.IPv6 && hops == 64) {
						t.Errorf("its advert came with hop limit %d", hops)
						break
					}
				}
				return nil
			})
			for line := range strings.Lines(k.Process.Output()) {
				for _, complaint := range []string{"hecksum", "invalid", "mismatch", "expected", "bogus", "nknown", "rror"} {
					if strings.Contains(line, complaint) {
						t.Errorf("keepalived complains: %s", line)
					}
				}
			}
		})
	}
}
