package vip_test

import (
	"fmt"
	"net/netip"

	"github.com/holdfast-net/holdfast/vip"
)

// What is wrong with a group is said before anything is touched.
func ExampleGroup_Check() {
	g := vip.Group{
		Name:      "front",
		Interface: "eth0",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.100/24")},
		VRRP:      &vip.VRRP{ID: 51, Priority: 200},
		Peered:    true,
		Witness:   netip.MustParseAddr("10.0.0.100"),
	}
	fmt.Println(g.Check())
	g.Witness = netip.MustParseAddr("10.0.0.1")
	fmt.Println(g.Check())
	// Output:
	// vip: group "front": Witness is 10.0.0.100, an address of the group itself; choose a host that neither node is, such as the gateway
	// <nil>
}

// The order of a takeover can be read in one place.
func ExampleOrder() {
	takeover, _, _ := vip.Order()
	for _, p := range takeover {
		if p.When != 0 {
			fmt.Println(p.Name, p.When)
			continue
		}
		fmt.Println(p.Name)
	}
	// Output:
	// lease
	// gate
	// steps before address
	// addresses
	// announce
	// steps after announce
}
