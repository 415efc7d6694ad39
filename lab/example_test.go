//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// A server whose host dies says nothing, and its client learns nothing.
func Example() {
	top, err := lab.OneArm(lab.Size{Clients: 1, Backends: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	if lab.Supported(top) != nil {
		fmt.Println("silence") // what the scene would have shown
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l, err := lab.Start(ctx, top, lab.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()

	client, server := l.Host("client1"), l.Host("backend1")
	ln, err := server.Listen(ctx, "tcp", "[fd77::21]:80")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	conn, err := client.Dial(ctx, "tcp", server.AddrPort(lab.IPv6, 80).String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	died, err := server.Die()
	if err != nil {
		fmt.Println(err)
		return
	}
	io.WriteString(conn, "are you there?\n")
	conn.SetReadDeadline(died.Add(300 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		fmt.Println("silence")
	}
	// Output: silence
}

// A topology is data: a ready layout is changed before it is started.
func ExampleTopology() {
	top, err := lab.OneArm(lab.Size{FarClients: 1, Nodes: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	top.Host("router").Role = lab.Middlebox
	top.Host("node1").Sysctls = []lab.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}
	top.Link("far1", 0).MTU = 1400
	for _, k := range top.Links {
		fmt.Println(k.Host, k.Switch, k.Addresses)
	}
	// Output:
	// node1 front [10.77.0.11/24 fd77::11/64]
	// router front [10.77.0.1/24 fd77::1/64]
	// router far [10.78.0.1/24 fd78::1/64]
	// far1 far [10.78.0.101/24 fd78::101/64]
}
