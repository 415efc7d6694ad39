//go:build linux

package relay_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/holdfast-net/holdfast/relay"
)

// A relay in front of one backend, used once and closed.
func Example() {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Close()
	go func() {
		c, err := backend.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()

	ended := make(chan relay.End, 1)
	r, err := relay.New(relay.Options{OnEnd: func(e relay.End) { ended <- e }})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	svc, err := r.Listen(relay.ServiceOptions{
		Name:     "echo",
		Listen:   []relay.Address{relay.MustParseAddress("127.0.0.1:0")},
		Backends: []relay.Backend{{Name: "e1", Address: relay.MustParseAddress(backend.Addr().String()), Weight: 100}},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go r.Run(ctx)

	client, err := net.Dial("tcp", svc.Addrs()[0].String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(client, "hello")
	client.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(client)
	client.Close()
	fmt.Println(string(answer), err)

	e := <-ended
	fmt.Println(e.Cause, "by the", e.By, "in", e.BytesIn, "out", e.BytesOut)
	// Output:
	// hello <nil>
	// closed by the client in 5 out 5
}
