// Package announce makes and reads the frames by which neighbours learn whose an
// address is: ARP (RFC 826, RFC 5227) and IPv6 neighbour discovery (RFC 4861),
// as whole Ethernet frames.
//
//   - [GratuitousARP] and [UnsolicitedNA] tell everybody on the link that an
//     address is here now. A [Schedule] says when to repeat them: any one can be
//     lost, and nobody answers.
//   - [Ask] asks whether anybody has an address; the kernel of who has it
//     answers, whatever its programs do. [AskHost] asks one host only, [AskFor]
//     lets the answer go to another one.
//   - [ParseNeighbour] reads such a frame into a [Neighbour].
//
// Every function appends to a buffer, and allocates nothing if there is room for
// [MaxFrame] bytes. The package has no socket and no clock.
package announce
