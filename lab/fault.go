//go:build linux

package lab

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/rtnl"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// Die kills the host as a power cut does: from the returned instant on no
// frame leaves or reaches it, then its links go down at the switch, then its
// processes are killed. Sockets that this process holds in the host live on in
// silence. A dead host stays dead.
func (h *Host) Die() (time.Time, error) {
	at := time.Now()
	var errs []error
	for _, k := range h.links {
		errs = append(errs, k.setLimit(FromHost, 1), k.setLimit(ToHost, 1))
	}
	h.mu.Lock()
	h.dead = true
	h.mu.Unlock()
	for _, k := range h.links {
		errs = append(errs, k.sw.nl.SetState(k.port, false))
	}
	errs = append(errs, h.killAll())
	return h.fault(at, "die", errors.Join(errs...))
}

// Mute lets nothing that the host sends leave it, while it still hears: from
// the returned instant on.
func (h *Host) Mute() (time.Time, error) { return h.gate("mute", 1) }

// Unmute ends Mute.
func (h *Host) Unmute() (time.Time, error) {
	if err := h.alive(); err != nil {
		return h.fault(time.Now(), "unmute", err)
	}
	return h.gate("unmute", 0)
}

// alive keeps a dead host dead: sockets that this process holds there would
// speak again.
func (h *Host) alive() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return errDead
	}
	return nil
}

var errDead = errors.New("the host is dead, and stays so")

func (h *Host) gate(what string, rate float64) (time.Time, error) {
	at := time.Now()
	var errs []error
	for _, k := range h.links {
		errs = append(errs, k.setLimit(FromHost, rate))
	}
	return h.fault(at, what, errors.Join(errs...))
}

// Freeze stops every process of the host, and returns when all of them have
// stopped; the host's kernel goes on: it answers ARP, acknowledges and resets.
func (h *Host) Freeze() (time.Time, error) {
	at := time.Now()
	return h.fault(at, "freeze", h.freeze())
}

// Continue lets every process of a frozen host go on.
func (h *Host) Continue() (time.Time, error) {
	at := time.Now()
	return h.fault(at, "continue", h.resume())
}

// AddAddress adds an address to one of the host's interfaces, by hand.
func (h *Host) AddAddress(iface string, a netip.Prefix) (time.Time, error) {
	index, err := h.nl.Index(iface)
	at := time.Now()
	if err == nil {
		err = h.addAddress(index, rtnl.Address{Prefix: a, NoDAD: true})
	}
	return h.fault(at, "add address "+a.String(), err)
}

// RemoveAddress takes an address from one of the host's interfaces, by hand.
func (h *Host) RemoveAddress(iface string, a netip.Prefix) (time.Time, error) {
	index, err := h.nl.Index(iface)
	at := time.Now()
	if err == nil {
		err = h.nl.DeleteAddress(index, a)
	}
	return h.fault(at, "remove address "+a.String(), err)
}

// fault logs what was done and names it in the error.
func (h *Host) fault(at time.Time, what string, err error) (time.Time, error) {
	if err != nil {
		return at, fmt.Errorf("lab: host %s: %s: %w", h.spec.Name, what, err)
	}
	h.lab.log.Info("fault", "host", h.spec.Name, "what", what, "took", time.Since(at))
	return at, nil
}

// Cut pulls the cable: from the returned instant on no frame passes, and both
// ends see that the link is down. A kernel that sees that knows more than one
// whose frames are lost: see [Link.Block] for the latter.
func (k *Link) Cut() (time.Time, error) {
	at := time.Now()
	err := errors.Join(k.setLimit(FromHost, 1), k.setLimit(ToHost, 1), k.sw.nl.SetState(k.port, false))
	return k.fault(at, "cut", err)
}

// Restore ends whatever Cut, Block, SetLoss and Host.Mute did to the link. It is
// an error if the host is dead.
func (k *Link) Restore() (time.Time, error) {
	if err := k.host.alive(); err != nil {
		return k.fault(time.Now(), "restore", err)
	}
	at := time.Now()
	err := errors.Join(k.sw.nl.SetState(k.port, true), k.setLimit(FromHost, 0), k.setLimit(ToHost, 0))
	return k.fault(at, "restore", err)
}

