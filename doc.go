// Package holdfast is the root of the module and holds no code: the packages
// beside it are the product, and cmd/holdfast is the program. ARCHITECTURE.md
// says what each is for; the test in this directory holds the rules about who
// may import whom.
package holdfast
