package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-net/holdfast/internal/probe"
	"github.com/holdfast-net/holdfast/internal/scene"
	"github.com/holdfast-net/holdfast/internal/scene/operate"
	"github.com/holdfast-net/holdfast/internal/scene/own"
	"github.com/holdfast-net/holdfast/internal/sys"
	"github.com/holdfast-net/holdfast/lab"
	"github.com/holdfast-net/holdfast/lab/traffic"
)

// demoFlags are what the demo command was given.
type demoFlags struct {
	family string
	seed   uint64
	runs   int
	beside int
	policy string
	fault  string
	short  bool
	output string
}

func newDemo(s Streams) *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo [SCENE...]",
		Short: "Play scenes in a laboratory of network namespaces; without a name: list them",
		Long: `Play scenes: each builds a network of namespaces on this machine, runs real
traffic that checks every byte, breaks something, and says with figures whether
what was promised came true. Nothing outside of the laboratory is touched, and
nothing of it is left behind, however the command ends. It needs root.

Without a name, the scenes are listed. With --runs, each is repeated with its
fault at that many random moments, and the distribution of every figure printed.
The exit code is 1 if anything was not as it must be.

Scenes run at a high priority (nice -10), so that what else the machine does
disturbs them little. Where it did so all the same, and nothing was wrong but
times, a scene is played again, up to twice, and the output says so.`,
		Example: `  holdfast demo
  holdfast demo backend-dies
  holdfast demo backend-dies --family 6 --policy drain
  holdfast demo backend-dies --runs 100 -o json`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, sc := range allScenes() {
				names = append(names, sc.Name+"\t"+sc.Title)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !f.short {
				return listScenes(s.Out)
			}
			d, err := f.parse(cmd, args)
			if err != nil {
				return usage(cmd, err)
			}
			return d.run(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.family, "family", "both", "the address `family`: 4, 6 or both")
	flags.StringVar(&f.policy, "policy", "", "only the variants with this `policy`")
	flags.StringVar(&f.fault, "fault", "", "only the variants with this `fault`")
	flags.IntVar(&f.runs, "runs", 0, "a campaign: play each variant this often, the long ones too, each time with its fault at another random moment")
	flags.IntVar(&f.beside, "parallel", 1, "of a campaign, play this many runs at the same time: for scenes that mostly wait, and where the machine has room")
	flags.Uint64Var(&f.seed, "seed", 0, "play what was played with this seed (default: a new one, which is printed)")
	flags.BoolVar(&f.short, "short", false, "the short demonstration: what shows the main job, in under a minute")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	return cmd
}

// newLabServer is for the scenes, which run it in a host of their network.
func newLabServer(s Streams) *cobra.Command {
	return &cobra.Command{
		Use:                scene.ServerCommand,
		Short:              "A server that checks every byte, for scenes",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return traffic.ServerMain(ctx, args, s.Out)
		},
	}
}

// allScenes are the scenes in the order in which a reader should meet them.
func allScenes() []scene.Scene { return slices.Concat(scene.All(), operate.All(), own.All()) }

