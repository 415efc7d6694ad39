package node

import (
	"net/netip"
	"testing"

	"github.com/holdfast-net/holdfast/vip"
)

// A witness that nobody asks is not said to be silent.
func TestWitnessOfANodeInFault(t *testing.T) {
	a := &addresses{node: &node{}}
	for role, shown := range map[vip.Role]bool{vip.Active: true, vip.Backup: true, vip.Fault: false} {
		st := vip.Status{Group: "front", Role: role, Witness: vip.WitnessStatus{Address: netip.MustParseAddr("10.0.0.1")}}
		if g := a.describe(st); (g.Witness != nil) != shown {
			t.Errorf("in the role %v the witness is %+v", role, g.Witness)
		}
	}
	st := vip.Status{Role: vip.Backup, Witness: vip.WitnessStatus{Address: netip.MustParseAddr("10.0.0.1"), Idle: true}}
	if g := a.describe(st); g.Witness == nil || !g.Witness.NotAsked {
		t.Errorf("of a backup that asks nobody the witness is %+v", g.Witness)
	}
	if g := a.describe(vip.Status{Role: vip.Active}); g.Witness != nil {
		t.Errorf("without a witness there is %+v", g.Witness)
	}
}
