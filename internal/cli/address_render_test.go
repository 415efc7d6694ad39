package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/admin"
)

func wellPair() admin.Status {
	s := wellStatus()
	s.Pair = &admin.Pair{
		State: "synced", Since: ago(76 * time.Hour), Listen: "10.0.0.11:7420", Peer: "10.0.0.12:7420", Node: "lb2", Version: "0.4.0", RTT: admin.Seconds(212 * time.Microsecond),
		Digest: "0011aabb", Own: "0011aabb", Connects: 1,
	}
	s.Elector = &admin.Elector{State: "up", Since: ago(76 * time.Hour)}
	s.Addresses = []admin.AddressGroup{
		{
			Name: "front", Addresses: []string{"10.0.0.100/24", "2001:db8::100/64"}, Present: []string{"10.0.0.100", "2001:db8::100"}, Role: admin.RoleActive, Since: ago(26 * time.Hour),
			Epoch: 7, Cause: admin.CauseSilence, Reason: "nothing was heard of 10.0.0.12 for 402ms", Well: true, Lease: admin.Seconds(268 * time.Millisecond), Interface: "eth0",
			VRRPID: 51, Priority: 200, Interval: admin.Seconds(100 * time.Millisecond), Takeovers: map[string]uint64{"silence": 1, "handover": 2},
			Witness: &admin.Witness{Address: "10.0.0.1", Answers: true}, Peer: &admin.PeerGroup{Linked: true, Role: "backup"}, Services: []string{"redis"},
			Track: []admin.Track{{What: "command", Well: true}},
		},
		{
			Name: "db", Addresses: []string{"10.0.0.101/32"}, Role: admin.RoleBackup, Since: ago(12 * time.Second), Epoch: 3, Cause: admin.CauseHandover, Well: true, Owner: "lb2",
			Interface: "eth0", VRRPID: 52, Priority: 100, Peer: &admin.PeerGroup{Linked: true, Role: "active"},
		},
		{Name: "lone", Addresses: []string{"192.0.2.7/24"}, Present: []string{"192.0.2.7"}, Role: admin.RoleActive, Since: ago(time.Hour), Epoch: 1, Cause: admin.CauseAlone, Lease: admin.Seconds(1900 * time.Millisecond), Interface: "eth1"},
	}
	return s
}

func degradedPair() admin.Status {
	s := wellPair()
	s.State = "degraded"
	s.Services = nil
	s.Problems = []admin.Problem{
		{Code: admin.ProblemAddressFault, Group: "db", Text: "this node cannot own db: eth0 has no carrier: look at its cable", Since: ago(12 * time.Second)},
		{Code: admin.ProblemPairDown, Text: "the link to 10.0.0.12:7420 is down: connection refused: is the other node running?", Since: ago(time.Minute)},
	}
	s.Pair.State, s.Pair.Since, s.Pair.Reason, s.Pair.RTT = "down", ago(time.Minute), "connect: connection refused", 0
	s.Pair.Unprotected, s.Pair.Differs, s.Pair.Strangers = 12, []string{"addresses.db", "services.redis"}, map[string]uint64{"wrong key": 3}
	s.Elector = &admin.Elector{State: "down", Since: ago(2 * time.Second), Reason: "it was killed; it is being started again"}
	g := s.Addresses
	g[0].Present, g[0].Conflicts, g[0].Adverts.Forged, g[0].Peer.Linked, g[0].Witness.Answers = g[0].Present[:1], 1, 4, false, false
	g[1].Role, g[1].Cause, g[1].Reason, g[1].Owner, g[1].Well = admin.RoleFault, admin.CauseUnwell, "eth0 has no carrier", "", false
	g[2].Role, g[2].Lease, g[2].Cause, g[2].Reason = admin.RoleFault, 0, admin.CauseUnwell, "the tracked command failed 3 times"
	g[2].Track = []admin.Track{{What: "command", Reason: "exit status 1: no \x1b[2Jserver"}, {What: "engines", Reason: "the tracked command failed 3 times"}}
	return s
}