func listScenes(w io.Writer) error {
	var b strings.Builder
	for i, sc := range allScenes() {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s: %s\n", sc.Name, sc.Title)
		for _, v := range sc.Variants {
			if v.String() != "" {
				fmt.Fprintf(&b, "    %s\n", strings.TrimSuffix(v.String()+": "+v.Title, ": "))
			}
		}
	}
	b.WriteString("\nPlay one: holdfast demo NAME\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// A demo is a demo command that was understood.
type demo struct {
	scenes   []chosenScene
	families []lab.Family
	seed     uint64
	runs     int
	parallel int
	short    bool
	json     bool
	mu       sync.Mutex // one line at a time
}

type chosenScene struct {
	scene.Scene
	chosen []scene.Variant
}

func (f *demoFlags) parse(cmd *cobra.Command, args []string) (*demo, error) {
	campaign := cmd.Flags().Changed("runs")
	d := &demo{runs: f.runs, parallel: f.beside, seed: f.seed, short: f.short, json: f.output == "json"}
	if !cmd.Flags().Changed("seed") {
		d.seed = uint64(rand.Uint32()) // short enough to be typed again
	}
	switch f.family {
	case "4":
		d.families = []lab.Family{lab.IPv4}
	case "6":
		d.families = []lab.Family{lab.IPv6}
	case "both":
		d.families = []lab.Family{lab.IPv4, lab.IPv6}
	default:
		return nil, fmt.Errorf("--family: %q is none of 4, 6 and both", f.family)
	}
	if campaign && f.runs < 1 {
		return nil, fmt.Errorf("--runs: %d is less than 1", f.runs)
	}
	if f.beside < 1 || f.beside > 64 {
		return nil, fmt.Errorf("--parallel: %d is not within 1 and 64", f.beside)
	}
	if f.beside > 1 && !campaign {
		return nil, errors.New("--parallel is for a campaign: say how many with --runs")
	}
	if !oneOf(f.output, "text", "json") {
		return nil, fmt.Errorf("--output: %q is neither text nor json", f.output)
	}
	named := len(args) > 0
	if !named {
		for _, sc := range allScenes() {
			if sc.Demo {
				args = append(args, sc.Name)
			}
		}
	}
	for _, name := range args {
		all := allScenes()
		i := slices.IndexFunc(all, func(sc scene.Scene) bool { return sc.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scene %q; `holdfast demo` lists them", name)
		}
		sc := all[i]
		c := chosenScene{Scene: sc}
		for _, v := range sc.Variants {
			if (f.policy == "" || v.Policy == f.policy) && (f.fault == "" || v.Fault == f.fault) && (!f.short || v.Demo) &&
				(!v.Long || campaign || f.policy != "") { // what is long is asked for by its policy, or for a campaign
				c.chosen = append(c.chosen, v)
			}
		}
		if len(c.chosen) == 0 {
			return nil, fmt.Errorf("scene %s has no variant of that policy and fault; `holdfast demo` lists them", name)
		}
		d.scenes = append(d.scenes, c)
	}
	return d, nil
}

// run plays what was chosen, in a process that takes everything with it.
func (d *demo) run(ctx context.Context, s Streams) (err error) {
	enterLab()
	if err := lab.Supported(lab.Topology{}); err != nil {
		text := "scenes cannot be played here: " + err.Error()
		for _, r := range probe.Missing(probe.Laboratory()) {
			text += "\n" + r.String()
		}
		return errors.New(text)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	program, err := scene.ThisProgram()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, program.Close()) }()
	if d.runs > 0 {
		err = d.campaign(ctx, s, program)
	} else {
		err = d.play(ctx, s, program)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing is left behind")
	}
	return err
}

// A play is one variant of a scene in one family.
type play struct {
	scene.Scene
	variant scene.Variant
	family  lab.Family

	verdict *scene.Verdict
	err     error
}

func (p *play) name() string {
	parts := []string{p.Name, p.variant.Policy, p.variant.Fault, p.family.String()}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

// play shows each scene once: one after the other, as nothing may disturb what
// is measured. Only a short demonstration plays those side by side that measure
// nothing finer than a second.
func (d *demo) play(ctx context.Context, s Streams, program *scene.Program) error {
	began := time.Now()
	var alone, together, all []*play
	for _, sc := range d.scenes {
		for _, v := range sc.chosen {
			for _, family := range d.families {
				p := &play{Scene: sc.Scene, variant: v, family: family}
				all = append(all, p)
				if d.short && sc.Patient {
					together = append(together, p)
				} else {
					alone = append(alone, p)
				}
			}
		}
	}
	told := make(map[string]bool)
	story := func(p *play) {
		if !told[p.Name] {
			told[p.Name] = true
			d.tell(s, "\n%s: %s\n%s\n", p.Name, p.Title, p.Story)
		}
	}
	for _, p := range alone {
		story(p)
		d.tell(s, "\n%s\n", strings.TrimSuffix(p.name()+": "+p.variant.Title, ": "))
		d.playOne(ctx, s, program, p, "")
		if err := d.show(s, p); err != nil {
			return err
		}
	}
	for _, p := range together {
		story(p)
	}
	if len(together) > 0 {
		d.tell(s, "\nthese side by side\n")
	}
	var wg sync.WaitGroup
	for _, p := range together {
		wg.Go(func() { d.playOne(ctx, s, program, p, p.name()+": ") })
	}
	wg.Wait()
	for _, p := range together {
		if err := d.show(s, p); err != nil {
			return err
		}
	}

	verdicts := []*scene.Verdict{}
	var unwell []string
	for _, p := range all {
		verdicts = append(verdicts, p.verdict)
		if !p.verdict.OK() {
			unwell = append(unwell, p.name())
		}
	}
	var err error
	switch {
	case d.json:
		err = writeJSON(s.Out, verdicts)
	case len(verdicts) > 1:
		err = scene.WriteSummary(s.Out, verdicts)
	}
	if err != nil {
		return err
	}
	if len(unwell) > 0 {
		return fmt.Errorf("not as it must be: %s", strings.Join(unwell, "; "))
	}
	d.tell(s, "\nEverything was as it must be: %d verdicts in %.0f s.\n", len(verdicts), time.Since(began).Seconds())
	return nil
}

func (d *demo) playOne(ctx context.Context, s Streams, program *scene.Program, p *play, prefix string) {
	p.verdict, p.err = scene.PlayUndisturbed(ctx, p.Scene, scene.Env{
		Family: p.family, Variant: p.variant, Seed: d.seed, Program: program, Without: true, Short: d.short,
		OnProgress: func(elapsed time.Duration, what string) {
			d.tell(s, "  %6.2f s  %s%s\n", elapsed.Seconds(), prefix, what)
		},
	}, func(v *scene.Verdict) { d.again(s, v) })
}

// show prints what came of a play.
func (d *demo) show(s Streams, p *play) error {
	if p.err != nil || d.json {
		return p.err
	}
	return p.verdict.WriteText(s.Out)
}

// campaign repeats each scene, and shows the distributions.
func (d *demo) campaign(ctx context.Context, s Streams, program *scene.Program) error {
	reports := []*scene.Report{}
	failed := 0
	for _, sc := range d.scenes {
		report := scene.Campaign(ctx, scene.CampaignOptions{
			Scene: sc.Scene, Variants: sc.chosen, Families: d.families, Runs: d.runs, Parallel: d.parallel, Seed: d.seed, Program: program,
			OnAgain: func(v *scene.Verdict) { d.again(s, v) },
			OnRun: func(done, of int, v scene.Variant, family lab.Family, seed uint64, verdict *scene.Verdict, err error) {
				what := "well"
				switch {
				case err != nil:
					what = "could not be played: " + err.Error()
				case !verdict.OK():
					what = "WRONG: " + strings.Join(verdict.Wrong(true), "; ")
				}
				d.tell(s, "%4d of %d  %s  seed %d: %s\n", done, of, strings.TrimPrefix(v.String()+", "+family.String(), ", "), seed, what)
			},
		})
		reports = append(reports, report)
		failed += len(report.Failures)
		if !d.json {
			if err := report.WriteText(s.Out); err != nil {
				return err
			}
		}
	}
	if d.json {
		if err := writeJSON(s.Out, reports); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d runs were not as they must be", failed)
	}
	return nil
}

func (d *demo) again(s Streams, v *scene.Verdict) {
	d.tell(s, "  the machine was busy (seed %d): %s; once more\n", v.Seed, strings.Join(v.Wrong(true), "; "))
}

// enterLab is lab.Main, with a high priority for the process that it starts, and
// for nothing else: a session of its own is what the kernel shares processors
// out by where sched_autogroup is on, and single processes where it is not.
// Without it scenes are only disturbed more.
func enterLab() {
	lab.Main()
	const nice = -10
	_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0)
	_ = sys.SetNice(nice)
}

// tell is for who watches; whoever wants JSON does not.
func (d *demo) tell(s Streams, format string, args ...any) {
	if !d.json {
		d.mu.Lock()
		defer d.mu.Unlock()
		fmt.Fprintf(s.Out, format, args...)
	}
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
