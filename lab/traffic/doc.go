// Package traffic makes TCP traffic that checks every byte, so that a test, a
// scene or a measurement can say what a client and a server really saw.
//
// A server is [Serve] (or [ServerMain], the same as a process of its own, which
// prints what happens to its connections as JSON lines). A [Client] opens one
// connection to it, by whatever way lies between, and behaves by a [Pattern]:
//
//	idle         says nothing, listens
//	request      sends requests, pipelined on schedule or one at a time
//	upload       sends, half-closes at the end, waits for the end of stream
//	download     reads what the server sends
//	push         reads the small messages that the server sends now and then
//	zero-window  never reads what the server sends
//
// The first line a client sends says what the server shall do; the server
// answers with a line that says who it is. Every byte after that is one of a
// stream that both sides know by the connection's ID, direction and position:
// a byte that is lost, doubled, changed, in the wrong place or of another
// connection is noticed when it arrives.
//
// A client reads all the time (zero-window: waits for errors all the time), so
// it learns of the end of its connection when its kernel does. Its [Report]
// says when that was, in nanoseconds of CLOCK_MONOTONIC that other processes
// can compare, and how it showed: what read, write and poll said. [Client.Finish]
// asks for an orderly end, which begins with one more checked exchange on the
// same connection: the proof that it still lives.
//
// A [Fleet] runs many clients of several patterns, a [Prober] opens new
// connections at a fixed rate and on schedule whatever happens to earlier ones,
// and [LiedTo] judges, from a client's report and the server's facts, whether
// the client was told something untrue, such as a clean end of stream for an
// upload that never arrived. With [ServerOptions.Ledger] the server's facts are
// exact even if it was killed.
//
// Sockets have the kernel's defaults here, save TCP_NODELAY, which Go sets:
// keepalive and Multipath TCP, which Go switches on, are off, so that the end of
// a connection is noticed by what is under test and not by the traffic.
package traffic
