package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
)

// group makes a command that only has others below it, and does nothing without.
func group(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(cmd, missingCommand(cmd))
		}
		return usage(cmd, unknownCommand(cmd, args[0]))
	}
	cmd.AddCommand(below...)
	return cmd
}

// missingCommand is a sentence about the command that does not stand below cmd.
func missingCommand(cmd *cobra.Command) error {
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	text := names[len(names)-1]
	if more := names[:len(names)-1]; len(more) > 0 {
		text = strings.Join(more, ", ") + " or " + text
	}
	return fmt.Errorf("%s needs a command: %s", cmd.CommandPath(), text)
}

func newBackend(s Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "backend",
		Short: "Change a backend by hand: drain, resume, weight, reset, remove",
		Long: `Change a backend of a running node by hand.

What is set by hand is shown as such by status and backends. It lasts over
reloads until the file gives the backend another value for the same key, or no
longer has the backend; it does not outlive the process.

Changing needs more rights than looking: those of root, of the user that the node
runs as, or of a member of admin.group.`,
		Example: `  # before maintenance: no new connections, then see how many are left
  holdfast backend drain redis r1
  holdfast backends --service redis

  # and back
  holdfast backend resume redis r1`,
	},
		newBackendCommand(s, admin.DoDrain, &cobra.Command{
			Use:   "drain SERVICE BACKEND",
			Short: "Give a backend no new connections; it keeps those it has",
			Long: `Give a backend no new connections, as a weight of 0 does. It keeps those it has,
within the bounds of the service's drain: without a timeout and an idle time they
may last for ever. It stays drained until resume, or until the file gives the
backend another weight.`,
			Example: `  holdfast backend drain redis r1`,
		}),
		newBackendCommand(s, admin.DoResume, &cobra.Command{
			Use:   "resume SERVICE BACKEND",
			Short: "Take back what was set by hand: the file's word counts again",
			Long: `Take back what drain, weight or remove has set: the backend has the weight again
that the file gives it.`,
			Example: `  holdfast backend resume redis r1`,
		}),
		newBackendCommand(s, admin.DoWeight, &cobra.Command{
			Use:   "weight SERVICE BACKEND N",
			Short: "Give a backend another weight",
			Long: `Give a backend another weight, from 0 to 65535, until resume, or until the file
gives it another one than it does now. New connections are shared out by weight; a
weight of 0 drains the backend.`,
			Example: `  # a tenth of a backend with weight 100
  holdfast backend weight redis r2 10`,
		}),
		newBackendCommand(s, admin.DoReset, &cobra.Command{
			Use:   "reset SERVICE BACKEND",
			Short: "Tell both ends of a backend's connections, by a reset, now",
			Long: `Tell both ends of each of a backend's connections now, by a reset. Its weight
stays, so that it goes on getting new ones; drain it first to empty it.`,
			Example: `  # empty a backend that hangs
  holdfast backend drain redis r1
  holdfast backend reset redis r1`,
		}),
		newBackendCommand(s, admin.DoRemove, &cobra.Command{
			Use:   "remove SERVICE BACKEND",
			Short: "Drain a backend; it is gone with its last connection",
			Long: `Take a backend out of its service: it gets no new connections, those it has may
end within the bounds of the service's drain, and then it is gone. It stays away
over reloads, until its entry in the file changes, or until resume.`,
			Example: `  holdfast backend remove redis r1`,
		}),
	)
}

func newBackendCommand(s Streams, do string, cmd *cobra.Command) *cobra.Command {
	var n nodeFlags
	var weight int
	cmd.Args = func(cmd *cobra.Command, args []string) (err error) {
		missing := []string{"SERVICE and BACKEND are", "BACKEND is"}
		want := 2
		if do == admin.DoWeight {
			missing, want = []string{"SERVICE, BACKEND and the weight are", "BACKEND and the weight are", "the weight is"}, 3
		}
		switch {
		case len(args) < want:
			return usage(cmd, fmt.Errorf("%s missing: see `holdfast backends`", missing[len(args)]))
		case len(args) > want:
			return usage(cmd, fmt.Errorf("%q is too much: one backend at a time", args[want:]))
		case want == 3:
			if weight, err = strconv.Atoi(args[2]); err != nil || weight < 0 || weight > 65535 {
				return usage(cmd, fmt.Errorf("the weight %q is not a number from 0 to 65535", args[2]))
			}
		}
		return nil
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return n.serviceNames(), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return n.backendNames(args[0]), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := n.console(cmd, s)
		if err != nil {
			return err
		}
		ctx, cancel := deadline(cmd, answerWithin)
		defer cancel()
		r, err := c.node.ChangeBackend(ctx, args[0], args[1], admin.BackendCommand{Do: do, Weight: weight})
		if err != nil {
			return err
		}
		return answer(c, r, func(r admin.BackendResult) string { return plain(r.Text) + "\n" })
	}
	n.register(cmd)
	return cmd
}

