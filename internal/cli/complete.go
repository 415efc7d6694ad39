package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
)

// completeWithin is how long a shell may wait for live names: not long enough
// to be felt, and silence where no node answers.
const completeWithin = 300 * time.Millisecond

// maxCompleted bounds a list that a shell shows.
const maxCompleted = 200

// ask asks the node for names; what it cannot say is nothing.
func ask[T any](f *nodeFlags, question func(context.Context, *admin.Client) (T, error)) (answer T) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
	defer cancel()
	a, err := question(ctx, f.client())
	if err != nil {
		return answer
	}
	return a
}

func (f *nodeFlags) services() []admin.Service {
	return ask(f, func(ctx context.Context, c *admin.Client) ([]admin.Service, error) {
		return c.Services(ctx, admin.Filter{})
	})
}

// serviceNames are the services of the node, each with what it is.
func (f *nodeFlags) serviceNames() []string {
	var names []string
	for _, s := range f.services() {
		names = append(names, fmt.Sprintf("%s\t%s, %s", plain(s.Name), plain(s.State), count(len(s.Backends), "backend")))
	}
	return names
}

// backendNames are the backends of a service, or of all.
func (f *nodeFlags) backendNames(service string) []string {
	var names []string
	for _, s := range f.services() {
		if service != "" && s.Name != service {
			continue
		}
		for _, b := range s.Backends {
			names = append(names, fmt.Sprintf("%s\t%s, %s, weight %d", plain(b.Name), plain(b.Address), plain(b.State), b.Weight))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// connectionIDs are the connections that a filter finds.
func (f *nodeFlags) connectionIDs(filter admin.Filter) []string {
	filter.Limit = maxCompleted
	list := ask(f, func(ctx context.Context, c *admin.Client) (admin.Connections, error) {
		return c.Connections(ctx, filter)
	})
	var ids []string
	for _, c := range list.Connections {
		ids = append(ids, fmt.Sprintf("%s\t%s, %s, %s", strconv.FormatUint(c.ID, 10), plain(c.Client), plain(c.Service+"/"+c.Backend), plain(c.State)))
	}
	return ids
}

// without leaves out what is on the command line already.
func without(names, args []string) []string {
	return slices.DeleteFunc(names, func(n string) bool {
		id, _, _ := strings.Cut(n, "\t")
		return slices.Contains(args, id)
	})
}

// completeLive gives a flag the names that list finds.
func completeLive(cmd *cobra.Command, name string, list func(*cobra.Command, []string) []string) {
	_ = cmd.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return list(cmd, args), cobra.ShellCompDirectiveNoFileComp
	})
}

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a shell's completion of this program",
		Long: `Print a script that teaches a shell to complete holdfast: its commands and flags,
and the live names of services, backends and connections, which it asks the node
for. Where no node answers at once, names are not completed, and nothing is
printed.`,
		Example: `  # bash, for this session; needs the package bash-completion
  source <(holdfast completion bash)

  # bash, for everybody
  holdfast completion bash > /etc/bash_completion.d/holdfast

  # zsh
  holdfast completion zsh > "${fpath[1]}/_holdfast"

  # fish
  holdfast completion fish > ~/.config/fish/completions/holdfast.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !oneOf(args[0], "bash", "zsh", "fish") {
				return usage(cmd, errors.New("which shell? bash, zsh or fish"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(out)
			}
			return cmd.Root().GenFishCompletion(out, true)
		},
	}
}
