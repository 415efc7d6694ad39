// Package netnstest gives a test one fresh network namespace. Tests that need
// more than one host use package lab.
package netnstest
