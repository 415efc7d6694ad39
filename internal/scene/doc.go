// Package scene holds the scenes: stories with an end that can be wrong. A
// scene builds a network in the laboratory, runs real traffic that checks every
// byte through the real program, breaks something, and gives a [Verdict] with
// figures.
//
// The same code is three things. `holdfast demo NAME` shows it to a person; go
// test runs it as an end-to-end test, which fails on what is wrong and never on
// what is slow; a campaign ([Campaign]) repeats it at many random moments and
// judges the times as well.
package scene
