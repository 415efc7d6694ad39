//go:build linux

package own

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// The judges of these scenes can be wrong too: they are tried on stories whose
// end is known.

var start = time.Now()

func after(n int) time.Time { return start.Add(time.Duration(n) * time.Millisecond) }

// probe is one from ms to ms that went well.
func probe(from, to int) traffic.Probe {
	at := traffic.InstantOf(start)
	return traffic.Probe{StartedAt: at.Add(time.Duration(from) * time.Millisecond), EndedAt: at.Add(time.Duration(to) * time.Millisecond)}
}

func TestGap(t *testing.T) {
	bad := probe(25, 30)
	bad.Err = errors.New("reset")
	for _, tc := range []struct {
		name         string
		probes       []traffic.Probe
		fault, owned int
		want         int // ms; -1: none
	}{
		{"one that was under way at the fault", []traffic.Probe{probe(0, 1), probe(9, 12), probe(40, 41)}, 10, 38, 29},
		{"one that waited through the gap", []traffic.Probe{probe(0, 1), probe(12, 1012), probe(40, 41), probe(42, 43)}, 10, 38, 31},
		{"one that failed", []traffic.Probe{bad, probe(50, 51)}, 10, 38, 41},
		{"nobody yet", []traffic.Probe{probe(0, 1), bad, probe(12, 36)}, 10, 38, -1},
	} {
		d, ok := gap(tc.probes, after(tc.fault), after(tc.owned))
		want := time.Duration(tc.want) * time.Millisecond
		// The two clocks are read one after the other.
		if ok != (tc.want >= 0) || ok && (d < want-time.Millisecond || d > want+time.Millisecond) {
			t.Errorf("%s: %v, %v, want %v", tc.name, d, ok, want)
		}
	}
}

func TestFailures(t *testing.T) {
	probes := []traffic.Probe{probe(0, 1), probe(0, 1), probe(0, 1), probe(0, 1)}
	probes[1].Err, probes[1].Stage, probes[1].Ending = errors.New("refused"), "connect", traffic.Refused
	probes[2].Err, probes[2].Stage, probes[2].Ending = errors.New("too late"), "connect", traffic.Closed
	probes[3].Err, probes[3].Stage, probes[3].Ending = errors.New("reset"), "answer", traffic.RST
	f := failures(probes)
	if f.connects != 2 || f.refused != 1 || f.exchanges != 1 || len(f.how) != 3 {
		t.Errorf("%+v", f)
	}
}

// spoke is a segment of the address to a client's port.
func spoke(ms int, host string, to uint16, flags lab.TCPFlags) lab.Seen {
	return lab.Seen{
		Time: after(ms), Host: host, Sort: lab.Spoke, Address: netip.MustParseAddr("10.77.0.100"), Source: netip.MustParseAddr("10.77.0.100"),
		Destination: netip.MustParseAddr("10.77.0.101"), From: port, To: to, Flags: flags,
	}
}

func TestTwice(t *testing.T) {
	vip := netip.MustParseAddr("10.77.0.100")
	seen := []lab.Seen{
		spoke(0, "node1", 1000, lab.SYN|lab.ACK), spoke(1, "node2", 1001, lab.SYN|lab.ACK), // each has its own client
		spoke(2, "node1", 1000, lab.ACK), spoke(3, "node2", 1001, lab.FIN|lab.ACK),
		spoke(4, "node2", 1000, lab.RST),                                           // the new owner does not know the old one's client
		spoke(5, "node2", 1000, lab.SYN|lab.ACK), spoke(6, "node2", 1000, lab.ACK), // its port is used again
	}
	if n := twice(seen, vip); n != 0 {
		t.Errorf("%d connections with two owners, want none", n)
	}
	if n := twice(append(seen, spoke(7, "node1", 1001, lab.ACK)), vip); n != 1 {
		t.Errorf("%d connections with two owners, want 1", n)
	}
}

func advert(ms int, host string, priority uint8) lab.Seen {
	return lab.Seen{Time: after(ms), Host: host, Sort: lab.Advertised, ID: routerID, Priority: priority}
}

func TestTurns(t *testing.T) {
	const interval = 10 * time.Millisecond
	seen := []lab.Seen{
		advert(0, "node1", 200), advert(10, "node1", 200), advert(12, "node1", 0),
		advert(20, "node2", 150), advert(21, "node1", 200), advert(30, "node2", 150), // node1 has not heard of it
		advert(100, "node2", 150), advert(140, "node1", 200), // its turn again
	}
	turns, again := turnsOf(seen, netip.MustParseAddr("10.77.0.100"), interval)
	if len(turns) != 3 || again != 1 || turns[0].Host != "node1" || turns[1].Frames != 3 || turns[2].Host != "node1" || !turns[0].To.Equal(after(21)) {
		t.Errorf("%s, %d again", lab.DescribeSpans(turns), again)
	}
}

// Two owners, and an owner that comes back, are seen as what they are.
func TestSpeakers(t *testing.T) {

	vip := netip.MustParseAddr("10.77.0.100")
	speaks := func(s lab.Seen) bool { return s.Speaks(vip) }
	one := []lab.Seen{spoke(0, "node1", 1, lab.ACK), spoke(1, "node1", 1, lab.ACK), spoke(5, "node2", 2, lab.ACK)}
	if spans := lab.Speakers(one, speaks); len(spans) != 2 {
		t.Errorf("a takeover: %s", lab.DescribeSpans(spans))
	}
	stale := append(one, spoke(9, "node1", 1, lab.RST))
	if spans := lab.Speakers(stale, speaks); len(spans) != 3 {
		t.Errorf("a stale frame: %s", lab.DescribeSpans(spans))
	}
}

// Every scene has what a person needs to choose it, and a name of its own.
func TestScenesAreDescribed(t *testing.T) {
	names := map[string]bool{}
	for _, s := range All() {
		if names[s.Name] || s.Title == "" || len(s.Story) < 100 || len(s.Variants) == 0 || s.Run == nil {
			t.Errorf("scene %q: %+v", s.Name, s)
		}
		names[s.Name] = true
		variants := map[string]bool{}
		for _, v := range s.Variants {
			if variants[v.String()] || strings.Contains(v.Fault, " ") {
				t.Errorf("scene %s: variant %q", s.Name, v)
			}
			variants[v.String()] = true
		}
	}
	for _, fixed := range []string{"address-moves", "node-freezes"} {
		if !names[fixed] {
			t.Errorf("there is no scene %s", fixed)
		}
	}
}
