package sockdiag_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/holdfast-net/holdfast/sockdiag"
)

// The connections of one service, whatever program it is, and how each is doing.
func Example() {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer listener.Close()
	client, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	_, _ = io.WriteString(client, "hello")
	_, _ = io.ReadFull(server, make([]byte, 5))

	diag, err := sockdiag.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer diag.Close()
	service := listener.Addr().(*net.TCPAddr).AddrPort()
	filter := sockdiag.Filter{
		Local:      []netip.Prefix{sockdiag.Host(service.Addr())},
		LocalPorts: []sockdiag.PortRange{sockdiag.Port(service.Port())},
		States:     sockdiag.Live,
	}
	for socket, err := range diag.List(context.Background(), filter, sockdiag.ListOptions{Info: true}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(socket.State, socket.Info.BytesReceived, "bytes received,", socket.ReceiveQueue, "not read yet")
		fmt.Println("its client's end:", socket.Remote.String() == client.LocalAddr().String())
	}
	// Output:
	// established 5 bytes received, 0 not read yet
	// its client's end: true
}

// An address is about to leave this machine: everybody who is connected to it is
// told while it is still here.
func ExampleConn_Destroy() {
	diag, err := sockdiag.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer diag.Close()
	if err := diag.CanDestroy(); err != nil {
		fmt.Println(err)
		return
	}
	leaving := sockdiag.Filter{
		Local:  []netip.Prefix{netip.MustParsePrefix("192.0.2.100/32"), netip.MustParsePrefix("2001:db8::100/128")},
		States: sockdiag.Live,
	}
	sockets, err := diag.Collect(context.Background(), leaving, sockdiag.ListOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range sockets {
		if err := diag.Destroy(s); err != nil {
			fmt.Println(err)
		}
	}
}
