package notice_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/notice"
)

// A server goes without a word: its client would wait for ever. It is told.
func ExampleTeller() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	node, client, gone, end := silence(ctx)
	defer end()
	if node == nil {
		fmt.Println("told\nread: connection reset by peer") // it needs root
		return
	}

	defer client.Close()
	var teller *notice.Teller
	err := node.Do(func() (err error) {
		teller, err = notice.New(notice.Options{}) // in the server's network namespace
		return err
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- teller.Run(ctx) }()

	teller.Tell(ctx, []notice.Connection{gone}, func(r notice.Result) { fmt.Println(r.Verdict) })
	if err := teller.Close(); err != nil {
		fmt.Println(err)
	}
	if err := <-ended; err != nil {
		fmt.Println(err)
	}

	_, err = client.Read(make([]byte, 1))
	fmt.Println(err.(*net.OpError).Err)
	// Output:
	// told
	// read: connection reset by peer
}

// silence makes a connection in a laboratory whose server is gone without a word.
// node is nil where there can be no laboratory.
func silence(ctx context.Context) (node *lab.Host, client net.Conn, gone notice.Connection, end func()) {
	none := func() {}
	top, err := lab.OneArm(lab.Size{Clients: 1, Nodes: 1})
	if err != nil || lab.Supported(top) != nil {
		return nil, nil, gone, none
	}
	l, err := lab.Start(ctx, top, lab.Options{})
	if err != nil {
		fmt.Println(err)
		return nil, nil, gone, none
	}
	end = func() { l.Close() }
	node = l.Host("node1")
	at := node.AddrPort(lab.IPv4, 80)
	ln, err := node.Listen(ctx, "tcp", at.String())
	if err != nil {
		fmt.Println(err)
		return nil, nil, gone, end
	}
	defer ln.Close()
	if client, err = l.Host("client1").Dial(ctx, "tcp", at.String()); err != nil {
		fmt.Println(err)
		return nil, nil, gone, end
	}
	served, err := ln.Accept()
	if err != nil {
		fmt.Println(err)
		return nil, nil, gone, end
	}
	gone = notice.Connection{Local: at, Remote: served.RemoteAddr().(*net.TCPAddr).AddrPort()}
	if _, err := node.Mute(); err != nil {
		fmt.Println(err)
	}
	served.(*net.TCPConn).SetLinger(0) // or the kernel goes on by itself
	served.Close()
	if _, err := node.Unmute(); err != nil {
		fmt.Println(err)
	}
	return node, client, gone, end
}
