// Package sourceport keeps account of the source ports of connections from a few
// addresses to backends, and of whether a backend answers to an address at all. It is
// pure: the kernel decides who gets a port, and the caller asks it.
package sourceport

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// A Range is a range of ports, both ends included.
type Range struct{ First, Last uint16 }

func (r Range) contains(p uint16) bool { return r.First <= p && p <= r.Last }

// ParseReserved understands the form of net.ipv4.ip_local_reserved_ports:
// "8080,9148,30000-31000". What is no port is left out.
func ParseReserved(text string) (list []Range) {
	for item := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		from, to, ok := strings.Cut(item, "-")
		if !ok {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil {
			list = append(list, Range{uint16(first), uint16(last)})
		}
	}
	return list
}

// A Set is the ports that may be used, in an order by chance: who sees one port
// learns nothing of the next. It does not change.
type Set struct {
	of    Range
	order []uint16
}

// NewSet takes the ports of a range, which is not empty, that are not reserved. If
// all are, they are reserved for this.
func NewSet(of Range, reserved []Range) *Set {
	s := &Set{of: of}
	for p := int(of.First); p <= int(of.Last); p++ {
		if !slices.ContainsFunc(reserved, func(r Range) bool { return r.contains(uint16(p)) }) {
			s.order = append(s.order, uint16(p))
		}
	}
	if len(s.order) == 0 {
		return NewSet(of, nil)
	}
	rand.Shuffle(len(s.order), func(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] })
	return s
}
