package vrrp_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/holdfast-net/holdfast/vrrp"
)

// A backup hears one advert, and then nothing.
func Example() {
	self, peer := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")
	router, err := vrrp.NewRouter(vrrp.Config{ID: 51, Priority: 100, Interval: time.Second, Source4: self})
	if err != nil {
		fmt.Println(err)
		return
	}
	do := func(actions []vrrp.Action) {
		for _, a := range actions {
			switch a.Do {
			case vrrp.Become:
				fmt.Printf("%v: %v\n", a.State, a.Cause)
			case vrrp.Advertise:
				fmt.Printf("send an advert of priority %d\n", a.Priority)
			case vrrp.Announce:
				fmt.Println("announce the addresses")
			}
		}
	}
	do(router.Startup(0))

	message, err := vrrp.Advert{
		Family: vrrp.IPv4, ID: 51, Priority: 200, Interval: 100 * time.Millisecond,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.100")},
	}.AppendTo(nil, peer, vrrp.GroupIPv4)
	if err != nil {
		fmt.Println(err)
		return
	}
	advert, err := vrrp.Parse(message, peer, vrrp.GroupIPv4)
	if err != nil {
		fmt.Println(err)
		return
	}
	do(router.Receive(vrrp.Instant(time.Second), peer, advert))

	deadline, _ := router.Deadline()
	fmt.Println("waits until", time.Duration(deadline))
	do(router.Expire(deadline))
	// Output:
	// backup: startup
	// waits until 1.3609375s
	// active: the active router was silent
	// send an advert of priority 100
	// announce the addresses
}
