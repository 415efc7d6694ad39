// Package sockdiag lists, finds, watches and destroys the TCP sockets of a
// network namespace, whatever programs they belong to, by the kernel's socket
// diagnosis (NETLINK_SOCK_DIAG, sock_diag(7)). Linux only; the types, [Filter]
// and [ParseTCPInfo] are there on every system.
//
//   - [Conn.List] streams the sockets that a [Filter] admits. The filter is
//     compiled to the bytecode that the kernel runs for each socket, so that
//     among many sockets only those asked for are copied.
//   - [Conn.Find] looks one connection up by its two ends, [Conn.Has] many.
//   - [Conn.Destroy] ends a socket at once: its program reads ECONNABORTED, and
//     the other end is sent a RST with exact numbers, as long as the socket's
//     address is still on this machine.
//   - [Watch] tells of every TCP socket that the kernel frees. That one is made
//     or becomes established the kernel does not tell this way.
//   - [InfoOf] and [ListOptions].Info give a socket's TCP_INFO in Go's units.
//
// # Addresses
//
// IPv4 connections of a dual-stack listener are IPv6 sockets with v4-mapped
// addresses. Here they have IPv4 addresses, in listings and in filters:
// 192.0.2.10 is 192.0.2.10 in both kinds of socket, and [Socket].Mapped tells
// them apart. A dual-stack listener itself has the address ::, and is an IPv6
// socket with V6Only false. Addresses have no zone; [Socket].Interface is the
// link that a socket is bound to, which every connection by link-local
// addresses is.
//
// # Which sockets
//
// Those of every program in the namespace, and those that no program has any
// more, or none yet. Of MPTCP connections it is the TCP subflows. Not Unix
// sockets, UDP or others.
//
// # Rights
//
// Listing, finding and watching need none. [Conn.Destroy] and filters by mark
// need CAP_NET_ADMIN in the user namespace that owns the network namespace;
// without it no marks are told. [Conn.CanDestroy] says so beforehand.
//
// # Source
//
// linux/inet_diag.h and linux/sock_diag.h, and net/ipv4/inet_diag.c and
// net/ipv4/tcp_diag.c of Linux 6.18. SOCK_DESTROY is there since Linux 4.5, if
// the kernel was built with CONFIG_INET_DIAG_DESTROY.
package sockdiag
