// Package probe asks the host questions whose answers a person needs when
// something does not work: what this process may do, who holds a port or a
// path it wanted, and where a program is installed. It changes nothing.
//
// A capability has three answers: yes, no, and could not tell. None is guessed
// from a version of the kernel: each is asked of the kernel itself, and carries
// the evidence, what the capability is needed for, and what to do where it is
// missing.
package probe
