// Package gate is the kernel's half of a lease: two programs on an interface,
// one for what comes in and one for what goes out, that let an address speak
// only while its lease runs. They ask the kernel's clock at each frame, so a
// process that is stopped, starved or dead stops owning without doing anything.
//
// The programs stay on the interface when the process ends, with their maps. A
// later process finds them and takes them over; see docs/decisions/0012.
package gate
