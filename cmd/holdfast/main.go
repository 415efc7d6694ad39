// Holdfast keeps established TCP connections alive when what serves them goes
// away, and tells both ends at once where it cannot. See `holdfast --help`.
package main

import (
	"os"

	"github.com/holdfast-net/holdfast/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Streams{Out: os.Stdout, Err: os.Stderr}))
}
