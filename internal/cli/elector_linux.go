package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/internal/elector"
)

// newElector is what a node starts for itself: the process that owns its
// addresses.
func newElector(s Streams) *cobra.Command {
	return &cobra.Command{
		Use:                "elector",
		Hidden:             true,
		DisableFlagParsing: true,
		Short:              "Own the addresses of a node (a node starts it)",
		RunE: func(_ *cobra.Command, args []string) error {
			return elector.Main([]string{os.Args[0], "elector"}, args, version(), s.Err)
		},
	}
}
