//go:build !linux

package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// platformCommands say what they need: the relay and the laboratory are made of
// what only Linux has.
func platformCommands(Streams) []*cobra.Command {
	var all []*cobra.Command
	for use, short := range map[string]string{
		"relay LISTEN BACKEND...": "Run one service (on Linux)",
		"demo [SCENE...]":         "Play scenes in a laboratory of network namespaces (on Linux)",
	} {
		all = append(all, &cobra.Command{
			Use:                use,
			Short:              short,
			DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return fmt.Errorf("%s needs Linux, and this is %s", cmd.CommandPath(), runtime.GOOS)
			},
		})
	}
	return all
}
