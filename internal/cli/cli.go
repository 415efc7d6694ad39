// Package cli is the holdfast command: one constructor for each command, no
// state of its own. An error is printed once, by [Main], and decides the exit
// code: 1 where something was refused or failed, 2 where the command line was
// wrong.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Streams are where the commands write: answers to Out, everything else to Err.
type Streams struct {
	Out, Err io.Writer
}

// Main runs the command line args, without the program's name, and returns the
// exit code.
func Main(args []string, s Streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return exitDone
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(s.Err, "holdfast: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(s.Err, "See `%s --help`.\n", u.command)
		return exitUsage
	}
	return exitFailed
}

// A usageError is the user's: the command line says nothing that can be done.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns what is wrong.
func (e *usageError) Unwrap() error { return e.err }

func usage(cmd *cobra.Command, err error) error {
	return &usageError{command: cmd.CommandPath(), err: err}
}

func newRoot(s Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "Keep TCP connections alive when what serves them goes away",
		Long: `Holdfast keeps established TCP connections alive when what serves them goes
away. Where a connection cannot be kept, both ends are told at once, and never
with a lie: a cut download ends in a reset, not in a clean end of stream.`,
		Example: `  holdfast relay :8080 10.0.0.21:80 10.0.0.22:80
  holdfast relay --help`,
		Args:                  cobra.ArbitraryArgs,
		DisableFlagsInUseLine: true,
		SilenceUsage:          true,
		SilenceErrors:         true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			text := fmt.Sprintf("there is no command %q", args[0])
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				text += "; did you mean " + strings.Join(like, " or ") + "?"
			}
			return usage(cmd, errors.New(text))
		},
	}
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newVersion())
	root.AddCommand(platformCommands(s)...)
	return root
}

// flagError makes a sentence of what the flag package says of one flag.
func flagError(cmd *cobra.Command, err error) error {
	if strings.Contains(err.Error(), "missing unit in duration") {
		err = fmt.Errorf("%w: write it with its unit, as 500ms, 5s or 2m", err)
	}
	return usage(cmd, err)
}

// noArgs refuses arguments with a sentence.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, fmt.Errorf("%s takes no arguments, and got %q", cmd.CommandPath(), args))
	}
	return nil
}
