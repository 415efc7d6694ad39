// Package cli is the holdfast command: one constructor for each command, no
// state of its own. An error is printed once, by [Main], and decides the exit
// code: 1 where something was refused or failed, 2 where the command line was
// wrong.
package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
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
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if f, ok := errors.AsType[*fs.PathError](err); ok && f.Op == "write" && errors.Is(f.Err, syscall.EPIPE) {
		return exitFailed // whoever reads the answer has seen enough
	}
	printError(s.Err, err)
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(s.Err, "See `%s --help`.\n", u.command)
		return exitUsage
	}
	return exitFailed
}

// printError prints what failed after the program's name, and below it, as they
// are, the mistakes of a configuration file: editors find their places.
func printError(w io.Writer, err error) {
	if m, ok := errors.AsType[mistakes](err); ok {
		m.write(w)
		return
	}
	if e, ok := errors.AsType[*admin.Error](err); ok && len(e.Config) > 0 {
		short := *e
		short.Config = nil
		fmt.Fprintf(w, "holdfast: %s\n", plain(short.Error()))
		mistakes(e.Config).write(w)
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "holdfast: %s\n", plain(strings.TrimSuffix(line, "\n")))
	}
}

// An exitCode ends the program with that code; what there was to say is said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

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
  holdfast run -c holdfast.yaml
  holdfast status`,
		Args:                  cobra.ArbitraryArgs,
		DisableFlagsInUseLine: true,
		SilenceUsage:          true,
		SilenceErrors:         true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usage(cmd, unknownCommand(cmd, args[0]))
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run:"},
		&cobra.Group{ID: groupLook, Title: "Look at a running node:"},
		&cobra.Group{ID: groupChange, Title: "Change a running node:"},
		&cobra.Group{ID: groupMore, Title: "More:"},
	)
	add := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	run, more := platformCommands(s)
	add(groupRun, run...)
	add(groupRun, newCheck(s))
	add(groupLook, newStatus(s), newServices(s), newBackends(s), newConnections(s), newAddresses(s), newEvents(s), newTop(s))
	add(groupChange, newReload(s), newBackend(s), newConnection(s), newAddress(s), newNode(s))
	add(groupMore, newPair(s))
	add(groupMore, more...)
	add(groupMore, newConvert(s), newCompletion(), newVersion())
	root.SetHelpCommandGroupID(groupMore)
	keepOrder()
	return root
}

// keepOrder makes the help list commands in the order in which they are added:
// cobra has one switch for all.
var keepOrder = sync.OnceFunc(func() { cobra.EnableCommandSorting = false })

// Groups of commands, in the order of the help.
const (
	groupRun    = "run"
	groupLook   = "look"
	groupChange = "change"
	groupMore   = "more"
)

// unknownCommand is a sentence about a word that is no command.
func unknownCommand(cmd *cobra.Command, word string) error {
	text := fmt.Sprintf("there is no command %q", word)
	if like := cmd.SuggestionsFor(word); len(like) > 0 {
		text += "; did you mean " + strings.Join(like, " or ") + "?"
	}
	return errors.New(text)
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
