// Package pair is the authenticated link between the two nodes of a pair: one
// TCP connection with mutual TLS, over which they exchange beats, and copies of
// what one of them must know when the other is gone.
package pair
