package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
)

// showList asks the node for what the filter finds, and shows it.
func showList[T any](
	cmd *cobra.Command, s Streams, n *nodeFlags, f *filterFlags,
	ask func(*admin.Client, context.Context, admin.Filter) (T, error), show func(*console, T) error,
) error {
	c, err := n.console(cmd, s)
	if err == nil {
		err = f.check(cmd)
	}
	if err != nil {
		return err
	}
	ctx, cancel := deadline(cmd, answerWithin)
	defer cancel()
	list, err := ask(c.node, ctx, f.Filter)
	if err != nil {
		return err
	}
	return show(c, list)
}

func newServices(s Streams) *cobra.Command {
	var n nodeFlags
	var f filterFlags
	cmd := &cobra.Command{
		Use:   "services",
		Short: "List the services of a node",
		Long: `List the services of a node: where they listen, how many of their backends are up,
and what they carry.

ACTIVE are established connections, INACTIVE all others: those that are being
made, and those that are ending. TOTAL counts the clients accepted since the
start, REFUSED those that got nothing by no fault of their own. IN is what came
from clients, OUT what came from backends; connections that still live are
counted. NOTE says where the kernel has dropped connects because the queue of a
listener was full.

With --backend or --client, the services that have such a backend, or carry a
connection of such a client.`,
		Example: `  holdfast services
  holdfast services --service redis -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showList(cmd, s, &n, &f, (*admin.Client).Services, func(c *console, list []admin.Service) error {
				return answer(c, list, c.services)
			})
		},
	}
	f.register(cmd, &n)
	return cmd
}

func newBackends(s Streams) *cobra.Command {
	var n nodeFlags
	var f filterFlags
	cmd := &cobra.Command{
		Use:   "backends",
		Short: "List the backends, with their states, weights and connections",
		Long: `List the backends of a node. ACTIVE and INACTIVE count as IPVS does: established
connections, and all others. TOTAL counts what was established since the backend
was added. IN is what came from clients, OUT what came from the backend.

STATE is up, down (the checks failed; NOTE says since when and why) or drain (a
weight of 0: it keeps its connections and gets no new ones). What somebody has
set by command is noted as by hand; it lasts over reloads, until the file gives
that key another value.

With --client, the backends that carry a connection of such a client.`,
		Example: `  holdfast backends
  holdfast backends --service redis
  holdfast backends --client 10.0.0.9
  holdfast backends -o json | jq '.[] | select(.state != "up")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showList(cmd, s, &n, &f, (*admin.Client).Backends, func(c *console, list []admin.Backend) error {
				return answer(c, list, c.backends)
			})
		},
	}
	f.register(cmd, &n)
	return cmd
}

func newConnections(s Streams) *cobra.Command {
	var n nodeFlags
	var f filterFlags
	cmd := &cobra.Command{
		Use:   "connections",
		Short: "List the connections, the oldest first",
		Long: `List the connections of a node, the oldest first, and say how many there are.

AGE is since the client was accepted, IDLE since a byte last moved. IN is what
came from the client, OUT what came from the backend, HELD what the node holds in
memory because one side does not take it. STATE is connecting (a backend is being
looked for or connected to), established, or closing (one side has ended).

Looking does not disturb the connections, however many there are.`,
		Example: `  holdfast connections --limit 50
  holdfast connections --service redis --backend r1
  holdfast connections --client 10.0.0.0/8
  holdfast connections --client '[2001:db8::5]:51234' -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showList(cmd, s, &n, &f, (*admin.Client).Connections, func(c *console, list admin.Connections) error {
				if c.json {
					return answer(c, list.Connections, nil)
				}
				return answer(c, list, c.connections)
			})
		},
	}
	f.register(cmd, &n)
	return cmd
}
