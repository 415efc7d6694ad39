// Package sys is the one door to the kernel: the only package of this module
// that imports golang.org/x/sys/unix or unsafe. It offers typed, thin wrappers
// and decides nothing; each file serves one subsystem.
package sys
