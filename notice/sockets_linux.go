package notice

import (
	"net/netip"

	"github.com/holdfast-net/holdfast/sockdiag"
)

// inquiry asks the kernel about many connections at once: those whose segments
// arrive by the same link together.
type inquiry struct {
	conn  *sockdiag.Conn
	pairs [][2]netip.AddrPort
	index []int // where each pair's answer belongs
	has   []bool
	seen  []bool // which were asked for
}

// ask sets living[i] for each connection of asked that a socket of this machine has,
// in any state but listening. Those whose living[i] is set already are not asked for.
func (q *inquiry) ask(asked []*entry, living []bool) error {
	q.seen = append(q.seen[:0], living...)
	for i := range asked {
		if q.seen[i] {
			continue
		}
		link := asked[i].link
		q.pairs, q.index, q.has = q.pairs[:0], q.index[:0], q.has[:0]
		for j := i; j < len(asked); j++ {
			if e := asked[j]; e.link == link && !q.seen[j] {
				q.seen[j] = true
				q.pairs, q.index, q.has = append(q.pairs, [2]netip.AddrPort{e.local, e.remote}), append(q.index, j), append(q.has, false)
			}
		}
		if err := q.conn.Has(q.pairs, link, q.has); err != nil {
			return err
		}
		for k, j := range q.index {
			living[j] = q.has[k]
		}
	}
	return nil
}
