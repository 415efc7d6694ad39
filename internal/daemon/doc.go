// Package daemon is what runs: services of the relay, each with the checks of
// its backends. What a check finds reaches the relay, what the relay notices in
// passing reaches the check, and what happens is logged, counted, and remembered
// as events.
//
// [Resolve] makes services of a file. [Daemon.Apply] takes the daemon to what a
// new file says, as a whole or not at all; [Daemon.ChangeBackend] does what a
// person asks for, which lasts until the file says something new of it. What can
// run out is known from the start ([Daemon.Limits]), and new clients are refused
// before the others would suffer.
package daemon
