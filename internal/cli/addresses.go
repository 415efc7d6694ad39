package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
)

func newAddresses(s Streams) *cobra.Command {
	var n nodeFlags
	cmd := &cobra.Command{
		Use:   "addresses",
		Short: "List the groups of addresses: who owns them, since when and why",
		Long: `List the groups of addresses of a node, and what this node is for each.

ROLE is active (this node owns the addresses, and its lease runs), backup (it
could own them) or fault (it cannot: NOTE says why). CAUSE is why the role is what
it is, EPOCH counts the owners of the group over both nodes. LEASE is what is left
of this node's right to act, TAKEOVERS how often it became the owner since it
started.

With --output json, everything that is known: adverts, asks, the witness, what the
other node says.`,
		Example: `  holdfast addresses
  holdfast addresses -o json | jq -r '.[] | select(.role == "active") | .name'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := n.console(cmd, s)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd, answerWithin)
			defer cancel()
			list, err := c.node.Addresses(ctx)
			if err != nil {
				return err
			}
			return answer(c, list, c.addresses)
		},
	}
	n.register(cmd)
	return cmd
}

func newAddress(s Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "address",
		Short: "Change a group of addresses by hand: release",
		Long: `Change a group of addresses of a running node by hand. Changing needs more rights
than looking: those of root, of the user that the node runs as, or of a member of
admin.group.`,
		Example: `  holdfast address release front`,
	}, newAddressRelease(s))
}

func newAddressRelease(s Streams) *cobra.Command {
	var n nodeFlags
	cmd := &cobra.Command{
		Use:   "release ADDRESS",
		Short: "Give a group up: the other node takes it over, or everybody is told",
		Long: `Give up a group of addresses, which is named by one of its addresses or by its
name. The other node takes it over, planned: it is ready before this one lets go.
Connections of services on these addresses may end within the bounds of their
drain; what is left then is told, while the address is still there.

Where the other node cannot take it over, nothing changes, and the exit code is 1.
Without another node, everybody is told and the group is withdrawn: nobody owns it
until the next reload or start of this node.

The command waits until it is done. Ctrl-C ends the waiting, not the release.`,
		Example: `  # who owns it? then move it
  holdfast addresses
  holdfast address release 10.0.0.100

  # by the name of the group
  holdfast address release front`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usage(cmd, errors.New("ADDRESS is missing: an address, or the name of a group; see `holdfast addresses`"))
			case len(args) > 1:
				return usage(cmd, fmt.Errorf("%q is too much: one group at a time; `holdfast node release` gives up all", args[1:]))
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return n.addressNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := n.console(cmd, s)
			if err != nil {
				return err
			}
			r, err := c.node.Release(cmd.Context(), groupName(args[0]))
			if err != nil {
				return err
			}
			return answer(c, r, c.released)
		},
	}
	n.register(cmd)
	return cmd
}

// groupName is what the node knows a group by: an address without the length of
// its network, or a name as it is.
func groupName(arg string) string {
	if p, err := netip.ParsePrefix(arg); err == nil {
		return p.Addr().String()
	}
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(arg, "["), "]")); err == nil {
		return a.Unmap().String()
	}
	return arg
}

func newNode(s Streams) *cobra.Command {
	var n nodeFlags
	release := &cobra.Command{
		Use:   "release",
		Short: "Give up all addresses of this node: maintenance in one command",
		Long: `Give up every group of addresses that this node owns, as holdfast address release
does with one. Afterwards the machine carries nothing, and can be updated, rebooted
or switched off; the node goes on running, as backup.

Where the other node cannot take a group over, that group stays, and the exit code
is 1.`,
		Example: `  holdfast node release && apt-get dist-upgrade && reboot`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := n.console(cmd, s)
			if err != nil {
				return err
			}
			r, err := c.node.ReleaseNode(cmd.Context())
			if err != nil {
				return err
			}
			return answer(c, r, c.released)
		},
	}
	n.register(release)
	return group(&cobra.Command{
		Use:   "node",
		Short: "Change the whole node by hand: release",
		Long: `Change the whole of a running node by hand. Changing needs more rights than
looking: those of root, of the user that the node runs as, or of a member of
admin.group.`,
		Example: `  holdfast node release`,
	}, release)
}

// addressNames are the groups and addresses of the node, each with what it is.
func (f *nodeFlags) addressNames() []string {
	groups := ask(f, func(ctx context.Context, c *admin.Client) ([]admin.AddressGroup, error) { return c.Addresses(ctx) })
	var names []string
	for _, g := range groups {
		names = append(names, fmt.Sprintf("%s\t%s, %s", plain(g.Name), plain(g.Role), plain(strings.Join(g.Addresses, " "))))
		for _, a := range g.Addresses {
			host, _, _ := strings.Cut(a, "/")
			names = append(names, fmt.Sprintf("%s\t%s of %s", plain(host), plain(g.Role), plain(g.Name)))
		}
	}
	slices.Sort(names)
	return names
}
