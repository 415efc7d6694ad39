//go:build linux

package traffic_test

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-net/holdfast/lab/traffic"
)

// A client uploads a megabyte, half-closes, and gets the end of stream; the
// server's facts prove that it was not lied to.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	l, err := traffic.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	var journal traffic.Journal
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error)
	go func() {
		served <- traffic.Serve(serving, l, traffic.ServerOptions{Name: "b1", OnEvent: journal.Add})
	}()

	c, err := traffic.NewClient(traffic.ClientOptions{
		Address: l.Addr().String(), // or that of whatever stands before the server
		Pattern: traffic.Upload,
		Length:  1 << 20,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	report := c.Run(ctx)

	stop()
	<-served
	facts, _ := journal.Facts(report.ID)
	fmt.Println(report.Pattern, "at", report.Server, "ended by", report.Ending, "complete:", report.Complete)
	fmt.Println("server read", facts.In, "lie:", traffic.LiedTo(report, facts).Lie)
	// Output:
	// upload at b1 ended by fin complete: true
	// server read 1048576 lie: none
}
