//go:build linux

package scene

import (
	"fmt"
	"net/netip"

	"github.com/holdfast-net/holdfast/lab"
)

// legs are the far addresses of a relayed connection's two legs: the client's,
// and the relay's own towards the backend.
type legs struct{ client, backend netip.AddrPort }

// wayOf is one direction of one TCP connection.
type wayOf struct{ from, to netip.AddrPort }

// way is what the wire has shown of it.
type way struct {
	first uint32 // sequence number of its first byte
	end   uint32 // behind the last byte seen
	known bool   // the SYN was seen
	acked uint32 // the highest acknowledgement for it
	fin   bool
	finAt uint32 // the FIN's own number
}

// after says a > b for sequence numbers.
func after(a, b uint32) bool { return int32(a-b) > 0 }

// checkFINs judges what a capture beside the relay shows of DESIGN's third
// truth: before each FIN that the relay sends, every byte before it was
// acknowledged; and before each FIN to a client that had ended its own stream,
// the backend had acknowledged every byte of that. It returns how many FINs it
// has judged.
func checkFINs(segments []lab.Segment, relay netip.Addr, pairs []legs) (fins int, wrong []string) {
	ways := map[wayOf]*way{}
	of := func(from, to netip.AddrPort) *way {
		k := wayOf{from, to}
		if ways[k] == nil {
			ways[k] = &way{}
		}
		return ways[k]
	}
	backendOf, peer := map[netip.AddrPort]netip.AddrPort{}, map[netip.AddrPort]netip.AddrPort{}
	for _, p := range pairs {
		backendOf[p.client] = p.backend
	}
	for _, s := range segments {
		w, back := of(s.Source, s.Destination), of(s.Destination, s.Source)
		peer[s.Source] = s.Destination
		if s.Flags&lab.SYN != 0 {
			w.first, w.end, w.known, w.acked = s.Seq+1, s.Seq+1, true, s.Seq
		}
		if s.Flags&lab.ACK != 0 && back.known && after(s.Ack, back.acked) {
			back.acked = s.Ack
		}
		end := s.Seq + uint32(s.Length)
		if w.known && after(end, w.end) {
			w.end = end
		}
		if s.Flags&lab.FIN == 0 || !w.known {
			continue
		}
		again := w.fin
		w.fin, w.finAt = true, end
		if s.Source.Addr() != relay || again {
			continue
		}
		fins++
		if s.Length > 0 || after(end, w.acked) {
			wrong = append(wrong, fmt.Sprintf("a FIN to %v while %d bytes before it were not acknowledged", s.Destination, end-w.acked))
		}
		leg, ok := backendOf[s.Destination]
		if client := of(s.Destination, s.Source); ok && client.fin {
			up := of(leg, peer[leg])
			if sent, acked := client.finAt-client.first, up.acked-up.first; after(sent, acked) {
				wrong = append(wrong, fmt.Sprintf("a FIN to %v, which had ended its stream of %d bytes, while the backend had acknowledged %d", s.Destination, sent, acked))
			}
		}
	}
	return fins, wrong
}