func newConnection(s Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "connection",
		Short: "Change connections by hand: reset",
		Long: `Change connections of a running node by hand. Changing needs more rights than
looking: those of root, of the user that the node runs as, or of a member of
admin.group.`,
		Example: `  holdfast connection reset 4711`,
	}, newConnectionReset(s))
}

func newConnectionReset(s Streams) *cobra.Command {
	var n nodeFlags
	var f filterFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "reset [ID...]",
		Short: "Tell both ends of connections, by a reset, now",
		Long: `Tell both ends of connections now, by a reset: those whose IDs are given (see
connections), or those that --service, --backend and --client find together.

A filter may find more than was meant, so it needs a second word: --all for
everything that it finds, or --limit for the oldest so many. Without either,
nothing is reset, and the answer says how many would be. Nothing resets the
connections of all services at once.`,
		Example: `  holdfast connection reset 4711 4712

  # how many would it be? then do it
  holdfast connection reset --client 10.0.0.5
  holdfast connection reset --client 10.0.0.5 --all

  # a hundred at a time
  holdfast connection reset --service redis --backend r1 --limit 100`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return without(n.connectionIDs(f.Filter), args), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := n.console(cmd, s)
			if err == nil {
				err = f.check(cmd)
			}
			if err != nil {
				return err
			}
			ids, err := f.toReset(cmd, args, all)
			if err != nil {
				return usage(cmd, err)
			}
			return c.reset(cmd, &f, ids, all)
		},
	}
	f.registerService(cmd, &n)
	f.registerBackend(cmd, &n)
	f.registerClient(cmd)
	f.registerLimit(cmd, "the oldest so `many` of what the filter finds")
	cmd.Flags().BoolVar(&all, "all", false, "everything that the filter finds")
	n.register(cmd)
	return cmd
}

// toReset understands what is to be reset, and refuses what is too little said.
func (f *filterFlags) toReset(cmd *cobra.Command, args []string, all bool) (ids []uint64, err error) {
	var errs []error
	for _, a := range args {
		id, err := strconv.ParseUint(a, 10, 64)
		if err != nil || id == 0 {
			errs = append(errs, fmt.Errorf("%q is not the ID of a connection: see `holdfast connections`", a))
		}
		ids = append(ids, id)
	}
	limited := cmd.Flags().Changed("limit")
	switch {
	case len(errs) > 0:
	case len(args) > 0 && (all || limited || f.words() != ""):
		errs = append(errs, errors.New("give IDs, or a filter with --all or --limit; not both"))
	case len(args) > 0:
	case f.words() == "":
		errs = append(errs, errors.New("which connections? give IDs, or --service, --backend or --client"))
	case all && limited:
		errs = append(errs, errors.New("--all and --limit contradict each other"))
	case limited && f.Limit == 0:
		errs = append(errs, errors.New("--limit 0 would reset nothing; --all resets everything that the filter finds"))
	}
	return ids, errors.Join(errs...)
}

// reset resets connections by their IDs, or those that the filter finds.
func (c *console) reset(cmd *cobra.Command, f *filterFlags, ids []uint64, all bool) error {
	ctx, cancel := deadline(cmd, answerWithin)
	defer cancel()
	asked := len(ids)
	request := admin.Reset{IDs: ids}
	switch {
	case asked > 0:
	case all:
		request = admin.Reset{Service: f.Service, Backend: f.Backend, Client: f.Client}
	default:
		list, err := c.node.Connections(ctx, admin.Filter{Service: f.Service, Backend: f.Backend, Client: f.Client, Limit: max(f.Limit, 1)})
		if err != nil {
			return err
		}
		if f.Limit == 0 && list.Matched > 0 {
			return fmt.Errorf("nothing was reset: %s found; say --all to reset what the filter finds, or --limit N for the oldest N (`holdfast connections %s` lists them)",
				was(list.Matched, "connection"), f.words())
		}
		for _, found := range list.Connections {
			request.IDs = append(request.IDs, found.ID)
		}
		if len(request.IDs) == 0 {
			return answer(c, admin.ResetResult{}, resetText)
		}
	}
	r, err := c.node.ResetConnections(ctx, request)
	if err != nil {
		return err
	}
	if err := answer(c, r, resetText); err != nil {
		return err
	}
	if r.Connections < asked {
		return fmt.Errorf("%s not there any more, or never were: see `holdfast connections`", was(asked-r.Connections, "connection"))
	}
	return nil
}

// was is a number of things that were.
func was(n int, thing string) string {
	if n == 1 {
		return count(n, thing) + " was"
	}
	return count(n, thing) + " were"
}

func resetText(r admin.ResetResult) string {
	if r.Connections == 0 {
		return "no connection was reset: none was found\n"
	}
	return was(r.Connections, "connection") + " reset: both ends are told\n"
}
