// Package vrrp is the Virtual Router Redundancy Protocol, version 3 (RFC 9568),
// for IPv4 and IPv6: its one message, and the state machine that elects who
// owns a group of addresses. It has no socket and no clock: instants and
// messages go in, actions come out.
//
// # The message
//
// An [Advert] is carried directly in IP, as protocol 112 with hop limit 255, to
// [GroupIPv4], [GroupIPv6] or a peer's own address:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+-------+---------------+---------------+---------------+
//	|Version|  Type |      ID       |   Priority    |   Addresses   |
//	|   3   |   1   |    1..255     |    0..255     |     count     |
//	+-------+-------+---------------+---------------+---------------+
//	| Rsvd  | Max advertise interval|           Checksum            |
//	|  0    |   in 10 ms, 1..4095   |                               |
//	+-------+-----------------------+-------------------------------+
//	|                                                               |
//	+            addresses, 4 bytes each in IPv4, 16 in IPv6        +
//	|                                                               |
//	+---------------------------------------------------------------+
//
// Priority 0 says that the active router stops, 255 that it owns the addresses
// as its own. The reserved bits are sent as 0 and ignored when received.
//
// # The checksum in IPv4
//
// RFC 9568 (5.2.8) sums up the message alone in IPv4, and message and
// pseudo-header in IPv6. RFC 5798 could be read to want the pseudo-header in
// both; keepalived and FRRouting do so by default. keepalived 2.2.7 refuses an
// advert without it, so adverts are sent with it, as everybody accepts it whose
// peers are on Linux; [Parse] takes either. The price is that of all damages to a
// message two in 65,535 pass instead of one.
//
// # The election
//
// A [Router] is section 6.4 for one group of addresses: it starts as a backup
// that listens, becomes active when nobody better is heard for
// [DownInterval], and yields to a higher priority. Its timers are one
// [Router.Deadline], which the caller waits for.
//
// A group may have addresses of both families. The RFC treats each family as a
// router of its own; here one Router speaks in both, so that the group moves as
// one. Any advert counts for the whole group. A tie of priorities is decided by
// the senders' addresses; the two families could decide it differently, and both
// sides yield for ever: so IPv4 decides where the group has it.
package vrrp
