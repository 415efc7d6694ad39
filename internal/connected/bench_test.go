package connected

import (
	"net/netip"
	"runtime"
	"testing"
)

// crowd gives observations of n sockets at one address.
func crowd(n int) (list []observation) {
	local := netip.MustParseAddrPort("10.0.0.100:80")
	for i := range n {
		from := netip.AddrFrom4([4]byte{10, byte(i >> 20), byte(i >> 12), byte(i >> 4)})
		list = append(list, observation{
			Tuple:  Tuple{local, netip.AddrPortFrom(from, uint16(1024+i&15))},
			cookie: uint64(i + 1), at: int64(i + 1), since: noon, numbers: true, isn: uint32(i), remote: 7,
		})
	}
	return list
}

// What the Roster itself does for a connection that comes, is told, goes, and is
// told to be gone, beside many others; and what it remembers of each.
func BenchmarkCore(b *testing.B) {
	const many = 100_000
	list := crowd(2 * many)
	c := newCore(2 * many)
	c.watch(map[netip.Addr]struct{}{list[0].Local.Addr(): {}})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, o := range list[:many] {
		c.established(o)
	}
	c.flush(nil)
	runtime.GC()
	runtime.ReadMemStats(&after)
	memory := float64(after.HeapAlloc-before.HeapAlloc) / many

	b.Run("comes and goes", func(b *testing.B) {
		var told []Change
		for i := 0; b.Loop(); i++ {
			o := list[many+i%many]
			c.established(o)
			told = c.flush(told[:0])
			c.closed(o.Tuple, o.cookie)
			told = c.flush(told[:0])
		}
		b.ReportMetric(memory, "B/connection")
	})
	b.Run("look", func(b *testing.B) {
		at := int64(many)
		for b.Loop() {
			at++
			c.beginLook()
			for _, o := range list[:many] {
				o.at = at
				c.established(o)
			}
			c.endLook(at, true)
			if n := len(c.flush(nil)); n != 0 {
				b.Fatalf("%d changes", n)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/connection")
	})
	b.Run("end of look", func(b *testing.B) { // the longest that the lock is held
		for b.Loop() {
			c.endLook(0, true)
		}
	})
}
