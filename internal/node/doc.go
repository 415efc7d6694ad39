// Package node is the daemon as a whole: it takes a file, and runs what the file
// says until a signal comes. It wires the parts (services, admin socket, metrics,
// journal, logs, signals, service manager) and decides nothing that is theirs.
//
// At the start everything that can fail comes first, and each failure says what
// to do; the node is ready when every address is bound. A reload takes all of a
// file or nothing of it. At the end new clients are refused first, and the admin
// socket is closed last, so that status answers while connections drain.
package node
