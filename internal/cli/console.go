package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/admin"
	"github.com/holdfast-net/holdfast/internal/sys"
)

// How long a node has for its answer. A reload may have to look names up and to
// wait for sockets.
const (
	answerWithin = 10 * time.Second
	reloadWithin = time.Minute
)

// nodeFlags are what every command takes that talks to a node.
type nodeFlags struct {
	socket string
	output string
}

func (f *nodeFlags) register(cmd *cobra.Command) {
	f.registerSocket(cmd)
	registerOutput(cmd, &f.output)
}

func (f *nodeFlags) registerSocket(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.socket, "socket", "", "the admin `socket` of the node (default $"+admin.SocketVariable+", else "+admin.DefaultSocket+")")
}

// registerOutput is the flag of everything that is also told to programs.
func registerOutput(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "`format`: table for people, json for programs")
	completeFlag(cmd, "output", "table", "json")
}

// completeFlag gives the words that a flag takes.
func completeFlag(cmd *cobra.Command, name string, words ...string) {
	// It fails only for a flag that does not exist, which a test would see.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// client is the node that the flags name.
func (f *nodeFlags) client() *admin.Client { return &admin.Client{Socket: f.socket} }

// A console is where a command asks a node, and how it shows the answers.
type console struct {
	view
	node *admin.Client
	json bool
	out  io.Writer
}

// console understands the flags.
func (f *nodeFlags) console(cmd *cobra.Command, s Streams) (*console, error) {
	asJSON, err := wantsJSON(cmd, f.output)
	if err != nil {
		return nil, err
	}
	v := view{now: time.Now(), paint: painter(colours(s.Out))}
	if t := terminal(s.Out); t != nil {
		v.columns, _, _ = sys.TerminalSize(t)
	}
	return &console{view: v, node: f.client(), json: asJSON, out: s.Out}, nil
}

func wantsJSON(cmd *cobra.Command, output string) (bool, error) {
	if !oneOf(output, "", "table", "json") {
		return false, usage(cmd, fmt.Errorf("--output: %q is neither table nor json", output))
	}
	return output == "json", nil
}

// deadline gives a node a time to answer in.
func deadline(cmd *cobra.Command, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), d)
}

// answer prints what the node said: as JSON, or as the text that text makes of it.
func answer[T any](c *console, a T, text func(T) string) error {
	if c.json {
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(a)
	}
	_, err := io.WriteString(c.out, text(a))
	return err
}

// terminal is the terminal that w writes to, or nil.
func terminal(w io.Writer) *os.File {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if _, _, err := sys.TerminalSize(f); err != nil {
		return nil
	}
	return f
}

// colours says whether w shows styles, and its user wants them: see no-color.org.
func colours(w io.Writer) bool {
	return terminal(w) != nil && os.Getenv("NO_COLOR") == "" && !oneOf(os.Getenv("TERM"), "", "dumb")
}

// oneOf reports whether s is one of words.
func oneOf(s string, words ...string) bool {
	for _, w := range words {
		if s == w {
			return true
		}
	}
	return false
}

// filterFlags narrow a listing.
type filterFlags struct {
	admin.Filter
}

// register adds every filter of a listing, and what says which node is asked.
func (f *filterFlags) register(cmd *cobra.Command, n *nodeFlags) {
	f.registerService(cmd, n)
	f.registerBackend(cmd, n)
	f.registerClient(cmd)
	f.registerLimit(cmd, "at most this `many`; 0 is all")
	n.register(cmd)
}

func (f *filterFlags) registerService(cmd *cobra.Command, n *nodeFlags) {
	cmd.Flags().StringVar(&f.Service, "service", "", "only this `service`")
	completeLive(cmd, "service", func(*cobra.Command, []string) []string { return n.serviceNames() })
}

func (f *filterFlags) registerBackend(cmd *cobra.Command, n *nodeFlags) {
	cmd.Flags().StringVar(&f.Backend, "backend", "", "only this `backend`; the same name may be in several services")
	completeLive(cmd, "backend", func(*cobra.Command, []string) []string { return n.backendNames(f.Service) })
}

func (f *filterFlags) registerClient(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.Client, "client", "", "only these `clients`: an address, address:port, a network such as 10.0.0.0/8, or unix")
	_ = cmd.RegisterFlagCompletionFunc("client", cobra.NoFileCompletions)
}

func (f *filterFlags) registerLimit(cmd *cobra.Command, text string) {
	cmd.Flags().IntVar(&f.Limit, "limit", 0, text)
	_ = cmd.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions)
}

// check says what no node would understand.
func (f *filterFlags) check(cmd *cobra.Command) error {
	var errs []error
	if _, err := admin.ParseClient(f.Client); err != nil {
		errs = append(errs, fmt.Errorf("--client: %w", err))
	}
	for _, name := range []string{"service", "backend", "client"} {
		if fl := cmd.Flags().Lookup(name); fl != nil && fl.Changed && fl.Value.String() == "" {
			errs = append(errs, fmt.Errorf("--%s is empty: leave it out for all", name))
		}
	}
	if f.Limit < 0 {
		errs = append(errs, fmt.Errorf("--limit: %d is negative; 0 is all", f.Limit))
	}
	if len(errs) > 0 {
		return usage(cmd, errors.Join(errs...))
	}
	return nil
}

// words is a command line's way to name a filter, to be typed again.
func (f *filterFlags) words() string {
	var w []string
	for _, p := range [][2]string{{"service", f.Service}, {"backend", f.Backend}, {"client", f.Client}} {
		if p[1] != "" {
			w = append(w, "--"+p[0]+" "+plain(p[1]))
		}
	}
	return strings.Join(w, " ")
}
