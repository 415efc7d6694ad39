// Package socktrace watches the TCP sockets on a set of local addresses,
// whatever program they belong to: who became established, who has ended, and,
// when asked, the exact sequence numbers of all of them.
//
// Two eBPF programs do it. One stands where the kernel changes a socket's state
// (the tracepoint inet_sock_set_state) and writes what concerns the addresses
// into a ring buffer; it sees connections that live for a microsecond, and
// costs nothing while none begins or ends. The other one walks the kernel's
// table of sockets (a bpf iterator). Nothing is changed by either, and nothing
// of them is left when the process ends.
//
// Only sockets of one network namespace are seen: that of the thread that
// opened the Tracer.
package socktrace
