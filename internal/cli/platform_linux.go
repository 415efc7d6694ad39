package cli

import "github.com/spf13/cobra"

// platformCommands are the commands that need Linux: those that run something,
// and others.
func platformCommands(s Streams) (run, more []*cobra.Command) {
	return []*cobra.Command{newRun(s), newRelay(s), newElector(s)}, []*cobra.Command{newDemo(s), newLabServer(s)}
}
