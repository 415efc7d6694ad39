//go:build !linux

package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// platformCommands say what they need: the relay and the laboratory are made of
// what only Linux has.
func platformCommands(Streams) (run, more []*cobra.Command) {
	absent := func(use, short string) *cobra.Command {
		return &cobra.Command{
			Use:                use,
			Short:              short,
			DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return fmt.Errorf("%s needs Linux, and this is %s", cmd.CommandPath(), runtime.GOOS)
			},
		}
	}
	return []*cobra.Command{
			absent("run", "Run this node (on Linux)"),
			absent("relay LISTEN BACKEND...", "Run one service (on Linux)"),
		}, []*cobra.Command{
			absent("demo [SCENE...]", "Play scenes in a laboratory of network namespaces (on Linux)"),
		}
}