func TestRenderAddresses(t *testing.T) {
	v := view{now: now}
	golden(t, "addresses", v.addresses(wellPair().Addresses))
	golden(t, "addresses-degraded", v.addresses(degradedPair().Addresses))
	golden(t, "addresses-none", v.addresses(nil))
	golden(t, "status-pair", v.status(wellPair()))
	golden(t, "status-pair-degraded", v.status(degradedPair()))
	golden(t, "status-pair-80", view{now: now, columns: 80}.status(degradedPair()))
	golden(t, "check-pair", v.check(wellPair()))
	syncing := wellPair()
	syncing.Pair.State, syncing.Pair.Since, syncing.Pair.Unprotected = "syncing", ago(time.Second), 1
	golden(t, "status-pair-syncing", v.status(syncing))

	s := screen{last: sample{wellPair(), now}}
	golden(t, "top-pair", strings.Join(s.frame(sample{wellPair(), now.Add(time.Second)}, 0, 0), "\n")+"\n")
	golden(t, "top-pair-100", strings.Join(s.frame(sample{degradedPair(), now.Add(2 * time.Second)}, 100, 12), "\n")+"\n")
}

func TestRenderReleased(t *testing.T) {
	v := view{now: now}
	for want, r := range map[string]admin.ReleaseResult{
		"nothing was released: this node owns no addresses\n": {},
		"front is lb2's now\ndb was withdrawn\n": {Groups: []admin.Released{
			{Group: "front", Owner: "lb2", Text: "front is lb2's now"}, {Group: "db", Text: "db was withdrawn"},
		}},
	} {
		if got := v.released(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func addressEvents() []admin.Event {
	return []admin.Event{
		{Seq: 1, Event: admin.EventAddress, Time: ago(time.Hour), Group: "front", Role: &admin.RoleChange{
			To: "active", From: "backup", Cause: admin.CauseSilence, Epoch: 7, Addresses: []string{"10.0.0.100/24", "2001:db8::100/64"}, Reason: "nothing was heard of 10.0.0.12 for 402ms"}},
		{Seq: 2, Event: admin.EventAddress, Time: ago(59 * time.Minute), Group: "front", Role: &admin.RoleChange{
			To: "backup", From: "active", Cause: admin.CauseReleased, Epoch: 8, Addresses: []string{"10.0.0.100/24"}, ByHand: "uid 0 (pid 12)"}},
		{Seq: 3, Event: admin.EventAddress, Time: ago(58 * time.Minute), Group: "db", Role: &admin.RoleChange{To: "fault", From: "backup", Cause: admin.CauseLease, Epoch: 8, Addresses: []string{}, Reason: "12ms late"}},
		{Seq: 4, Event: admin.EventAddress, Time: ago(57 * time.Minute), Group: "db", Change: &admin.Change{State: admin.ProblemAddressConflict, Reason: "52:54:00:12:34:56 answers for 10.0.0.101"}},
		{Seq: 5, Event: admin.EventPair, Time: ago(56 * time.Minute), Change: &admin.Change{State: "down", Reason: "connect: connection refused"}},
		{Seq: 6, Event: admin.EventPair, Time: ago(55 * time.Minute), Change: &admin.Change{State: "synced"}},
	}
}

// A witness that is not asked is not said to be silent.
func TestRenderWitnessNotAsked(t *testing.T) {
	g := wellPair().Addresses
	for notAsked, silent := range map[bool]bool{false: true, true: false} {
		g[0].Witness = &admin.Witness{Address: "10.0.0.1", NotAsked: notAsked}
		if got := strings.Contains(view{now: now}.addresses(g), "does not answer"); got != silent {
			t.Errorf("not asked %t: said to be silent %t", notAsked, got)
		}
	}
}

func TestRenderAddressEvents(t *testing.T) {
	p := eventPrinter{view: view{now: now}}
	var b strings.Builder
	for _, e := range addressEvents() {
		b.WriteString(p.line(e) + "\n")
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back admin.Event
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Errorf("%s (-sent +received):\n%s", text, diff)
		}
	}
	golden(t, "events-addresses", b.String())
}

func TestGroupName(t *testing.T) {
	for arg, want := range map[string]string{
		"front": "front", "10.0.0.100": "10.0.0.100", "10.0.0.100/24": "10.0.0.100", "[2001:db8::100]": "2001:db8::100", "2001:DB8:0::100/64": "2001:db8::100",
		"::ffff:10.0.0.1": "10.0.0.1", "a/b": "a/b",
	} {
		if got := groupName(arg); got != want {
			t.Errorf("%s is %q, want %q", arg, got, want)
		}
	}
}
