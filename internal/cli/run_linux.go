package cli

import (
	"cmp"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/node"
)

func newRun(s Streams) *cobra.Command {
	var o node.Options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run this node: the services of a file",
		Long: `Run a node: the services of its configuration file, their checks, and the admin
socket on which the other commands talk to it. It stays in the foreground and logs
on standard error; systemd is told when it is ready, reloads and stops.

It needs no privileges beyond those that its file asks for: a port below 1024, a
directory for the socket, checks that run as another user. When it has started it
gives up the capabilities that neither a reload nor a check can need.

Signals: SIGHUP reloads the file, and opens the events file anew. SIGTERM and
SIGINT (Ctrl-C) stop it: new clients are refused at once, connections may end
within the bounds of their service's drain, and what is left is told by a reset; a
second signal tells everybody at once.

With --events, each event is also written as a line of JSON. Whoever reads them
cannot hold the node up: what is not read in time is left out, and counted.`,
		Example: `  holdfast run
  holdfast run -c holdfast.yaml
  holdfast run -c holdfast.yaml --events /var/log/holdfast/events.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out, o.Err, o.Version, o.DropCapabilities = s.Out, s.Err, version(), true
			// Whoever reads status or the mistakes of a reload is somewhere else.
			if path, err := filepath.Abs(o.File); err == nil {
				o.File = path
			}
			if o.Loops < 0 || o.Loops > maxLoops {
				return usage(cmd, fmt.Errorf("--loops: %d is not from 0 to %d", o.Loops, maxLoops))
			}
			o.Loops = cmp.Or(o.Loops, runtime.GOMAXPROCS(0)) // which knows the limits of a container
			spareProcessors(o.Loops)
			err := node.Run(cmd.Context(), o)
			if _, wrong := verdict(o.File, &config.Config{}, err); wrong != nil {
				return wrong
			}
			return nil
		},
	}
	registerFile(cmd, &o.File)
	flags := cmd.Flags()
	flags.StringVar(&o.EventsFile, "events", "", "append a JSON line for each event to this `file`; - is standard output")
	flags.IntVar(&o.Loops, "loops", 0, "event loops; each uses at most one processor (default: one for each)")
	_ = cmd.RegisterFlagCompletionFunc("loops", cobra.NoFileCompletions)
	return cmd
}
