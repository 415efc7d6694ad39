// Package netns holds network namespaces without a name: made on a thread of
// their own, entered for the length of one function, gone when the last
// descriptor, socket and process in them is.
package netns
