package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
)

// How many events are shown without --limit: as much as a person reads, and
// what tail -f shows.
const (
	defaultEvents   = 100
	defaultFollowed = 10
)

// eventsFlags are what the events command was given.
type eventsFlags struct {
	node   nodeFlags
	filter filterFlags
	follow bool
	after  uint64
}

func newEvents(s Streams) *cobra.Command {
	var f eventsFlags
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: ends of connections, backends, reloads, limits",
		Long: `Show what happened lately, the newest last: connections that ended, clients that
got nothing, backends that went up or down or were changed, reloads, limits.

Of a connection the line says who ended it and how (the cause), which ends were
told by a reset, its age, its bytes either way, how many bytes could not be
delivered any more, and why. A node remembers its last events only; run with
--events it writes all of them to a file.

With --follow, what happens goes on being shown, until Ctrl-C, or until the node
ends: then the last line says so, and the exit code is 1. It does not wait for
another process to take its place, since that counts its events anew.

-o json prints one JSON object a line. Its seq is what --after takes.`,
		Example: `  holdfast events
  holdfast events --follow --service redis
  holdfast events --client 10.0.0.5 --limit 0
  holdfast events --follow -o json | jq -r 'select(.cause == "backend_down") | .client'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.node.console(cmd, s)
			if err == nil {
				err = f.filter.check(cmd)
			}
			if err != nil {
				return err
			}
			return c.events(cmd, &f)
		},
	}
	f.filter.registerService(cmd, &f.node)
	f.filter.registerBackend(cmd, &f.node)
	f.filter.registerClient(cmd)
	f.filter.registerLimit(cmd, fmt.Sprintf("the newest so `many`; 0 is all (default %d, with --follow %d)", defaultEvents, defaultFollowed))
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with what happens from now on")
	cmd.Flags().Uint64Var(&f.after, "after", 0, "only what came after the event with this `seq`")
	_ = cmd.RegisterFlagCompletionFunc("after", cobra.NoFileCompletions)
	f.node.register(cmd)
	return cmd
}

// events shows what was, and with --follow what happens.
func (c *console) events(cmd *cobra.Command, f *eventsFlags) error {
	filter := f.filter.Filter
	if !cmd.Flags().Changed("limit") && f.after == 0 {
		filter.Limit = defaultEvents
		if f.follow {
			filter.Limit = defaultFollowed
		}
	}
	printer := eventPrinter{view: c.view}
	show := func(e admin.Event) error {
		if c.json {
			return jsonLine(c.out, e)
		}
		_, err := io.WriteString(c.out, printer.line(e)+"\n")
		return err
	}
	if f.follow {
		return c.follow(cmd, filter, f.after, show)
	}
	ctx, cancel := deadline(cmd, answerWithin)
	defer cancel()
	list, err := c.node.Events(ctx, filter, f.after)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := show(e); err != nil {
			return err
		}
	}
	if len(list) == 0 && !c.json {
		_, err = io.WriteString(c.out, "no events\n")
	}
	return err
}

// follow shows what happens, until Ctrl-C or until the node ends.
func (c *console) follow(cmd *cobra.Command, filter admin.Filter, after uint64, show func(admin.Event) error) error {
	if err := c.answers(cmd); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if filter.Limit == 0 {
		filter.Limit = math.MaxInt32 // for a stream, 0 is nothing of what was
	}
	for e, err := range c.node.Follow(ctx, filter, after) {
		if err == nil {
			err = show(e)
		}
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how it ends
		case err != nil:
			return err
		}
		after = e.Seq
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("the node has ended, and its events with it; the last one was number %d", after)
}

// answers says why the node does not answer, before something that waits for as
// long as it takes.
func (c *console) answers(cmd *cobra.Command) error {
	ctx, cancel := deadline(cmd, answerWithin)
	defer cancel()
	_, err := c.node.Status(ctx)
	return err
}

// jsonLine prints a as one line.
func jsonLine(w io.Writer, a any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(a)
}
