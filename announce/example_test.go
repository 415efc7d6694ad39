package announce_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/holdfast-net/holdfast/announce"
)

func Example() {
	mac := announce.MAC{2, 0, 0, 0, 0, 1}
	addr := netip.MustParseAddr("192.0.2.100")

	// All frames are built in one buffer, and go out by an AF_PACKET socket.
	buffer := make([]byte, 0, announce.MaxFrame)
	frame := announce.Announce(buffer, mac, addr, false)
	n, ok := announce.ParseNeighbour(frame)
	fmt.Println(ok, n.Kind, n.Sender, "for", n.Target, "gratuitous:", n.Gratuitous)

	frame = announce.Ask(buffer, mac, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::100"))
	n, ok = announce.ParseNeighbour(frame)
	fmt.Println(ok, n.Kind, n.Sender, "for", n.Target, "gratuitous:", n.Gratuitous)

	var schedule announce.Schedule
	schedule.Start(0)
	for at, more := schedule.Deadline(); more; at, more = schedule.Deadline() {
		if schedule.Due(at) {
			fmt.Print(time.Duration(at), " ")
		}
	}
	fmt.Println()
	// Output:
	// true asks 192.0.2.100 for 192.0.2.100 gratuitous: true
	// true asks 2001:db8::1 for 2001:db8::100 gratuitous: false
	// 0s 20ms 100ms 500ms 1s 2s 5s
}
