package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/internal/pair"
)

func newPair(s Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "pair",
		Short: "Prepare two nodes to be a pair: init",
		Long: `Prepare two nodes to be a pair. What the file says about it stands under the key
pair.`,
		Example: `  holdfast pair init keys`,
	}, newPairInit(s))
}

func newPairInit(s Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "init DIR",
		Short: "Make the keys of two nodes",
		Long: `Make the keys by which the two nodes of a pair know each other: in DIR, which is
made if it is not there, the directories node1 and node2, one for each node.

Each holds the node's own private key (key.pem), its certificate (cert.pem) and
the certificate of the other node (peer.pem), readable by their owner alone.
Which node gets which directory does not matter; that they get different ones
does. Nothing is overwritten: what is there already is an error.

The keys do not expire, and the clocks of the nodes do not matter. Whoever has
one of the key.pem can pose as that node: remove both directories from where they
were made once they are in place. To replace the keys, make new ones, put them in
place on both nodes, and restart the daemons.`,
		Example: `  # on one of the nodes, or anywhere else
  holdfast pair init keys
  install -d -m 700 /etc/holdfast/pair
  cp keys/node1/* /etc/holdfast/pair/
  scp -r keys/node2 root@lb2:/etc/holdfast/pair
  rm -r keys`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usage(cmd, errors.New("DIR is missing: where the keys are to be written"))
			case len(args) > 1:
				return usage(cmd, fmt.Errorf("%s takes one directory, and got %q", cmd.CommandPath(), args))
			case args[0] == "":
				return usage(cmd, errors.New("DIR is empty: where are the keys to be written?"))
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(_ *cobra.Command, args []string) error {
			cluster, err := pair.Init(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.Out, `made the keys of pair %s
  %s for one node
  %s for the other
copy each to its node, as the directory that pair.keys names there; then remove both here
`, cluster, plain(filepath.Join(args[0], "node1")), plain(filepath.Join(args[0], "node2")))
			return err
		},
	}
}
