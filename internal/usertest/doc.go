// Package usertest lets a test run as another user: in a directory that every
// user can enter, and from a program that every user can run. Those that the go
// command and package testing make are closed to others under some umasks, and
// may lie where others cannot go.
package usertest
