// Package journal remembers what happened: how connections ended, and what
// became of backends, services, limits and the node.
//
// A [Journal] holds the newest events in two rings, one for the ends of
// connections and one for everything else, so that a flood of the first does
// not push out the second. Adding never waits for anybody: readers copy a few
// records at a time, and followers come for theirs; one that is too slow is told
// how many it missed.
//
// A [Writer] is the way of lines to a file, a pipe or a terminal that may block
// or fail: whoever writes a line never waits, what does not fit is counted.
package journal