// Block loses every frame of one direction, from the returned instant on,
// without either end noticing.
func (k *Link) Block(d Direction) (time.Time, error) { return k.SetLoss(d, 1) }

// SetLoss loses frames of one direction at random: rate is within 0 (none) and
// 1 (all). Which ones depends only on Options.Seed and on their order.
func (k *Link) SetLoss(d Direction, rate float64) (time.Time, error) {
	at := time.Now()
	if d > ToHost {
		return at, fmt.Errorf("lab: SetLoss: direction: %v is not a direction", d)
	}
	if math.IsNaN(rate) || rate < 0 || rate > 1 {
		return at, fmt.Errorf("lab: SetLoss: rate: %v is not within 0 and 1", rate)
	}
	return k.fault(at, fmt.Sprintf("lose %g %v", rate, d), k.setLimit(d, rate))
}

func (k *Link) fault(at time.Time, what string, err error) (time.Time, error) {
	if err != nil {
		return at, fmt.Errorf("lab: link of %s to %s: %s: %w", k.spec.Host, k.spec.Switch, what, err)
	}
	k.lab.log.Info("fault", "link", k.spec.Host+"-"+k.spec.Switch, "what", what, "took", time.Since(at))
	return at, nil
}

// signalPatience bounds how long the kernel may take to stop or end a process.
const signalPatience = 5 * time.Second

// freeze stops every process of the host. mu is held meanwhile: a child of this
// process that was stopped before it became its program would hold h.Start, and
// with it every start of this process.
func (h *Host) freeze() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.signalAll(syscall.SIGSTOP, func(pid int, told bool) bool { return told && stopped(pid) })
}

// resume lets every process of the host go on that is there when it begins. Who
// comes later was started by one that goes on, and there may always be such.
func (h *Host) resume() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	there, err := h.pids()
	if err != nil {
		return err
	}
	return h.signalAll(syscall.SIGCONT, func(pid int, told bool) bool {
		state, ok := processState(pid)
		return !ok || state != 'T' && (told || !slices.Contains(there, pid))
	})
}

// signalAll sends a signal to every process of the host until each has obeyed,
// or is gone. obeyed is told whether a process has been sent the signal. The
// caller holds mu.
func (h *Host) signalAll(sig syscall.Signal, obeyed func(pid int, told bool) bool) error {
	deadline := time.Now().Add(signalPatience)
	told := map[int]bool{}
	for {
		pids, err := h.pids()
		if err != nil {
			return err
		}
		var missing []int
		for _, pid := range pids {
			if obeyed(pid, told[pid]) {
				continue
			}
			missing = append(missing, pid)
			told[pid] = true
			if err := sys.Signal(pid, sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("%v to process %d: %w", sig, pid, err)
			}
		}
		if len(missing) == 0 {
			h.reap(told)
			return nil
		}
		if time.Now().After(deadline) {
			var which []string
			for _, pid := range missing[:min(len(missing), 5)] {
				which = append(which, describe(pid))
			}
			return fmt.Errorf("%v: %d processes have not obeyed after %v: %s", sig, len(missing), signalPatience, strings.Join(which, "; "))
		}
		time.Sleep(time.Millisecond)
	}
}

// killAll ends every process of the host, also those that left their process
// group.
func (h *Host) killAll() error {
	h.mu.Lock()
	running := make([]*Process, 0, len(h.processes))
	for p := range h.processes {
		running = append(running, p)
		_ = sys.SignalGroup(p.PID(), syscall.SIGKILL) // the group at once; stragglers below
	}
	err := h.signalAll(syscall.SIGKILL, func(int, bool) bool { return false })
	h.mu.Unlock()
	for _, p := range running {
		<-p.done
	}
	return err
}

// reap collects processes whose own parent died before them, if they became
// this process's children that way; their remains would stay until its end. The
// caller holds mu.
func (h *Host) reap(pids map[int]bool) {
	for p := range h.processes {
		delete(pids, p.PID()) // collected by its Process
	}
	for pid := range pids {
		sys.ReapEnded(pid)
	}
}

// pids lists the living processes in the host's namespace.
func (h *Host) pids() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	want := fmt.Sprintf("net:[%d]", h.ns.Inode())
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process that ended has no namespace any more.
		if ns, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/net")); err == nil && ns == want {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
