//go:build linux

package scene

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-net/holdfast/lab"
)

// CampaignOptions say what is repeated.
type CampaignOptions struct {
	Scene    Scene
	Variants []Variant    // of the scene; nil: all
	Families []lab.Family // nil: both
	Runs     int          // of each variant and family, at least 1
	Seed     uint64       // decides the seeds of all runs
	Parallel int          // how many runs are played at the same time; 0: one
	Program  *Program

	// OnAgain is called when a run is played again, with the same seed, because
	// the machine was too busy for its times to say anything; nil: nobody listens.
	// Neither is called twice at the same time.
	OnAgain func(*Verdict)

	// OnRun is called after each run; err is why it could not be played, or nil.
	OnRun func(done, of int, v Variant, f lab.Family, seed uint64, verdict *Verdict, err error)
}

// A Report is what came of a campaign.
type Report struct {
	Scene         string         `json:"scene"`
	Seed          uint64         `json:"seed"`
	Played        int            `json:"played"` // runs, of all variants and families
	Again         int            `json:"again"`  // times that one was played again, see PlayUndisturbed
	Took          time.Duration  `json:"took_ns"`
	Distributions []Distribution `json:"distributions"`
	Failures      []Failure      `json:"failures,omitempty"` // runs that were not well
}

// A Distribution is one figure over all runs of a variant and family.
type Distribution struct {
	Variant
	Family  string `json:"family"`
	Figure  string `json:"figure"`
	Unit    Unit   `json:"unit"`
	Part    bool   `json:"part,omitempty"`
	N       int    `json:"n"` // values, of all runs
	Min     int64  `json:"min"`
	P50     int64  `json:"p50"`
	P90     int64  `json:"p90"`
	P99     int64  `json:"p99"`
	Max     int64  `json:"max"`
	Allowed string `json:"allowed,omitempty"`
	Outside int    `json:"runs_outside"` // runs with a value that is not allowed
}

// A Failure is a run that was not well.
type Failure struct {
	Variant
	Family string   `json:"family"`
	Seed   uint64   `json:"seed"`
	Why    []string `json:"why"`
}

// Campaign plays a scene again and again, each time with a seed of its own and
// so with its fault at another moment, and judges the times too. It ends early,
// with what there is, when ctx does.
func Campaign(ctx context.Context, o CampaignOptions) *Report {
	if o.Variants == nil {
		o.Variants = o.Scene.Variants
	}
	if o.Families == nil {
		o.Families = []lab.Family{lab.IPv4, lab.IPv6}
	}
	c := &campaign{o: o, report: &Report{Scene: o.Scene.Name, Seed: o.Seed}}
	began := time.Now()
	var runs []run
	for i := range o.Runs {
		for _, variant := range o.Variants {
			for _, family := range o.Families {
				runs = append(runs, run{len(runs), variant, family, Seed(o.Seed, i)})
			}
		}
	}
	c.verdicts = make([]*Verdict, len(runs))
	turns := make(chan run)
	var wg sync.WaitGroup
	for range max(1, o.Parallel) {
		wg.Go(func() {
			for r := range turns {
				c.play(ctx, r, len(runs))
			}
		})
	}
	for _, r := range runs {
		select {
		case turns <- r:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(turns)
	wg.Wait()
	c.report.finish(slices.DeleteFunc(c.verdicts, func(v *Verdict) bool { return v == nil }), began)
	return c.report
}

// A run is one of a campaign's.
type run struct {
	n       int
	variant Variant
	family  lab.Family
	seed    uint64
}

// A campaign is one under way.
type campaign struct {
	o CampaignOptions

	mu       sync.Mutex
	report   *Report
	verdicts []*Verdict // by number; nil: none
}

func (c *campaign) play(ctx context.Context, r run, of int) {
	env := Env{Family: r.family, Variant: r.variant, Seed: r.seed, Program: c.o.Program}
	v, err := PlayUndisturbed(ctx, c.o.Scene, env, func(v *Verdict) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.report.Again++
		if c.o.OnAgain != nil {
			c.o.OnAgain(v)
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	c.report.Played++
	switch {
	case err != nil:
		c.report.Failures = append(c.report.Failures, Failure{r.variant, r.family.String(), r.seed, []string{err.Error()}})
	case !v.OK():
		c.report.Failures = append(c.report.Failures, Failure{r.variant, r.family.String(), r.seed, append(v.Wrong(true), v.Notes...)})
	}
	c.verdicts[r.n] = v
	if c.o.OnRun != nil {
		c.o.OnRun(c.report.Played, of, r.variant, r.family, r.seed, v, err)
	}
}

// Seed derives the seed of run i from that of a campaign. That of run 0 is the
// campaign's own.
func Seed(seed uint64, i int) uint64 {
	if i == 0 {
		return seed
	}
	// SplitMix64's finalizer, cut to what is short enough to be typed again.
	z := seed + uint64(i)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) & 0xffff_ffff
}

// finish makes the distributions, in the order in which figures appeared first.
func (r *Report) finish(verdicts []*Verdict, began time.Time) {
	r.Took = time.Since(began)
	type key struct {
		variant Variant
		family  string
		figure  string
		part    bool
		group   string // the figure that a part belongs to
	}
	index := make(map[key]int)
	values := make(map[key][]int64)
	var order []key
	for _, v := range verdicts {
		group := ""
		for _, f := range v.Figures {
			if !f.Part {
				group = f.Name
			}
			k := key{v.Variant, v.Family, f.Name, f.Part, group}
			if _, ok := index[k]; !ok {
				index[k] = len(r.Distributions)
				order = append(order, k)
				r.Distributions = append(r.Distributions, Distribution{
					Variant: v.Variant, Family: v.Family, Figure: f.Name, Unit: f.Unit, Part: f.Part, Allowed: f.Allowed(),
				})
			}
			values[k] = append(values[k], f.Values...)
			d := &r.Distributions[index[k]]
			if a := f.Allowed(); d.Allowed != a {
				d.Allowed = "by run" // the bound depends on what the run had
			}
			if !f.OK() {
				d.Outside++
			}
		}
	}
	for i, k := range order {
		d, all := &r.Distributions[i], values[k]
		if d.N = len(all); d.N == 0 {
			continue
		}
		d.Min, d.Max = slices.Min(all), slices.Max(all)
		d.P50, d.P90, d.P99 = quantile(all, 0.5), quantile(all, 0.9), quantile(all, 0.99)
	}
	// Verdicts come in turns; a reader wants each variant and family together.
	first := make(map[Variant]int)
	for i, d := range r.Distributions {
		if _, ok := first[d.Variant]; !ok {
			first[d.Variant] = i
		}
	}
	slices.SortStableFunc(r.Distributions, func(a, b Distribution) int {
		if n := first[a.Variant] - first[b.Variant]; n != 0 {
			return n
		}
		return slices.Index(families, a.Family) - slices.Index(families, b.Family)
	})
}

var families = []string{lab.IPv4.String(), lab.IPv6.String()}
