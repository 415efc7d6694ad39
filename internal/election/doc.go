// Package election decides who owns a group of addresses: exactly one node of a
// pair, and never none for long. It has no socket, no clock and no goroutine:
// events and instants go in, actions come out.
//
// A [Machine] stands for one group on one node, in one of three ways:
//
//   - alone (no VRRP): the node owns the addresses whenever it is well;
//   - plain VRRP with strangers: RFC 9568 by [vrrp.Router], and a lease;
//   - peered with another Machine: adverts, beats over a link, questions to the
//     peer's kernel and to a witness are joined into one judgement.
//
// # Lease and evidence
//
// An owner may act only while its lease runs, and the lease ends by itself: the
// instant is written where the kernel looks at it for every frame. Everything
// rests on one rule for each side.
//
//   - The owner extends its lease to e + Lease, where e is an instant at or
//     before which it gave its peer evidence that it lives: an advert that has
//     left; with a witness, a sign that was answered.
//   - The backup acts only when its latest evidence is older than Down, and Down
//     is longer than Lease by more than clocks and frames can be wrong.
//
// [Times] has every duration and the inequality between them;
// docs/decisions/0011 has the argument for every fault, and what it does not
// cover. The tests of this package look for a counterexample.
//
// # What the caller owes
//
//   - It is one loop. In each turn it reads its sockets until they are empty and
//     hands in what was there, then calls [Machine.Expire] if [Machine.Deadline]
//     has passed. now is CLOCK_BOOTTIME, read in this turn: never kept.
//   - Actions are done in their order, at once, with the values they carry. An
//     instant is written as it is: a process that was frozen in between then
//     writes a lease that has already ended.
//   - The answer to an action that takes time ([Prepare], [Drain]) is an event.
package election
