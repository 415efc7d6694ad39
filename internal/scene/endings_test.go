//go:build linux

package scene

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// wire makes the segments of one relayed connection: the client sends 100
// bytes and ends, the backend sends 200 and ends.
type wire struct{ client, relay, leg, backend netip.AddrPort }

var testWire = wire{
	client: netip.MustParseAddrPort("10.77.0.101:4000"), relay: netip.MustParseAddrPort("10.77.0.11:7000"),
	leg: netip.MustParseAddrPort("10.77.0.11:5000"), backend: netip.MustParseAddrPort("10.77.0.21:7000"),
}

func (w wire) segment(from, to netip.AddrPort, flags lab.TCPFlags, seq, ack uint32, length int) lab.Segment {
	return lab.Segment{Source: from, Destination: to, Flags: flags, Seq: seq, Ack: ack, Length: length}
}

// honest is how it should go; sequence numbers wrap on the way to the client.
func (w wire) honest() []lab.Segment {
	const c, r, l, b = 1000, 1<<32 - 50, 3000, 4000 // initial sequence numbers
	return []lab.Segment{
		0:  w.segment(w.client, w.relay, lab.SYN, c, 0, 0),
		1:  w.segment(w.relay, w.client, lab.SYN|lab.ACK, r, c+1, 0),
		2:  w.segment(w.client, w.relay, lab.ACK, c+1, r+1&(1<<32-1), 0),
		3:  w.segment(w.leg, w.backend, lab.SYN, l, 0, 0),
		4:  w.segment(w.backend, w.leg, lab.SYN|lab.ACK, b, l+1, 0),
		5:  w.segment(w.leg, w.backend, lab.ACK, l+1, b+1, 0),
		6:  w.segment(w.client, w.relay, lab.ACK|lab.FIN, c+1, r+1&(1<<32-1), 100),
		7:  w.segment(w.relay, w.client, lab.ACK, r+1&(1<<32-1), c+102, 0),
		8:  w.segment(w.leg, w.backend, lab.ACK|lab.PSH, l+1, b+1, 100),
		9:  w.segment(w.backend, w.leg, lab.ACK, b+1, l+101, 0), // the upload has arrived
		10: w.segment(w.leg, w.backend, lab.ACK|lab.FIN, l+101, b+1, 0),
		11: w.segment(w.backend, w.leg, lab.ACK|lab.FIN, b+1, l+102, 200),
		12: w.segment(w.relay, w.client, lab.ACK|lab.PSH, r+1&(1<<32-1), c+102, 200),
		13: w.segment(w.client, w.relay, lab.ACK, c+102, 151, 0), // the download has arrived: 1<<32-50+1+200
		14: w.segment(w.relay, w.client, lab.ACK|lab.FIN, 151, c+102, 0),
	}
}

func TestCheckFINs(t *testing.T) {
	relay, pairs := testWire.relay.Addr(), []legs{{client: testWire.client, backend: testWire.leg}}
	if fins, wrong := checkFINs(testWire.honest(), relay, pairs); fins != 2 || len(wrong) > 0 {
		t.Errorf("an honest connection: %d FINs judged, wrong: %q", fins, wrong)
	}
	for name, spoil := range map[string]func([]lab.Segment) []lab.Segment{
		"the FIN to the client comes before the acknowledgement":      func(s []lab.Segment) []lab.Segment { s[13], s[14] = s[14], s[13]; return s },
		"the FIN to the client lies on its last bytes":                func(s []lab.Segment) []lab.Segment { s[12].Flags |= lab.FIN; return slices.Delete(s, 13, 15) },
		"the FIN to the backend comes before the acknowledgement":     func(s []lab.Segment) []lab.Segment { s[9], s[10] = s[10], s[9]; return s },
		"the backend has acknowledged 99 of 100 bytes of the upload":  func(s []lab.Segment) []lab.Segment { s[9].Ack--; s[11].Ack = s[9].Ack; return slices.Delete(s, 10, 11) },
		"the client has acknowledged 199 of 200 bytes, and then FIN":  func(s []lab.Segment) []lab.Segment { s[13].Ack--; return s },
		"the upload is not passed on at all and its end is confirmed": func(s []lab.Segment) []lab.Segment { s[11].Ack = s[4].Ack; return slices.Delete(s, 8, 11) },
	} {
		if _, wrong := checkFINs(spoil(testWire.honest()), relay, pairs); len(wrong) == 0 {
			t.Errorf("%s: found nothing wrong", name)
		}
	}
}

func TestJudge(t *testing.T) {
	eof, rst, nothing := seen{read: "EOF"}, seen{read: "ECONNRESET", after: time.Second}, seen{read: "nothing"}
	stolen := seen{read: "EOF", write: "ECONNRESET"}
	cut := seen{read: "EOF", bytes: 10}
	for _, c := range []struct {
		name            string
		ending          ending
		phase           phase
		direct, relayed seen
		sent, acked     int
		ok              bool
	}{
		{"the same end", byFIN, idling, eof, eof, 0, 0, true},
		{"the same RST", byRST, idling, rst, rst, 0, 0, true},
		{"the same RST, which write has got", byRST, receiving, rst, stolen, 0, 0, true},
		{"a RST became an end", byRST, idling, rst, eof, 0, 0, false},
		{"an end became a RST", byFIN, idling, eof, rst, 0, 0, false},
		{"a reader that closed with nothing unread this time", byFIN, receiving, rst, seen{read: "EOF", write: "EPIPE"}, 0, 0, true},
		{"a reader that closed, and nobody said so to the writer", byFIN, receiving, rst, seen{read: "EOF", write: "ok"}, 0, 0, false},
		{"a reader's RST became an end", byRST, receiving, rst, seen{read: "EOF", write: "EPIPE"}, 0, 0, false},
		{"an end in the middle of an upload became a RST", byKill, receiving, eof, rst, 0, 0, true},
		{"an end after 10 of 20 bytes", byFIN, sending, cut, cut, 20, 0, false},
		{"acknowledged bytes are lost before a RST", byRST, sending, rst, rst, 20, 10, false},
		{"silence is told", byDeath, idling, nothing, rst, 0, 0, true},
		{"silence is told by an end", byDeath, idling, nothing, eof, 0, 0, false},
		{"silence is not told", byMute, idling, nothing, nothing, 0, 0, false},
		{"a wrong byte", byFIN, idling, eof, seen{read: "EOF", wrong: true}, 0, 0, false},
	} {
		tr := &trial{ending: c.ending, phase: c.phase}
		tr.runs[0] = &play{trial: tr, actor: &end{}, seen: c.direct}
		tr.runs[1] = &play{trial: tr, actor: &end{sent: c.sent}, seen: c.relayed, ackedBefore: c.acked}
		if verdict, ok := tr.judge(); ok != c.ok {
			t.Errorf("%s: judged %v: %s", c.name, ok, verdict)
		}
	}
}
