// Package lab builds networks inside one Linux machine and breaks them.
//
// A [Topology] is data: hosts, switches, routers, middleboxes, and the links
// between them. [Start] makes it real in a few hundred milliseconds: every
// host is an anonymous network namespace with IPv4 and IPv6, every switch a
// bridge in a namespace of its own with a static forwarding table, so that a
// frame for a host that is gone goes nowhere instead of everywhere.
//
//	top, err := lab.OneArm(lab.Size{Clients: 1, Backends: 2})
//	l, err := lab.Start(ctx, top, lab.Options{})
//	defer l.Close()
//	server, err := l.Host("backend1").Start(lab.Command{Argv: []string{"redis-server", "--bind", "0.0.0.0"}})
//	conn, err := l.Host("client1").Dial(ctx, "tcp", "10.77.0.21:6379")
//	at, err := l.Host("backend1").Die() // silence: not one frame leaves after at
//
// Real programs run in a host with [Host.Start]; Go code makes its sockets
// there with [Host.Do], [Host.Dial] and [Host.Listen].
//
// # Faults
//
// A fault is a method that returns the instant just before it took effect, so
// that a time measured from it is never flattering. Instants carry Go's
// monotonic clock reading (CLOCK_MONOTONIC). [Host.Die], [Host.Mute],
// [Link.Block] and [Link.SetLoss] act by a word in memory that a small eBPF
// program on the switch port looks at: they hold from one frame to the next.
// [Lab.Lose] does the same to chosen kinds of frames between two given hosts: the
// adverts of VRRP alone, one TCP port alone, ARP, gratuitous ARP.
//
// [Lab.Watch] sees everything that passes a switch and says who has an address,
// each frame with the cable it came from.
//
// # Leaving nothing behind
//
// Nothing in a lab has a name outside of it: namespaces are held by
// descriptors and their links, sockets and rules go with them, whatever kills
// the process. Processes and files end with it as well if the program calls
// [Main] first thing: it runs the program in a PID and a mount namespace of
// its own. Without Main, [Sweep] ends what a killed lab left.
package lab
