//go:build !linux

package cli

import "github.com/spf13/cobra"

// platformCommands is empty: the relay and the laboratory need Linux.
func platformCommands(Streams) []*cobra.Command { return nil }
