package notice_test

import (
	"fmt"
	"net/netip"

	"github.com/holdfast-net/holdfast/notice"
)

// A segment is written as a whole IP packet, and read from one.
func ExampleSegment() {
	rst := notice.Segment{
		From:  netip.MustParseAddrPort("192.0.2.100:80"),
		To:    netip.MustParseAddrPort("198.51.100.7:40000"),
		Seq:   12345,
		Flags: notice.RST,
	}
	packet, err := rst.AppendTo(make([]byte, 0, notice.MaxPacket))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(packet), "bytes")
	fmt.Println(notice.ParseSegment(packet))
	// Output:
	// 40 bytes
	// 192.0.2.100:80 -> 198.51.100.7:40000 RST seq 12345 true
}
