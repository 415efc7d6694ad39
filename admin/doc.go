// Package admin is the local API of a running node: the types of its answers,
// and a client for them. The node serves it as HTTP and JSON on a unix socket,
// so that the command line, curl and other programs ask the same questions and
// get the same answers:
//
//	curl --unix-socket /run/holdfast/holdfast.sock http://node/v1/status
//
// # Stability
//
// The names of JSON fields are the configuration's words. Under /v1 a field
// keeps its name and its meaning; new ones are added, so a client ignores what
// it does not know. Times are RFC 3339 with nanoseconds, spans are seconds as a
// number, sizes are bytes.
//
// # Rights
//
// Who may open the socket (its mode and group) may read. Changing is for root,
// for the user that the node runs as, and for the members of the socket's group
// where the configuration names one; the kernel says who is at the other end
// (SO_PEERCRED and SO_PEERGROUPS, see unix(7)).
package admin
