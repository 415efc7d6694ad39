// Package vip owns virtual IP addresses: exactly one node of a pair at a time,
// and none of them for long.
//
// An [Owner] holds groups of addresses. A [Group] without VRRP is owned as long
// as this node is well; its addresses have a short lifetime that the Owner
// renews, so that they leave by themselves when the program that renews them is
// frozen or gone:
//
//	o, err := vip.New(vip.Options{Groups: []vip.Group{{
//		Name: "front", Interface: "eth0",
//		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.100/24")},
//	}}})
//	err = o.Run(ctx)
//
// A group with [VRRP] is shared with other routers (RFC 9568), and with
// [Group].Peered one of them is an Owner too: beats travel between both by
// whatever link the caller has ([Options].OnBeat, [Owner.Deliver]), and say more
// than adverts can.
//
// # The loop
//
// One goroutine, locked to its thread, does everything that has a time: it
// reads adverts, sends adverts, renews leases and judges silence. It never
// waits for anybody: what can block in the kernel (addresses, sockets that are
// opened) is done by a second thread, what others add to a takeover ([Step]) by
// goroutines of their own, and events are handed over. Run it in a process with
// real-time priority where adverts are faster than about one a second.
//
// Run works in the network namespace of the thread that calls it.
//
// # The lease
//
// An owner may act only while its lease runs, and the lease ends by itself. A
// program on the interface (internal/gate) silences the address when it does, so
// that a frozen owner is silent although its kernel still has the address. Where
// that program cannot be loaded the lifetimes of the addresses do it, more
// slowly, and [Status] says so.
//
// # Order
//
// What a takeover and a release do, in which order, is one list: see [Order].
package vip
