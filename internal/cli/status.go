package cli

import (
	"github.com/spf13/cobra"
)

// exitDegraded is what status --check says of a node that answers and is not
// well.
const exitDegraded = 2

func newStatus(s Streams) *cobra.Command {
	var n nodeFlags
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how a node is: what is wrong, its limits, services and backends",
		Long: `Say how a node is, in one screen. What is wrong comes first, in sentences, the
worst on top. Then come the program and its file, what it can run out of and how
much of it is used, the connections that have ended and why, and every service
with its backends. An unexpected weight or state has its reason in NOTE. On a
narrow terminal, the columns of sums are left out.

With --check the answer is one line, or one for each problem, and the exit code:
what a monitoring system wants.

Exit codes: 0 the node answered (with --check: and is well), 1 it did not answer,
2 with --check: it is degraded or stopping.`,
		Example: `  holdfast status
  holdfast status --check && echo well
  holdfast status -o json | jq -r '.problems[].text'
  HOLDFAST_SOCKET=/run/other/holdfast.sock holdfast status`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := n.console(cmd, s)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd, answerWithin)
			defer cancel()
			st, err := c.node.Status(ctx)
			if err != nil {
				return err
			}
			text := c.status
			if check {
				text = c.check
			}
			if err := answer(c, st, text); err != nil {
				return err
			}
			if check && st.State != "well" {
				return exitCode(exitDegraded)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "one line for each problem; exit code 0 well, 2 degraded, 1 no answer")
	n.register(cmd)
	return cmd
}

func newReload(s Streams) *cobra.Command {
	var n nodeFlags
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Take the changes of the file; established connections stay",
		Long: `Make a running node take the changes of its file, and say what they are, a line
each. It is all or nothing: where the file has a mistake, an address cannot be
listened on or a host name cannot be found, nothing changes, the mistakes are
shown, and the exit code is 1.

Established connections stay, whatever changes. A backend that is no longer in
the file gets no new ones; a service that is no longer there refuses new clients
and ends within the bounds of its drain. What was set by hand stays, until the
file gives that key another value. admin.socket and directories cannot change
this way.

SIGHUP does the same (systemctl reload); the log says how it went.`,
		Example: `  holdfast check && holdfast reload
  holdfast reload -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := n.console(cmd, s)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd, reloadWithin)
			defer cancel()
			r, err := c.node.Reload(ctx)
			if err != nil {
				return err
			}
			return answer(c, r, c.reload)
		},
	}
	n.register(cmd)
	return cmd
}
