// Package convert makes a holdfast.yaml of what another program was configured
// with, and names what it cannot carry over, with the place where it stood.
//
// It reads keepalived.conf as keepalived does: words, quotes, comments by ! and
// #, blocks in braces, lines that go on after a backslash, definitions ($NAME=...)
// and included files. What it writes passes [config.Parse], or [Result.Check]
// says why not. It is pure: files are read by the caller.
package convert
