package vip

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/internal/gate"
)

// gatesEvery is how often links are asked whether the gate is on them still:
// whoever may put programs there may take them off, and nobody is told of it.
const gatesEvery = 2 * time.Second

// gateLook is what a look at a link's gate has brought.
type gateLook struct {
	lost bool       // it was not on the link
	gate *gate.Gate // put there anew; nil: none
	err  error      // why not
}

// checkGates has the hands ask for the gates, and put back what is gone.
func (l *loop) checkGates() {
	if l.gatesAt == 0 || l.now < l.gatesAt {
		return
	}
	l.gatesAt = l.now + int64(gatesEvery)
	for _, p := range l.ports {
		s := p.sockets
		if p.gating || p.looking || !p.there || s.gate == nil && !s.gateLost {
			continue
		}
		p.gating = true
		var f gateLook
		l.hands.do(func() { f = l.lookAtGate(s) }, func() {
			p.gating = false
			l.gateLooked(p, s, f)
		})
	}
}

// lookAtGate runs on the hands, before whatever closes s.
func (l *loop) lookAtGate(s sockets) (f gateLook) {
	if s.gate != nil {
		ok, err := s.gate.Attached()
		if ok || err != nil { // who cannot tell leaves it as it is
			return f
		}
	}
	f.lost = true
	f.gate, f.err = l.o.openGate(s.index)
	return f
}

// gateLooked takes what came of it. Between the look and now the port may have
// got other sockets, or gone.
func (l *loop) gateLooked(p *port, was sockets, f gateLook) {
	if !f.lost {
		return
	}
	if p.dropped || p.sockets.index != was.index || p.sockets.gate != was.gate {
		l.closeLater(sockets{index: was.index, gate: f.gate}, p.dropped)
		return
	}
	if errors.Is(f.err, syscall.ENODEV) {
		return // the link has gone, of which the kernel tells
	}
	first := !was.gateLost
	l.closeLater(sockets{index: was.index, gate: was.gate}, false)
	p.sockets.gate, p.sockets.noGate, p.sockets.gateLost = f.gate, "", f.err != nil
	if f.err != nil {
		p.sockets.noGate = "the lease gate was taken off, and cannot be put back: " + refused(f.err, gate.Probe().Remedy)
	}
	for _, g := range slices.Concat(l.groups, l.leaving) {
		if !slices.Contains(g.links(), p) || !g.started || g.stopped {
			continue
		}
		g.portChanged(p, p.link) // it has a place in the election, and its entries
		switch {
		case f.err == nil && first:
			g.tell(KindGate, fmt.Sprintf("link %s: the lease gate was taken off within the last %v, and nothing kept the lease meanwhile; it is put back: find who did it (bpftool net, tc), and have him leave holdfast_in and holdfast_out alone", p.name, gatesEvery))
			fallthrough
		case f.err == nil:
			g.tellOver(KindGate, fmt.Sprintf("link %s: the lease gate is in force again", p.name))
		case first:
			g.tell(KindGate, fmt.Sprintf("link %s: %s; the lease is kept by the lifetime of the addresses, and the gate is tried again every %v", p.name, p.sockets.noGate, gatesEvery))
		}
	}
}
