// Package elector keeps who owns addresses apart from who carries connections: the
// elector is a small process of its own, with real-time priority and its memory
// locked, that runs a [vip.Owner]; the daemon talks to it over a unix socket in
// its runtime directory.
//
// The elector outlives a crash and an upgrade of the daemon. A daemon that
// starts attaches to the elector that is there, or starts one ([Open]). Addresses
// of groups that need the daemon are given up once it has been silent for
// [vip.AliveTimeout]; an elector that nobody speaks to and that owns nothing ends
// by itself.
//
// # The socket
//
// A frame is the length of its JSON in four bytes, the most significant first, and
// that many bytes of JSON, 2 to 1 MiB: an object with exactly one part (message.go).
// The first frame of each side says who speaks (hello, welcome) and is read
// leniently, as it may come from another version; every other frame is read
// strictly, and a peer that sends anything else is cut off. Each side queues what it has to say within bounds
// and never waits for the other: the newest beat and the newest status win, and
// what could not be said is counted.
package elector
