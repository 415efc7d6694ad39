//go:build linux

package lab

import (
	"context"
	"fmt"
	"time"
)

// Strangers says what a middlebox does with a TCP segment of a connection that
// it does not know, other than a first SYN.
type Strangers uint8

const (
	// DropStrangers loses it: the ends retransmit for many minutes. Every
	// middlebox begins so.
	DropStrangers Strangers = iota
	// ResetStrangers answers it with a RST, to its sender only.
	ResetStrangers
)

func (s Strangers) String() string {
	switch s {
	case DropStrangers:
		return "drop strangers"
	case ResetStrangers:
		return "reset strangers"
	}
	return fmt.Sprintf("Strangers(%d)", uint8(s))
}

// verdict is the nft rule for strangers.
func (s Strangers) verdict() string {
	if s == ResetStrangers {
		return "meta l4proto tcp reject with tcp reset"
	}
	return "drop"
}

// ruleTimeout bounds one run of nft.
const ruleTimeout = 10 * time.Second

// openMiddlebox makes the host track what it forwards, and believe only what
// it has seen begin.
func (h *Host) openMiddlebox() error {
	if err := h.nft("table inet lab {\n" +
		"chain strangers {\ndrop\n}\n" +
		"chain forward {\ntype filter hook forward priority 0;\nct state invalid jump strangers\n}\n" +
		"}\n"); err != nil {
		return err
	}
	return h.ns.Do(func() error {
		return setSysctls([]Sysctl{{"net.netfilter.nf_conntrack_tcp_loose", "0"}})
	})
}

func (h *Host) nft(rules string) error {
	ctx, cancel := context.WithTimeout(context.Background(), ruleTimeout)
	defer cancel()
	_, err := h.Run(ctx, "nft", rules)
	return err
}

// Forget makes a middlebox forget every connection it tracks, as one does that
// is restarted, replaced, or has not seen a packet for too long; then says
// what it does with their next segments.
func (h *Host) Forget(then Strangers) (time.Time, error) {
	if h.spec.Role != Middlebox {
		return time.Now(), fmt.Errorf("lab: host %s is a %v, not a middlebox", h.spec.Name, h.spec.Role)
	}
	if then > ResetStrangers {
		return time.Now(), fmt.Errorf("lab: Forget: then: %v is not a policy", then)
	}
	err := h.nft("flush chain inet lab strangers\nadd rule inet lab strangers " + then.verdict() + "\n")
	at := time.Now()
	if err == nil {
		err = h.nl.FlushConntrack()
	}
	return h.fault(at, "forget, "+then.String(), err)
}
