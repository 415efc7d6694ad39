//go:build linux

package health_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/holdfast-net/holdfast/health"
)

func Example() {
	// A backend that greets everybody who connects.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 ready\r\n")
			_ = conn.Close()
		}
	}()

	changes := make(chan health.Change, 10)
	checker, err := health.New(health.Options{
		Name:    "mail-1",
		Address: listener.Addr().String(),
		Check: health.Check{
			Kind:     health.Exchange,
			Exchange: health.ExchangeCheck{Expect: "220 "},
			Interval: 10 * time.Millisecond,
		},
		OnChange: func(change health.Change) { changes <- change },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error)
	go func() { done <- checker.Run(context.Background()) }()

	change := <-changes
	fmt.Println(change.Name, change.State)
	_ = listener.Close() // from now on connects are refused
	change = <-changes
	fmt.Println(change.Name, change.State)

	_ = checker.Close()
	fmt.Println("stopped:", <-done)
	// Output:
	// mail-1 up
	// mail-1 down
	// stopped: <nil>
}
