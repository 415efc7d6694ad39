// Package notice tells the ends of TCP connections that the other end is gone, so
// that nobody waits for what will never come.
//
// The connection is gone at Local: its process, its host or its address went
// away, and nobody will send for it again. Its other end, Remote, does not know:
// a client that waits for an answer would wait for hours. Telling it takes a few
// segments:
//
//   - a tickle, a segment that a living end always answers, with its exact numbers;
//   - a RST at these numbers. Where the address is on this machine, and no socket is
//     there for the answer, the kernel sends it by itself. Where it is not, or the
//     kernel's did not reach its end, a [Teller] sends it;
//   - another tickle, which the end then answers with a RST of its own, because the
//     connection is gone there too. Only then the verdict is [Told].
//
// [Teller.Tell] does this for any number of connections at once, in a bounded time,
// with a bounded number of segments, at a bounded rate, and gives a [Result] for
// each. [Teller.Destroy] ends sockets of this machine while their address is still
// here, and sees to it that their other ends learn of it.
//
// # Never a living connection
//
// Before each tickle and each RST the Teller asks the kernel whether a socket of
// this machine has the connection, and its caller ([Options.Alive]). A RST bears
// only the number that the end has acknowledged itself: in two answers that
// agree, or in one that proves by a D-SACK block that its sender has seen the
// tickle. So no wrong, late or forged answer resets an end: who forges must know the
// exact number, and could reset it himself. An end whose numbers advance is fed by somebody, and
// is [Alive]. A tickle never has a byte that an end could take for new.
//
// Why it is done this way, and what a kernel does with each segment, is in
// docs/decisions/0017.
//
// # Rights
//
// [New] needs CAP_NET_RAW. With CAP_NET_ADMIN more packets may wait for neighbours and
// answers, and [Teller.Destroy] works. The [Teller] is for Linux only, [Segment]
// for all systems.
package notice
