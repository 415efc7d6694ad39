//go:build linux

package wire_test

import (
	"context"
	"fmt"
	"net"

	"github.com/holdfast-net/holdfast/lab/wire"
)

// A wire that loses a quarter of what comes from A. The two ends stand for open
// TAP devices, such as those of lab.Link.Taps.
func Example() {
	hostEnd, a := net.Pipe()
	switchEnd, b := net.Pipe()
	defer hostEnd.Close()
	defer switchEnd.Close()

	w, err := wire.New(a, b, wire.Options{Seed: 2, FromA: wire.Settings{Loss: 0.25}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()

	go func() {
		for i := range 20 {
			_, _ = hostEnd.Write([]byte{byte(i)})
		}
		_, _ = hostEnd.Write([]byte("end")) // under this seed it always passes
	}()
	frame := make([]byte, 1500)
	passed := 0
	for {
		n, err := switchEnd.Read(frame)
		if err != nil || string(frame[:n]) == "end" {
			break
		}
		passed++
	}
	cancel()
	fmt.Println(<-done)
	fmt.Println("passed:", passed, "lost:", w.Counters(wire.FromA).Lost)
	// Output:
	// <nil>
	// passed: 17 lost: 3
}
