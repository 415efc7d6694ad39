// Bench measures the relay beside what it competes with: no proxy at
// all, HAProxy (copying, splice-auto and forced splicing) and nginx stream.
//
// Client, proxy and backend each sit in a network namespace of their own, made
// for the run and gone with it, and every candidate gets the same load from the
// same generator. Cells of one second are interleaved: each round measures every
// row on every candidate, in an order that rotates, and what counts is the
// median over the rounds of the ratio to the reference of the same round. A
// machine that is slow for a while then slows both sides of a ratio.
//
// The load generator and the backend are epoll loops over raw sockets, because a
// goroutine for each connection would itself be the bottleneck. They run as
// processes of their own: this program started again, with the environment
// saying what to be (see [child]).
//
// `make bench` runs it. -help lists what it takes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

func main() {
	if child() {
		return
	}
	lab.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is the program: 0 done, 1 failed, 2 wrong usage.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, jsonFile, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	report, err := run(ctx, o)
	if err == nil {
		err = report.WriteTable(stdout)
	}
	if err == nil && jsonFile != "" {
		err = writeJSON(jsonFile, report)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (o options, jsonFile string, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var rows, candidates, holdfastPath string
	var seconds float64
	var quick bool
	flags.IntVar(&o.rounds, "rounds", 5, "how often each cell is measured; a ratio is the median over the rounds")
	flags.Float64Var(&seconds, "seconds", 1, "length of a cell, 0.05 to 60")
	flags.StringVar(&rows, "rows", "", "rows to measure, with commas between (default all: "+names(allRows(), func(r Row) string { return r.Name })+")")
	flags.StringVar(&candidates, "candidates", "", "candidates to measure (default all: "+names(allCandidates(""), func(c candidate) string { return c.name })+")")
	flags.IntVar(&o.family, "family", 4, "4 or 6: IPv4 or IPv6")
	flags.StringVar(&holdfastPath, "holdfast", "bin/holdfast", "the holdfast binary to measure; several, with commas between, are compared")
	flags.StringVar(&jsonFile, "json", "", "write everything that was measured to this `file` as well")
	flags.StringVar(&o.profile, "profile", "", "after the rounds, profile holdfast during this `row` with perf and strace")
	flags.IntVar(&o.takeovers, "takeovers", 5, "how often an address is taken over from a host that dies, beside keepalived; 0: not")
	flags.DurationVar(&o.patience, "patience", 0, "how long to wait in all for others to leave the machine alone, and to repeat what they disturbed")
	flags.BoolVar(&quick, "quick", false, "one short round, well under a minute: shows that everything runs, measures nothing well")
	if err := flags.Parse(args); err != nil {
		return o, "", err
	}
	if flags.NArg() > 0 {
		return o, "", fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	all := allRows()
	binaries := split(holdfastPath)
	if len(binaries) > 0 {
		o.binary = binaries[0]
	}
	if len(binaries) > 1 {
		for i := range all {
			all[i].References = append(all[i].References, holdfast)
		}
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["rows"] && !given["takeovers"] {
		o.takeovers = 0 // asked for something else
	}
	if quick {
		if !given["rounds"] {
			o.rounds = 1
		}
		if !given["seconds"] {
			seconds = 0.25
		}
		if !given["takeovers"] && !given["rows"] {
			o.takeovers = 1
		}
		for i := range all {
			if all[i].Load == loadIdle {
				all[i].Connections = 500
			}
			all[i].Held = min(all[i].Held, 500)
		}
	}
	o.cell = time.Duration(seconds * float64(time.Second))
	o.progress = stderr
	switch {
	case o.rounds < 1 || o.rounds > 1000:
		return o, "", fmt.Errorf("-rounds: %d is not within 1 and 1000", o.rounds)
	case o.takeovers < 0 || o.takeovers > 1000:
		return o, "", fmt.Errorf("-takeovers: %d is not within 0 and 1000", o.takeovers)
	case seconds < 0.05 || seconds > 60:
		return o, "", fmt.Errorf("-seconds: %g is not within 0.05 and 60", seconds)
	case o.family != 4 && o.family != 6:
		return o, "", fmt.Errorf("-family: %d is neither 4 nor 6", o.family)
	}
	if o.rows, err = selectNamed("row", all, func(r Row) string { return r.Name }, split(rows)); err != nil {
		return o, "", err
	}
	if o.candidates, err = selectNamed("candidate", allCandidates(binaries...), func(c candidate) string { return c.name }, split(candidates)); err != nil {
		return o, "", err
	}
	if o.profile != "" && !slices.ContainsFunc(o.rows, func(r Row) bool { return r.Name == o.profile && r.Load != loadIdle && r.Load != loadListing }) {
		return o, "", fmt.Errorf("-profile: %q is not a measured row that uses CPU", o.profile)
	}
	return o, jsonFile, nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func names[T any](all []T, name func(T) string) string {
	var list []string
	for _, t := range all {
		list = append(list, name(t))
	}
	return strings.Join(list, ",")
}

func writeJSON(path string, report *Report) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
