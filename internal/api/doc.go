// Package api serves the local API of a node: HTTP and JSON on a unix socket, in
// the types of package admin. docs/guide/api.md is the same for a person
// with curl.
//
// Who may open the socket may read. To change something one must be root, the
// user that the node runs as, or a member of the configured group; the kernel
// says who is at the other end.
//
// Whoever asks can harm nobody: requests, streams and connections are bounded,
// and so are their times and sizes; some of each are kept for those who may
// change things, so that an operator gets through. A reader of a stream that is
// too slow is told what it has missed, and one that does not read at all is cut
// off.
package api
