package cli

import "github.com/spf13/cobra"

// platformCommands are the commands that need Linux.
func platformCommands(s Streams) []*cobra.Command {
	return []*cobra.Command{newRelay(s), newDemo(s), newLabServer(s)}
}
