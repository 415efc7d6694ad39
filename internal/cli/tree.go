package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// Tree returns all commands, for the reference that is written from them. It
// prints nothing; run commands by [Main].
func Tree() *cobra.Command { return newRoot(Streams{Out: io.Discard, Err: io.Discard}) }
